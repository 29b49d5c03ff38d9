"""Remembers which precision a device was found to be faster in: `precision.json`.

Measured anew at each start, `auto` could change with what else the machine does at that time,
and with it the pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

from styled.errors import ResourceUnavailable

FILE_NAME = "precision.json"
PRECISIONS = ("float32", "bfloat16")


class PrecisionRecord:
    """A JSON file: device model -> torch version -> precision."""

    def __init__(
        self,
        path: Path,
        atomic_write: Callable[[Path, bytes], None],
        warn: Callable[[str], None],
    ) -> None:
        """Keep it at `path`, written by `atomic_write`; `warn` is told what goes wrong with it."""
        self._path = path
        self._write_whole = atomic_write
        self._warn = warn

    def find(self, device_model: str, torch_version: str) -> str | None:
        """Return what was found for a device and a version of torch, None if nothing was."""
        try:
            return self._read().get(device_model, {}).get(torch_version)
        except (OSError, ValueError, RecursionError) as error:
            self._warn(f"{self._path} can't be used, so the precision is measured anew: {error}")
            return None

    def remember(self, device_model: str, torch_version: str, precision: str) -> None:
        """Add what was found; a file that can't be read is replaced."""
        try:
            content = self._read()
        except (OSError, ValueError, RecursionError):
            content = {}  # `find` has said so
        content.setdefault(device_model, {})[torch_version] = precision
        try:
            self._write_whole(self._path, json.dumps(content, indent=2).encode() + b"\n")
        except ResourceUnavailable as error:
            self._warn(f"the next start measures the precision again: {error.message}")

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            content = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        if not isinstance(content, dict) or not all(map(_is_entry, content.values())):
            raise ValueError("it does not hold precisions by device and version of torch")
        return cast(dict[str, dict[str, str]], content)


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and all(found in PRECISIONS for found in value.values())

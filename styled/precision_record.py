"""Stores which precision was measured to be faster on a device, in `precision.json`.

If it were measured at each start, the choice of `auto`, and with it the pixels, could depend on
the load of the machine at that time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

from styled.atomic import atomic_write
from styled.errors import ResourceUnavailable

FILE_NAME = "precision.json"
PRECISIONS = ("float32", "bfloat16")


class PrecisionRecord:
    """A JSON file: device model -> torch version -> precision."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        """Use the file `path`; `warn` gets a message if it can't be read or written."""
        self._path = path
        self._warn = warn

    def find(self, device_model: str, torch_version: str) -> str | None:
        """Return the precision stored for a device and torch version, or None."""
        try:
            return self._read().get(device_model, {}).get(torch_version)
        except (OSError, ValueError, RecursionError) as error:
            self._warn(f"{self._path} can't be used, so the precision is measured anew: {error}")
            return None

    def all(self) -> dict[str, dict[str, str]]:
        """Return everything that is stored: device model -> torch version -> precision."""
        try:
            return self._read()
        except (OSError, ValueError, RecursionError):
            return {}

    def remember(self, device_model: str, torch_version: str, precision: str) -> None:
        """Store a measured precision; a file that can't be read is replaced."""
        try:
            content = self._read()
        except (OSError, ValueError, RecursionError):
            content = {}  # `find` has warned about it
        content.setdefault(device_model, {})[torch_version] = precision
        try:
            atomic_write(self._path, json.dumps(content, indent=2).encode() + b"\n")
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


class KnownPrecisions:
    """Precisions in memory: for an engine that is far from the file, or without one."""

    def __init__(self, precisions: dict[str, dict[str, str]]) -> None:
        """Start with `precisions`: device model -> torch version -> precision."""
        self._precisions = precisions

    def find(self, device_model: str, torch_version: str) -> str | None:
        """Return the precision known for a device and torch version, or None."""
        return self._precisions.get(device_model, {}).get(torch_version)

    def remember(self, device_model: str, torch_version: str, precision: str) -> None:
        """Store a measured precision."""
        self._precisions.setdefault(device_model, {})[torch_version] = precision


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and all(precision in PRECISIONS for precision in value.values())

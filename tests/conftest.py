"""What concerns all tests: in which order they run, and which of them together."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)  # pytest's workers have them, and rich remembers them

SLOW_FIRST = ("systemd", "faults", "end_to_end", "gallery", "engine")
"""Folders in the order in which they begin: short tests fill the gaps at the end."""

SPREAD = ("faults", "end_to_end")
"""Folders whose tests share little, and are spread over the workers one by one."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep the tests of a file together: they share fixtures, such as a network or a browser."""
    if item.path.parent.name not in SPREAD and not any(item.iter_markers("xdist_group")):
        item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(Path(__file__).parent))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""

    def rank(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return SLOW_FIRST.index(folder) if folder in SLOW_FIRST else len(SLOW_FIRST)

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let a worker send any report: execnet refuses names that are no UTF-8."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    """Return it with bytes that are no UTF-8 written as \\udcXX."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _sendable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_sendable(one) for one in value)
    return value

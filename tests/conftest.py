"""What concerns all tests: in which order they run, and which of them together."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)  # pytest's workers have them, and rich remembers them

WAITING = ("systemd", "gallery", "end_to_end", "faults")
"""Folders whose tests wait for other processes most of their time, in the order of their start."""

SPREAD = ("faults", "end_to_end")
"""Folders whose tests share little, and are spread over the workers one by one."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives the tests of a file to one worker: they share a network, a browser or a machine.

    xdist's own groups are written into a name of the test that pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if Path(file).parent.name in SPREAD else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Choose which worker gets which tests."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; what waits and what computes take turns to the end."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        spread = item.path.parent.name in SPREAD
        groups.setdefault(item.nodeid if spread else str(item.path), []).append(item)
    of_folder: dict[str, list[list[pytest.Item]]] = {}
    for group in groups.values():
        of_folder.setdefault(group[0].path.parent.name, []).append(group)
    waiting = [group for folder in WAITING for group in of_folder.pop(folder, [])]
    computing = [*of_folder.pop("engine", []), *chain.from_iterable(of_folder.values())]
    placed = [
        (place / len(groups), group)
        for groups in (waiting, computing)
        for place, group in enumerate(groups)
    ]
    placed.sort(key=lambda each: each[0])
    items[:] = [item for _, group in placed for item in group]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Have torch compute with as many threads as at the start, whatever a test has chosen."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))


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

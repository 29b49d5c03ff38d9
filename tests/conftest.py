"""Pytest hooks for all tests: their order, and how they are distributed to xdist's workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from itertools import chain
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)  # set in pytest's workers, and rich caches them

WAITING = ("systemd", "cluster", "packaging", "gallery", "end_to_end", "faults")
"""Folders whose tests mostly wait for other processes, in the order in which they start."""

SPREAD = ("faults", "end_to_end", "cluster")
"""Folders whose tests share little; they are distributed to the workers one by one."""

NOT_SPREAD = ("tests/cluster/test_local.py",)
"""Files in these folders whose tests share a daemon."""


def scope_of(nodeid: str) -> str:
    """Return the name of the group of tests that run in the same worker."""
    file = nodeid.partition("::")[0]
    is_spread = Path(file).parent.name in SPREAD and file not in NOT_SPREAD
    return nodeid if is_spread else file


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Assigns all tests of a file to one worker: they share a network, a browser or a container.

    xdist's own groups do not work: they become part of the test's name, and pytest 9.2 no longer
    reads that name.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Return the scheduler that assigns tests to workers."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests: waiting and CPU-bound groups interleaved, so that no core is ever idle.

    The last ones are bound by the CPU: workers would wait for a last one that waits.
    """
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(scope_of(item.nodeid), []).append(item)
    groups_by_folder: dict[str, list[list[pytest.Item]]] = {}
    for group in groups.values():
        groups_by_folder.setdefault(group[0].path.parent.name, []).append(group)
    waiting = []
    for folder in WAITING:
        of_folder = groups_by_folder.pop(folder, [])
        if folder in SPREAD:  # neighbours in a file wait alike, and all workers would wait at once
            of_folder.sort(key=lambda group: crc32(os.fsencode(group[0].nodeid)))
        waiting += of_folder
    heavy = groups_by_folder.pop("engine", [])
    others = list(chain.from_iterable(groups_by_folder.values()))
    ranked = [
        (share * index / len(groups), group)
        for groups, share in ((waiting, 0.8), (heavy, 1.0), (others, 1.0))
        for index, group in enumerate(groups)
    ]
    ranked.sort(key=lambda pair: pair[0])
    items[:] = [item for _, group in ranked for item in group]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long data by its argument: a profile has the time, so that workers would not agree."""
    return argname if isinstance(val, bytes) and len(val) > 40 else None


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Reset torch's thread count to its initial value, in case a test changed it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Make reports serializable: execnet refuses names that are not valid UTF-8."""
    return _escape_surrogates((yield))


def _escape_surrogates(value: Any) -> Any:
    """Return the data with surrogates escaped: bytes that are not UTF-8 become \\udcXX."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _escape_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_escape_surrogates(item) for item in value)
    return value

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
from xdist.workermanage import WorkerController

for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)  # set in pytest's workers, and rich caches them

WAITING = ("systemd", "cluster", "packaging", "gallery", "end_to_end", "faults")
"""Folders whose tests mostly wait for other processes, in the order in which they start."""

SPREAD = ("faults", "end_to_end", "cluster")
"""Folders whose tests share little; they are distributed to the workers one by one."""

NOT_SPREAD = ("tests/cluster/test_local.py",)
"""Files in these folders whose tests share a daemon."""

ONE_COMPUTES_OF = 6
"""One worker of so many takes its tests from the end. `tests/__main__.py` has three per core."""


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

    def _assign_work_unit(self, node: WorkerController) -> None:
        # The first tests mostly wait, the last ones compute. With workers at both ends, the cores
        # are busy while others wait.
        if self.nodes.index(node) % ONE_COMPUTES_OF == 0:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Return the scheduler that assigns tests to workers."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests: those that wait come first, those that compute come last."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(scope_of(item.nodeid), []).append(item)

    def rank(group: list[pytest.Item]) -> tuple[int, int]:
        folder = group[0].path.parent.name
        if folder not in WAITING:
            return len(WAITING), 0
        # Neighbours in a file wait alike: in their order, all workers would wait at once.
        mixed = crc32(os.fsencode(group[0].nodeid)) if folder in SPREAD else 0
        return WAITING.index(folder), mixed

    ordered = sorted(groups.values(), key=rank)
    items[:] = chain.from_iterable(ordered)


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

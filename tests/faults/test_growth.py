"""Months in minutes: many jobs one after the other leave nothing behind that grows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from styled.jobs.io_context import History
from styled.jobs.journal_schema import LONGEST_LOG_BYTES
from tests.jobs.conftest import JobHarness, picture
from tests.studio import Forked

pytestmark = pytest.mark.timeout(600)

KEPT = 500
MB = 1_000_000


@pytest.mark.parametrize("jobs", [1_000, pytest.param(10_000, marks=pytest.mark.heavy)])
def test_many_jobs_leave_memory_flat_and_the_journal_small(tmp_path: Path, jobs: int) -> None:
    """With a stub for an engine: the rest of the daemon is what is measured."""
    facts = tmp_path / "facts.json"
    assert Forked(work_through, jobs, str(tmp_path / "shop"), str(facts)).wait() == 0
    measured = json.loads(facts.read_text())
    assert measured["done"] == KEPT
    assert measured["files"] == 2 * jobs
    assert measured["last_bytes"] - measured["first_bytes"] < 15 * MB
    assert measured["journal_bytes"] < 2 * MB
    assert measured["log_bytes"] <= LONGEST_LOG_BYTES


def work_through(jobs: int, base: str, facts: str) -> None:
    """Do so many jobs, and write down what came of it."""
    shop = JobHarness(Path(base))
    shop.history = History(seconds=1e9, jobs=KEPT)
    shop.restart()
    data = picture(size=(33, 33))
    first_bytes = 0
    for number in range(jobs):
        shop.drop(f"{number % 100}/{number}.png", data)
        shop._wanted.clear()
        shop.work()
        for remembered in (shop.beats, shop.finished, shop.engine.begun):
            remembered.clear()
        if number % 200 == 199:
            shop.tidy()
        if number == jobs // 5:
            first_bytes = _resident_bytes()
    shop.tidy()
    state = shop.config.state
    Path(facts).write_text(
        json.dumps(
            {
                "done": shop.journal.counts()["done"],  # type: ignore[index]
                "files": len(shop.files("outbox")),
                "first_bytes": first_bytes,
                "last_bytes": _resident_bytes(),
                "journal_bytes": (state / "journal.sqlite3").stat().st_size,
                "log_bytes": (state / "journal.sqlite3-wal").stat().st_size,
            }
        )
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

"""Memory and journal size over many jobs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from styled.job_io.io_context import JournalRetention
from styled.journal.schema import MAX_LOG_BYTES
from tests.daemon_harness import Forked
from tests.job_harness import JobHarness, picture

pytestmark = pytest.mark.timeout(600)

KEPT = 500
MB = 1_000_000


@pytest.mark.parametrize("jobs", [1_000, pytest.param(10_000, marks=pytest.mark.heavy)])
def test_many_jobs_leave_memory_flat_and_the_journal_small(tmp_path: Path, jobs: int) -> None:
    """Over many jobs, with a stub engine, memory and journal stay within limits."""
    output = tmp_path / "facts.json"
    assert Forked(work_through, jobs, str(tmp_path / "harness"), str(output)).wait() == 0
    measured = json.loads(output.read_text())
    assert measured["done"] == KEPT
    assert measured["files"] == 2 * jobs
    assert measured["last_bytes"] - measured["first_bytes"] < 15 * MB
    assert measured["journal_bytes"] < 2 * MB
    assert measured["log_bytes"] <= MAX_LOG_BYTES


def work_through(jobs: int, base: str, output: str) -> None:
    """Run this many jobs, and write measurements to a JSON file."""
    harness = JobHarness(Path(base))
    harness.history = JournalRetention(seconds=1e9, jobs=KEPT)
    harness.restart()
    data = picture(size=(33, 33))
    first_bytes = 0
    for number in range(jobs):
        harness.drop(f"{number % 100}/{number}.png", data)
        harness._styles_by_name.clear()
        harness.work()
        for records in (harness.beats, harness.finished, harness.engine.start_steps):
            records.clear()
        if number % 200 == 199:
            harness.run_cleanup()
        if number == jobs // 5:
            first_bytes = _resident_bytes()
    harness.run_cleanup()
    state = harness.config.state
    Path(output).write_text(
        json.dumps(
            {
                "done": harness.journal.counts()["done"],  # type: ignore[index]
                "files": len(harness.files("outbox")),
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

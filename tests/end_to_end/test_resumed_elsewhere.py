"""A job that is interrupted and resumed with another thread count is marked as degraded."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.daemon_harness import PYRAMID, Daemon, DaemonHarness, make_harness

ENGINE = "{{weights: untrained, device: cpu, precision: float32, threads: {threads}}}"


@pytest.fixture
def harness(tmp_path: Path) -> DaemonHarness:
    """Return a folder with a photo whose job is long enough to be interrupted twice."""
    harness = make_harness(
        tmp_path, PYRAMID.replace("steps: 3", "steps: 80\n      min_improvement: 0")
    )
    harness.configure(queue="{checkpoint_seconds: 0.1}", engine=ENGINE.format(threads=1))
    harness.take_time(0.1)
    harness.drop("photo.png", "chelsea")
    return harness


def wait_until_saved(harness: DaemonHarness, daemon: Daemon, min_fraction: float) -> float:
    """Wait for a checkpoint and for more than `min_fraction` of the job; return the fraction."""
    daemon.wait_for("job.painting_started")
    with closing(sqlite3.connect(harness.folder / "state/journal.sqlite3")) as journal:

        def fraction() -> float:
            query = "SELECT fraction FROM jobs WHERE state = 'running'"
            value: float = (journal.execute(query).fetchone() or [0.0])[0]
            return value

        reached = 0.0

        def is_saved() -> bool:
            nonlocal reached
            reached = fraction()
            return reached > min_fraction and bool(harness.files("state/checkpoints"))

        daemon.wait_until(is_saved)
        return reached


@pytest.mark.timeout(400)
def test_log_journal_and_sidecar_tell_how_a_job_went_on(harness: DaemonHarness) -> None:
    """Both changes of the thread count are in the log, the journal and the sidecar."""
    with harness.running() as daemon:
        fraction = wait_until_saved(harness, daemon, 0.05)
        daemon.kill()
    harness.configure(engine=ENGINE.format(threads=2))
    with harness.running() as daemon:
        daemon.wait_for("job.degraded")
        (line,) = daemon.events("job.degraded")
        wait_until_saved(harness, daemon, fraction + 0.05)
        with closing(sqlite3.connect(harness.folder / "state/journal.sqlite3")) as journal:
            in_journal = json.loads(journal.execute("SELECT degraded FROM jobs").fetchone()[0])
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=30) == 0
    harness.configure(engine=ENGINE.format(threads=1))
    with harness.running() as daemon:
        daemon.wait_for("job.published")
    sidecar = json.loads((harness.folder / "outbox/swirls/photo.png.json").read_bytes())

    assert sidecar["engine"]["threads"] == 1
    first, second = (entry for entry in sidecar["degraded"] if entry["kind"] == "resumed")
    assert first["message"].startswith("resumed on cpu with 2 threads, torch ")
    assert "; begun on cpu with 1 thread, torch " in first["message"]
    assert second["message"].startswith("resumed on cpu with 1 thread, torch ")
    assert "; before that on cpu with 2 threads, torch " in second["message"]
    assert (line["kind"], line["reason"]) == ("resumed", first["message"])
    assert first in in_journal
    assert [entry["reason"] for entry in daemon.events("job.degraded")] == [
        first["message"],
        second["message"],
    ]

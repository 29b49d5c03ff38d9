"""A job that is interrupted and goes on with another thread count says so, everywhere."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.studio import PYRAMID, Daemon, Studio, make_studio

ENGINE = "{{weights: untrained, device: cpu, precision: float32, threads: {threads}}}"


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """Return a folder whose pictures take long enough to be interrupted twice."""
    studio = make_studio(
        tmp_path, PYRAMID.replace("steps: 3", "steps: 80\n      min_improvement: 0")
    )
    studio.configure(queue="{checkpoint_seconds: 0.1}", engine=ENGINE.format(threads=1))
    studio.drop("photo.png", "chelsea")
    return studio


def wait_until_saved(studio: Studio, daemon: Daemon, beyond: float) -> float:
    """Wait until more than this share of the job is done; return how much."""
    daemon.wait_for("job.started")
    with sqlite3.connect(studio.folder / "state/journal.sqlite3") as journal:

        def fraction() -> float:
            query = "SELECT fraction FROM jobs WHERE state = 'running'"
            found: float = (journal.execute(query).fetchone() or [0.0])[0]
            return found

        daemon.wait_until(lambda: fraction() > beyond and studio.files("state/checkpoints"))
        return fraction()


@pytest.mark.timeout(400)
def test_log_journal_and_sidecar_tell_how_a_job_went_on(studio: Studio) -> None:
    """Killed with one thread, stopped with two, finished with one: both changes are told."""
    with studio.running() as daemon:
        done = wait_until_saved(studio, daemon, 0.05)
        daemon.kill()
    studio.configure(engine=ENGINE.format(threads=2))
    with studio.running() as daemon:
        daemon.wait_for("job.degraded")
        (line,) = daemon.events("job.degraded")
        wait_until_saved(studio, daemon, done + 0.05)
        with sqlite3.connect(studio.folder / "state/journal.sqlite3") as journal:
            in_journal = json.loads(journal.execute("SELECT degraded FROM jobs").fetchone()[0])
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=30) == 0
    studio.configure(engine=ENGINE.format(threads=1))
    with studio.running() as daemon:
        daemon.wait_for("job.published")
    sidecar = json.loads((studio.folder / "outbox/swirls/photo.png.json").read_bytes())

    assert sidecar["engine"]["threads"] == 1
    first, second = (one for one in sidecar["degraded"] if one["kind"] == "resumed")
    assert first["message"].startswith("resumed on cpu with 2 threads, torch ")
    assert "; begun on cpu with 1 thread, torch " in first["message"]
    assert second["message"].startswith("resumed on cpu with 1 thread, torch ")
    assert "; before that on cpu with 2 threads, torch " in second["message"]
    assert (line["kind"], line["reason"]) == ("resumed", first["message"])
    assert first in in_journal
    assert [one["reason"] for one in daemon.events("job.degraded")] == [
        first["message"],
        second["message"],
    ]

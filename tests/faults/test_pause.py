"""`styled pause` and `styled resume`, with a real daemon."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.daemon_harness import DaemonHarness
from tests.faults.conftest import paint_slowly, wait_until_amid_a_job


def status(harness: DaemonHarness) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(harness.do("status", "--json").stdout)
    return document


def test_a_pause_saves_the_running_job_and_survives_restarts(harness: DaemonHarness) -> None:
    """The job resumes from its checkpoint after `resume`; no attempt is counted."""
    paint_slowly(harness, 60)
    with harness.running() as daemon:
        harness.drop("one.png", size=(64, 48))
        harness.drop("two.png", size=(64, 48))
        wait_until_amid_a_job(harness, daemon)
        done = harness.do("pause")
        assert (done.returncode, done.stdout.strip()) == (0, "paused; styled resume continues it")
        assert status(harness)["state"] == "paused: on request; styled resume continues it"
        assert status(harness)["current"] == []
        assert [job["attempts"] for job in status(harness)["waiting"]] == [0, 0]
    assert status(harness)["state"] == "not running, and paused on request"
    assert harness.do("once").returncode == 75
    with harness.running() as daemon:
        daemon.wait_until(lambda: status(harness)["state"].startswith("paused: on request"))
        time.sleep(2)
        assert daemon.events("job.claimed") == []
        assert harness.do("resume").stdout.strip() == "continues"
        daemon.wait_for("job.published", 2)
        resumed = daemon.events("job.resumed")
        assert len(resumed) == 1
        assert status(harness)["state"] == "running"
    assert [
        harness.sidecar(f"outbox/swirls/{n}.png.json")["job"]["resumed"] for n in ("one", "two")
    ] == [True, False]


def test_after_current_finishes_what_is_being_painted(harness: DaemonHarness) -> None:
    """And begins nothing else."""
    paint_slowly(harness, 60)
    with harness.running() as daemon:
        harness.drop("one.png", size=(64, 48))
        harness.drop("two.png", size=(64, 48))
        daemon.wait_for("job.painting_started")
        daemon.wait_until(lambda: len(status(harness)["current"]) == 2)  # the other one is prepared
        (painted,) = (e["input"] for e in daemon.events("job.painting_started"))
        paused = harness.do("pause", "--after-current")
        assert paused.stdout == f"pauses once this is finished: {painted}\n"
        daemon.wait_for("job.published")
        time.sleep(2)
        assert harness.files("outbox/swirls") == [painted, f"{painted}.json"]
        assert status(harness)["counts"]["queued"] == 1
        harness.do("resume")
        daemon.wait_for("job.published", 2)


def test_resume_says_if_there_is_nothing_to_resume(harness: DaemonHarness) -> None:
    """Both commands need a journal."""
    assert harness.do("pause").returncode != 0
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        assert harness.do("resume").stdout.strip() == "it was not paused on request"

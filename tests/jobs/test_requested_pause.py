"""A pause on request: what is being painted is saved or finished, and nothing else begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.jobs.events import Wakeup
from styled.jobs.request_poller import POLL_SECONDS
from styled.journal.job import JobState
from styled.journal.journal import Journal
from styled.journal.pause_request import AFTER_CURRENT, NOW, PAUSE_REQUEST
from tests.job_harness import JobHarness


def request(harness: JobHarness, how: str) -> None:
    """Write the request as `styled pause` and `styled resume` do, from another connection."""
    journal = Journal.open_for_requests(harness.config.state / "journal.sqlite3")
    journal.set_state(**{PAUSE_REQUEST: how})
    journal.close()
    harness.advance(POLL_SECONDS)
    harness.events.put(Wakeup())


def pause_at_first_step(harness: JobHarness, how: str) -> None:
    """Request a pause in the first step of the first job."""

    def at_step(step: int) -> None:
        if step == 1:
            harness.engine.at_step = lambda step: None
            request(harness, how)

    harness.engine.at_step = at_step


@pytest.mark.parametrize(("how", "done"), [(NOW, 0), (AFTER_CURRENT, 1)])
def test_a_pause_saves_or_finishes_the_running_job(
    harness: JobHarness, how: str, done: int
) -> None:
    """No attempt is counted; resumed, all jobs are done, each once."""
    for name in ("one.png", "two.png", "three.png"):
        harness.drop(name)
    pause_at_first_step(harness, how)
    harness.work()
    assert harness.states().count("done") == done
    assert harness.states().count("queued") == 3 - done
    assert harness.journal.get_state()["activity"].startswith("paused: on request")
    assert [job.attempts for job in harness.jobs() if job.state is JobState.QUEUED] == [0] * (
        3 - done
    )
    request(harness, "")
    harness.work()
    assert harness.states() == ["done"] * 3
    assert [job.attempts for job in harness.jobs()] == [1] * 3
    assert harness.journal.get_state()["activity"] == "running"


def test_a_pause_is_kept_over_a_restart(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal has it; nothing is claimed, and the state says so although the daemon started."""

    def report_running(*_: object) -> None:
        harness.journal.set_state(activity="running")  # as the daemon does

    monkeypatch.setattr(harness, "engine_ready", report_running)
    request(harness, NOW)
    harness.restart()
    harness.scheduler.turn([])  # while the engine still loads its network
    harness.drop("one.png")
    harness.work()
    assert harness.states() == ["queued"]
    assert harness.journal.get_state()["activity"].startswith("paused: on request")
    request(harness, "")
    harness.work()
    assert harness.states() == ["done"]
    assert harness.journal.get_state()["activity"] == "running"


def test_all_engines_stop(tmp_path: Path) -> None:
    """With several engines each saves its job."""
    harness = JobHarness(tmp_path / "harness", engines=3)
    try:
        for number in range(5):
            harness.drop(f"{number}.png")
        pause_at_first_step(harness, NOW)
        harness.work()
        assert harness.journal.in_state(JobState.RUNNING, limit=-1) == []
        assert harness.states().count("queued") >= 2
        request(harness, "")
        harness.work()
        assert harness.states() == ["done"] * 5
    finally:
        harness.close()

"""Cancellation: another process records a request in the journal, and the scheduler handles it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from styled.errors import ResourceUnavailable
from styled.jobs.events import Event
from styled.jobs.request_poller import CANCELLED_AT_ONCE
from styled.sidecar import Sidecar
from tests.job_harness import Died, JobHarness, picture


def ask(harness: JobHarness, number: int) -> bool:
    """Request a cancellation as another process does, over its own journal connection."""
    return harness.request_cancel(harness.jobs()[number])


def test_a_waiting_job_is_cancelled_and_its_photo_can_be_had_back(harness: JobHarness) -> None:
    """The photo of a cancelled queued job is moved to `rejected`, with a sidecar."""
    harness.drop()
    assert ask(harness, 0)
    harness.work()
    assert harness.states() == ["cancelled"]
    assert harness.engine.start_steps == []
    assert harness.files("inbox") == []
    assert harness.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    sidecar = Sidecar.model_validate(harness.sidecar("rejected/oil/photo.png.json"))
    assert sidecar.rejected is not None
    assert (sidecar.rejected.reason, sidecar.rejected.failure) == (
        "cancelled on request", "cancelled",
    )  # fmt: skip
    assert sidecar.job.attempts == 0
    (finished,) = harness.finished
    assert (str(finished.state), finished.failure) == ("cancelled", "cancelled")


def test_a_running_job_is_cancelled_within_a_step(harness: JobHarness) -> None:
    """A running job stops after the current step, without a result or checkpoint."""
    harness.engine.steps = 10
    harness.configure("queue", checkpoint_seconds=1)
    harness.drop()

    def at_step(step: int) -> None:
        harness.advance(2.0)
        if step == 4:
            assert ask(harness, 0)

    harness.engine.at_step = at_step
    harness.work()
    assert harness.states() == ["cancelled"]
    assert harness.engine.ops_done == 3  # the fourth step was taken, and none after it
    assert harness.files("outbox") == []
    assert harness.files("state/checkpoints") == []
    assert harness.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]


def test_whoever_waits_is_cancelled_while_another_is_painted(harness: JobHarness) -> None:
    """A queued job is cancelled at once, while another job is running."""
    harness.drop("first.png")
    harness.drop("second.png")
    states: list[list[str]] = []

    def at_step(step: int) -> None:
        states.append(harness.states())
        if step == 1:
            ask(harness, 1)

    harness.engine.at_step = at_step
    harness.work()
    assert states[1:] == [["running", "cancelled"], ["running", "cancelled"]]
    assert harness.states() == ["done", "cancelled"]
    assert harness.files("outbox") == ["oil/first.png", "oil/first.png.json"]


def test_one_of_two_styles_is_cancelled(harness: JobHarness) -> None:
    """If one of two styles is cancelled, the original goes to `rejected` and `archive`."""
    harness.drop("photo.png", None, "oil", "ink")
    ask(harness, 0)
    harness.work()
    assert harness.states() == ["cancelled", "done"]
    assert harness.files("archive") == ["ink/photo.png"]
    assert harness.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    assert harness.files("inbox") == []


def test_a_job_that_has_ended_is_not_cancelled(harness: JobHarness) -> None:
    """A request for a finished job is refused."""
    harness.drop()
    harness.work()
    assert not ask(harness, 0)
    harness.work()
    assert harness.states() == ["done"]


def test_a_request_outlives_the_daemon(harness: JobHarness) -> None:
    """A request made while no daemon runs is handled at the next start, before the job runs."""
    harness.drop()
    ask(harness, 0)
    harness.restart()
    harness.work()
    assert harness.states() == ["cancelled"]
    assert harness.engine.start_steps == []


def test_a_job_that_waits_for_its_next_attempt_is_cancelled_at_once(harness: JobHarness) -> None:
    """A job that waits for its retry is cancelled without waiting for it."""

    def fail(step: int) -> None:
        raise RuntimeError("broken")

    harness.engine.at_step = fail
    harness.drop()
    harness.work()
    assert harness.states() == ["queued"]
    ask(harness, 0)
    harness.work()
    assert harness.states() == ["cancelled"]


def test_a_full_disk_is_waited_out(harness: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the job is cancelled, and its photo is moved once there is space."""
    full = True
    original = harness.publisher.move_original

    def move_original(source: Path, *args: object, **kwargs: object) -> bool:
        if full:
            raise ResourceUnavailable("the disk is full")
        return original(source, *args, **kwargs)  # type: ignore[arg-type]  # arguments are passed through

    monkeypatch.setattr(harness.publisher, "move_original", move_original)
    harness.drop()
    ask(harness, 0)
    harness.work_on_one()
    assert harness.states() == ["cancelled"]
    assert harness.files("inbox") == ["photo.png"]
    full = False
    harness.work()
    assert harness.files("inbox") == []
    assert "oil/photo.png" in harness.files("rejected")


def test_a_photo_that_is_gone_is_cancelled_all_the_same(harness: JobHarness) -> None:
    """A job whose photo was removed can be cancelled."""
    harness.drop().unlink()
    ask(harness, 0)
    harness.work()
    assert harness.states() == ["cancelled"]
    assert harness.journal.finished_in_inbox() == []


def test_what_is_published_already_is_done_and_not_cancelled(harness: JobHarness) -> None:
    """A job that was published before a crash is done, despite a cancellation request."""
    harness.drop()
    finish = harness.journal.finish

    def die(*args: object, **kwargs: object) -> None:
        raise Died

    harness.journal.finish = die  # type: ignore[method-assign]  # kill -9
    with pytest.raises(Died):
        harness.work()
    harness.journal.finish = finish  # type: ignore[method-assign]
    ask(harness, 0)
    harness.restart()
    harness.work()
    assert harness.states() == ["done"]
    assert harness.files("rejected") == []
    assert harness.files("archive") == ["oil/photo.png"]


def test_half_a_publication_is_taken_back(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result whose sidecar could not be written is removed when its job is cancelled."""
    publish = harness.publisher.publish_sidecar

    def fail(*args: object) -> None:
        raise ResourceUnavailable("the disk is full")

    monkeypatch.setattr(harness.publisher, "publish_sidecar", fail)
    harness.drop()

    def repair() -> None:
        assert harness.files("outbox") == ["oil/photo.png"]
        monkeypatch.setattr(harness.publisher, "publish_sidecar", publish)
        ask(harness, 0)

    harness.on_wait = repair
    harness.work()
    assert harness.states() == ["cancelled"]
    assert harness.files("outbox") == []
    assert harness.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]


def test_a_photo_that_could_not_leave_leaves_by_itself(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moving the photo of a cancelled job is retried until there is space, without a restart."""
    original = harness.publisher.move_original
    tries: list[str] = []

    def move_original(source: Path, *args: object, **kwargs: object) -> bool:
        tries.append(source.name)
        if len(tries) < 3:
            raise ResourceUnavailable("the disk is full")
        return original(source, *args, **kwargs)  # type: ignore[arg-type]  # arguments are passed through

    monkeypatch.setattr(harness.publisher, "move_original", move_original)
    harness.drop()
    ask(harness, 0)
    harness.work()
    assert len(tries) >= 3
    assert harness.files("inbox") == []
    assert "oil/photo.png" in harness.files("rejected")


def test_cancelling_thousands_keeps_nobody_waiting(harness: JobHarness) -> None:
    """Each turn of the loop handles at most `CANCELLED_AT_ONCE` requests; all are handled."""
    for number in range(2 * CANCELLED_AT_ONCE + 1):
        harness.drop(f"{number:03}.png")
        ask(harness, number)
    finished_per_turn: list[int] = []
    turn = harness.scheduler.turn

    def count(events: Sequence[Event]) -> None:
        before = len(harness.finished)
        turn(events)
        finished_per_turn.append(len(harness.finished) - before)

    harness.scheduler.turn = count  # type: ignore[method-assign]  # wraps the original
    harness.work()
    assert harness.states().count("cancelled") == 2 * CANCELLED_AT_ONCE + 1
    assert max(finished_per_turn) == CANCELLED_AT_ONCE


def test_what_is_prepared_is_cancelled_before_it_is_painted(harness: JobHarness) -> None:
    """A prepared job that is cancelled before it is painted is not started."""
    harness.drop("first.png")
    harness.drop("second.png", picture("olive"))

    def at_step(step: int) -> None:
        if step == 3:
            ask(harness, 1)

    harness.engine.at_step = at_step
    harness.work()
    assert harness.states() == ["done", "cancelled"]
    assert harness.engine.start_steps == [0]


def test_what_is_being_published_is_done(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is already being published is done, despite a cancellation request."""
    publish = harness.publisher.publish_result

    def request_and_publish(*args: object, **options: object) -> None:
        ask(harness, 0)
        publish(*args, **options)  # type: ignore[arg-type]  # arguments are passed through

    monkeypatch.setattr(harness.publisher, "publish_result", request_and_publish)
    harness.drop()
    harness.work()
    assert harness.states() == ["done"]

"""Cancelling: a person asks for it in the journal, the scheduler's thread does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from styled.errors import ResourceUnavailable
from styled.jobs.cancelling import CANCELLED_AT_ONCE
from styled.jobs.events import Event
from styled.sidecar import Sidecar
from tests.jobs.conftest import Died, JobHarness, picture


def ask(shop: JobHarness, number: int) -> bool:
    """Ask as another process does: by a connection of its own."""
    return shop.request_cancel(shop.jobs()[number])


def test_a_waiting_job_is_cancelled_and_its_photo_can_be_had_back(shop: JobHarness) -> None:
    """It lies among the rejected ones, with a sidecar that says why."""
    shop.drop()
    assert ask(shop, 0)
    shop.work()
    assert shop.states() == ["cancelled"]
    assert shop.engine.begun == []
    assert shop.files("inbox") == []
    assert shop.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    sidecar = Sidecar.model_validate(shop.sidecar("rejected/oil/photo.png.json"))
    assert sidecar.rejected is not None
    assert (sidecar.rejected.reason, sidecar.rejected.failure) == (
        "cancelled on request", "cancelled",
    )  # fmt: skip
    assert sidecar.job.attempts == 0
    (ending,) = shop.finished
    assert (str(ending.state), ending.failure) == ("cancelled", "cancelled")


def test_a_running_job_is_cancelled_within_a_step(shop: JobHarness) -> None:
    """Nothing of it appears in the outbox, and no checkpoint stays."""
    shop.engine.steps = 10
    shop.configure("queue", checkpoint_seconds=1)
    shop.drop()

    def at_step(step: int) -> None:
        shop.advance(2.0)
        if step == 4:
            assert ask(shop, 0)

    shop.engine.at_step = at_step
    shop.work()
    assert shop.states() == ["cancelled"]
    assert shop.engine.ops_done == 3  # the fourth step was taken, and none after it
    assert shop.files("outbox") == []
    assert shop.files("state/checkpoints") == []
    assert shop.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]


def test_whoever_waits_is_cancelled_while_another_is_painted(shop: JobHarness) -> None:
    """A queue of hours is no reason to wait for hours."""
    shop.drop("first.png")
    shop.drop("second.png")
    states: list[list[str]] = []

    def at_step(step: int) -> None:
        states.append(shop.states())
        if step == 1:
            ask(shop, 1)

    shop.engine.at_step = at_step
    shop.work()
    assert states[1:] == [["running", "cancelled"], ["running", "cancelled"]]
    assert shop.states() == ["done", "cancelled"]
    assert shop.files("outbox") == ["oil/first.png", "oil/first.png.json"]


def test_one_of_two_styles_is_cancelled(shop: JobHarness) -> None:
    """The original goes to both places once the other style is done."""
    shop.drop("photo.png", None, "oil", "ink")
    ask(shop, 0)
    shop.work()
    assert shop.states() == ["cancelled", "done"]
    assert shop.files("archive") == ["ink/photo.png"]
    assert shop.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    assert shop.files("inbox") == []


def test_a_job_that_has_ended_is_not_cancelled(shop: JobHarness) -> None:
    """What is done stays done."""
    shop.drop()
    shop.work()
    assert not ask(shop, 0)
    shop.work()
    assert shop.states() == ["done"]


def test_a_request_outlives_the_daemon(shop: JobHarness) -> None:
    """Asked for while it does not run, it is cancelled at the start, before it is begun."""
    shop.drop()
    ask(shop, 0)
    shop.restart()
    shop.work()
    assert shop.states() == ["cancelled"]
    assert shop.engine.begun == []


def test_a_job_that_waits_for_its_next_attempt_is_cancelled_at_once(shop: JobHarness) -> None:
    """However far that is away."""

    def fail(step: int) -> None:
        raise RuntimeError("broken")

    shop.engine.at_step = fail
    shop.drop()
    shop.work()
    assert shop.states() == ["queued"]
    ask(shop, 0)
    shop.work()
    assert shop.states() == ["cancelled"]


def test_a_full_disk_is_waited_out(shop: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is cancelled, and its photo follows once there is room."""
    full = True
    take = shop.publisher.take_original

    def take_original(source: Path, *words: object, **named: object) -> bool:
        if full:
            raise ResourceUnavailable("the disk is full")
        return take(source, *words, **named)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(shop.publisher, "take_original", take_original)
    shop.drop()
    ask(shop, 0)
    shop.work_on_one()
    assert shop.states() == ["cancelled"]
    assert shop.files("inbox") == ["photo.png"]
    full = False
    shop.work()
    assert shop.files("inbox") == []
    assert "oil/photo.png" in shop.files("rejected")


def test_a_photo_that_is_gone_is_cancelled_all_the_same(shop: JobHarness) -> None:
    """Its sidecar says that it was removed."""
    shop.drop().unlink()
    ask(shop, 0)
    shop.work()
    assert shop.states() == ["cancelled"]
    assert shop.journal.finished_in_inbox() == []


def test_what_is_published_already_is_done_and_not_cancelled(shop: JobHarness) -> None:
    """The process died between the sidecar and the journal, and somebody asked meanwhile."""
    shop.drop()
    finish = shop.journal.finish

    def die(*words: object, **named: object) -> None:
        raise Died

    shop.journal.finish = die  # type: ignore[method-assign]  # kill -9
    with pytest.raises(Died):
        shop.work()
    shop.journal.finish = finish  # type: ignore[method-assign]
    ask(shop, 0)
    shop.restart()
    shop.work()
    assert shop.states() == ["done"]
    assert shop.files("rejected") == []
    assert shop.files("archive") == ["oil/photo.png"]


def test_half_a_publication_is_taken_back(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result whose sidecar found no room is nobody's, once its job is cancelled."""
    publish = shop.publisher.publish_sidecar

    def full(*words: object) -> None:
        raise ResourceUnavailable("the disk is full")

    monkeypatch.setattr(shop.publisher, "publish_sidecar", full)
    shop.drop()

    def mend() -> None:
        assert shop.files("outbox") == ["oil/photo.png"]
        monkeypatch.setattr(shop.publisher, "publish_sidecar", publish)
        ask(shop, 0)

    shop.on_wait = mend
    shop.work()
    assert shop.states() == ["cancelled"]
    assert shop.files("outbox") == []
    assert shop.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]


def test_a_photo_that_could_not_leave_leaves_by_itself(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as there is room again, without a restart."""
    take = shop.publisher.take_original
    tries: list[str] = []

    def take_original(source: Path, *words: object, **named: object) -> bool:
        tries.append(source.name)
        if len(tries) < 3:
            raise ResourceUnavailable("the disk is full")
        return take(source, *words, **named)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(shop.publisher, "take_original", take_original)
    shop.drop()
    ask(shop, 0)
    shop.work()
    assert len(tries) >= 3
    assert shop.files("inbox") == []
    assert "oil/photo.png" in shop.files("rejected")


def test_cancelling_thousands_keeps_nobody_waiting(shop: JobHarness) -> None:
    """Only so many in each turn of the loop, and all of them in the end."""
    for number in range(2 * CANCELLED_AT_ONCE + 1):
        shop.drop(f"{number:03}.png")
        ask(shop, number)
    ended: list[int] = []
    turn = shop.scheduler.turn

    def counted(events: Sequence[Event]) -> None:
        before = len(shop.finished)
        turn(events)
        ended.append(len(shop.finished) - before)

    shop.scheduler.turn = counted  # type: ignore[method-assign]  # the same, counted
    shop.work()
    assert shop.states().count("cancelled") == 2 * CANCELLED_AT_ONCE + 1
    assert max(ended) == CANCELLED_AT_ONCE


def test_what_is_prepared_is_cancelled_before_it_is_painted(shop: JobHarness) -> None:
    """It is not begun any more, whenever it was asked for."""
    shop.drop("first.png")
    shop.drop("second.png", picture("olive"))

    def at_step(step: int) -> None:
        if step == 3:
            ask(shop, 1)

    shop.engine.at_step = at_step
    shop.work()
    assert shop.states() == ["done", "cancelled"]
    assert shop.engine.begun == [0]


def test_what_is_being_published_is_done(shop: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is too late to ask."""
    publish = shop.publisher.publish_result

    def asked(*args: object) -> None:
        ask(shop, 0)
        publish(*args)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(shop.publisher, "publish_result", asked)
    shop.drop()
    shop.work()
    assert shop.states() == ["done"]

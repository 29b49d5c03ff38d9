"""Who is blamed when the process dies: the photo that kills it each time, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from styled import photos
from styled.errors import EngineFailure, StyledError
from styled.jobs.job import JobState
from styled.photos import Photo
from tests.jobs.conftest import Died, JobHarness, LogLines, picture

KILLER = picture("crimson", (44, 38))
"""What kills the process in the phase that is tested; all others are harmless."""


@pytest.fixture
def harness(tmp_path: Path, logs: LogLines) -> Iterator[Callable[[int], JobHarness]]:
    """Return what makes a harness with so many engines."""
    made: list[JobHarness] = []

    def make(engines: int) -> JobHarness:
        made.append(JobHarness(tmp_path / "shop", engines=engines))
        return made[-1]

    yield make
    for one in made:
        one.close()


def is_killer(photo: Photo) -> bool:
    return (photo.width, photo.height) == (44, 38)


def kill_in(phase: str, shop: JobHarness, patch: pytest.MonkeyPatch) -> None:
    """Have the killer kill the process in a phase, each time."""
    decode, finish = photos.decode, photos.finish

    def decoded(*args: object, **kwargs: object) -> Photo:
        photo = decode(*args, **kwargs)  # type: ignore[arg-type]  # handed on as they are
        if is_killer(photo):
            raise Died
        return photo

    def finished(tensor: object, photo: Photo, *args: object) -> object:
        if is_killer(photo):
            raise Died
        return finish(tensor, photo, *args)  # type: ignore[arg-type]  # likewise

    if phase == "preparing":
        patch.setattr(photos, "decode", decoded)
    elif phase == "publishing":
        patch.setattr(photos, "finish", finished)
    kill_while_painting(phase, shop)


def kill_while_painting(phase: str, shop: JobHarness) -> None:
    def at_step(number: int) -> Callable[[int], None]:
        def paint(step: int) -> None:
            running = shop.journal.in_state(JobState.RUNNING, limit=-1)
            mine = [job for job in running if job.engine == f"engine-{number}"]
            if step == 2 and any(job.input == "killer.png" for job in mine):
                raise Died

        return paint

    if phase == "painting":
        for number, engine in enumerate(shop.engines):
            engine.at_step = at_step(number)


@pytest.mark.parametrize("engines", [1, 3])
@pytest.mark.parametrize("max_attempts", [1, 3])
@pytest.mark.parametrize("phase", ["preparing", "painting", "publishing"])
def test_only_the_photo_that_kills_the_process_is_rejected(
    harness: Callable[[int], JobHarness],
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    max_attempts: int,
    engines: int,
) -> None:
    """After `max_attempts` deaths while it was alone; none beside it loses an attempt."""
    shop = harness(engines)
    shop.configure("queue", max_attempts=max_attempts)
    shop.drop("a.png", picture("teal"))
    shop.drop("killer.png", KILLER)
    for name in ("c.png", "d.png", "e.png"):
        shop.drop(name, picture("olive"))
    kill_in(phase, shop, monkeypatch)
    for deaths in range(max_attempts + 2):
        try:
            if deaths:
                shop.restart()
                kill_while_painting(phase, shop)
            shop.work_and_wait()
            break
        except Died:
            pass
    else:
        raise AssertionError("it goes on for ever")
    jobs = {job.input: job for job in shop.jobs()}
    assert jobs["killer.png"].state is JobState.REJECTED
    assert jobs["killer.png"].failure == "crash"
    assert jobs["killer.png"].attempts == max_attempts
    assert f"begun {max_attempts} time" in str(jobs["killer.png"].reason)
    others = [job for name, job in jobs.items() if name != "killer.png"]
    assert {(job.state, job.attempts) for job in others} == {(JobState.DONE, 1)}
    assert shop.files("rejected") == ["oil/killer.png", "oil/killer.png.json"]
    assert len(shop.files("archive")) == 4
    assert shop.files("inbox") == []


def test_a_suspect_has_nothing_beside_it(harness: Callable[[int], JobHarness]) -> None:
    """In whatever phase: then it is known whether it is to blame."""
    shop = harness(2)
    for name in ("a.png", "b.png", "c.png", "d.png"):
        shop.drop(name, picture("olive"))

    def die(step: int) -> None:
        raise Died

    shop.engines[0].at_step = die
    with pytest.raises(Died):
        shop.work()
    running = len(shop.journal.in_state(JobState.RUNNING, limit=-1))
    shop.restart()
    assert running > 1
    assert [job.is_suspect for job in shop.jobs()] == [True] * running + [False] * (4 - running)
    beside: list[list[str]] = []

    def look(step: int) -> None:
        beside.append([job.input for job in shop.journal.in_state(JobState.RUNNING, limit=-1)])

    for engine in shop.engines:
        engine.at_step = look
    shop.work()
    assert shop.states() == ["done"] * 4
    suspects = {job.input for job in shop.jobs()[:running]}
    assert all(len(names) == 1 for names in beside if suspects & set(names))


def test_one_death_alone_counts(shop: JobHarness) -> None:
    """There is nobody else to blame."""
    shop.drop()

    def die(step: int) -> None:
        raise Died

    shop.engine.at_step = die
    with pytest.raises(Died):
        shop.work()
    shop.restart()
    assert shop.job().attempts == 1
    shop.work()
    assert (shop.job().state, shop.job().attempts) == (JobState.DONE, 2)


@pytest.mark.parametrize("error", [StyledError("the driver is gone"), RuntimeError("surprise")])
def test_a_photo_that_kills_its_engine_each_time_is_rejected(
    harness: Callable[[int], JobHarness], error: Exception
) -> None:
    """The process lives on, with other engines; the photo has had `max_attempts`."""
    shop = harness(2)
    shop.can_replace = True
    shop.configure("queue", max_attempts=2)
    for number, engine in enumerate(shop.engines):
        engine.at_step = dying_of_the_killer(shop, number, error)
    shop.drop("killer.png", KILLER)
    shop.drop("b.png", picture("olive"))
    shop.work()
    while "queued" in shop.states():
        threading_wait(shop)
    killer, other = shop.jobs()
    assert (killer.state, killer.failure, killer.attempts) == (JobState.REJECTED, "crash", 2)
    assert "engine-" in str(killer.reason)
    assert (other.state, other.attempts) == (JobState.DONE, 1)


def dying_of_the_killer(shop: JobHarness, number: int, error: Exception) -> Callable[[int], None]:
    """Have an engine die while it paints the killer."""

    def paint(step: int) -> None:
        mine = [
            job.input
            for job in shop.journal.in_state(JobState.RUNNING, limit=-1)
            if job.engine == f"engine-{number}"
        ]
        if step == 2 and "killer.png" in mine:
            raise EngineGone(error)

    return paint


def threading_wait(shop: JobHarness) -> None:
    """Wait for a replaced engine, then go on."""
    event = shop.events.get(timeout=60)
    shop._turn([event])
    shop.work()


class EngineGone(BaseException):
    """Ends the thread of an engine."""


def test_an_engine_failure_is_no_death(shop: JobHarness) -> None:
    """It is an attempt, and the engine stays."""

    def fail(step: int) -> None:
        raise EngineFailure("it diverged")

    shop.engine.at_step = fail
    shop.drop()
    shop.work_and_wait()
    assert shop.job().failure == "engine"


def test_the_job_of_a_dead_engine_goes_on_from_its_checkpoint_on_another(
    harness: Callable[[int], JobHarness],
) -> None:
    """Whichever is free; what the dead one had saved is not painted again."""
    shop = harness(2)
    shop.configure("queue", checkpoint_seconds=1.0)
    first, second = shop.engines
    first.steps = second.steps = 6

    def die_at_the_fourth(step: int) -> None:
        shop.advance(1.5)  # so that each step is saved
        if step == 4:
            raise EngineGone

    first.at_step = die_at_the_fourth
    shop.drop()
    shop.work()
    assert (first.begun, second.begun) == ([0], [3])
    job = shop.job()
    assert (job.state, job.attempts, job.engine) == (JobState.DONE, 2, "engine-1")
    sidecar = shop.sidecar("outbox/oil/photo.png.json")
    assert sidecar["job"]["resumed"]
    assert len(sidecar["losses"]["trace"]) == 6
    engines = json.loads(shop.journal.get_state()["engines"])
    assert [engine["device"] for engine in engines] == [None, "cpu"]

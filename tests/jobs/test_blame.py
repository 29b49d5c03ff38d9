"""Which job is blamed when the process dies: only a photo that kills it each time is rejected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from styled import photos
from styled.errors import EngineFailure, StyledError
from styled.journal.job import JobState
from styled.photos import Photo
from tests.job_harness import Died, JobHarness, LogLines, picture

KILLER = picture("crimson", (44, 38))
"""A photo that kills the process in the tested phase; all other photos are harmless."""


@pytest.fixture
def make_harness(tmp_path: Path, logs: LogLines) -> Iterator[Callable[[int], JobHarness]]:
    """Return a function that makes a harness with a number of engines."""
    made: list[JobHarness] = []

    def make(engines: int) -> JobHarness:
        made.append(JobHarness(tmp_path / "harness", engines=engines))
        return made[-1]

    yield make
    for one in made:
        one.close()


def is_killer(photo: Photo) -> bool:
    return (photo.width, photo.height) == (44, 38)


def kill_in(phase: str, harness: JobHarness, patch: pytest.MonkeyPatch) -> None:
    """Let the killer photo kill the process in a phase ("preparing", "painting", "publishing")."""
    decode, finish = photos.decode_photo, photos.export_image

    def decoded(*args: object, **kwargs: object) -> Photo:
        photo = decode(*args, **kwargs)  # type: ignore[arg-type]  # arguments are passed through
        if is_killer(photo):
            raise Died
        return photo

    def finished(tensor: object, photo: Photo, *args: object) -> object:
        if is_killer(photo):
            raise Died
        return finish(tensor, photo, *args)  # type: ignore[arg-type]  # likewise

    if phase == "preparing":
        patch.setattr(photos, "decode_photo", decoded)
    elif phase == "publishing":
        patch.setattr(photos, "export_image", finished)
    kill_while_painting(phase, harness)


def kill_while_painting(phase: str, harness: JobHarness) -> None:
    def at_step(number: int) -> Callable[[int], None]:
        def paint(step: int) -> None:
            running = harness.journal.in_state(JobState.RUNNING, limit=-1)
            own_jobs = [job for job in running if job.engine == f"engine-{number}"]
            if step == 2 and any(job.input == "killer.png" for job in own_jobs):
                raise Died

        return paint

    if phase == "painting":
        for number, engine in enumerate(harness.engines):
            engine.at_step = at_step(number)


@pytest.mark.parametrize("engines", [1, 3])
@pytest.mark.parametrize("max_attempts", [1, 3])
@pytest.mark.parametrize("phase", ["preparing", "painting", "publishing"])
def test_only_the_photo_that_kills_the_process_is_rejected(
    make_harness: Callable[[int], JobHarness],
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    max_attempts: int,
    engines: int,
) -> None:
    """A killer photo is rejected after `max_attempts` deaths; others lose no attempt by them."""
    harness = make_harness(engines)
    harness.configure("queue", max_attempts=max_attempts)
    harness.drop("a.png", picture("teal"))
    harness.drop("killer.png", KILLER)
    for name in ("c.png", "d.png", "e.png"):
        harness.drop(name, picture("olive"))
    kill_in(phase, harness, monkeypatch)
    for deaths in range(max_attempts + 2):
        try:
            if deaths:
                harness.restart()
                kill_while_painting(phase, harness)
            harness.work_and_wait()
            break
        except Died:
            pass
    else:
        raise AssertionError("the deaths do not end")
    jobs = {job.input: job for job in harness.jobs()}
    assert jobs["killer.png"].state is JobState.REJECTED
    assert jobs["killer.png"].failure == "crash"
    assert jobs["killer.png"].attempts == max_attempts
    assert f"this photo, {max_attempts} time" in str(jobs["killer.png"].reason)
    others = [job for name, job in jobs.items() if name != "killer.png"]
    assert {(job.state, job.attempts) for job in others} == {(JobState.DONE, 1)}
    assert harness.files("rejected") == ["oil/killer.png", "oil/killer.png.json"]
    assert len(harness.files("archive")) == 4
    assert harness.files("inbox") == []


def test_a_suspect_has_nothing_beside_it(make_harness: Callable[[int], JobHarness]) -> None:
    """A suspect job runs alone, so that another death can be attributed to it."""
    harness = make_harness(2)
    for name in ("a.png", "b.png", "c.png", "d.png"):
        harness.drop(name, picture("olive"))

    def die(step: int) -> None:
        raise Died

    harness.engines[0].at_step = die
    with pytest.raises(Died):
        harness.work()
    suspects = {job.input for job in harness.journal.in_state(JobState.RUNNING, limit=-1)}
    harness.restart()
    assert len(suspects) > 1
    assert {job.input for job in harness.jobs() if job.is_suspect} == suspects
    running_inputs: list[list[str]] = []

    def record(step: int) -> None:
        running_inputs.append(
            [job.input for job in harness.journal.in_state(JobState.RUNNING, limit=-1)]
        )

    for engine in harness.engines:
        engine.at_step = record
    harness.work()
    assert harness.states() == ["done"] * 4
    assert all(len(names) == 1 for names in running_inputs if suspects & set(names))


def test_one_death_alone_counts(harness: JobHarness) -> None:
    """If only one job was running at a death, the death counts as its failed attempt."""
    harness.drop()

    def die(step: int) -> None:
        raise Died

    harness.engine.at_step = die
    with pytest.raises(Died):
        harness.work()
    harness.restart()
    assert harness.job().attempts == 1
    harness.work()
    assert (harness.job().state, harness.job().attempts) == (JobState.DONE, 2)


@pytest.mark.parametrize("error", [StyledError("the driver is gone"), RuntimeError("surprise")])
def test_a_photo_that_kills_its_engine_each_time_is_rejected(
    make_harness: Callable[[int], JobHarness], error: Exception
) -> None:
    """A photo whose engine dies each time is rejected after `max_attempts`; the process runs on."""
    harness = make_harness(2)
    harness.can_replace = True
    harness.configure("queue", max_attempts=2)
    for number, engine in enumerate(harness.engines):
        engine.at_step = dying_of_the_killer(harness, number, error)
    harness.drop("killer.png", KILLER)
    harness.drop("b.png", picture("olive"))
    harness.work()
    while "queued" in harness.states():
        threading_wait(harness)
    killer, other = harness.jobs()
    assert (killer.state, killer.failure, killer.attempts) == (JobState.REJECTED, "crash", 2)
    assert "engine-" in str(killer.reason)
    assert (other.state, other.attempts) == (JobState.DONE, 1)


def dying_of_the_killer(
    harness: JobHarness, number: int, error: Exception
) -> Callable[[int], None]:
    """Return an `at_step` callback with which an engine dies while it paints the killer photo."""

    def paint(step: int) -> None:
        own_inputs = [
            job.input
            for job in harness.journal.in_state(JobState.RUNNING, limit=-1)
            if job.engine == f"engine-{number}"
        ]
        if step == 2 and "killer.png" in own_inputs:
            raise EngineGone(error)

    return paint


def threading_wait(harness: JobHarness) -> None:
    """Wait for the event of a replaced engine, then go on."""
    event = harness.events.get(timeout=60)
    harness._turn([event])
    harness.work()


class EngineGone(BaseException):
    """Ends the thread of an engine."""


def test_an_engine_failure_is_no_death(harness: JobHarness) -> None:
    """An engine failure counts as a failed attempt of the job, and the engine is kept."""

    def fail(step: int) -> None:
        raise EngineFailure("it diverged")

    harness.engine.at_step = fail
    harness.drop()
    harness.work_and_wait()
    assert harness.job().failure == "engine"


def test_the_job_of_a_dead_engine_goes_on_from_its_checkpoint_on_another(
    make_harness: Callable[[int], JobHarness],
) -> None:
    """After an engine's death another engine resumes the job from its checkpoint."""
    harness = make_harness(2)
    harness.configure("queue", checkpoint_seconds=1.0)
    first, second = harness.engines
    first.steps = second.steps = 6

    def die_at_the_fourth(step: int) -> None:
        harness.advance(1.5)  # so that a checkpoint is saved after each step
        if step == 4:
            raise EngineGone

    first.at_step = die_at_the_fourth
    harness.drop()
    harness.work()
    assert (first.start_steps, second.start_steps) == ([0], [3])
    job = harness.job()
    assert (job.state, job.attempts, job.engine) == (JobState.DONE, 2, "engine-1")
    sidecar = harness.sidecar("outbox/oil/photo.png.json")
    assert sidecar["job"]["resumed"]
    assert len(sidecar["losses"]["trace"]) == 6
    engines = json.loads(harness.journal.get_state()["engines"])
    assert [engine["device"] for engine in engines] == [None, "cpu"]

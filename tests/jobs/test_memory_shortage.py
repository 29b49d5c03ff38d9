"""Jobs whose photo or result does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from PIL import ImageFile

from styled import photos
from styled.jobs.failure_policy import FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS
from styled.journal.job import JobState
from tests.job_harness import JobHarness, LogLines, picture

LARGE = (400, 300)


class Memory:
    """Simulates too little memory for images of `LARGE` size while `is_short` is set."""

    def __init__(self) -> None:
        self.is_short = True
        self.attempts = 0

    def need(self, size: tuple[int, int]) -> None:
        if size == LARGE:
            self.attempts += 1
            if self.is_short:
                raise MemoryError


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Return the simulated memory, which is checked when an image is decoded."""
    memory = Memory()
    load = ImageFile.ImageFile.load

    def loaded(image: ImageFile.ImageFile) -> object:
        memory.need(image.size)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", loaded)
    return memory


def test_a_photo_waits_for_memory_and_no_attempt_is_counted(
    harness: JobHarness, memory: Memory
) -> None:
    """A photo that does not fit waits without losing an attempt, and is painted once it fits."""
    harness.drop("large.png", picture(size=LARGE))
    for _ in range(20):
        harness.work()
        job = harness.job()
        assert (job.state, job.attempts, job.failure) == (JobState.QUEUED, 0, "blocked")
        assert "not enough memory" in (job.reason or "")
        assert job.remedies
        assert harness.states() == ["queued"]
        harness.now = job.not_before
    assert harness.files("rejected") == []
    memory.is_short = False
    harness.work()
    assert (harness.job().state, harness.job().attempts) == (JobState.DONE, 1)


def test_others_go_on_meanwhile(harness: JobHarness, memory: Memory) -> None:
    """Other jobs are done while a photo waits for memory; the queue is not paused."""
    harness.drop("large.png", picture(size=LARGE))
    for number in range(3):
        harness.drop(f"small-{number}.png")
    harness.work()
    assert harness.states() == ["queued", "done", "done", "done"]
    assert memory.attempts == 1
    assert not harness.journal.get_state().get("activity", "").startswith("paused")


def test_it_is_tried_ever_less_often(harness: JobHarness, memory: Memory, logs: LogLines) -> None:
    """Retries of a photo that does not fit back off up to `MAX_RETRY_SECONDS`."""
    harness.drop("large.png", picture(size=LARGE))
    end = harness.now + 24 * 3600
    while harness.now < end:
        harness.work()
        harness.now = harness.job().not_before
    waits = [line["retry_seconds"] for line in logs if line["event"] == "job.postponed"]
    assert waits[0] == FIRST_RETRY_SECONDS
    assert waits[-1] == MAX_RETRY_SECONDS
    assert all(later in (earlier * 2, MAX_RETRY_SECONDS) for earlier, later in pairwise(waits))
    assert memory.attempts == len(waits) < 300


def fail_once(error: Exception, do: Callable[..., object]) -> Callable[..., object]:
    """Return a function that raises an error at its first call, and calls `do` afterwards."""
    errors: Iterator[Exception] = iter([error])

    def wrapper(*args: object, **kwargs: object) -> object:
        for error in errors:
            raise error
        return do(*args, **kwargs)

    return wrapper


def test_a_result_waits_for_memory_too(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the result cannot be encoded for lack of memory, the painting is kept for later."""
    harness.drop("photo.jpg", picture(format="jpeg"))
    monkeypatch.setattr(photos, "export_image", fail_once(MemoryError(), photos.export_image))
    harness.work()
    job = harness.job()
    assert (job.state, job.attempts, job.failure) == (JobState.QUEUED, 0, "blocked")
    assert "not enough memory" in (job.reason or "")
    assert harness.files("outbox") == []
    harness.work_and_wait()
    assert (harness.job().state, harness.job().attempts) == (JobState.DONE, 1)
    assert harness.engine.start_steps == [0]  # the painting was kept

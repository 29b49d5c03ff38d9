"""What becomes of a photo that there is not enough memory for, and of those beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from PIL import ImageFile

from styled import photos
from styled.jobs.failure_policy import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS
from styled.jobs.job import JobState
from tests.jobs.conftest import JobHarness, LogLines, picture

LARGE = (400, 300)


class Memory:
    """Memory that is too little for pictures of `LARGE` size as long as it is short."""

    def __init__(self) -> None:
        self.is_short = True
        self.asked = 0

    def need(self, size: tuple[int, int]) -> None:
        if size == LARGE:
            self.asked += 1
            if self.is_short:
                raise MemoryError


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Have pictures loaded into memory of which there may be too little."""
    memory = Memory()
    load = ImageFile.ImageFile.load

    def loaded(image: ImageFile.ImageFile) -> object:
        memory.need(image.size)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", loaded)
    return memory


def test_a_photo_waits_for_memory_and_no_attempt_is_counted(
    shop: JobHarness, memory: Memory
) -> None:
    """However long it takes, nothing is rejected; once there is enough it is painted."""
    shop.drop("large.png", picture(size=LARGE))
    for _ in range(20):
        shop.work()
        job = shop.job()
        assert (job.state, job.attempts, job.failure) == (JobState.QUEUED, 0, "waiting")
        assert "not enough memory" in (job.reason or "")
        assert job.remedies
        assert shop.states() == ["queued"]
        shop.now = job.not_before
    assert shop.files("rejected") == []
    memory.is_short = False
    shop.work()
    assert (shop.job().state, shop.job().attempts) == (JobState.DONE, 1)


def test_others_go_on_meanwhile(shop: JobHarness, memory: Memory) -> None:
    """A photo that is too large for this machine never pauses the queue."""
    shop.drop("large.png", picture(size=LARGE))
    for number in range(3):
        shop.drop(f"small-{number}.png")
    shop.work()
    assert shop.states() == ["queued", "done", "done", "done"]
    assert memory.asked == 1
    assert not shop.journal.get_state().get("state", "").startswith("paused")


def test_it_is_tried_ever_less_often(shop: JobHarness, memory: Memory, logs: LogLines) -> None:
    """Decoding what does not fit is no way to spend a day."""
    shop.drop("large.png", picture(size=LARGE))
    end = shop.now + 24 * 3600
    while shop.now < end:
        shop.work()
        shop.now = shop.job().not_before
    waits = [line["seconds"] for line in logs if line["event"] == "job.waits"]
    assert waits[0] == FIRST_RETRY_SECONDS
    assert waits[-1] == LONGEST_RETRY_SECONDS
    assert all(later in (earlier * 2, LONGEST_RETRY_SECONDS) for earlier, later in pairwise(waits))
    assert memory.asked == len(waits) < 300


def fail_once(error: Exception, do: Callable[..., object]) -> Callable[..., object]:
    """Return what fails once and then does as it should."""
    errors: Iterator[Exception] = iter([error])

    def done(*words: object, **named: object) -> object:
        for error in errors:
            raise error
        return do(*words, **named)

    return done


def test_a_result_waits_for_memory_too(shop: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is painted is kept, and brought into its file once there is room for that."""
    shop.drop("photo.jpg", picture(format="jpeg"))
    monkeypatch.setattr(photos, "finish", fail_once(MemoryError(), photos.finish))
    shop.work()
    job = shop.job()
    assert (job.state, job.attempts, job.failure) == (JobState.QUEUED, 0, "waiting")
    assert "not enough memory" in (job.reason or "")
    assert shop.files("outbox") == []
    shop.work_and_wait()
    assert (shop.job().state, shop.job().attempts) == (JobState.DONE, 1)
    assert shop.engine.begun == [0]  # the painting was kept

"""The queue: in order, patient with what is nobody's fault, and quick to stop."""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from styled.atomic import resource_errors
from styled.errors import EngineFailure, ResourceUnavailable
from styled.jobs.cancelling import POLL_SECONDS
from styled.jobs.failure_policy import MENDED_SECONDS
from styled.jobs.io_context import History
from styled.jobs.job import JobState
from styled.jobs.pause import LONGEST_PAUSE_SECONDS
from styled.jobs.requests import TidyRequest
from styled.jobs.scheduler import IDLE_SECONDS
from styled.jobs.upkeep import FIRST_STUCK_SECONDS, TIDIED_AFTER_JOBS
from styled.sidecar import Sidecar
from tests.jobs.conftest import PATIENCE_SECONDS, STUB, Died, JobHarness, LogLines, picture


class FullDisk:
    """Makes writing into outbox, rejected and archive fail, until it is mended."""

    def __init__(self, shop: JobHarness, monkeypatch: pytest.MonkeyPatch, pauses: int) -> None:
        """Be full for so many pauses."""
        self._shop = shop
        self._patch = monkeypatch
        self._left = pauses
        for name in ("atomic_write", "durable_move", "durable_copy"):
            monkeypatch.setattr(f"styled.delivery.publisher.{name}", self._refuse)
        shop.on_wait = self.wait_over

    @staticmethod
    def _refuse(path: Path, data: object) -> NoReturn:
        with resource_errors(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise AssertionError

    def wait_over(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._patch.undo()


def events(logs: LogLines) -> list[str]:
    return [line["event"] for line in logs]


def test_jobs_are_done_in_the_order_of_their_arrival(shop: JobHarness) -> None:
    """First come, first painted."""
    for name in ("c.png", "a.png", "b.png"):
        shop.drop(name)
        shop.advance(1)
    shop.work()
    finished = shop.journal.in_state(JobState.DONE, limit=9)
    assert [job.input for job in finished] == ["c.png", "a.png", "b.png"]


def test_a_full_disk_pauses_the_queue_and_costs_nothing(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """While the outbox is full nothing is rejected and no attempt counted; then work goes on."""
    shop.configure("queue", max_attempts=1)
    FullDisk(shop, monkeypatch, pauses=4)
    shop.drop("one.png")
    shop.drop("two.png", picture("olive"))
    shop.work()
    assert shop.states() == ["done", "done"]
    assert [job.attempts for job in shop.jobs()] == [1, 1]
    assert shop.files("rejected") == []
    assert shop.waits == [1, 2, 4, 8]
    assert events(logs).count("queue.paused") == 4
    assert events(logs).count("queue.resumed") == 1
    paused = next(line for line in logs if line["event"] == "queue.paused")
    assert "No space left" in paused["reason"]


def test_nothing_is_painted_twice_because_of_a_full_disk(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finished picture is saved before the pause and only published after it."""
    FullDisk(shop, monkeypatch, pauses=2)
    shop.drop()
    shop.work()
    assert shop.engine.begun == [0]
    assert shop.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]


def test_a_pause_can_be_seen_from_outside(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it lasts the daemon's facts tell the reason, and afterwards that it runs again."""
    disk = FullDisk(shop, monkeypatch, pauses=2)
    seen: list[str] = []

    def look() -> None:
        seen.append(shop.journal.get_state()["state"])
        disk.wait_over()

    shop.on_wait = look
    shop.drop(os.fsdecode(b"caf\xe9.png"))
    shop.work()
    assert len(seen) == 2
    assert all(state.startswith("paused: ") and "No space left" in state for state in seen)
    assert shop.journal.get_state()["state"] == "running"


def test_a_pause_ends_even_if_nothing_is_left_to_do(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause at start is over once the left-over is put away, though no job follows."""
    shop.drop()

    def die(*_: object, **__: object) -> NoReturn:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(shop.publisher, "take_original", die)
        with pytest.raises(Died):
            shop.work()
    shop.engine.on_sync = lambda: None
    FullDisk(shop, monkeypatch, pauses=1)
    shop.restart()
    shop.work()
    assert shop.waits == [1]
    assert shop.files("archive") == ["oil/photo.png"]
    assert shop.journal.get_state()["state"] == "running"


def test_pauses_grow_up_to_a_minute_and_begin_again_small(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The back-off doubles to its limit, and one success resets it."""
    FullDisk(shop, monkeypatch, pauses=8)
    shop.drop("one.png")
    shop.work()
    assert shop.waits == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]
    FullDisk(shop, monkeypatch, pauses=1)
    shop.drop("two.png", picture("olive"))
    shop.work()
    assert shop.waits[-1] == 1


def test_a_job_waits_out_a_pause_in_the_queue(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed during a pause has not died at work: no attempt is counted."""
    FullDisk(shop, monkeypatch, pauses=9)

    def die() -> None:
        assert shop.states() == ["queued"]
        raise Died

    shop.on_wait = die
    shop.drop()
    for _ in range(5):
        with pytest.raises(Died):
            shop.work()
        shop.restart()
    assert (shop.job().state, shop.job().attempts) == (JobState.QUEUED, 0)


def test_a_full_archive_keeps_the_original_and_the_result(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If only the original can't be moved, the job stays done and the move is repeated."""

    def refuse(source: Path, destination: Path) -> None:
        with resource_errors(destination):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("styled.delivery.publisher.durable_move", refuse)

    def mend() -> None:
        assert shop.states() == ["done"]
        assert shop.files("inbox") == ["photo.png"]
        if len(shop.waits) == 3:
            monkeypatch.undo()

    shop.on_wait = mend
    shop.drop()
    shop.work()
    assert shop.waits == [1, 2, 4]
    assert shop.engine.begun == [0]
    assert shop.files("archive") == ["oil/photo.png"]
    assert shop.files("inbox") == []


def test_a_missing_inbox_pauses_instead_of_cancelling(shop: JobHarness) -> None:
    """An inbox that is not mounted says nothing about its photos; they wait for it."""
    shop.drop("one.png")
    shop.drop("two.png", picture("olive"))
    away = shop.base / "elsewhere"
    shop.config.inbox.rename(away)

    def mount() -> None:
        if len(shop.waits) == 2:
            away.rename(shop.config.inbox)

    shop.on_wait = mount
    seen: list[str] = []
    shop.engine.at_step = lambda step: seen.append(shop.journal.get_state()["state"])
    shop.work()
    assert shop.waits == [1, 2]
    assert shop.states() == ["done", "done"]
    assert seen[-1] == "running"  # as soon as a photo could be read again


def test_an_inbox_lost_while_painting_does_not_make_a_photo_come_twice(shop: JobHarness) -> None:
    """The original is put away when the inbox is back, and not painted again."""
    away = shop.base / "elsewhere"

    def unmount(step: int) -> None:
        if step == 1:
            shop.config.inbox.rename(away)

    def mount() -> None:
        away.rename(shop.config.inbox)

    shop.engine.at_step = unmount
    shop.on_wait = mount
    shop.drop()
    shop.work()
    shop.rescan()
    shop.work()
    assert shop.states() == ["done"]
    assert shop.files("archive") == ["oil/photo.png"]


def broken_journal(shop: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every write to the journal fail from now on."""

    def refuse() -> NoReturn:
        raise ResourceUnavailable("the journal can't be used: disk I/O error")

    monkeypatch.setattr(shop.journal, "transaction", refuse)


@pytest.mark.parametrize("at", ["claim", "painting", "publishing"])
def test_a_journal_that_fails_is_tried_again(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines, at: str
) -> None:
    """Whatever was to be written is written once that is possible, and nothing is done twice."""
    publish = shop.publisher.publish_sidecar

    def publish_last(path: Path, sidecar: Sidecar) -> None:
        publish(path, sidecar)
        broken_journal(shop, monkeypatch)

    shop.drop()
    if at == "claim":
        broken_journal(shop, monkeypatch)
    elif at == "painting":
        shop.engine.at_step = lambda step: (
            broken_journal(shop, monkeypatch) if step == 2 and not shop.waits else None
        )
    else:
        monkeypatch.setattr(shop.publisher, "publish_sidecar", publish_last)

    def mend() -> None:
        if len(shop.waits) == 3:
            monkeypatch.undo()

    shop.on_wait = mend
    shop.work()
    assert shop.waits == [1, 2, 4]
    assert shop.states() == ["done"]
    assert shop.job().attempts == 1
    assert shop.engine.begun == [0]
    assert shop.files("archive") == ["oil/photo.png"]
    assert events(logs).count("queue.paused") == 3


def test_a_failed_claim_is_over_once_the_queue_is_found_empty(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """The pause ends with the first look at the journal that succeeds, jobs or not."""

    def refuse(now: float, *, is_alone: bool) -> NoReturn:
        raise ResourceUnavailable("the journal can't be used: disk I/O error")

    monkeypatch.setattr(shop.journal, "claim", refuse)
    shop.on_wait = monkeypatch.undo
    shop.work()
    assert events(logs) == ["engine.ready", "queue.paused", "queue.resumed"]
    assert shop.journal.get_state()["state"] == "running"


def test_a_stop_does_not_wait_for_the_journal(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If not even the journal can be written, a stop leaves the job for the next start to find."""
    shop.engine.at_step = lambda step: broken_journal(shop, monkeypatch) if step == 2 else None
    shop.on_wait = shop.request_stop
    shop.drop()
    shop.work()
    assert shop.scheduler.is_over
    assert shop.waits == [1]
    monkeypatch.undo()
    shop.restart()
    shop.work()
    assert shop.states() == ["done"]


def test_a_stop_ends_a_pause_and_leaves_the_job_in_the_queue(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping during a pause neither waits for the disk nor counts an attempt."""
    FullDisk(shop, monkeypatch, pauses=99)
    shop.on_wait = shop.request_stop
    shop.drop()
    shop.work()
    assert shop.scheduler.is_over
    assert shop.waits == [1]
    assert (shop.job().state, shop.job().attempts) == (JobState.QUEUED, 0)


def test_jobs_of_a_dead_process_are_taken_up_again(shop: JobHarness, logs: LogLines) -> None:
    """What was running when the process died is queued again at start, and then done."""
    shop.drop()
    assert shop.journal.claim(shop.now) is not None
    shop.restart()
    assert shop.states() == ["queued"]
    assert "job.recovered" in events(logs)
    shop.work()
    assert shop.states() == ["done"]
    assert shop.job().attempts == 2


def test_an_idle_scheduler_waits_in_the_queue_until_something_comes(shop: JobHarness) -> None:
    """But for looking once a second whether another process wants something."""
    shop.work()
    assert shop.scheduler.seconds_to_wait() == POLL_SECONDS
    shop.drop()
    shop.work()
    assert shop.states() == ["done"]


def test_an_idle_scheduler_wakes_for_the_next_waiting_job(shop: JobHarness) -> None:
    """It is tried again when it is due."""
    image = shop.base / "styles/oil.png"
    image.rename(shop.base / "away.png")
    shop.drop()
    shop.work()
    (shop.base / "away.png").rename(image)
    shop.run_for(MENDED_SECONDS - 2 * POLL_SECONDS)
    assert shop.states() == ["queued"]
    shop.run_for(2 * POLL_SECONDS)
    assert shop.states() == ["done"]


def test_a_stop_ends_the_work_after_the_present_job(shop: JobHarness) -> None:
    """Once told to stop, no further job is begun."""
    shop.engine.at_step = lambda step: shop.request_stop()
    shop.drop("one.png")
    shop.drop("two.png", picture("olive"))
    shop.work()
    assert shop.scheduler.is_over
    assert shop.engine.begun == [0]
    assert shop.states() == ["queued", "queued"]


def test_finished_jobs_are_forgotten_in_time(shop: JobHarness, logs: LogLines) -> None:
    """After every so many jobs, and at the start."""
    shop.history = History(seconds=1e6, jobs=50)
    shop.restart()
    for number in range(2 * TIDIED_AFTER_JOBS):
        shop.drop(f"{number}.png")
    shop.work()
    assert shop.journal.counts()[JobState.DONE] == 50
    assert len(shop.files("outbox")) == 4 * TIDIED_AFTER_JOBS
    shop.advance(2e6)
    shop.restart()
    shop.work()
    assert JobState.DONE not in shop.journal.counts()
    assert [line["event"] for line in logs].count("jobs.forgotten") == 3


def test_an_engine_gives_a_sign_of_life_at_every_step(shop: JobHarness) -> None:
    """And while it has nothing to do it may be silent for ever."""
    shop.drop()
    shop.work()
    rests = [rest for part, _, rest in shop.beats if part == "engine-0"]
    assert rests[-1] == math.inf
    assert rests.count(0.0) >= shop.engine.steps


def test_a_scheduler_runs_until_it_is_stopped(shop: JobHarness) -> None:
    """By its own loop, as in a daemon."""
    shop.engine.on_sync = lambda: None
    shop.drop()
    thread = threading.Thread(target=shop.scheduler.run)
    thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while shop.states() != ["done"] and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    shop.request_stop()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert shop.files("archive") == ["oil/photo.png"]
    # Before each wait it has said how long it may be silent.
    rests = [rest for part, _, rest in shop.beats if part == "scheduler"]
    assert rests[-1] == 0.0
    assert 0.0 < max(rests) <= IDLE_SECONDS


def test_every_end_is_counted_with_what_it_took(shop: JobHarness) -> None:
    """Once for each job, whatever the end was."""
    shop.engine.at_step = lambda step: shop.advance(2.0)
    shop.drop("one.png")
    shop.drop("bad.png", b"no picture")
    shop.work()
    rejected, done = shop.finished
    assert (done.state, done.failure, done.steps) == ("done", None, 3)
    assert done.seconds["optimise"] == 6.0
    assert set(done.seconds) == {"waited", "prepare", "optimise", "publish"}
    assert done.degraded == (STUB,)
    assert (rejected.state, rejected.failure, dict(rejected.seconds)) == ("rejected", "input", {})
    assert rejected.steps == 0
    assert shop.failed_attempts == []


def test_failed_attempts_are_counted(shop: JobHarness) -> None:
    """Those that will be made again; the last one is an end."""

    def fail(step: int) -> None:
        raise EngineFailure("it went astray")

    shop.engine.at_step = fail
    shop.drop()
    shop.work_and_wait()
    assert shop.failed_attempts == ["engine", "engine"]
    assert [(ending.state, ending.failure) for ending in shop.finished] == [("rejected", "engine")]


def test_tidying_gives_signs_of_life(shop: JobHarness) -> None:
    """Photos that are kept may be many, and lie on a slow drive."""
    shop.configure("output", after_success="keep")
    for number in range(5):
        shop.drop(f"{number}.png")
    shop.work()
    beats: list[float] = []
    assert TidyRequest(shop.context).run(beats.append) == (0, [])
    assert beats == [0.0] * 5


def test_a_photo_in_a_folder_of_somebody_else_stops_no_others(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """It is painted, stays where it is, and that is said; the next one is painted."""
    monkeypatch.setattr(Path, "rename", _forbidden_from("trip", Path.rename))
    monkeypatch.setattr(os, "access", lambda path, mode, **_: "inbox/trip" not in str(path))
    shop.drop("trip/a.png")
    shop.drop("z.png", picture("olive"))
    shop.work()
    assert shop.states() == ["done", "done"]
    assert shop.files("inbox") == ["trip/a.png"]
    (stuck,) = [line for line in logs if line["event"] == "input.stuck"]
    assert "trip may not be changed" in stuck["reason"]
    # Once that is mended it leaves by itself, although there is nothing else to do.
    shop.run_for(FIRST_STUCK_SECONDS)
    assert shop.files("inbox") == ["trip/a.png"]
    monkeypatch.undo()
    shop.run_for(2 * FIRST_STUCK_SECONDS)
    assert shop.files("inbox") == []


def _forbidden_from(folder: str, rename: Callable[[Path, Path], Path]) -> object:
    def renaming(source: Path, destination: Path) -> Path:
        if folder in source.parts:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(source, destination)

    return renaming


@pytest.mark.parametrize(("blameless", "attempts"), [(False, 1), (True, 0)])
def test_who_died_of_something_else_is_not_blamed(
    shop: JobHarness, blameless: bool, attempts: int
) -> None:
    """A drive that hangs makes the watchdog bite, whatever is being painted."""
    shop.drop()
    shop.journal.claim(shop.now)
    shop.scheduler.recover(is_blameless=blameless)
    assert (shop.states(), shop.job().attempts) == (["queued"], attempts)

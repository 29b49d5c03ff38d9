"""The scheduler: the order of jobs, pauses, retries, and stopping."""

from __future__ import annotations

import errno
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

import pytest

from styled.atomic import resource_errors
from styled.errors import EngineFailure, ResourceUnavailable
from styled.job_io.io_context import JournalRetention
from styled.job_io.requests import CleanupRequest
from styled.jobs.events import Wakeup
from styled.jobs.failure_policy import CONFIGURATION_RETRY_SECONDS
from styled.jobs.maintenance import CLEANUP_AFTER_JOBS, FIRST_STUCK_SECONDS
from styled.jobs.pause import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS
from styled.jobs.request_poller import POLL_SECONDS
from styled.jobs.scheduler import IDLE_SECONDS
from styled.journal.job import JobState
from styled.journal.pause_request import NOW, PAUSE_REQUEST
from styled.sidecar import Sidecar
from tests.job_harness import STUB, TIMEOUT_SECONDS, Died, JobHarness, LogLines, picture


class FullDisk:
    """Makes writing into outbox, rejected and archive fail for a number of pauses."""

    def __init__(self, harness: JobHarness, monkeypatch: pytest.MonkeyPatch, pauses: int) -> None:
        """Start to fail; after `pauses` pauses of the scheduler writing works again."""
        self._harness = harness
        self._patch = monkeypatch
        self._left = pauses
        for name in ("atomic_write", "durable_move", "durable_copy"):
            monkeypatch.setattr(f"styled.delivery.publisher.{name}", self._refuse)
        harness.on_wait = self.wait_over

    @staticmethod
    def _refuse(path: Path, *args: object, **options: object) -> NoReturn:
        with resource_errors(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise AssertionError

    def wait_over(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._patch.undo()


def events(logs: LogLines) -> list[str]:
    return [line["event"] for line in logs]


def test_jobs_are_done_in_the_order_of_their_arrival(harness: JobHarness) -> None:
    """Jobs are done in the order of their submission."""
    for name in ("c.png", "a.png", "b.png"):
        harness.drop(name)
        harness.advance(1)
    harness.work()
    finished = harness.journal.in_state(JobState.DONE, limit=9)
    assert [job.input for job in finished] == ["c.png", "a.png", "b.png"]


def test_a_full_disk_pauses_the_queue_and_costs_nothing(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """A full outbox pauses the queue; nothing is rejected, and no attempt is counted."""
    harness.configure("queue", max_attempts=1)
    FullDisk(harness, monkeypatch, pauses=4)
    harness.drop("one.png")
    harness.drop("two.png", picture("olive"))
    harness.work()
    assert harness.states() == ["done", "done"]
    assert [job.attempts for job in harness.jobs()] == [1, 1]
    assert harness.files("rejected") == []
    assert harness.waits == [1, 2, 4, 8]
    assert events(logs).count("queue.paused") == 4
    assert events(logs).count("queue.resumed") == 1
    paused = next(line for line in logs if line["event"] == "queue.paused")
    assert "No space left" in paused["reason"]


def test_nothing_is_painted_twice_because_of_a_full_disk(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A painting is saved before a pause, and published after it without painting again."""
    FullDisk(harness, monkeypatch, pauses=2)
    harness.drop()
    harness.work()
    assert harness.engine.start_steps == [0]
    assert harness.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]


def test_a_pause_can_be_seen_from_outside(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's state has the reason of a pause, and "running" afterwards."""
    disk = FullDisk(harness, monkeypatch, pauses=2)
    seen: list[str] = []

    def record() -> None:
        seen.append(harness.journal.get_state()["activity"])
        disk.wait_over()

    harness.on_wait = record
    harness.drop(os.fsdecode(b"caf\xe9.png"))
    harness.work()
    assert len(seen) == 2
    assert all(state.startswith("paused: ") and "No space left" in state for state in seen)
    assert harness.journal.get_state()["activity"] == "running"


def test_a_pause_ends_even_if_nothing_is_left_to_do(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause at the start ends once the leftover original was moved, even without jobs."""
    harness.drop()

    def die(*_: object, **__: object) -> NoReturn:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(harness.publisher, "move_original", die)
        with pytest.raises(Died):
            harness.work()
    harness.engine.on_sync = lambda: None
    FullDisk(harness, monkeypatch, pauses=1)
    harness.restart()
    harness.work()
    assert harness.waits == [1]
    assert harness.files("archive") == ["oil/photo.png"]
    assert harness.journal.get_state()["activity"] == "running"


def test_pauses_grow_up_to_a_minute_and_begin_again_small(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pauses double up to a limit, and a success resets them."""
    FullDisk(harness, monkeypatch, pauses=8)
    harness.drop("one.png")
    harness.work()
    assert harness.waits == [1, 2, 4, 8, 16, 32, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS]
    FullDisk(harness, monkeypatch, pauses=1)
    harness.drop("two.png", picture("olive"))
    harness.work()
    assert harness.waits[-1] == 1


def test_a_job_waits_out_a_pause_in_the_queue(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a pause the job is queued, so that a kill does not count as an attempt."""
    FullDisk(harness, monkeypatch, pauses=9)

    def die() -> None:
        assert harness.states() == ["queued"]
        raise Died

    harness.on_wait = die
    harness.drop()
    for _ in range(5):
        with pytest.raises(Died):
            harness.work()
        harness.restart()
    assert (harness.job().state, harness.job().attempts) == (JobState.QUEUED, 0)


def test_a_full_archive_keeps_the_original_and_the_result(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If only the original cannot be moved, the job stays done and the move is retried."""

    def refuse(source: Path, destination: Path) -> None:
        with resource_errors(destination):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("styled.delivery.publisher.durable_move", refuse)

    def repair() -> None:
        assert harness.states() == ["done"]
        assert harness.files("inbox") == ["photo.png"]
        if len(harness.waits) == 3:
            monkeypatch.undo()

    harness.on_wait = repair
    harness.drop()
    harness.work()
    assert harness.waits == [1, 2, 4]
    assert harness.engine.start_steps == [0]
    assert harness.files("archive") == ["oil/photo.png"]
    assert harness.files("inbox") == []


def test_a_missing_inbox_pauses_instead_of_cancelling(harness: JobHarness) -> None:
    """A missing inbox, for instance not mounted, pauses the queue and cancels no job."""
    harness.drop("one.png")
    harness.drop("two.png", picture("olive"))
    away = harness.base / "elsewhere"
    harness.config.inbox.rename(away)

    def mount() -> None:
        if len(harness.waits) == 2:
            away.rename(harness.config.inbox)

    harness.on_wait = mount
    seen: list[str] = []
    harness.engine.at_step = lambda step: seen.append(harness.journal.get_state()["activity"])
    harness.work()
    assert harness.waits == [1, 2]
    assert harness.states() == ["done", "done"]
    assert seen[-1] == "running"  # as soon as a photo could be read again


def test_an_inbox_that_is_back_at_once_cancels_no_job(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo that could not be read since its inbox was away for a moment is read again."""
    harness.drop()
    inbox, away = harness.config.inbox, harness.base / "elsewhere"
    require = harness.mounts.require

    def come_back(folder: Path) -> None:
        if away.exists():
            away.rename(inbox)
        require(folder)

    inbox.rename(away)
    monkeypatch.setattr(harness.mounts, "require", come_back)
    harness.work()
    assert harness.states() == ["done"]
    assert harness.files("archive") == ["oil/photo.png"]


def test_an_inbox_lost_while_painting_does_not_make_a_photo_come_twice(harness: JobHarness) -> None:
    """If the inbox is lost while painting, the original is moved later and not painted again."""
    away = harness.base / "elsewhere"

    def unmount(step: int) -> None:
        if step == 1:
            harness.config.inbox.rename(away)

    def mount() -> None:
        away.rename(harness.config.inbox)

    harness.engine.at_step = unmount
    harness.on_wait = mount
    harness.drop()
    harness.work()
    harness.rescan()
    harness.work()
    assert harness.states() == ["done"]
    assert harness.files("archive") == ["oil/photo.png"]


def break_journal(harness: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every write to the journal fail from now on."""

    def refuse() -> NoReturn:
        raise ResourceUnavailable("the journal can't be used: disk I/O error")

    monkeypatch.setattr(harness.journal, "transaction", refuse)


def test_waiting_for_an_engine_is_not_preparing(harness: JobHarness) -> None:
    """A photo that is prepared while another is painted waits for it: its sidecar says so."""
    harness.engine.at_step = lambda step: harness.advance(10)
    harness.drop("a.png")
    harness.drop("b.png")
    harness.work()
    first = harness.sidecar("outbox/oil/a.png.json")["timing"]
    second = harness.sidecar("outbox/oil/b.png.json")["timing"]
    assert second["prepare"] == first["prepare"] == 0.0
    assert second["waited"] >= first["optimise"] - 10.0 > 0.0


def test_a_turn_without_a_decision_does_not_lock_the_journal(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs that write to it would have to wait, and so would the turn."""
    harness.journal.set_state(**{PAUSE_REQUEST: NOW})
    harness.work()
    harness.drop()
    transaction, begun = harness.journal.transaction, []

    def noted() -> AbstractContextManager[sqlite3.Cursor]:
        begun.append(harness.now)
        return transaction()

    monkeypatch.setattr(harness.journal, "transaction", noted)
    harness.scheduler.turn([Wakeup()])
    assert begun == []
    assert harness.states() == ["queued"]


def test_a_journal_that_is_locked_for_long_stalls_nothing(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause may end while the scheduler waits for the lock: the job is claimed after that."""
    harness.work()
    harness.advance(10 * POLL_SECONDS)
    harness.drop()
    transaction = harness.journal.transaction
    attempts = iter([FIRST_PAUSE_SECONDS * 10, FIRST_PAUSE_SECONDS * 3])

    def wait_for_the_lock() -> AbstractContextManager[sqlite3.Cursor]:
        seconds = next(attempts, 0.0)
        harness.advance(seconds)
        if seconds == FIRST_PAUSE_SECONDS * 10:
            raise ResourceUnavailable("the journal can't be used: database is locked")
        return transaction()

    monkeypatch.setattr(harness.journal, "transaction", wait_for_the_lock)
    harness.work()
    assert next(attempts, None) is None
    assert harness.states() == ["done"]


@pytest.mark.parametrize("at", ["claim", "painting", "publishing"])
def test_a_journal_that_fails_is_tried_again(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines, at: str
) -> None:
    """Failed writes to the journal are retried, and nothing is done twice."""
    publish = harness.publisher.publish_sidecar

    def publish_last(path: Path, sidecar: Sidecar) -> None:
        publish(path, sidecar)
        break_journal(harness, monkeypatch)

    harness.drop()
    if at == "claim":
        break_journal(harness, monkeypatch)
    elif at == "painting":
        harness.engine.at_step = lambda step: (
            break_journal(harness, monkeypatch) if step == 2 and not harness.waits else None
        )
    else:
        monkeypatch.setattr(harness.publisher, "publish_sidecar", publish_last)

    def repair() -> None:
        if len(harness.waits) == 3:
            monkeypatch.undo()

    harness.on_wait = repair
    harness.work()
    assert harness.waits == [1, 2, 4]
    assert harness.states() == ["done"]
    assert harness.job().attempts == 1
    assert harness.engine.start_steps == [0]
    assert harness.files("archive") == ["oil/photo.png"]
    assert events(logs).count("queue.paused") == 3


def test_a_failed_claim_is_over_once_the_queue_is_found_empty(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """A pause ends with the first successful claim, even if the queue is empty."""

    def refuse(now: float, *, is_idle: bool) -> NoReturn:
        raise ResourceUnavailable("the journal can't be used: disk I/O error")

    monkeypatch.setattr(harness.journal, "claim", refuse)
    harness.on_wait = monkeypatch.undo
    harness.work()
    assert events(logs) == ["engine.ready", "queue.paused", "queue.resumed"]
    assert harness.journal.get_state()["activity"] == "running"


def test_a_stop_does_not_wait_for_the_journal(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop does not wait for a journal that cannot be written; the next start does the job."""
    harness.engine.at_step = lambda step: break_journal(harness, monkeypatch) if step == 2 else None
    harness.on_wait = harness.request_stop
    harness.drop()
    harness.work()
    assert harness.scheduler.is_over
    assert harness.waits == [1]
    monkeypatch.undo()
    harness.restart()
    harness.work()
    assert harness.states() == ["done"]


def test_a_stop_ends_a_pause_and_leaves_the_job_in_the_queue(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop during a pause does not wait for its end and counts no attempt."""
    FullDisk(harness, monkeypatch, pauses=99)
    harness.on_wait = harness.request_stop
    harness.drop()
    harness.work()
    assert harness.scheduler.is_over
    assert harness.waits == [1]
    assert (harness.job().state, harness.job().attempts) == (JobState.QUEUED, 0)


def test_jobs_of_a_dead_process_are_taken_up_again(harness: JobHarness, logs: LogLines) -> None:
    """Jobs that were running when the process died are requeued at the next start."""
    harness.drop()
    assert harness.journal.claim(harness.now) is not None
    harness.restart()
    assert harness.states() == ["queued"]
    assert "job.requeued_after_crash" in events(logs)
    harness.work()
    assert harness.states() == ["done"]
    assert harness.job().attempts == 2


def test_an_idle_scheduler_waits_in_the_queue_until_something_comes(harness: JobHarness) -> None:
    """An idle scheduler waits for events, and polls the journal once a second."""
    harness.work()
    assert harness.scheduler.seconds_to_wait() == POLL_SECONDS
    harness.drop()
    harness.work()
    assert harness.states() == ["done"]


def test_an_idle_scheduler_wakes_for_the_next_waiting_job(harness: JobHarness) -> None:
    """An idle scheduler wakes up when a waiting job is due."""
    image = harness.base / "styles/oil.png"
    image.rename(harness.base / "away.png")
    harness.drop()
    harness.work()
    (harness.base / "away.png").rename(image)
    harness.run_for(CONFIGURATION_RETRY_SECONDS - 2 * POLL_SECONDS)
    assert harness.states() == ["queued"]
    harness.run_for(2 * POLL_SECONDS)
    assert harness.states() == ["done"]


def test_a_stop_ends_the_work_after_the_present_job(harness: JobHarness) -> None:
    """After a stop request no further job is started."""
    harness.engine.at_step = lambda step: harness.request_stop()
    harness.drop("one.png")
    harness.drop("two.png", picture("olive"))
    harness.work()
    assert harness.scheduler.is_over
    assert harness.engine.start_steps == [0]
    assert harness.states() == ["queued", "queued"]


def test_finished_jobs_are_forgotten_in_time(harness: JobHarness, logs: LogLines) -> None:
    """Finished jobs are pruned at the start and after every `CLEANUP_AFTER_JOBS` jobs."""
    harness.history = JournalRetention(seconds=1e6, jobs=50)
    harness.restart()
    for number in range(2 * CLEANUP_AFTER_JOBS):
        harness.drop(f"{number}.png")
    harness.work()
    assert harness.journal.counts()[JobState.DONE] == 50
    assert len(harness.files("outbox")) == 4 * CLEANUP_AFTER_JOBS
    harness.advance(2e6)
    harness.restart()
    harness.work()
    assert JobState.DONE not in harness.journal.counts()
    assert [line["event"] for line in logs].count("jobs.pruned") == 3


def test_an_engine_gives_a_sign_of_life_at_every_step(harness: JobHarness) -> None:
    """An engine sends a heartbeat at each step, and an infinite idle time when it is idle."""
    harness.drop()
    harness.work()

    def idle_times() -> list[float]:
        return [idle_for for part, _, idle_for in harness.beats if part == "engine-0"]

    # Its thread reports the end of the job just before it becomes idle.
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while idle_times()[-1] != math.inf and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert idle_times()[-1] == math.inf
    assert idle_times().count(0.0) >= harness.engine.steps


def test_a_scheduler_runs_until_it_is_stopped(harness: JobHarness) -> None:
    """`Scheduler.run` works through the queue until a stop is requested."""
    harness.engine.on_sync = lambda: None
    harness.drop()
    thread = threading.Thread(target=harness.scheduler.run)
    thread.start()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while harness.states() != ["done"] and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    harness.request_stop()
    thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()
    assert harness.files("archive") == ["oil/photo.png"]
    # Before each wait it announced an idle time.
    idle_times = [idle_for for part, _, idle_for in harness.beats if part == "scheduler"]
    assert idle_times[-1] == 0.0
    assert 0.0 < max(idle_times) <= IDLE_SECONDS


def test_every_end_is_counted_with_what_it_took(harness: JobHarness) -> None:
    """The observer is called once for each ended job, with its steps and durations."""
    harness.engine.at_step = lambda step: harness.advance(2.0)
    harness.drop("one.png")
    harness.drop("bad.png", b"no picture")
    harness.work()
    rejected, done = harness.finished
    assert (done.state, done.failure, done.steps) == ("done", None, 3)
    assert done.phase_seconds["optimise"] == 6.0
    assert set(done.phase_seconds) == {"waited", "prepare", "optimise", "publish"}
    assert done.degraded == (STUB,)
    assert (rejected.state, rejected.failure, dict(rejected.phase_seconds)) == (
        "rejected",
        "input",
        {},
    )
    assert rejected.steps == 0
    assert harness.failed_attempts == []


def test_failed_attempts_are_counted(harness: JobHarness) -> None:
    """Each failed attempt that is followed by another is reported; the last one ends the job."""

    def fail(step: int) -> None:
        raise EngineFailure("it went astray")

    harness.engine.at_step = fail
    harness.drop()
    harness.work_and_wait()
    assert harness.failed_attempts == ["engine", "engine"]
    assert [(finished.state, finished.failure) for finished in harness.finished] == [
        ("rejected", "engine")
    ]


def test_tidying_gives_signs_of_life(harness: JobHarness) -> None:
    """The clean-up sends a heartbeat for each kept photo, because it may take long."""
    harness.configure("output", after_success="keep")
    for number in range(5):
        harness.drop(f"{number}.png")
    harness.work()
    beats: list[float] = []
    assert CleanupRequest(harness.context).run(beats.append) == (0, [])
    assert beats == [0.0] * 5


def test_a_photo_in_a_folder_of_somebody_else_stops_no_others(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """A photo that cannot be moved is painted, logged as stuck, and moved once permitted."""
    monkeypatch.setattr(Path, "rename", _forbidden_from("trip", Path.rename))
    monkeypatch.setattr(os, "access", lambda path, mode, **_: "inbox/trip" not in str(path))
    harness.drop("trip/a.png")
    harness.drop("z.png", picture("olive"))
    harness.work()
    assert harness.states() == ["done", "done"]
    assert harness.files("inbox") == ["trip/a.png"]
    (line,) = [line for line in logs if line["event"] == "input.stuck"]
    assert "trip may not be changed" in line["reason"]
    # Once the permission is restored it is moved, although no job is left.
    harness.run_for(FIRST_STUCK_SECONDS)
    assert harness.files("inbox") == ["trip/a.png"]
    monkeypatch.undo()
    harness.run_for(2 * FIRST_STUCK_SECONDS)
    assert harness.files("inbox") == []


def _forbidden_from(folder: str, rename: Callable[[Path, Path], Path]) -> object:
    def renaming(source: Path, destination: Path) -> Path:
        if folder in source.parts:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(source, destination)

    return renaming


@pytest.mark.parametrize(("blameless", "attempts"), [(False, 1), (True, 0)])
def test_who_died_of_something_else_is_not_blamed(
    harness: JobHarness, blameless: bool, attempts: int
) -> None:
    """After a blameless death, such as by the watchdog, no attempt is counted."""
    harness.drop()
    harness.journal.claim(harness.now)
    harness.scheduler.recover(is_blameless=blameless)
    assert (harness.states(), harness.job().attempts) == (["queued"], attempts)

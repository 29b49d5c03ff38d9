"""The scheduler: gives the worker one job at a time, and waits out what is nobody's fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.jobs.job import Job, JobState
from styled.jobs.journal import Journal
from styled.jobs.looking import FINISHED
from styled.jobs.protocols import Beat
from styled.jobs.worker import Worker, about

log = structlog.get_logger()

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
IDLE_SECONDS = 60.0
"""How long an idle scheduler sleeps at most; new jobs wake it at once."""

FIRST_STUCK_SECONDS = 30.0
LONGEST_STUCK_SECONDS = 600.0
"""How often an idle scheduler looks whether a photo may leave that could not so far: ever less
often, up to the longest, as long as it is the same ones."""

TIDIED_AFTER_JOBS = 200
"""After so many jobs those are forgotten that ended long ago, and what they were about."""


@dataclass(frozen=True, slots=True)
class History:
    """Which finished jobs are remembered.

    Attributes:
        seconds: For how long.
        jobs: How many at most.
    """

    seconds: float
    jobs: int


class Scheduler:
    """Claims jobs in the order of their arrival, until told to stop."""

    def __init__(
        self,
        journal: Journal,
        worker: Worker,
        *,
        stop: threading.Event,
        wake: threading.Event,
        history: History,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        beat: Beat = lambda rest_seconds: None,
        hang: Callable[[], bool] = lambda: False,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """Work through `journal` with `worker` until `stop` is set.

        After each job `hang` is called, see `Hanger.hang`; at the end `leave` is.

        Whoever submits a job, wants one cancelled or sets `stop` sets `wake` as well.
        """
        self._beat = beat
        self._hang = hang
        self._leave = leave
        self._history = history
        self._untidied = 0
        self._journal = journal
        self._worker = worker
        self._stop = stop
        self._now = now
        self._wake = wake
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._clock = clock
        self._stuck_seconds = FIRST_STUCK_SECONDS
        self._next_stuck_at = clock() + FIRST_STUCK_SECONDS

    def recover(self, *, blameless: bool = False) -> None:
        """Take up what an earlier process left behind.

        Args:
            blameless: It died of something else than the job that it was at.

        Raises:
            ResourceUnavailable: the journal can't be written.
        """
        for job in self._journal.recover(attempt_counts=not blameless):
            log.warning("job.recovered", job=job.id, input=readable(job.input), style=job.style)

    def tidy(self) -> None:
        """Let inputs leave the inbox whose jobs have ended; forget jobs that ended long ago.

        The former is a matter of course, except where an earlier process has been killed
        amid it, or where an input that was kept has been taken away since.
        """
        self._untidied = 0
        self._worker.finish_publishing()
        while not self._stop.is_set():
            try:
                for job in self._journal.finished_in_inbox():
                    if self._stop.is_set():
                        return
                    self._beat(0.0)
                    self._worker.retire(job, again=True)
                before = self._now() - self._history.seconds
                if forgotten := self._journal.prune(before=before, keep=self._history.jobs):
                    log.info("jobs.forgotten", count=forgotten)
                self._resumed()
                return
            except ResourceUnavailable as error:
                self._pause(error)

    def run(self) -> None:
        """Work until stopped, and until what has been painted is published.

        Raises:
            DeviceLost: the process has to be restarted.
        """
        try:
            self._work()
        finally:
            self._worker.finish_publishing()
            self._see_to_held_up()
            self._leave()

    def _work(self) -> None:
        self.tidy()
        while not self._stop.is_set():
            if self.run_one():
                self._untidied += 1
                if self._untidied >= TIDIED_AFTER_JOBS:
                    self.tidy()
                self._hang_what_has_ended()
            elif not self._hang_what_has_ended():
                seconds = self._seconds_until_due()
                if self._worker.stuck:
                    seconds = min(seconds, max(0.0, self._next_stuck_at - self._clock()))
                self._beat(seconds)
                self._wake.wait(seconds)
                self._wake.clear()
                if self._worker.stuck and self._clock() >= self._next_stuck_at:
                    self._retry_stuck()

    def _retry_stuck(self) -> None:
        """See whether inputs may leave the inbox that could not."""
        before = set(self._worker.stuck)
        try:
            self._worker.retry_stuck()
        except ResourceUnavailable as error:
            self._pause(error)
        is_same = before == set(self._worker.stuck)
        wait = min(2 * self._stuck_seconds, LONGEST_STUCK_SECONDS)
        self._stuck_seconds = wait if is_same else FIRST_STUCK_SECONDS
        self._next_stuck_at = self._clock() + self._stuck_seconds

    def _hang_what_has_ended(self) -> bool:
        self._beat(0.0)
        try:
            return self._hang()
        except ResourceUnavailable:
            return False  # the journal: the next job says more about it

    def run_one(self) -> bool:
        """Claim one job and do it; return whether there was one.

        Raises:
            DeviceLost: as `run`.
        """
        self._beat(0.0)
        if self._see_to_held_up():
            return True
        try:
            self._worker.cancel_what_waits()
            job = self._journal.claim(self._now())
        except ResourceUnavailable as error:
            self._untidied = TIDIED_AFTER_JOBS  # whatever has ended may not have left
            self._pause(error)
            return True
        if job is None:
            if self._worker.gets_on():
                self._resumed()
            return False
        with about(job):
            log.info("job.claimed", attempt=job.attempts)
            try:
                self._worker.work(job)
                if self._worker.gets_on():
                    self._resumed()
            except ResourceUnavailable as error:
                self._sit_out(job, error)
        return True

    def _see_to_held_up(self) -> bool:
        """Put jobs back that could not be published, and pause; tell whether there were any."""
        held_up = self._worker.held_up()
        for job, error in held_up:
            with about(job):
                self._sit_out(job, error)
        return bool(held_up)

    def _sit_out(self, job: Job, error: ResourceUnavailable) -> None:
        """Put a job back and pause; or, if it had already ended, let its input leave.

        It is put back before the pause: whoever kills the process during a long one must
        not make it look as if the job had killed it.
        """
        paused = False
        while True:
            try:
                present = self._journal.job(job.id)
                if present is not None and present.state is JobState.RUNNING:
                    self._journal.put_back(present, attempt_counts=False)
                elif present is not None and present.state in FINISHED and paused:
                    self._worker.retire(present)
                    self._resumed()
                if paused:
                    return
            except ResourceUnavailable as another:
                error = another
            self._pause(error)
            paused = True
            if self._stop.is_set():
                return  # the next start finds the job as it is

    def _pause(self, error: ResourceUnavailable) -> None:
        log.error(
            "queue.paused",
            reason=error.message,
            remedies=list(error.remedies),
            retry_seconds=self._pause_seconds,
        )
        self._say(f"paused: {error.message}")
        self._beat(self._pause_seconds)
        self._stop.wait(self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, LONGEST_PAUSE_SECONDS)

    def _resumed(self) -> None:
        if self._pause_seconds > FIRST_PAUSE_SECONDS:
            log.info("queue.resumed")
            self._say("running")
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def _say(self, state: str) -> None:
        # The journal itself may be what is missing; the log has said so already.
        with suppress(ResourceUnavailable):
            self._journal.write_daemon(state=state)

    def _seconds_until_due(self) -> float:
        try:
            due = self._journal.next_due()
        except ResourceUnavailable:
            return FIRST_PAUSE_SECONDS
        return IDLE_SECONDS if due is None else min(max(0.0, due - self._now()), IDLE_SECONDS)

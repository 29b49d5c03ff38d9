"""The thread beside the engine's, which publishes the last picture and reads the next.

It does its tasks in the order in which they come, one at a time, on a single core: two threads
that both compute on all cores take turns at each small operation, and a step would take half as
long again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from styled.errors import ResourceUnavailable
from styled.jobs.job import Job
from styled.jobs.protocols import Beat

Result = TypeVar("Result")

ON_LEAVE_SECONDS = 1e9
"""How long it may give no sign of life while there is nothing to do: for ever."""

LOOK_SECONDS = 1.0
"""How often whoever waits for a task gives a sign of life."""


class Backstage:
    """One thread, started by the thread that computes."""

    NAME = "backstage"

    def __init__(self, beat: Beat = lambda rest_seconds: None) -> None:
        """Start the thread, which calls `beat` as a sign of life at each task."""
        self._beat = beat
        self._tasks: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._is_ready = threading.Event()
        threads = torch.get_num_threads()
        threading.Thread(target=self._work, name=self.NAME, daemon=True).start()
        self._is_ready.wait()
        # The other thread has set what new threads are given, too; this one keeps its own.
        torch.set_num_threads(threads)

    def do(self, task: Callable[[], Result]) -> Future[Result]:
        """Have `task` done after all that is being done; its outcome is the future's."""
        future: Future[Result] = Future()
        self._tasks.put((task, future))
        return future

    def close(self) -> None:
        """Have the thread end after all that is being done; nobody waits for it."""
        self._tasks.put(None)

    def _work(self) -> None:
        torch.get_num_threads()  # what is set before this first look does not last
        torch.set_num_threads(1)
        self._is_ready.set()
        while (present := self._tasks.get()) is not None:
            task, future = present
            if future.set_running_or_notify_cancel():
                self._beat(0.0)
                try:
                    future.set_result(task())
                except BaseException as error:  # noqa: BLE001  # whoever asked raises it again
                    future.set_exception(error)
                self._beat(ON_LEAVE_SECONDS)
            del present, task, future  # they hold pictures


class HandOver:
    """Hands pictures over to be published while the next is painted; one waits at most."""

    def __init__(self, backstage: Backstage, beat: Beat, wake: Callable[[], None]) -> None:
        """Have `backstage` publish, calling `beat` while waiting and `wake` at each end."""
        self._backstage = backstage
        self._beat = beat
        self._wake = wake
        self._publishing: tuple[Job, Future[None]] | None = None
        self._has_succeeded = False
        self._held_up: list[tuple[Job, ResourceUnavailable]] = []

    def give(self, job: Job, publish: Callable[[], None]) -> None:
        """Have a job published, once the one before has been.

        Raises:
            whatever the one before has raised, except ResourceUnavailable: see `held_up`.
        """
        self.finish()
        published = self._backstage.do(publish)
        published.add_done_callback(lambda _: self._wake())
        self._publishing = job, published

    def finish(self) -> None:
        """Wait until nothing is being published. Raises as `give`."""
        while self._publishing is not None:
            self._beat(0.0)
            self._collect(LOOK_SECONDS)

    def gets_on(self) -> bool:
        """Tell, once, whether something has been published, or nothing has to be."""
        has_succeeded, self._has_succeeded = self._has_succeeded, False
        return has_succeeded or self._publishing is None

    def held_up(self) -> list[tuple[Job, ResourceUnavailable]]:
        """Return, once, the jobs that could not be published, and why. Raises as `give`."""
        self._collect(0.0)
        held_up, self._held_up = self._held_up, []
        return held_up

    def _collect(self, within_seconds: float) -> None:
        if self._publishing is None:
            return
        job, published = self._publishing
        try:
            error = published.exception(within_seconds)
        except NotYet:
            return
        self._publishing = None
        if isinstance(error, ResourceUnavailable):
            self._held_up.append((job, error))
        elif error is not None:
            raise error
        else:
            self._has_succeeded = True

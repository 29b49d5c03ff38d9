"""Threads for what is read, decoded, encoded and written beside painting.

Each has one torch thread: two threads that both compute on all cores take turns at each small
operation, and a step of the engine would take half as long again.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, ClassVar, Protocol

import structlog

from styled.errors import StyledError, UnexpectedError
from styled.jobs.job_log import job_log_context
from styled.jobs.protocols import Beat, Heartbeats

log = structlog.get_logger()


class IoRequest(Protocol):
    """Work for the pool, with all that it needs.

    Attributes:
        part: What the heartbeats call a thread that works on it, with the thread's number.
    """

    part: ClassVar[str]

    @property
    def log_context(self) -> dict[str, str]:
        """What each line of the log says about it."""

    def run(self, beat: Beat) -> Any:
        """Do it; raise StyledError where it can't be done.

        Args:
            beat: To be called with how many seconds may pass until the next sign of life, where
                that takes long.
        """


@dataclass(frozen=True, slots=True)
class IoDone:
    """A request is done.

    Attributes:
        result: What `run` has returned.
        error: What it has raised instead.
    """

    request: Any
    result: Any = None
    error: StyledError | None = None


class IoPool(Protocol):
    """Does requests; each ends in an `IoDone` event."""

    def submit(self, request: IoRequest) -> None:
        """Have a request done."""

    def close(self) -> None:
        """Begin nothing more, and wait for nothing."""


class ThreadIoPool:
    """The pool of a daemon."""

    def __init__(self, threads: int, events: SimpleQueue[Any], heartbeats: Heartbeats) -> None:
        """Work in so many threads; put the events into `events`."""
        self._events = events
        self._heartbeats = heartbeats
        self._executor = ThreadPoolExecutor(
            threads, thread_name_prefix="io", initializer=_use_one_torch_thread
        )

    def submit(self, request: IoRequest) -> None:
        """Have a request done by the first thread that is free."""
        self._executor.submit(self._do, request)

    def close(self) -> None:
        """Begin nothing more, and wait for nothing."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _do(self, request: IoRequest) -> None:
        part = f"{request.part}-{threading.current_thread().name.rpartition('_')[2]}"

        def beat(rest_seconds: float) -> None:
            self._heartbeats.beat(part, rest_seconds)

        beat(0.0)
        done = do(request, beat)
        beat(math.inf)
        self._events.put(done)


class InlineIoPool:
    """Does each request at once, in the caller's thread: for tests of the same code path."""

    def __init__(self, events: SimpleQueue[Any]) -> None:
        """Put the events into `events`."""
        self._events = events

    def submit(self, request: IoRequest) -> None:
        """Do a request."""
        self._events.put(do(request, lambda rest_seconds: None))

    def close(self) -> None:
        """Do nothing: nothing is left to be done."""


def do(request: IoRequest, beat: Beat) -> IoDone:
    """Do a request, and return what came of it."""
    with job_log_context(request.log_context):
        try:
            return IoDone(request, request.run(beat))
        except StyledError as error:
            return IoDone(request, error=error)
        # Whatever an image provokes must end its job, not the daemon and all other jobs.
        except Exception as error:
            log.exception("io.crashed")
            return IoDone(request, error=UnexpectedError.of(error))


def _use_one_torch_thread() -> None:
    import torch

    torch.get_num_threads()  # what is set before this first look does not last
    torch.set_num_threads(1)

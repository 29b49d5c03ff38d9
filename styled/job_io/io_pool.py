"""Threads that read, decode, encode and write files while engines paint.

Each uses one torch thread. With two OpenMP pools on the same cores, the threads take turns at each
small operation, and a step of the engine takes 1.4 times as long.
"""

from __future__ import annotations

import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, ClassVar, Protocol

import structlog

from styled.errors import StyledError, UnexpectedError
from styled.job_io.job_log import job_log_context
from styled.job_io.protocols import HeartbeatsProtocol, SendHeartbeat

log = structlog.get_logger()


class IoRequest(Protocol):
    """A task for the pool, with everything that it needs.

    Attributes:
        part: The thread's name in the heartbeats, to which the thread's number is appended.
    """

    part: ClassVar[str]

    @property
    def log_context(self) -> dict[str, str]:
        """Keys that are added to each log line."""

    def run(self, heartbeat: SendHeartbeat) -> Any:
        """Execute the request.

        Args:
            heartbeat: If the request takes long, to be called with the maximum number of seconds
                until the next call or the end.

        Raises:
            StyledError: the request has failed.
        """


@dataclass(frozen=True, slots=True)
class IoDone:
    """A request has ended.

    Attributes:
        request: The `IoRequest`.
        result: The return value of `run`.
        error: The exception that `run` has raised; None if it has returned.
    """

    request: Any
    result: Any = None
    error: StyledError | None = None


class IoPool(Protocol):
    """Executes requests, and posts an `IoDone` event for each.

    Attributes:
        threads: Maximum number of requests that are executed at the same time.
    """

    threads: int

    def submit(self, request: IoRequest) -> None:
        """Queue a request."""

    def close(self) -> None:
        """Start no more requests; does not wait for running ones."""


class ThreadIoPool:
    """The daemon's pool: a `ThreadPoolExecutor`."""

    def __init__(
        self, threads: int, events: SimpleQueue[Any], heartbeats: HeartbeatsProtocol
    ) -> None:
        """Execute requests in `threads` threads, and post `IoDone` events to `events`."""
        self.threads = threads
        self._events = events
        self._heartbeats = heartbeats
        self._executor = ThreadPoolExecutor(
            threads, thread_name_prefix="io", initializer=_use_one_torch_thread
        )

    def submit(self, request: IoRequest) -> None:
        """Queue a request for the first free thread."""
        self._executor.submit(self._do, request)

    def close(self) -> None:
        """Drop queued requests; does not wait for running ones."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _do(self, request: IoRequest) -> None:
        part = f"{request.part}-{threading.current_thread().name.rpartition('_')[2]}"

        def heartbeat(idle_for: float) -> None:
            self._heartbeats.beat(part, idle_for)

        heartbeat(0.0)
        done = do(request, heartbeat)
        heartbeat(math.inf)
        self._events.put(done)


class InlineIoPool:
    """Executes each request at once in the caller's thread: for tests of the same code path."""

    threads = sys.maxsize  # no request ever waits

    def __init__(self, events: SimpleQueue[Any]) -> None:
        """Post `IoDone` events to `events`."""
        self._events = events

    def submit(self, request: IoRequest) -> None:
        """Execute a request."""
        self._events.put(do(request, lambda idle_for: None))

    def close(self) -> None:
        """Do nothing: no request is queued."""


def do(request: IoRequest, heartbeat: SendHeartbeat) -> IoDone:
    """Execute a request; any exception is returned in `IoDone.error`."""
    with job_log_context(request.log_context):
        try:
            return IoDone(request, request.run(heartbeat))
        except StyledError as error:
            return IoDone(request, error=error)
        # An unexpected error, for instance in a decoder, must end one job, not the daemon. If a
        # library raised SystemExit, the task would end without an event, and the job would hang.
        except (Exception, SystemExit) as error:
            log.exception("io.internal_error")
            return IoDone(request, error=UnexpectedError.of(error))


def _use_one_torch_thread() -> None:
    import torch

    torch.get_num_threads()  # the first call resets a number that was set before it
    torch.set_num_threads(1)

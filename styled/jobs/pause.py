"""A pause of the queue: a deadline, twice as far away after each failure in a row."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from styled.errors import StyledError

log = structlog.get_logger()

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class Pauses:
    """Whether the queue is paused, until when, and why.

    Attributes:
        reason: Of the last pause, as long as nothing has succeeded since.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Not paused."""
        self._clock = clock
        self._until = clock()
        self._next_seconds = FIRST_PAUSE_SECONDS
        self._causes: set[type] = set()
        self.reason: str | None = None

    @property
    def is_paused(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._clock() < self._until

    @property
    def until(self) -> float:
        """When it ends, by the clock that measures."""
        return self._until

    def pause(self, error: StyledError, cause: object) -> None:
        """Pause because of an error that would hit any job; ever longer in a row.

        Args:
            error: What has happened.
            cause: What has failed: a success of something else of its type ends the trouble.
        """
        self._causes.add(type(cause))
        if self.is_paused:
            return  # several jobs met the same trouble
        log.error(
            "queue.paused", reason=error.message, remedies=list(error.remedies),
            retry_seconds=self._next_seconds,
        )  # fmt: skip
        self.reason = error.message
        self._until = self._clock() + self._next_seconds
        self._next_seconds = min(2 * self._next_seconds, LONGEST_PAUSE_SECONDS)

    def succeeded(self, what: object) -> None:
        """Something has succeeded: if it was the last that had failed, the trouble is over."""
        if type(what) in self._causes:
            self._causes.discard(type(what))
            if not self._causes:
                self.resume()

    def resume(self) -> None:
        """The trouble is over."""
        if self.reason is not None:
            log.info("queue.resumed")
        self.reason = None
        self._causes.clear()
        self._until = self._clock()
        self._next_seconds = FIRST_PAUSE_SECONDS

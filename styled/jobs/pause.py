"""Pauses of the queue with exponential back-off; a pause is a deadline, not a sleep."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from styled.errors import StyledError

log = structlog.get_logger()

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0


class Pauses:
    """Whether the queue is paused, until when, and why.

    Attributes:
        reason: Of the last pause; None once the operations that had failed have succeeded.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start without a pause.

        Args:
            clock: Monotonic, in seconds.
        """
        self._clock = clock
        self._until = clock()
        self._next_seconds = FIRST_PAUSE_SECONDS
        self._causes: set[type] = set()
        self.reason: str | None = None

    @property
    def is_paused(self) -> bool:
        """Whether nothing new may be started."""
        return self._clock() < self._until

    @property
    def until(self) -> float:
        """When the pause ends, in seconds of the clock."""
        return self._until

    def pause(self, error: StyledError, cause: object) -> None:
        """Pause because of an error that would affect any job; consecutive pauses get longer.

        Args:
            error: The error.
            cause: The request or object that has failed. The problem is over when one of the same
                type has succeeded.
        """
        self._causes.add(type(cause))
        if self.is_paused:
            return  # several jobs have failed for the same reason
        log.error(
            "queue.paused", reason=error.message, remedies=list(error.remedies),
            retry_seconds=self._next_seconds,
        )  # fmt: skip
        self.reason = error.message
        self._until = self._clock() + self._next_seconds
        self._next_seconds = min(2 * self._next_seconds, MAX_PAUSE_SECONDS)

    def succeeded(self, cause: object) -> None:
        """Remove a type of cause that has succeeded; resume if no other type is left."""
        if type(cause) in self._causes:
            self._causes.discard(type(cause))
            if not self._causes:
                self.resume()

    def resume(self) -> None:
        """End the pause and reset the back-off."""
        if self.reason is not None:
            log.info("queue.resumed")
        self.reason = None
        self._causes.clear()
        self._until = self._clock()
        self._next_seconds = FIRST_PAUSE_SECONDS

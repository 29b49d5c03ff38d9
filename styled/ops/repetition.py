"""Saying the same thing once a minute, however often it happens."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import structlog
from structlog.typing import EventDict, WrappedLogger

REPEATED_AFTER_SECONDS = 60.0

MOST_REMEMBERED = 1000
"""So many different lines are remembered; the oldest make room for others."""

_OF_SOMETHING = frozenset({"job", "path", "reason", "exc_info"})
_MEASURED = ("seconds", "_seconds", "timestamp")


class Repetition:
    """A processor that drops a line which has been said about the same thing a moment ago.

    Such as that a disk is still full, or that a photo still waits for its rest. Two lines are
    the same if they differ in durations alone. Lines that are about nothing in particular,
    like that one photo has arrived, are all different events, and are never dropped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Measure by `clock`."""
        self._clock = clock
        self._said: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Return the event, with how often it was dropped meanwhile.

        Raises:
            DropEvent: it was said less than a minute ago.
        """
        if _OF_SOMETHING.isdisjoint(event):
            return event
        key = repr(
            sorted((name, str(value)) for name, value in event.items() if not _is_measured(name))
        )
        now = self._clock()
        said_at, dropped = self._said.get(key, (None, 0))
        if said_at is not None and now - said_at < REPEATED_AFTER_SECONDS:
            self._said[key] = (said_at, dropped + 1)
            raise structlog.DropEvent
        self._said[key] = (now, 0)
        self._said.move_to_end(key)
        if len(self._said) > MOST_REMEMBERED:
            self._said.popitem(last=False)
        if dropped:
            event["repeated"] = dropped
        return event


def _is_measured(name: str) -> bool:
    return name.endswith(_MEASURED)

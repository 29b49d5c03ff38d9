"""Saying the same thing once a minute, however often it happens."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog
from structlog.typing import EventDict, WrappedLogger

REPEATED_AFTER_SECONDS = 60.0

MOST_REMEMBERED = 20_000
"""So many different lines are remembered; the oldest make room for others."""

REPEATING = frozenset(
    {"job.claimed", "job.started", "job.resumed", "job.waits", "queue.paused", "input.stuck",
     "folder.skipped", "intake.crashed", "checkpoint.failed", "checkpoint.ignored",
     "library.logged", "gallery.failed", "frame.failed"}
)  # fmt: skip
"""Events that come again for as long as something is as it is.

All others tell of a change or of what somebody did, and are never left out: the second time
that a disk is gone is news, if it was there meanwhile.
"""

_MEASURED = ("seconds", "timestamp")


class Repetition:
    """A processor that drops a line which has been said about the same thing a moment ago.

    Such as that a disk is still full, or that a photo still waits for its rest. Two lines are
    the same if they differ in durations alone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Measure by `clock`."""
        self._clock = clock
        self._said: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Return the event, with how often it was dropped meanwhile.

        Raises:
            DropEvent: it was said less than a minute ago.
        """
        if event.get("event") not in REPEATING:
            return event
        key = _key(event)
        now = self._clock()
        with self._lock:
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


def _key(event: EventDict) -> str:
    said = [(name, str(value)) for name, value in event.items() if not name.endswith(_MEASURED)]
    if event.get("exc_info") is True:
        said.append(("exception", repr(sys.exc_info()[1])))
    return repr(sorted(said))

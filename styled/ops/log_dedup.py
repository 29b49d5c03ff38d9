"""Drops repeated log lines: the same line is logged at most once a minute."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog
from structlog.typing import EventDict, WrappedLogger

REPEATED_AFTER_SECONDS = 60.0

MAX_REMEMBERED = 20_000
"""Maximum number of different lines that are remembered; the oldest are evicted."""

REPEATING = frozenset(
    {"job.claimed", "job.painting_started", "job.resumed", "job.postponed", "queue.paused",
     "input.stuck", "path.skipped", "intake.internal_error", "checkpoint.failed",
     "checkpoint.ignored",
     "library.logged", "gallery.failed", "frame.failed"}
)  # fmt: skip
"""Events that recur for as long as a condition persists.

All other events report a change or an action, and are never dropped: that a disk is gone for the
second time is news if it was there in between.
"""

_MEASURED = ("seconds", "timestamp")


class DropRepeats:
    """A structlog processor that drops an event which was logged less than a minute ago.

    For instance that a disk is still full, or that a photo is still incomplete. Two events are the
    same if they differ only in durations.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Measure time by `clock`, in monotonic seconds."""
        self._clock = clock
        self._logged: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Return the event, with the number of repetitions dropped meanwhile as `repeated`.

        Raises:
            DropEvent: the same event was logged less than a minute ago.
        """
        if event.get("event") not in REPEATING:
            return event
        key = _key(event)
        now = self._clock()
        with self._lock:
            logged_at, dropped = self._logged.get(key, (None, 0))
            if logged_at is not None and now - logged_at < REPEATED_AFTER_SECONDS:
                self._logged[key] = (logged_at, dropped + 1)
                raise structlog.DropEvent
            self._logged[key] = (now, 0)
            self._logged.move_to_end(key)
            if len(self._logged) > MAX_REMEMBERED:
                self._logged.popitem(last=False)
        if dropped:
            event["repeated"] = dropped
        return event


def _key(event: EventDict) -> str:
    items = [(name, str(value)) for name, value in event.items() if not name.endswith(_MEASURED)]
    if event.get("exc_info") is True:
        items.append(("exception", repr(sys.exc_info()[1])))
    return repr(sorted(items))

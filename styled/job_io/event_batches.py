"""How the scheduler takes events from its queue: many at once while there is a backlog.

Each turn of the scheduler costs a durable commit, and wakes a thread that competes with the I/O
threads for Python's interpreter lock. While requests wait for an I/O thread anyway, their events
can wait for a moment too; this is what `commit_delay` does in PostgreSQL.
"""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from typing import TypeVar

Event = TypeVar("Event")

EVENTS_AT_ONCE = 500
"""Maximum number of events that one turn of the scheduler handles."""

COLLECTING_SECONDS = 0.01
"""How long events are collected while there is a backlog. With 64 engines, a quarter more jobs are
done per second than without it; a longer time gains little."""


def take_events(
    queue: SimpleQueue[Event], seconds: float, *, has_backlog: bool = False
) -> list[Event]:
    """Wait for an event; return it and those that are in the queue by then.

    Args:
        queue: The queue.
        seconds: Maximum time to wait for the first event.
        has_backlog: Whether to collect events for `COLLECTING_SECONDS` after the first one.
    """
    events: list[Event] = []
    try:
        events.append(queue.get(block=seconds > 0, timeout=seconds))
        if has_backlog:
            time.sleep(COLLECTING_SECONDS)
        while len(events) < EVENTS_AT_ONCE:
            events.append(queue.get_nowait())
    except Empty:
        pass
    return events

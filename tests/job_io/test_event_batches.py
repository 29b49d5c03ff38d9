"""Events that the scheduler handles in one turn."""

from __future__ import annotations

import os
import threading
import time
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from styled.job_io import event_batches
from styled.job_io.event_batches import COLLECTING_SECONDS, EVENTS_AT_ONCE, take_events
from styled.jobs import scheduler as scheduler_module
from styled.jobs.events import StopRequested
from tests.job_harness import (
    TIMEOUT_SECONDS,
    Dropped,
    JobHarness,
    OneEngine,
    picture,
    threaded_scheduler,
)


def queue_of(*events: int) -> SimpleQueue[int]:
    queue: SimpleQueue[int] = SimpleQueue()
    for event in events:
        queue.put(event)
    return queue


def test_all_events_of_the_queue_are_taken() -> None:
    """There is a limit, so that heartbeats are sent."""
    assert take_events(queue_of(), 0.0) == []
    assert take_events(queue_of(), 0.01) == []
    assert take_events(queue_of(1, 2), TIMEOUT_SECONDS) == [1, 2]
    assert len(take_events(queue_of(*range(EVENTS_AT_ONCE + 1)), 0.0)) == EVENTS_AT_ONCE


def test_with_a_backlog_events_are_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come within the time after the first one; none are waited for before it."""
    queue = queue_of()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        queue.put(2)

    monkeypatch.setattr(event_batches, "time", SimpleNamespace(sleep=sleep))
    assert take_events(queue, 0.01, has_backlog=True) == []
    queue.put(1)
    assert take_events(queue, TIMEOUT_SECONDS, has_backlog=True) == [1, 2]
    assert waits == [COLLECTING_SECONDS]
    queue.put(1)
    assert take_events(queue, TIMEOUT_SECONDS) == [1]


def test_events_are_collected_if_requests_wait_for_a_thread(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is while many engines need photos, and no longer when these are painted."""
    engines = (os.cpu_count() or 1) + 8
    turns: list[tuple[float, bool]] = []
    original = take_events

    def spy(queue: SimpleQueue[object], seconds: float, *, has_backlog: bool) -> list[object]:
        turns.append((seconds, has_backlog))
        return original(queue, seconds, has_backlog=has_backlog)

    monkeypatch.setattr(scheduler_module, "take_events", spy)
    harness.engines = [type(harness.engine)() for _ in range(engines)]
    factories = [OneEngine(engine, can_replace=False) for engine in harness.engines]
    scheduler, slots, events = threaded_scheduler(harness, factories)
    arrivals = []
    for number in range(engines):
        path = harness.drop(f"{number}.png", picture(size=(40 + number, 36)))
        stat = path.stat()
        arrivals.append(Dropped(path.name, stat.st_size, stat.st_mtime_ns, {"oil": path.name}))
    harness.journal.submit(arrivals, 1.0)
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (harness.files("inbox") or scheduler.is_busy) and time.monotonic() < deadline:
        time.sleep(0.01)
    events.put(StopRequested())
    thread.join(TIMEOUT_SECONDS)
    assert all(slot.join(TIMEOUT_SECONDS) for slot in slots)
    assert harness.states() == ["done"] * len(arrivals)
    assert any(has_backlog for _, has_backlog in turns)
    assert not any(has_backlog for seconds, has_backlog in turns if seconds == 0), "work is due"
    assert not turns[-1][1]

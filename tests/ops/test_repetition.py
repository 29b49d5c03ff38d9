"""Lines that are said once a minute, on a clock that the tests turn."""

from __future__ import annotations

import pytest
import structlog
from structlog.typing import EventDict

from styled.ops.repetition import MOST_REMEMBERED, REPEATED_AFTER_SECONDS, Repetition


class Log:
    """A log on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self._repetition = Repetition(lambda: self.now)

    def say(self, event: str, **values: object) -> EventDict | None:
        """Return what is left of an event, None if it is dropped."""
        try:
            return self._repetition(None, "warning", {"event": event, **values})
        except structlog.DropEvent:
            return None


@pytest.fixture
def log() -> Log:
    return Log()


def test_what_is_said_again_within_a_minute_is_dropped(log: Log) -> None:
    """At once, and until the minute is over; the first line is as it was."""
    assert log.say("queue.paused", reason="full") == {"event": "queue.paused", "reason": "full"}
    assert log.say("queue.paused", reason="full") is None
    log.now = REPEATED_AFTER_SECONDS - 0.1
    assert log.say("queue.paused", reason="full") is None
    log.now = REPEATED_AFTER_SECONDS
    assert log.say("queue.paused", reason="full") is not None


def test_a_line_tells_how_often_it_was_dropped(log: Log) -> None:
    """Counted since it was said last, and only where it was."""
    for _ in range(4):
        log.say("job.waits", job="4a")
    log.now = 60.0
    assert log.say("job.waits", job="4a") == {"event": "job.waits", "job": "4a", "repeated": 3}
    log.now = 90.0
    assert log.say("job.waits", job="4a") is None
    log.now = 120.0
    assert log.say("job.waits", job="4a") == {"event": "job.waits", "job": "4a", "repeated": 1}
    log.now = 240.0
    assert log.say("job.waits", job="4a") == {"event": "job.waits", "job": "4a"}


def test_what_happens_every_second_is_said_every_minute(log: Log) -> None:
    """The minute counts from when it was said, not from when it was dropped last."""
    said = {}
    for second in range(200):
        log.now = float(second)
        event = log.say("checkpoint.failed", reason="full")
        if event is not None:
            said[second] = event.get("repeated")
    assert said == {0: None, 60: 59, 120: 59, 180: 59}


def test_a_change_is_told_each_time(log: Log) -> None:
    """A disk that comes and goes ends up gone in the log if it is gone."""
    for _ in range(3):
        assert log.say("inbox.unavailable", reason="gone") is not None
        assert log.say("inbox.recovered") is not None


def test_another_exception_is_another_line(log: Log) -> None:
    """What went wrong counts, even where the line says no more than that something did."""

    def crashed(error: Exception) -> bool:
        try:
            raise error
        except (ValueError, KeyError):
            return log.say("intake.crashed", exc_info=True) is not None

    told = [crashed(error) for error in (ValueError("a"), ValueError("a"), KeyError("a"))]
    assert told == [True, False, True]


def test_events_about_nothing_in_particular_are_never_dropped(log: Log) -> None:
    """A hundred photos that arrive are a hundred lines, even if these look the same."""
    for _ in range(100):
        assert log.say("jobs.submitted", count=1) == {"event": "jobs.submitted", "count": 1}
    log.now = 60.0
    assert log.say("jobs.submitted", count=1) == {"event": "jobs.submitted", "count": 1}


@pytest.mark.parametrize("measured", ["seconds", "retry_seconds", "waited_seconds", "timestamp"])
def test_durations_are_no_difference(log: Log, measured: str) -> None:
    """Else a pause that gets longer each time would be said each time."""
    assert log.say("queue.paused", reason="full", **{measured: 1.0}) is not None
    assert log.say("queue.paused", reason="full", **{measured: 2.0}) is None
    log.now = 60.0
    again = log.say("queue.paused", reason="full", **{measured: 4.0})
    assert again is not None
    assert (again[measured], again["repeated"]) == (4.0, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"event": "queue.resumed"},
        {"level": "error"},
        {"reason": "read-only"},
        {"job": "4b"},
        {"attempt": 2},
        {"remedies": ["free some space", "wait"]},
        {"more": 1},
    ],
    ids=lambda other: str(next(iter(other))),
)
def test_any_other_difference_makes_another_line(log: Log, other: dict[str, object]) -> None:
    """What is said about another job, or with other words, is news."""
    values: dict[str, object] = {
        "event": "queue.paused", "level": "warning", "reason": "full", "job": "4a", "attempt": 1,
        "remedies": ["free some space"],
    }  # fmt: skip
    assert log.say(**values) is not None  # type: ignore[arg-type]  # event is a string
    assert log.say(**{**values, **other}) is not None  # type: ignore[arg-type]
    assert log.say(**values) is None  # type: ignore[arg-type]


def test_the_order_of_keys_is_no_difference(log: Log) -> None:
    """Bound values may come first or last."""
    assert log.say("job.waits", job="4a", reason="early") is not None
    assert log.say("job.waits", reason="early", job="4a") is None


def test_memory_is_bounded(log: Log) -> None:
    """However many different lines there are, only the latest are remembered."""
    many = 5 * MOST_REMEMBERED
    for number in range(many):
        assert log.say("folder.skipped", path=number) is not None
    latest = range(many - MOST_REMEMBERED, many)
    assert all(log.say("folder.skipped", path=number) is None for number in latest)
    oldest = range(many - MOST_REMEMBERED)
    assert all(log.say("folder.skipped", path=number) is not None for number in oldest)


def test_what_is_said_again_is_remembered_longer(log: Log) -> None:
    """Room is made by what has not been said for the longest time."""
    log.say("queue.paused", reason="full")
    for number in range(MOST_REMEMBERED - 1):
        log.say("folder.skipped", path=number)
    log.now = 60.0
    assert log.say("queue.paused", reason="full") is not None
    assert log.say("folder.skipped", path="one more") is not None
    assert log.say("queue.paused", reason="full") is None

"""Log lines that are logged at most once a minute, on a simulated clock."""

from __future__ import annotations

import pytest
import structlog
from structlog.typing import EventDict

from styled.ops.log_dedup import MAX_REMEMBERED, REPEATED_AFTER_SECONDS, DropRepeats


class Log:
    """A log with a simulated clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self._processor = DropRepeats(lambda: self.now)

    def process(self, event: str, **values: object) -> EventDict | None:
        """Return the processed event, None if it is dropped."""
        try:
            return self._processor(None, "warning", {"event": event, **values})
        except structlog.DropEvent:
            return None


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_repetition_within_a_minute_is_dropped(log: Log) -> None:
    """Repetitions are dropped until the minute is over; the first line is unchanged."""
    assert log.process("queue.paused", reason="full") == {"event": "queue.paused", "reason": "full"}
    assert log.process("queue.paused", reason="full") is None
    log.now = REPEATED_AFTER_SECONDS - 0.1
    assert log.process("queue.paused", reason="full") is None
    log.now = REPEATED_AFTER_SECONDS
    assert log.process("queue.paused", reason="full") is not None


def test_a_line_tells_how_often_it_was_dropped(log: Log) -> None:
    """The count starts when it was last logged, and is omitted if it is zero."""
    for _ in range(4):
        log.process("job.postponed", job="4a")
    log.now = 60.0
    assert log.process("job.postponed", job="4a") == {
        "event": "job.postponed",
        "job": "4a",
        "repeated": 3,
    }
    log.now = 90.0
    assert log.process("job.postponed", job="4a") is None
    log.now = 120.0
    assert log.process("job.postponed", job="4a") == {
        "event": "job.postponed",
        "job": "4a",
        "repeated": 1,
    }
    log.now = 240.0
    assert log.process("job.postponed", job="4a") == {"event": "job.postponed", "job": "4a"}


def test_what_happens_every_second_is_logged_every_minute(log: Log) -> None:
    """The minute starts when it was logged, not when it was last dropped."""
    logged = {}
    for second in range(200):
        log.now = float(second)
        event = log.process("checkpoint.failed", reason="full")
        if event is not None:
            logged[second] = event.get("repeated")
    assert logged == {0: None, 60: 59, 120: 59, 180: 59}


def test_a_change_is_reported_each_time(log: Log) -> None:
    """For a disk that comes and goes, the last line in the log is the current state."""
    for _ in range(3):
        assert log.process("inbox.unavailable", reason="gone") is not None
        assert log.process("inbox.recovered") is not None


def test_another_exception_is_another_line(log: Log) -> None:
    """The exception is compared too, not only the event's name."""

    def crashed(error: Exception) -> bool:
        try:
            raise error
        except (ValueError, KeyError):
            return log.process("intake.internal_error", exc_info=True) is not None

    logged = [crashed(error) for error in (ValueError("a"), ValueError("a"), KeyError("a"))]
    assert logged == [True, False, True]


def test_events_about_nothing_in_particular_are_never_dropped(log: Log) -> None:
    """100 photos that arrive are 100 lines, even if these are equal."""
    for _ in range(100):
        assert log.process("jobs.submitted", count=1) == {"event": "jobs.submitted", "count": 1}
    log.now = 60.0
    assert log.process("jobs.submitted", count=1) == {"event": "jobs.submitted", "count": 1}


@pytest.mark.parametrize("measured", ["seconds", "retry_seconds", "waited_seconds", "timestamp"])
def test_durations_are_no_difference(log: Log, measured: str) -> None:
    """Otherwise a pause that gets longer each time would be logged each time."""
    assert log.process("queue.paused", reason="full", **{measured: 1.0}) is not None
    assert log.process("queue.paused", reason="full", **{measured: 2.0}) is None
    log.now = 60.0
    again = log.process("queue.paused", reason="full", **{measured: 4.0})
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
    """A line about another job, or with another text, is logged."""
    values: dict[str, object] = {
        "event": "queue.paused", "level": "warning", "reason": "full", "job": "4a", "attempt": 1,
        "remedies": ["free some space"],
    }  # fmt: skip
    assert log.process(**values) is not None  # type: ignore[arg-type]  # event is a string
    assert log.process(**{**values, **other}) is not None  # type: ignore[arg-type]
    assert log.process(**values) is None  # type: ignore[arg-type]


def test_the_order_of_keys_is_no_difference(log: Log) -> None:
    """Bound context values may come first or last."""
    assert log.process("job.postponed", job="4a", reason="early") is not None
    assert log.process("job.postponed", reason="early", job="4a") is None


def test_memory_is_bounded(log: Log) -> None:
    """Only the latest `MAX_REMEMBERED` different lines are remembered."""
    many = 5 * MAX_REMEMBERED
    for number in range(many):
        assert log.process("path.skipped", path=number) is not None
    latest = range(many - MAX_REMEMBERED, many)
    assert all(log.process("path.skipped", path=number) is None for number in latest)
    oldest = range(many - MAX_REMEMBERED)
    assert all(log.process("path.skipped", path=number) is not None for number in oldest)


def test_a_repeated_message_is_remembered_longer(log: Log) -> None:
    """The line that has not been logged for the longest time is evicted first."""
    log.process("queue.paused", reason="full")
    for number in range(MAX_REMEMBERED - 1):
        log.process("path.skipped", path=number)
    log.now = 60.0
    assert log.process("queue.paused", reason="full") is not None
    assert log.process("path.skipped", path="one more") is not None
    assert log.process("queue.paused", reason="full") is None

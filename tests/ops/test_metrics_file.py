"""When the file of metrics is written, and when it is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.atomic import atomic_write
from styled.errors import ResourceUnavailable
from styled.ops.metrics_file import LONGEST_SECONDS, MetricsFile


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path, clock: Clock) -> MetricsFile:
    return MetricsFile(tmp_path / "metrics.prom", atomic_write, clock)


def test_what_has_not_changed_is_written_every_ten_minutes(
    file: MetricsFile, clock: Clock, tmp_path: Path
) -> None:
    """Figures that change by themselves are no reason to write; their age is."""
    written = []
    for _ in range(101):
        if file.update("idle", lambda: f"{clock.seconds}".encode()):
            written.append(clock.seconds)
        clock.seconds += 15.0
    assert LONGEST_SECONDS == 600.0
    assert written == [0.0, 600.0, 1200.0]
    assert (tmp_path / "metrics.prom").read_bytes() == b"1200.0"


def test_what_has_changed_is_written_at_once(file: MetricsFile, clock: Clock) -> None:
    """And then it is what nothing has changed since."""
    seen = []
    for state in ("idle", "idle", "paused", "paused", "idle"):
        seen.append(file.update(state, lambda: b"figures"))
        clock.seconds += 15.0
    assert seen == [True, False, True, False, True]


def test_a_text_that_is_not_written_is_not_made(file: MetricsFile) -> None:
    """Making it asks each disk for its room."""
    made = []

    def text() -> bytes:
        made.append("figures")
        return b"figures"

    for _ in range(3):
        file.update("idle", text)
    assert made == ["figures"]


def test_what_could_not_be_written_is_tried_again(tmp_path: Path, clock: Clock) -> None:
    """A full disk does not make the figures be forgotten."""
    is_full = [True, False]

    def write(path: Path, data: bytes) -> None:
        if is_full.pop(0):
            raise ResourceUnavailable("the disk is full")
        atomic_write(path, data)

    file = MetricsFile(tmp_path / "metrics.prom", write, clock)
    with pytest.raises(ResourceUnavailable):
        file.update("idle", lambda: b"figures")
    assert file.update("idle", lambda: b"figures")
    assert (tmp_path / "metrics.prom").read_bytes() == b"figures"

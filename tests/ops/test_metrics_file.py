"""When the metrics file is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.errors import ResourceUnavailable
from styled.ops.metrics_file import INTERVAL_SECONDS, MetricsFile
from tests.ops.conftest import Clock


@pytest.fixture
def file(tmp_path: Path, clock: Clock) -> MetricsFile:
    return MetricsFile(tmp_path / "metrics.prom", clock)


def test_what_has_not_changed_is_written_every_ten_minutes(
    file: MetricsFile, clock: Clock, tmp_path: Path
) -> None:
    """Metrics that change all the time are no reason to write; the age of the file is."""
    written = []
    for _ in range(101):
        if file.is_due("idle"):
            file.write("idle", f"{clock.now}".encode())
            written.append(clock.now)
        clock.now += 15.0
    assert INTERVAL_SECONDS == 600.0
    assert written == [0.0, 600.0, 1200.0]
    assert (tmp_path / "metrics.prom").read_bytes() == b"1200.0"


def test_what_has_changed_is_written_at_once(file: MetricsFile, clock: Clock) -> None:
    """Later calls compare with the value that was written last."""
    seen = []
    for state in ("idle", "idle", "paused", "paused", "idle"):
        seen.append(file.is_due(state))
        if seen[-1]:
            file.write(state, b"figures")
        clock.now += 15.0
    assert seen == [True, False, True, False, True]


def test_what_could_not_be_written_is_tried_again(tmp_path: Path, clock: Clock) -> None:
    """After a write error the next call writes, even without a change."""
    folder = tmp_path / "state"
    file = MetricsFile(folder / "metrics.prom", clock)
    with pytest.raises(ResourceUnavailable):
        file.write("idle", b"figures")
    assert file.is_due("idle")
    folder.mkdir()
    file.write("idle", b"figures")
    assert not file.is_due("idle")
    assert (folder / "metrics.prom").read_bytes() == b"figures"

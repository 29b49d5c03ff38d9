"""The file by which a container's health check learns whether the daemon makes progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.errors import ServiceUnhealthy
from styled.ops.heartbeat_file import FILE_NAME, INTERVAL_SECONDS, LATE_SECONDS, HeartbeatFile
from tests.ops.conftest import Clock


@pytest.fixture
def file(tmp_path: Path, clock: Clock) -> HeartbeatFile:
    """Return the file of a daemon whose runtime directory is `tmp_path`."""
    return HeartbeatFile({"RUNTIME_DIRECTORY": f"{tmp_path}:/nowhere"}, clock)


def test_a_heartbeat_is_good_for_a_minute(file: HeartbeatFile, clock: Clock) -> None:
    """Then the daemon is taken for dead, although its file is there."""
    file.write("painting a.jpg")
    clock.now += LATE_SECONDS
    assert file.check() == "painting a.jpg"
    clock.now += 1
    with pytest.raises(ServiceUnhealthy, match=r"the last heartbeat was 1 min.* ago"):
        file.check()


def test_heartbeats_are_due_now_and_then(file: HeartbeatFile, clock: Clock) -> None:
    """At once, and after each interval."""
    assert file.is_due()
    file.write("")
    assert not file.is_due()
    clock.now += INTERVAL_SECONDS
    assert file.is_due()


def test_a_stalled_part_is_unhealthy_and_named(file: HeartbeatFile) -> None:
    """Even if the heartbeat is new."""
    file.write("painting a.jpg", "the engine has made no progress for 6 minutes")
    with pytest.raises(ServiceUnhealthy, match="the engine has made no progress"):
        file.check()


def test_no_daemon_is_unhealthy(file: HeartbeatFile, tmp_path: Path) -> None:
    """It has ended and removed its file, or the file is damaged."""
    file.write("painting a.jpg")
    file.remove()
    assert list(tmp_path.iterdir()) == []
    for content in (None, "", "[]", '{"at": 1}', '{"at": "now", "status": ""}'):
        if content is not None:
            (tmp_path / FILE_NAME).write_text(content)
        with pytest.raises(ServiceUnhealthy, match="there is no heartbeat in"):
            file.check()


def test_without_a_runtime_directory_nothing_is_written(clock: Clock) -> None:
    """And a check says what is missing."""
    file = HeartbeatFile({}, clock)
    assert not file.is_due()
    file.write("painting a.jpg")
    file.remove()
    with pytest.raises(ServiceUnhealthy, match="which set RUNTIME_DIRECTORY"):
        file.check()


def test_a_folder_that_cannot_be_written_stops_nothing(clock: Clock) -> None:
    """The check will fail, the daemon goes on."""
    HeartbeatFile({"RUNTIME_DIRECTORY": "/proc/none"}, clock).write("painting a.jpg")

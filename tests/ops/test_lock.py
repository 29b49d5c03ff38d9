"""One instance for each state folder."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from styled.errors import InUse, ResourceUnavailable
from styled.ops.lock import InstanceLock

HOLD = """
import sys
from pathlib import Path
from styled.ops.lock import InstanceLock
InstanceLock(Path(sys.argv[1])).acquire()
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock while the context lasts."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


def test_a_second_owner_is_refused_with_the_pid_of_the_first(path: Path) -> None:
    """The error of a second process names the first one and a remedy."""
    with other_process(path) as first:
        with pytest.raises(InUse) as caught:
            InstanceLock(path).acquire()
        assert f"process {first.pid})" in caught.value.message
        assert str(path.parent) in caught.value.message
        assert caught.value.remedies
        assert InstanceLock(path).owner() == first.pid


def test_a_killed_owner_leaves_no_lock(path: Path) -> None:
    """After SIGKILL the file still exists, but is not locked."""
    with other_process(path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert path.read_text() == f"{first.pid}\n"
        assert InstanceLock(path).owner() is None
        second = InstanceLock(path)
        second.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    second.release()


def test_a_stale_file_of_any_content_is_overwritten(path: Path) -> None:
    """The text of an earlier owner is replaced, also if it is longer."""
    path.write_text("9" * 90)
    lock = InstanceLock(path)
    lock.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    assert lock.owner() == os.getpid()
    lock.release()


def test_a_released_lock_can_be_taken_again(path: Path) -> None:
    """Releasing frees it at once; releasing twice is no error."""
    first, second = InstanceLock(path), InstanceLock(path)
    first.acquire()
    with pytest.raises(InUse):
        second.acquire()
    first.release()
    first.release()
    assert second.owner() is None
    second.acquire()
    second.release()


def test_a_process_that_is_ending_is_waited_for(path: Path) -> None:
    """The threads of a killed daemon end one by one, and the last one frees the lock."""
    first, second = InstanceLock(path), InstanceLock(path)
    first.acquire()
    end = threading.Timer(0.4, first.release)
    end.start()
    second.acquire()
    end.join()
    second.release()


def test_asking_for_the_owner_never_keeps_a_daemon_from_starting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short time in which `styled status` holds a shared lock is waited out."""
    asking = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr("styled.ops.lock.time.sleep", lambda seconds: os.close(asking))
    starting = InstanceLock(path)
    starting.acquire()
    starting.release()


def test_nobody_owns_what_is_not_there(path: Path) -> None:
    """`owner` neither creates the file nor fails."""
    assert InstanceLock(path).owner() is None
    assert not path.exists()


def test_a_lock_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """If its folder is missing, the error names the file and a remedy."""
    with pytest.raises(ResourceUnavailable, match="can't be written") as caught:
        InstanceLock(tmp_path / "missing/lock").acquire()
    assert not isinstance(caught.value, InUse)
    assert caught.value.remedies

"""The parent process of a daemon with a cluster: it restarts what Ray ends, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
from styled.cli.supervisor import run_in_child

run_in_child()
# The child, from here on.
exec(sys.argv[2])
with open(sys.argv[1], "a+") as starts:
    starts.write(f"{os.getpid()}\\n")
    starts.seek(0)
    count = len(starts.readlines())
print(os.getpid(), flush=True)
exec(sys.argv[3])
"""

WAIT_FOR_SIGNALS = "import time\nwhile True: time.sleep(0.05)"
"""Not `signal.pause()`: a signal just before it would be handled after the next one only."""


class Supervised:
    """A supervised process."""

    def __init__(self, folder: Path, setup: str, body: str) -> None:
        """Start it.

        Args:
            folder: Remembers how often it was started.
            setup: What the child does before it tells that it is there.
            body: What it does then; `count` is the number of starts so far.
        """
        self._starts = folder / "starts"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(self._starts), setup, body],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait_until_started(self) -> None:
        """Wait until the child is there."""
        assert self.process.stdout is not None
        assert int(self.process.stdout.readline())

    def end(self) -> int:
        """Wait for the parent; return its exit code, negative for a signal."""
        self.process.communicate(timeout=60)
        return self.process.returncode

    @property
    def starts(self) -> int:
        """The number of children so far."""
        return len(set(self._starts.read_text().split()))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("os._exit(0)", 0),
        ("os._exit(69)", 69),
        ("os._exit(78)", 78),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGXCPU)", -signal.SIGXCPU),
    ],
)
def test_any_other_end_is_that_of_the_daemon(tmp_path: Path, body: str, code: int) -> None:
    """The exit code, or the signal, is passed on, and nothing is started again."""
    supervised = Supervised(tmp_path, "", body)
    assert supervised.end() == code
    assert supervised.starts == 1


@pytest.mark.parametrize("end", ["os._exit(1)", "os.abort()"])
def test_what_ray_ends_is_started_again(tmp_path: Path, end: str) -> None:
    """Until it ends in another way."""
    supervised = Supervised(tmp_path, "", f"{end} if count < 3 else os._exit(7)")
    assert supervised.end() == 7
    assert supervised.starts == 3


def test_after_a_stop_nothing_is_started_again(tmp_path: Path) -> None:
    """The stop reaches the child; even if Ray ends it at this moment, that was the end."""
    setup = "signal.signal(signal.SIGTERM, lambda *args: os._exit(1))"
    supervised = Supervised(tmp_path, setup, WAIT_FOR_SIGNALS)
    supervised.wait_until_started()
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.end() == 1
    assert supervised.starts == 1


def test_a_reload_is_forwarded(tmp_path: Path) -> None:
    """SIGHUP reaches the child."""
    setup = "signal.signal(signal.SIGHUP, lambda *args: os._exit(5))"
    supervised = Supervised(tmp_path, setup, WAIT_FOR_SIGNALS)
    supervised.wait_until_started()
    supervised.process.send_signal(signal.SIGHUP)
    assert supervised.end() == 5


def test_the_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    """Otherwise it would hold the lock of its folders after a SIGKILL of the parent.

    The pipe ends when the last process that has it has ended.
    """
    supervised = Supervised(tmp_path, "", WAIT_FOR_SIGNALS)
    supervised.wait_until_started()
    supervised.process.kill()
    assert supervised.end() == -signal.SIGKILL

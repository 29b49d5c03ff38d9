"""A daemon that was started on a terminal, and the end of that terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import signal
import sqlite3
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.daemon_harness import Daemon, DaemonHarness
from tests.faults.conftest import STOP_LIMIT_SECONDS, paint_slowly
from tests.faults.test_process_start import only_child, wait_until_caught

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("one_thread")]


def _take_terminal() -> None:
    """Make standard input the controlling terminal, and reset SIGHUP to its default action."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup


class Terminal:
    """A pseudo-terminal with a shell that runs one script on it."""

    def __init__(self, harness: DaemonHarness, script: str) -> None:
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.process = subprocess.Popen(
            ["sh", "-c", script.replace("STYLED", shlex.join(harness.command("run")))],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.written = ""

    def shows(self, text: str) -> bool:
        """Return whether a text has been written to the terminal."""
        with suppress(BlockingIOError):
            self.written += os.read(self.master, 65536).decode()
        return text in self.written

    def close(self) -> None:
        """Close the terminal, as at the end of a window or connection."""
        os.close(self.master)


@contextmanager
def terminal(
    harness: DaemonHarness, script: str = "exec STYLED"
) -> Iterator[tuple[Terminal, Daemon]]:
    """Run a script on a new terminal; STYLED stands for `styled run`."""
    screen = Terminal(harness, script)
    log = harness.folder / "log"
    log.touch()
    try:
        yield screen, Daemon(screen.process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(screen.process.pid, signal.SIGKILL)
        screen.process.wait(10)


def journal_says(harness: DaemonHarness, query: str) -> object:
    """Return the first value of a query's result in the journal."""
    with closing(sqlite3.connect(harness.folder / "state/journal.sqlite3")) as journal:
        row = journal.execute(query).fetchone()
    return row and row[0]


def is_amid_a_job(harness: DaemonHarness) -> bool:
    """Return whether some steps of a job have been taken."""
    with suppress(sqlite3.OperationalError):
        return bool(journal_says(harness, "SELECT max(fraction) FROM jobs WHERE state = 'running'"))
    return False


def test_the_daemon_stops_when_its_terminal_is_gone_and_reloads_before(
    harness: DaemonHarness,
) -> None:
    """SIGHUP reloads while the terminal exists; the terminal's end stops with a checkpoint."""
    paint_slowly(harness, 100_000)
    harness.drop("photo.jpg", "coffee", (96, 72))
    with terminal(harness) as (screen, daemon):
        daemon.wait_until(lambda: is_amid_a_job(harness))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_until(lambda: screen.shows("config.reloaded"))
        screen.close()
        assert daemon.process.wait(STOP_LIMIT_SECONDS) == 0
    assert journal_says(harness, "SELECT state FROM jobs") == "queued"
    assert len(harness.files("state/checkpoints")) == 1
    assert harness.files("inbox") == ["photo.jpg"]


def test_a_terminal_that_goes_while_the_daemon_starts_stops_it(harness: DaemonHarness) -> None:
    """The end of the terminal stops the daemon while it imports or loads the network."""
    for seconds in (0.0, 1.5):
        with terminal(harness) as (screen, daemon):
            wait_until_caught(daemon.process.pid, signal.SIGTERM)
            time.sleep(seconds)
            screen.close()
            assert daemon.process.wait(STOP_LIMIT_SECONDS) == 0


def test_the_daemon_stops_with_the_shell_that_it_runs_in(harness: DaemonHarness) -> None:
    """If the shell ends, SIGHUP comes shortly before the terminal is gone, and stops the daemon."""
    with terminal(harness, "STYLED; true") as (screen, daemon):
        daemon.wait_until(lambda: screen.shows("daemon.started"))
        pid = only_child(daemon.process.pid)
        daemon.process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + STOP_LIMIT_SECONDS
        while Path(f"/proc/{pid}/exe").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        screen.close()
    assert (
        journal_says(harness, "SELECT value FROM daemon_state WHERE key = 'activity'") == "stopped"
    )


def test_a_daemon_that_ignores_hangups_goes_on_without_its_terminal(harness: DaemonHarness) -> None:
    """Under nohup the daemon works without its terminal, and SIGHUP still reloads."""
    with terminal(harness, "trap '' HUP; exec STYLED") as (screen, daemon):
        daemon.wait_until(lambda: screen.shows("daemon.started"))
        screen.close()
        text = harness.config.read_text()
        harness.config.write_text(text.replace("default_style: swirls", "default_style: coffee"))
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(1.5)
        harness.drop("photo.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: "coffee/photo.jpg" in harness.files("archive"))
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(STOP_LIMIT_SECONDS) == 0

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

from tests.faults.conftest import paint_slowly
from tests.faults.test_process_start import only_child, wait_until_caught
from tests.studio import Daemon, Studio

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("one_thread")]

STOP_LIMIT_SECONDS = 5.0


def _take_terminal() -> None:
    """Make standard input the terminal of this session; hang-ups count, as after a login."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup


class Terminal:
    """A terminal with a shell that runs one command on it."""

    def __init__(self, studio: Studio, script: str) -> None:
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.process = subprocess.Popen(
            ["sh", "-c", script.replace("STYLED", shlex.join(studio.command("run")))],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.written = ""

    def shows(self, text: str) -> bool:
        """Tell whether a text has been written on it."""
        with suppress(BlockingIOError):
            self.written += os.read(self.master, 65536).decode()
        return text in self.written

    def close(self) -> None:
        """Close it, as a window or a connection that ends."""
        os.close(self.master)


@contextmanager
def terminal(studio: Studio, script: str = "exec STYLED") -> Iterator[tuple[Terminal, Daemon]]:
    """Run a script on a terminal of its own; STYLED stands for `styled run`."""
    started = Terminal(studio, script)
    log = studio.folder / "log"
    log.touch()
    try:
        yield started, Daemon(started.process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.process.pid, signal.SIGKILL)
        started.process.wait(10)


def journal_says(studio: Studio, query: str) -> object:
    """Return the first value that the journal has for a query."""
    with closing(sqlite3.connect(studio.folder / "state/journal.sqlite3")) as journal:
        row = journal.execute(query).fetchone()
    return row and row[0]


def is_amid_a_job(studio: Studio) -> bool:
    """Tell whether some of a job's steps have been taken."""
    with suppress(sqlite3.OperationalError):
        return bool(journal_says(studio, "SELECT max(fraction) FROM jobs WHERE state = 'running'"))
    return False


def test_the_daemon_stops_when_its_terminal_is_gone_and_reloads_before(studio: Studio) -> None:
    """SIGHUP reloads as long as the terminal is there; its end is a stop with a checkpoint."""
    paint_slowly(studio, 100_000)
    studio.drop("photo.jpg", "coffee", (96, 72))
    with terminal(studio) as (screen, daemon):
        daemon.wait_until(lambda: is_amid_a_job(studio))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_until(lambda: screen.shows("config.reloaded"))
        screen.close()
        assert daemon.process.wait(STOP_LIMIT_SECONDS) == 0
    assert journal_says(studio, "SELECT state FROM jobs") == "queued"
    assert len(studio.files("state/checkpoints")) == 1
    assert studio.files("inbox") == ["photo.jpg"]


def test_a_terminal_that_goes_while_the_daemon_starts_stops_it(studio: Studio) -> None:
    """While it imports, and while it loads the network."""
    for seconds in (0.0, 1.5):
        with terminal(studio) as (screen, daemon):
            wait_until_caught(daemon.process.pid, signal.SIGTERM)
            time.sleep(seconds)
            screen.close()
            assert daemon.process.wait(STOP_LIMIT_SECONDS) == 0


def test_the_daemon_stops_with_the_shell_that_it_runs_in(studio: Studio) -> None:
    """The end of a terminal's shell sends SIGHUP a moment before it takes the terminal away."""
    with terminal(studio, "STYLED; true") as (screen, daemon):
        daemon.wait_until(lambda: screen.shows("daemon.started"))
        pid = only_child(daemon.process.pid)
        daemon.process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + STOP_LIMIT_SECONDS
        while Path(f"/proc/{pid}/exe").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        screen.close()
    assert journal_says(studio, "SELECT value FROM daemon_state WHERE key = 'state'") == "stopped"


def test_a_daemon_that_ignores_hangups_goes_on_without_its_terminal(studio: Studio) -> None:
    """Under nohup it paints on, though its log can't be written, and SIGHUP still reloads."""
    with terminal(studio, "trap '' HUP; exec STYLED") as (screen, daemon):
        daemon.wait_until(lambda: screen.shows("daemon.started"))
        screen.close()
        text = studio.config.read_text()
        studio.config.write_text(text.replace("default_style: swirls", "default_style: coffee"))
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(1.5)
        studio.drop("photo.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: "coffee/photo.jpg" in studio.files("archive"))
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(STOP_LIMIT_SECONDS) == 0

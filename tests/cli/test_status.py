"""`styled status`: what the journal and the lock tell."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from styled.cli.init import init_folder
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.ops.lock import InstanceLock
from tests.cli.conftest import Run
from tests.jobs.conftest import Dropped, progress

HOSTILE = os.fsdecode(b"caf\xe9\x1b[2J[bold].jpg")


@pytest.fixture
def journal(here: Path) -> Iterator[Journal]:
    """A journal with a done, a rejected, a running and a waiting job."""
    init_folder(here)
    (here / "state").mkdir()
    journal = Journal.open(here / "state/journal.sqlite3")
    names = ("done.jpg", HOSTILE, "running.jpg", "waiting.jpg")
    journal.submit([Dropped(name, 1, 2, {"oil": name}) for name in names], 5.0)
    for number, state in enumerate((JobState.DONE, JobState.REJECTED)):
        job = journal.claim(10.0)
        assert job is not None
        if state is JobState.DONE:
            journal.reserve_result(job, "oil/done.jpg", "ab", "cd")
        reason = "not a picture\n  - send another" if state is JobState.REJECTED else None
        journal.finish(job, state, 20.0 + number, reason=reason)
    job = journal.claim(30.0)
    assert job is not None
    journal.note_progress(job, progress(0.42))
    journal.write_daemon(
        state="paused: the outbox is full", version="9.9", device="cpu", weights="untrained",
        degraded=json.dumps(["the network is untrained"]),
    )  # fmt: skip
    yield journal
    journal.close()


@pytest.fixture
def daemon(here: Path, journal: Journal) -> Iterator[int]:
    """Hold the lock as a running daemon does; return its process id."""
    lock = InstanceLock(here / "state/lock")
    lock.acquire()
    yield os.getpid()
    lock.release()


def test_status_for_programs_tells_all(run: Run, daemon: int) -> None:
    """`--json` is one object with the queue, the current job, what is degraded and the results."""
    result = run("status", "--json")
    assert result.exit_code == 0
    status = json.loads(result.stdout)
    assert (status["running"], status["pid"]) == (True, daemon)
    assert status["state"] == "paused: the outbox is full"
    assert status["degraded"] == ["the network is untrained"]
    assert status["counts"] == {"done": 1, "rejected": 1, "running": 1, "queued": 1}
    (current,) = status["current"]
    assert (current["input"], current["fraction"], current["attempts"]) == ("running.jpg", 0.42, 1)
    assert [job["input"] for job in status["waiting"]] == ["waiting.jpg"]
    newest, oldest = status["last"]
    assert newest["input"] == "caf\\xe9\x1b[2J[bold].jpg"
    assert newest["reason"].startswith("not a picture")
    assert (oldest["result"], oldest["finished_at"]) == ("oil/done.jpg", "1970-01-01T00:00:20Z")


def test_status_for_people_shows_the_same(run: Run, daemon: int) -> None:
    """The table shows states, progress and the first line of each reason."""
    said = run("status").output
    assert f"styled is paused: the outbox is full (process {daemon})" in said
    assert "on cpu, weights untrained" in said
    assert "degraded: the network is untrained" in said
    assert "1 queued, 1 running, 1 done, 1 rejected, 0 cancelled" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["running.jpg", "oil", "42%"] in rows
    assert ["waiting.jpg", "oil", "queued"] in rows
    assert ["done.jpg", "oil", "done", "oil/done.jpg"] in rows
    assert "send another" not in said


def test_names_cannot_move_the_cursor_or_be_markup(run: Run, daemon: int) -> None:
    """What strangers called their files is shown as it is, escaped."""
    said = run("status").output
    assert "\x1b" not in said
    assert "caf\\xe9\\x1b[2J[bold].jpg" in said


def test_a_stopped_or_dead_daemon_is_not_running(run: Run, journal: Journal) -> None:
    """Without a holder of the lock nothing runs, whatever the journal says."""
    status = json.loads(run("status", "--json").stdout)
    assert (status["running"], status["pid"], status["state"]) == (False, None, "not running")
    assert "styled is not running" in run("status").output


def test_without_a_journal_the_remedy_is_told(run: Run, here: Path) -> None:
    """Where the daemon has never run there is nothing to show, and nothing is made."""
    init_folder(here)
    result = run("status")
    assert result.exit_code == 73
    assert "there is no journal" in result.output
    assert "styled run" in result.output
    assert not (here / "state").exists()


def test_a_damaged_journal_is_told_in_words(run: Run, here: Path) -> None:
    """Damage is no traceback."""
    init_folder(here)
    (here / "state").mkdir()
    (here / "state/journal.sqlite3").write_bytes(b"not a database" * 99)
    result = run("status", "--json")
    assert result.exit_code == 75
    assert "is damaged" in result.output

"""A damaged, lost or newer journal, and lost or damaged checkpoints."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from contextlib import closing

import pytest

from tests.daemon_harness import DaemonHarness
from tests.faults.conftest import paint_slowly

pytestmark = pytest.mark.timeout(400)

KEEP = "{after_success: keep}"


def paint(harness: DaemonHarness, *names: str) -> None:
    """Drop photos and run the daemon until their results are published."""
    for number, name in enumerate(names):
        harness.drop(name, "coffee", (96 + number, 72))
    expected = {f"{name if '/' in name else f'swirls/{name}'}.json" for name in names}
    with harness.running() as daemon:
        daemon.wait_until(lambda: expected <= set(harness.files("outbox")))


@pytest.mark.parametrize("how", ["damaged", "deleted", "state deleted", "truncated"])
def test_a_lost_journal_loses_no_input_and_repeats_no_work(
    harness: DaemonHarness, how: str
) -> None:
    """After a lost journal, done jobs are known by their sidecars; only new photos are painted."""
    harness.configure(output=KEEP)
    paint(harness, "done.jpg", "coffee/too.jpg")
    before = {
        name: (harness.folder / "outbox" / name).stat().st_mtime_ns
        for name in harness.files("outbox")
    }
    harness.drop("new.jpg", "coffee", (100, 80))
    journal = harness.folder / "state/journal.sqlite3"
    match how:
        case "damaged":
            content = bytearray(journal.read_bytes())
            content[4096:] = b"\xaa" * (len(content) - 4096)
            journal.write_bytes(content)
        case "truncated":
            journal.write_bytes(journal.read_bytes()[:5000])
        case "deleted":
            journal.unlink()
        case _:
            shutil.rmtree(harness.folder / "state")
    with harness.running() as daemon:
        daemon.wait_until(lambda: "swirls/new.jpg.json" in harness.files("outbox"))
        assert daemon.events("jobs.imported")[0]["count"] == 2
        is_set_aside = how in ("damaged", "truncated")
        assert bool(daemon.events("journal.set_aside")) is is_set_aside
    assert len(daemon.events("job.published")) == 1
    assert ("journal.sqlite3.damaged-1" in harness.files("state")) is is_set_aside
    after = harness.files("outbox")
    assert after == sorted([*before, "swirls/new.jpg", "swirls/new.jpg.json"])
    for name, mtime_ns in before.items():
        assert (harness.folder / "outbox" / name).stat().st_mtime_ns == mtime_ns


def test_a_journal_that_is_damaged_while_in_use_loses_nothing(harness: DaemonHarness) -> None:
    """If the journal is damaged during use, all jobs are done once, if need be after a restart."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        for number in range(3):
            harness.drop(f"{number}.jpg", "coffee", (96, 72))
        daemon.wait_for("job.published")
        journal = harness.folder / "state/journal.sqlite3"
        for path in (journal, journal.with_name("journal.sqlite3-wal")):
            with open(path, "r+b") as file:
                file.write(b"\xaa" * path.stat().st_size)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(60) in (0, 75)
    harness.drop("9.jpg", "coffee", (96, 72))
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
    names = [f"swirls/{number}.jpg" for number in (0, 1, 2, 9)]
    assert harness.files("outbox") == sorted([*names, *(f"{name}.json" for name in names)])
    assert harness.files("archive") == names


def test_the_journal_of_a_newer_version_is_refused(harness: DaemonHarness) -> None:
    """A journal of a newer version exits with 73 and a message, and is not changed."""
    paint(harness, "a.jpg")
    journal = harness.folder / "state/journal.sqlite3"
    with closing(sqlite3.connect(journal)) as raw:
        raw.execute("PRAGMA user_version = 999")
    before = journal.read_bytes()
    completed = harness.do("run")
    assert completed.returncode == 73
    assert "newer styled" in completed.stderr
    assert "Traceback" not in completed.stderr
    assert journal.read_bytes() == before


def test_checkpoints_that_are_gone_cost_time_and_nothing_else(harness: DaemonHarness) -> None:
    """If its checkpoint was deleted while no daemon ran, a job starts again."""
    paint_slowly(harness, 25)
    harness.drop("a.jpg", "coffee", (96, 72))
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
    assert len(harness.files("state/checkpoints")) == 1
    shutil.rmtree(harness.folder / "state/checkpoints")
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert daemon.events("job.resumed") == []
    assert harness.sidecar("outbox/swirls/a.jpg.json")["job"]["attempts"] == 1


def test_a_checkpoint_that_is_damaged_is_not_believed(harness: DaemonHarness) -> None:
    """A damaged checkpoint is ignored, which is logged, and the job starts again."""
    paint_slowly(harness, 25)
    harness.drop("a.jpg", "coffee", (96, 72))
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
    (name,) = harness.files("state/checkpoints")
    path = harness.folder / "state/checkpoints" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert len(daemon.events("checkpoint.ignored")) == 1

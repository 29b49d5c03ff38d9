"""A journal that is damaged, lost, or of another version; checkpoints that are gone."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from contextlib import closing

import pytest

from tests.faults.conftest import paint_slowly
from tests.studio import Studio

pytestmark = pytest.mark.timeout(400)

KEEP = "{after_success: keep}"


def paint(studio: Studio, *names: str) -> None:
    """Drop photos and have them painted."""
    for number, name in enumerate(names):
        studio.drop(name, "coffee", (96 + number, 72))
    wanted = {f"{name if '/' in name else f'swirls/{name}'}.json" for name in names}
    with studio.running() as daemon:
        daemon.wait_until(lambda: wanted <= set(studio.files("outbox")))


@pytest.mark.parametrize("how", ["damaged", "deleted", "state deleted", "truncated"])
def test_a_lost_journal_loses_no_input_and_repeats_no_work(studio: Studio, how: str) -> None:
    """What is kept in the inbox and done is known by its sidecar; what is not done is painted."""
    studio.configure(output=KEEP)
    paint(studio, "done.jpg", "coffee/too.jpg")
    before = {
        name: (studio.folder / "outbox" / name).stat().st_mtime_ns
        for name in studio.files("outbox")
    }
    studio.drop("new.jpg", "coffee", (100, 80))
    journal = studio.folder / "state/journal.sqlite3"
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
            shutil.rmtree(studio.folder / "state")
    with studio.running() as daemon:
        daemon.wait_until(lambda: "swirls/new.jpg.json" in studio.files("outbox"))
        assert daemon.events("jobs.imported")[0]["count"] == 2
        is_set_aside = how in ("damaged", "truncated")
        assert bool(daemon.events("journal.set_aside")) is is_set_aside
    assert len(daemon.events("job.published")) == 1
    assert ("journal.sqlite3.damaged-1" in studio.files("state")) is is_set_aside
    after = studio.files("outbox")
    assert after == sorted([*before, "swirls/new.jpg", "swirls/new.jpg.json"])
    for name, mtime_ns in before.items():
        assert (studio.folder / "outbox" / name).stat().st_mtime_ns == mtime_ns


def test_a_journal_that_is_damaged_while_in_use_loses_nothing(studio: Studio) -> None:
    """Whether the daemon notices and leaves, or the next start does: all is done, and once."""
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        for number in range(3):
            studio.drop(f"{number}.jpg", "coffee", (96, 72))
        daemon.wait_for("job.published")
        journal = studio.folder / "state/journal.sqlite3"
        for path in (journal, journal.with_name("journal.sqlite3-wal")):
            with open(path, "r+b") as file:
                file.write(b"\xaa" * path.stat().st_size)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(60) in (0, 75)
    studio.drop("9.jpg", "coffee", (96, 72))
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
    names = [f"swirls/{number}.jpg" for number in (0, 1, 2, 9)]
    assert studio.files("outbox") == sorted([*names, *(f"{name}.json" for name in names)])
    assert studio.files("archive") == names


def test_the_journal_of_a_newer_version_is_refused(studio: Studio) -> None:
    """Code 73, in words, and the file is as it was."""
    paint(studio, "a.jpg")
    journal = studio.folder / "state/journal.sqlite3"
    with closing(sqlite3.connect(journal)) as raw:
        raw.execute("PRAGMA user_version = 999")
    before = journal.read_bytes()
    done = studio.do("run")
    assert done.returncode == 73
    assert "newer styled" in done.stderr
    assert "Traceback" not in done.stderr
    assert journal.read_bytes() == before


def test_checkpoints_that_are_gone_cost_time_and_nothing_else(studio: Studio) -> None:
    """Deleted while the daemon stands still: the job begins anew and is done."""
    paint_slowly(studio, 25)
    studio.drop("a.jpg", "coffee", (96, 72))
    with studio.running() as daemon:
        daemon.wait_for("job.started")
    assert len(studio.files("state/checkpoints")) == 1
    shutil.rmtree(studio.folder / "state/checkpoints")
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert daemon.events("job.resumed") == []
    assert studio.sidecar("outbox/swirls/a.jpg.json")["job"]["attempts"] == 1


def test_a_checkpoint_that_is_damaged_is_not_believed(studio: Studio) -> None:
    """It is left alone with a word in the log, and the job begins anew."""
    paint_slowly(studio, 25)
    studio.drop("a.jpg", "coffee", (96, 72))
    with studio.running() as daemon:
        daemon.wait_for("job.started")
    (name,) = studio.files("state/checkpoints")
    path = studio.folder / "state/checkpoints" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert len(daemon.events("checkpoint.ignored")) == 1

"""The journal's file: schema versions and damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from styled.errors import JournalDamaged, ResourceUnavailable
from styled.journal.journal import Journal
from styled.journal.schema import SCHEMA_VERSION, set_aside
from tests.job_harness import Dropped


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a journal that does not exist yet."""
    return tmp_path / "journal.sqlite3"


def create(path: Path, jobs: int = 3) -> None:
    """Create a journal with some jobs, and close it."""
    journal = Journal.open(path)
    journal.submit([Dropped(f"{n}.jpg", 1, 2, {"oil": f"{n}.jpg"}) for n in range(jobs)], 7.0)
    journal.close()


@pytest.mark.parametrize("open_", [Journal.open, Journal.open_read_only])
def test_a_journal_of_a_newer_version_is_refused(
    path: Path, open_: Callable[[Path], Journal]
) -> None:
    """A journal of a newer version is refused with remedies, and not changed."""
    create(path)
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raw.close()
    with pytest.raises(ResourceUnavailable, match=r"a newer styled|another version") as caught:
        open_(path)
    assert caught.value.remedies
    assert str(path) in caught.value.message


@pytest.mark.parametrize("open_", [Journal.open, Journal.open_read_only])
def test_what_is_no_journal_is_called_damaged(path: Path, open_: Callable[[Path], Journal]) -> None:
    """A file that is not a database raises `JournalDamaged` and is not changed."""
    content = b"this is not a database, but longer than its header" * 9
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match="is damaged") as caught:
        open_(path)
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


def test_a_journal_with_a_hole_in_it_is_called_damaged(path: Path) -> None:
    """Opening checks the whole file: damage after the first page is found."""
    create(path, jobs=500)
    content = bytearray(path.read_bytes())
    content[8192:16384] = bytes(8192)
    path.write_bytes(content)
    with pytest.raises(JournalDamaged):
        Journal.open(path)


def test_damage_during_use_is_distinguished_from_other_errors(path: Path) -> None:
    """Damage found during use raises `JournalDamaged`, not `ResourceUnavailable`."""
    create(path, jobs=500)
    journal = Journal.open(path)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    journal._connection.execute("PRAGMA shrink_memory")  # drops the page cache
    with pytest.raises(JournalDamaged):
        journal.claim(10.0)
    journal.close()


def test_a_damaged_journal_is_put_aside_and_never_replaces_another(path: Path) -> None:
    """Damaged journals are renamed with their write-ahead log, to a new name each."""
    for number in (1, 2):
        path.write_text(f"damaged {number}")
        path.with_name(path.name + "-wal").write_text(f"log {number}")
        aside = set_aside(path)
        assert aside.name == f"journal.sqlite3.damaged-{number}"
        assert aside.read_text() == f"damaged {number}"
        assert aside.with_name(aside.name + "-wal").read_text() == f"log {number}"
    assert not path.exists()


def test_a_journal_that_cannot_be_put_aside_is_refused_in_words(path: Path) -> None:
    """If the journal cannot be renamed, `ResourceUnavailable` is raised."""
    with pytest.raises(ResourceUnavailable, match="can't be renamed"):
        set_aside(path)


@pytest.mark.parametrize("open_", [Journal.open, Journal.open_read_only])
def test_damage_in_a_text_is_damage(path: Path, open_: Callable[[Path], Journal]) -> None:
    """Text that is not UTF-8, for which Python raises its own error, counts as damage."""
    create(path)
    data = path.read_bytes()
    offset = data.index(b"CREATE TABLE jobs") + 8
    path.write_bytes(data[:offset] + b"\xc5" + data[offset + 1 :])
    with pytest.raises(JournalDamaged):
        open_(path).close()


def test_a_state_that_does_not_exist_is_damage(path: Path) -> None:
    """An unknown job state in the file raises `JournalDamaged`."""
    create(path, jobs=1)
    journal = Journal.open(path)
    journal._connection.execute("UPDATE jobs SET state = 'dreaming', mtime_ns = 'x'")
    with pytest.raises(JournalDamaged, match="dreaming"):
        journal.jobs_about("input", "0.jpg")
    journal.close()

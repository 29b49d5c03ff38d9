"""Uploads that are slow, stop half-way, come twice, or come under another name first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tests.faults.conftest import paint_slowly
from tests.faults.watchman import Watchman
from tests.studio import Daemon, Studio

pytestmark = pytest.mark.timeout(400)

SIZE = (96, 72)
PATIENT = "{settle_seconds: 0.2, truncated_grace_seconds: 600}"
"""However slow the machine is: nothing is rejected because its rest has not come yet."""


@pytest.fixture
def aside(studio: Studio) -> Path:
    """Return a folder for what is still to be uploaded."""
    folder = studio.folder / "aside"
    folder.mkdir()
    return folder


def photo(studio: Studio, aside: Path, name: str, size: tuple[int, int] = SIZE) -> bytes:
    """Return the bytes of a photograph."""
    path = studio.drop(name, "coffee", size)
    return path.rename(aside / name).read_bytes()


def sha256(data: bytes) -> str:
    """Return the digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def upload(path: Path, data: bytes, pieces: int, pause_seconds: float) -> None:
    """Write a file piece by piece."""
    length = -(-len(data) // pieces)
    with open(path, "wb", buffering=0) as stream:
        for start in range(0, len(data), length):
            stream.write(data[start : start + length])
            time.sleep(pause_seconds)


def wait_until_all_is_done(studio: Studio, daemon: Daemon) -> None:
    """Wait until the inbox is empty and no job is left, not even to be cancelled."""
    path = studio.folder / "state" / "journal.sqlite3"
    query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        daemon.wait_until(
            lambda: studio.files("inbox") == [] and journal.execute(query).fetchone() == (0,)
        )


def assert_done(studio: Studio, **contents: bytes) -> None:
    """Check that these are all results, and which bytes they were made of.

    Args:
        studio: Where.
        contents: The photo's bytes for each result in the default style, without suffix.
    """
    names = {f"swirls/{stem.replace('_', '-')}.jpg": data for stem, data in contents.items()}
    assert studio.files("outbox") == sorted([*names, *(f"{name}.json" for name in names)])
    inputs = {name: studio.sidecar(f"outbox/{name}.json")["input"] for name in names}
    assert {name: facts["sha256"] for name, facts in inputs.items()} == {
        name: sha256(data) for name, data in names.items()
    }
    assert [facts["changed"] for facts in inputs.values()] == [False] * len(names)
    archive = studio.folder / "archive"
    assert {name: (archive / name).read_bytes() for name in studio.files("archive")} == names


def test_uploads_that_pause_are_painted_once_they_are_whole(studio: Studio, aside: Path) -> None:
    """Half pictures are looked at and left alone, be it one pause or one after each piece."""
    studio.configure(intake=PATIENT)
    data = photo(studio, aside, "photo.jpg")
    half = photo(studio, aside, "half.jpg", (100, 72))
    inbox = studio.folder / "inbox"
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("daemon.started")
        (inbox / "half.jpg").write_bytes(half[: len(half) // 2])
        upload(inbox / "photo.jpg", data, pieces=4, pause_seconds=0.6)
        daemon.wait_for("job.published")
        awaited = {event["path"] for event in daemon.events("input.awaited")}
        assert awaited == {"half.jpg", "photo.jpg"}
        with open(inbox / "half.jpg", "ab") as stream:
            stream.write(half[len(half) // 2 :])
        wait_until_all_is_done(studio, daemon)
        assert len(daemon.events("job.published")) == 2
    assert_done(studio, photo=data, half=half)
    assert studio.files("rejected") == []


def test_uploads_under_temporary_names(studio: Studio, aside: Path) -> None:
    """They are left alone, however long it takes, and painted once under their final names."""
    names = {"one.jpg.part": "one.jpg", ".two.jpg.tmp": "two.jpg"}
    data = photo(studio, aside, "photo.jpg")
    later = photo(studio, aside, "later.jpg", (100, 72))
    inbox = studio.folder / "inbox"
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("daemon.started")
        for temporary in names:
            (inbox / temporary).write_bytes(data)
        # Whatever is done to them would have been done by the time that another is done.
        (aside / "later.jpg").rename(inbox / "later.jpg")
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: studio.files("inbox") == sorted(names))
        for temporary, final in names.items():
            (inbox / temporary).rename(inbox / final)
        daemon.wait_for("job.published", 3)
        wait_until_all_is_done(studio, daemon)
        claimed = sorted(str(event["input"]) for event in daemon.events("job.claimed"))
        assert claimed == ["later.jpg", "one.jpg", "two.jpg"]
    assert_done(studio, later=later, one=data, two=data)
    assert studio.files("rejected") == []


def test_a_truncated_upload_that_is_never_completed(studio: Studio, aside: Path) -> None:
    """It is rejected as incomplete, and a good file of its name is painted afterwards."""
    data = photo(studio, aside, "photo.jpg")
    half = data[: len(data) // 2]
    path = studio.folder / "inbox/photo.jpg"
    # Not watched: what is rejected here is no whole picture.
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        path.write_bytes(half)
        sidecar = studio.folder / "rejected/swirls/photo.jpg.json"
        daemon.wait_until(sidecar.exists)
        daemon.wait_until(lambda: not path.exists())
        assert studio.files("outbox") == []
        (aside / "photo.jpg").rename(path)
        wait_until_all_is_done(studio, daemon)
    assert_done(studio, photo=data)
    assert studio.files("rejected") == ["swirls/photo.jpg", "swirls/photo.jpg.json"]
    facts = studio.sidecar("rejected/swirls/photo.jpg.json")
    assert facts["rejected"]["failure"] == "incomplete"
    assert facts["input"]["sha256"] == sha256(half)
    assert facts["input"]["changed"] is False
    assert sidecar.with_suffix("").read_bytes() == half


def test_an_empty_file_is_rejected_after_its_grace(studio: Studio) -> None:
    """Nobody writes to it, and nothing has come."""
    path = studio.folder / "inbox/photo.jpg"
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        path.touch()
        daemon.wait_for("input.awaited")
        assert studio.files("rejected") == []
        daemon.wait_for("job.rejected")
        daemon.wait_until(lambda: not path.exists())
    rejected = studio.sidecar("rejected/swirls/photo.jpg.json")["rejected"]
    assert "is empty" in str(rejected["reason"])
    assert rejected["remedies"] == ["Copy it again."]


def test_a_rejected_file_is_replaced_by_a_good_one(studio: Studio, aside: Path) -> None:
    """The good one of the same name, size and date is painted, and the rejection stays."""
    data = photo(studio, aside, "photo.jpg")
    path = studio.folder / "inbox/photo.jpg"
    letter = b"not a photo".ljust(len(data))
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        (aside / "letter.jpg").write_bytes(letter)
        for name in ("letter.jpg", "photo.jpg"):
            os.utime(aside / name, (1_000_000_000, 1_000_000_000))
        (aside / "letter.jpg").rename(path)
        daemon.wait_for("job.rejected")
        wait_until_all_is_done(studio, daemon)
        (aside / "photo.jpg").rename(path)
        daemon.wait_for("job.published")
        wait_until_all_is_done(studio, daemon)
    assert_done(studio, photo=data)
    assert studio.files("rejected") == ["swirls/photo.jpg", "swirls/photo.jpg.json"]
    assert (studio.folder / "rejected/swirls/photo.jpg").read_bytes() == letter


def test_a_second_upload_of_a_name_after_the_first_is_done(studio: Studio, aside: Path) -> None:
    """Each has a painting and an archived original, even if they are the very same file."""
    first = photo(studio, aside, "first.jpg")
    second = photo(studio, aside, "second.jpg", (100, 72))
    shutil.copy2(aside / "second.jpg", aside / "again.jpg")
    path = studio.folder / "inbox/photo.jpg"
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("daemon.started")
        for count, name in enumerate(("first.jpg", "second.jpg", "again.jpg"), start=1):
            (aside / name).rename(path)
            daemon.wait_for("job.published", count)
            wait_until_all_is_done(studio, daemon)
    assert_done(studio, photo=first, photo_2=second, photo_3=second)


def test_a_second_upload_of_a_name_before_the_turn_of_the_first(
    studio: Studio, aside: Path
) -> None:
    """Only the second one is painted, and only once."""
    paint_slowly(studio, 20)
    busy = photo(studio, aside, "busy.jpg")
    first = photo(studio, aside, "first.jpg", (98, 72))
    second = photo(studio, aside, "second.jpg", (100, 72))
    path = studio.folder / "inbox/photo.jpg"
    (aside / "busy.jpg").rename(studio.folder / "inbox/busy.jpg")
    path.write_bytes(first)
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("job.started")
        path.write_bytes(second)
        daemon.wait_for("job.published", 2)
        wait_until_all_is_done(studio, daemon)
        assert len(daemon.events("job.published")) == 2
        assert len(daemon.events("job.cancelled")) == 1
    assert_done(studio, busy=busy, photo=second)


def test_several_slow_uploads_at_once(studio: Studio, aside: Path) -> None:
    """Each is painted once, whole."""
    studio.configure(intake=PATIENT)
    uploads = {
        f"photo{number}": photo(studio, aside, f"photo{number}.jpg", (90 + number, 72))
        for number in range(10)
    }
    inbox = studio.folder / "inbox"
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("daemon.started")
        writers = [
            threading.Thread(target=upload, args=(inbox / f"{stem}.jpg", data, 10, 0.1))
            for stem, data in uploads.items()
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        daemon.wait_for("job.published", 10)
        wait_until_all_is_done(studio, daemon)
        assert len(daemon.events("job.published")) == 10
    assert_done(studio, **uploads)
    assert studio.files("rejected") == []

"""Uploads that are slow, incomplete, repeated, or first come under a temporary name."""

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

from tests.daemon_harness import Daemon, DaemonHarness
from tests.faults.conftest import paint_slowly
from tests.faults.output_checker import OutputChecker

pytestmark = pytest.mark.timeout(400)

SIZE = (96, 72)
PATIENT = "{settle_seconds: 0.2, truncated_grace_seconds: 600}"
"""A long grace period: no partial upload is rejected, however slow the machine is."""


@pytest.fixture
def aside(harness: DaemonHarness) -> Path:
    """Return a folder for files that are to be uploaded."""
    folder = harness.folder / "aside"
    folder.mkdir()
    return folder


def photo(harness: DaemonHarness, aside: Path, name: str, size: tuple[int, int] = SIZE) -> bytes:
    """Write a photo into `aside`; return its bytes."""
    path = harness.drop(name, "coffee", size)
    return path.rename(aside / name).read_bytes()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes as a hexadecimal string."""
    return hashlib.sha256(data).hexdigest()


def upload(path: Path, data: bytes, pieces: int, pause_seconds: float) -> None:
    """Write a file in pieces, with pauses."""
    length = -(-len(data) // pieces)
    with open(path, "wb", buffering=0) as stream:
        for start in range(0, len(data), length):
            stream.write(data[start : start + length])
            time.sleep(pause_seconds)


def wait_until_all_is_done(harness: DaemonHarness, daemon: Daemon) -> None:
    """Wait until the inbox is empty and all jobs have ended."""
    path = harness.folder / "state" / "journal.sqlite3"
    query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        daemon.wait_until(
            lambda: harness.files("inbox") == [] and journal.execute(query).fetchone() == (0,)
        )


def assert_done(harness: DaemonHarness, **contents: bytes) -> None:
    """Check that these are all the results, and which bytes they were made of.

    Args:
        harness: The working folder.
        contents: The photo's bytes, by the name of the result in the default style without suffix;
            `_` stands for `-`.
    """
    names = {f"swirls/{stem.replace('_', '-')}.jpg": data for stem, data in contents.items()}
    assert harness.files("outbox") == sorted([*names, *(f"{name}.json" for name in names)])
    inputs = {name: harness.sidecar(f"outbox/{name}.json")["input"] for name in names}
    assert {name: info["sha256"] for name, info in inputs.items()} == {
        name: sha256(data) for name, data in names.items()
    }
    assert [info["changed"] for info in inputs.values()] == [False] * len(names)
    archive = harness.folder / "archive"
    assert {name: (archive / name).read_bytes() for name in harness.files("archive")} == names


def test_uploads_that_pause_are_painted_once_they_are_whole(
    harness: DaemonHarness, aside: Path
) -> None:
    """Partial uploads wait, with one pause or several, and are painted once complete."""
    harness.configure(intake=PATIENT)
    data = photo(harness, aside, "photo.jpg")
    half = photo(harness, aside, "half.jpg", (100, 72))
    inbox = harness.folder / "inbox"
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("daemon.started")
        (inbox / "half.jpg").write_bytes(half[: len(half) // 2])
        (inbox / "photo.jpg").write_bytes(data[: len(data) // 3])
        daemon.wait_for("input.incomplete", 2)
        upload(inbox / "photo.jpg", data, pieces=4, pause_seconds=0.6)
        daemon.wait_for("job.published")
        awaited = {event["path"] for event in daemon.events("input.incomplete")}
        assert awaited == {"half.jpg", "photo.jpg"}
        with open(inbox / "half.jpg", "ab") as stream:
            stream.write(half[len(half) // 2 :])
        wait_until_all_is_done(harness, daemon)
        assert len(daemon.events("job.published")) == 2
    assert_done(harness, photo=data, half=half)
    assert harness.files("rejected") == []


def test_uploads_under_temporary_names(harness: DaemonHarness, aside: Path) -> None:
    """Files with temporary names are ignored, and painted once under their final names."""
    names = {"one.jpg.part": "one.jpg", ".two.jpg.tmp": "two.jpg"}
    data = photo(harness, aside, "photo.jpg")
    later = photo(harness, aside, "later.jpg", (100, 72))
    inbox = harness.folder / "inbox"
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("daemon.started")
        for temporary in names:
            (inbox / temporary).write_bytes(data)
        # If the daemon took them, it would have done so before a later photo is done.
        (aside / "later.jpg").rename(inbox / "later.jpg")
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: harness.files("inbox") == sorted(names))
        for temporary, final in names.items():
            (inbox / temporary).rename(inbox / final)
        daemon.wait_for("job.published", 3)
        wait_until_all_is_done(harness, daemon)
        claimed = sorted(str(event["input"]) for event in daemon.events("job.claimed"))
        assert claimed == ["later.jpg", "one.jpg", "two.jpg"]
    assert_done(harness, later=later, one=data, two=data)
    assert harness.files("rejected") == []


def test_a_truncated_upload_that_is_never_completed(harness: DaemonHarness, aside: Path) -> None:
    """A truncated upload is rejected as incomplete; a complete file of the same name is painted."""
    data = photo(harness, aside, "photo.jpg")
    half = data[: len(data) // 2]
    path = harness.folder / "inbox/photo.jpg"
    # Without OutputChecker, because the rejected file is not a complete image.
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        path.write_bytes(half)
        sidecar = harness.folder / "rejected/swirls/photo.jpg.json"
        daemon.wait_until(sidecar.exists)
        daemon.wait_until(lambda: not path.exists())
        assert harness.files("outbox") == []
        (aside / "photo.jpg").rename(path)
        wait_until_all_is_done(harness, daemon)
    assert_done(harness, photo=data)
    assert harness.files("rejected") == ["swirls/photo.jpg", "swirls/photo.jpg.json"]
    sidecar_content = harness.sidecar("rejected/swirls/photo.jpg.json")
    assert sidecar_content["rejected"]["failure"] == "incomplete"
    assert sidecar_content["input"]["sha256"] == sha256(half)
    assert sidecar_content["input"]["changed"] is False
    assert sidecar.with_suffix("").read_bytes() == half


def test_an_empty_file_is_rejected_after_its_grace(harness: DaemonHarness) -> None:
    """An empty file is rejected after its grace period."""
    path = harness.folder / "inbox/photo.jpg"
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        path.touch()
        daemon.wait_for("input.incomplete")
        assert harness.files("rejected") == []
        daemon.wait_for("job.rejected")
        daemon.wait_until(lambda: not path.exists())
    rejected = harness.sidecar("rejected/swirls/photo.jpg.json")["rejected"]
    assert "is empty" in str(rejected["reason"])
    assert rejected["remedies"] == ["Copy it again."]


def test_a_rejected_file_is_replaced_by_a_good_one(harness: DaemonHarness, aside: Path) -> None:
    """A good file of the same name, size and date as a rejected one is painted; both are kept."""
    data = photo(harness, aside, "photo.jpg")
    path = harness.folder / "inbox/photo.jpg"
    letter = b"not a photo".ljust(len(data))
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        (aside / "letter.jpg").write_bytes(letter)
        for name in ("letter.jpg", "photo.jpg"):
            os.utime(aside / name, (1_000_000_000, 1_000_000_000))
        (aside / "letter.jpg").rename(path)
        daemon.wait_for("job.rejected")
        wait_until_all_is_done(harness, daemon)
        (aside / "photo.jpg").rename(path)
        daemon.wait_for("job.published")
        wait_until_all_is_done(harness, daemon)
    assert_done(harness, photo=data)
    assert harness.files("rejected") == ["swirls/photo.jpg", "swirls/photo.jpg.json"]
    assert (harness.folder / "rejected/swirls/photo.jpg").read_bytes() == letter


def test_a_second_upload_of_a_name_after_the_first_is_done(
    harness: DaemonHarness, aside: Path
) -> None:
    """Each upload of the same name has a result and an archived original, even identical files."""
    first = photo(harness, aside, "first.jpg")
    second = photo(harness, aside, "second.jpg", (100, 72))
    shutil.copy2(aside / "second.jpg", aside / "again.jpg")
    path = harness.folder / "inbox/photo.jpg"
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("daemon.started")
        for count, name in enumerate(("first.jpg", "second.jpg", "again.jpg"), start=1):
            (aside / name).rename(path)
            daemon.wait_for("job.published", count)
            wait_until_all_is_done(harness, daemon)
    assert_done(harness, photo=first, photo_2=second, photo_3=second)


def test_a_second_upload_of_a_name_before_the_turn_of_the_first(
    harness: DaemonHarness, aside: Path
) -> None:
    """If a photo is overwritten before its turn, only the new content is painted."""
    paint_slowly(harness, 20)
    busy = photo(harness, aside, "busy.jpg")
    first = photo(harness, aside, "first.jpg", (98, 72))
    second = photo(harness, aside, "second.jpg", (100, 72))
    path = harness.folder / "inbox/photo.jpg"
    (aside / "busy.jpg").rename(harness.folder / "inbox/busy.jpg")
    path.write_bytes(first)
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        path.write_bytes(second)
        daemon.wait_for("job.published", 2)
        wait_until_all_is_done(harness, daemon)
        assert len(daemon.events("job.published")) == 2
        assert len(daemon.events("job.cancelled")) == 1
    assert_done(harness, busy=busy, photo=second)


def test_several_slow_uploads_at_once(harness: DaemonHarness, aside: Path) -> None:
    """Ten slow uploads at the same time are each painted once, completely."""
    harness.configure(intake=PATIENT)
    uploads = {
        f"photo{number}": photo(harness, aside, f"photo{number}.jpg", (90 + number, 72))
        for number in range(10)
    }
    inbox = harness.folder / "inbox"
    with OutputChecker(harness), harness.running() as daemon:
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
        wait_until_all_is_done(harness, daemon)
        assert len(daemon.events("job.published")) == 10
    assert_done(harness, **uploads)
    assert harness.files("rejected") == []

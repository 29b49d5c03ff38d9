"""Folders, files and whole disks that are moved, replaced and taken away at a bad moment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import QUICK, add_slow_style, paint_slowly
from tests.faults.watchman import Watchman
from tests.studio import Daemon, Studio

pytestmark = pytest.mark.timeout(400)

SIZE = (96, 72)
OFTEN = "{settle_seconds: 0.2, truncated_grace_seconds: 2, rescan_seconds: 1}"
"""Everything in the inbox is looked at again each second."""

RARELY = "{settle_seconds: 0.2, truncated_grace_seconds: 2, rescan_seconds: 3600}"
"""Only what the kernel tells of is looked at."""

LITTLE = (
    "{size: {long_edge: 32}, steps: 1, content_layers: {relu1_1: 1}, style_layers: {relu1_1: 1}}"
)
"""What takes the least time."""


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def results(*names: str) -> list[str]:
    """Return what lies in the outbox if exactly these are done."""
    return sorted([*names, *(f"{name}.json" for name in names)])


def inputs_of(studio: Studio, *names: str) -> dict[str, tuple[object, object]]:
    """Return which bytes each result was made of, and whether the photo has changed since."""
    inputs = {name: studio.sidecar(f"outbox/{name}.json")["input"] for name in names}
    return {name: (facts["sha256"], facts["changed"]) for name, facts in inputs.items()}


def all_ended(studio: Studio) -> bool:
    """Tell whether no job is left to do."""
    path = studio.folder / "state" / "journal.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
        return bool(journal.execute(query).fetchone() == (0,))


def let_everything_end(studio: Studio, daemon: Daemon) -> None:
    """Wait until all is done that lies in the inbox, by the proof of one more photo."""
    last = "coffee/zzz.png"
    studio.drop(last, "chelsea", SIZE)
    result = studio.folder / "outbox" / f"{last}.json"
    daemon.wait_until(lambda: result.exists() and all_ended(studio))
    for root, name in (("outbox", f"{last}.json"), ("outbox", last), ("archive", last)):
        daemon.wait_until((studio.folder / root / name).exists)
        (studio.folder / root / name).unlink()


def make_wait(studio: Studio, *names: str) -> dict[str, Path]:
    """Put photos into the inbox that have to wait until another one is done."""
    add_slow_style(studio)
    studio.drop("aquarelle/first.jpg", "coffee", SIZE)
    return {name: studio.drop(name, "coffee", SIZE) for name in names}


def work_slowly(studio: Studio) -> None:
    """Have each picture take a second or two."""
    paint_slowly(studio, 20)


def reasons(daemon: Daemon, *events: str) -> str:
    """Return the reasons that the log has for these events."""
    return "\n".join(str(event["reason"]) for name in events for event in daemon.events(name))


# Disks


@dataclass(frozen=True)
class Disk:
    """A disk that is mounted at `point`, and may be taken away."""

    point: Path
    source: tuple[str, ...]

    def plug(self) -> None:
        """Mount it."""
        subprocess.run(["mount", *self.source, self.point], check=True, timeout=30)

    def unplug(self) -> None:
        """Take it away, whoever uses it."""
        subprocess.run(["umount", "-l", self.point], check=True, timeout=30)


MakeDisk = Callable[[str, str], Disk]


@pytest.fixture
def make_disk(studio: Studio, tmp_path: Path) -> Iterator[MakeDisk]:
    """Return a function that mounts a disk of some kind at one of the studio's folders."""

    def make(root: str, kind: str) -> Disk:
        content = tmp_path / "content"
        content.mkdir()
        point = studio.folder / root
        point.mkdir()
        # Whatever goes wrong in a test: mounts that are left would outlive it.
        stack.callback(_unmount_everything_at, point)
        if kind == "ext4":
            image = tmp_path / "disk.ext4"
            with open(image, "wb") as stream:
                stream.truncate(8 * 1024**2)
            subprocess.run(["mkfs.ext4", "-q", image], check=True, timeout=60)
            disk = Disk(point, ("-o", "loop", str(image)))
        else:
            disk = Disk(point, ("--bind", str(content)))
        try:
            if kind == "folder of another disk":
                stack.callback(_unmount_everything_at, content)
                subprocess.run(["mount", "-t", "tmpfs", "none", content], check=True, timeout=30)
            disk.plug()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"a {kind} can't be mounted here: {error}")
        return disk

    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    with ExitStack() as stack:
        yield make


def _unmount_everything_at(point: Path) -> None:
    while os.path.ismount(point) or _is_in_mount_table(point):
        subprocess.run(["umount", "-l", point], check=True, timeout=30)


def _is_in_mount_table(point: Path) -> bool:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(point) for line in lines)


@pytest.mark.parametrize("kind", ["ext4", "folder of the same disk"])
def test_an_inbox_whose_disk_is_unmounted_while_photos_wait(
    studio: Studio, make_disk: MakeDisk, kind: str
) -> None:
    """The queue pauses, and each photo is painted once after the disk has come back."""
    disk = make_disk("inbox", kind)
    studio.configure(intake=OFTEN)
    photos = make_wait(studio, "swirls/a.jpg", "swirls/b.jpg")
    digests = {name: sha256(path) for name, path in photos.items()}
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("job.started")
        disk.unplug()
        daemon.wait_for("inbox.unavailable")
        daemon.wait_for("queue.paused")
        assert f"mounted at {disk.point}" in reasons(daemon, "inbox.unavailable")
        assert f"mounted at {disk.point}" in reasons(daemon, "queue.paused")
        assert os.listdir(disk.point) == []
        disk.plug()
        daemon.wait_until(lambda: studio.files("inbox") == [])
        let_everything_end(studio, daemon)
        assert daemon.events("job.cancelled") == []
        assert daemon.events("job.rejected") == []
        assert len(daemon.events("job.published")) == 4

    names = ("aquarelle/first.jpg", *photos)
    assert studio.files("outbox") == results(*names)
    assert studio.files("archive") == sorted(names)
    assert inputs_of(studio, *photos) == {n: (digests[n], False) for n in digests}


def test_a_photo_whose_disk_is_unmounted_while_it_is_worked_on_has_not_changed(
    studio: Studio, make_disk: MakeDisk
) -> None:
    """The painting is delivered once, and its sidecar does not speak of a change."""
    disk = make_disk("inbox", "folder of another disk")
    work_slowly(studio)
    photo = studio.drop("photo.jpg", "coffee", SIZE)
    digest = sha256(photo)
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("job.started")
        disk.unplug()
        daemon.wait_for("queue.paused")
        assert f"mounted at {disk.point}" in reasons(daemon, "queue.paused")
        disk.plug()
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert len(daemon.events("job.published")) == 1

    assert studio.files("outbox") == results("swirls/photo.jpg")
    assert sha256(studio.folder / "archive/swirls/photo.jpg") == digest
    assert inputs_of(studio, "swirls/photo.jpg") == {"swirls/photo.jpg": (digest, False)}


def test_photos_that_are_kept_are_not_painted_again_after_their_disk_was_away(
    studio: Studio, make_disk: MakeDisk
) -> None:
    """Neither a disk that comes back nor a start without it makes finished photos new."""
    disk = make_disk("inbox", "folder of another disk")
    studio.configure(intake=OFTEN, output="{after_success: keep}")
    for name in ("a.jpg", "coffee/b.jpg"):
        studio.drop(name, "coffee", SIZE)
    with studio.running() as daemon:
        daemon.wait_for("job.published", 2)
        # Nothing of the two is left to do once a later job has ended.
        (studio.folder / "inbox/swirls/letter.txt").write_text("not a photo")
        daemon.wait_until((studio.folder / "rejected/swirls/letter.txt.json").exists)
        disk.unplug()
        daemon.wait_for("inbox.unavailable")
        assert f"mounted at {disk.point}" in reasons(daemon, "inbox.unavailable")
        assert os.listdir(disk.point) == []
        disk.plug()
        daemon.wait_for("inbox.recovered")
        studio.drop("c.jpg", "coffee", SIZE)
        daemon.wait_for("job.published", 3)
    assert [event["input"] for event in daemon.events("job.published")] == [
        "a.jpg", "coffee/b.jpg", "c.jpg"
    ]  # fmt: skip

    disk.unplug()
    with studio.running() as without_disk:
        assert without_disk.process.wait(60) == 75
    assert f"mounted at {disk.point}" in without_disk.log.read_text()
    assert os.listdir(disk.point) == []

    disk.plug()
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        studio.drop("d.jpg", "coffee", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: all_ended(studio))
    assert [event["input"] for event in daemon.events("job.published")] == ["d.jpg"]
    assert studio.files("inbox") == ["a.jpg", "c.jpg", "coffee/b.jpg", "d.jpg"]
    assert studio.files("outbox") == results(
        "swirls/a.jpg", "swirls/c.jpg", "swirls/d.jpg", "coffee/b.jpg"
    )


def is_watched_by(daemon: Daemon, folder: Path) -> bool:
    """Tell whether the kernel tells the process what happens in a folder."""
    watch = f" ino:{folder.stat().st_ino:x} "
    for file in Path(f"/proc/{daemon.process.pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            if watch in file.read_text():
                return True
    return False


def test_an_inbox_whose_disk_was_away_for_a_moment_is_watched(
    studio: Studio, make_disk: MakeDisk
) -> None:
    """The kernel forgets such a disk without a word, which is noticed at the next full look."""
    studio.configure(intake="{settle_seconds: 0.2, rescan_seconds: 2}")
    disk = make_disk("inbox", "ext4")
    with studio.running() as daemon:
        studio.drop("before.jpg", "coffee", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: all_ended(studio) and studio.files("inbox") == [])
        daemon.wait_until(lambda: is_watched_by(daemon, studio.folder / "inbox"))
        disk.unplug()
        disk.plug()
        daemon.wait_until(lambda: is_watched_by(daemon, studio.folder / "inbox"))
        studio.drop("after.jpg", "coffee", SIZE)
        daemon.wait_for("job.published", 2)
    assert studio.files("outbox") == results("swirls/before.jpg", "swirls/after.jpg")


@pytest.mark.parametrize("kind", ["folder of another disk", "folder of the same disk"])
def test_an_outbox_whose_disk_is_unmounted_while_a_photo_is_painted(
    studio: Studio, make_disk: MakeDisk, kind: str
) -> None:
    """Nothing is written below the bare mount point; the painting appears on the disk."""
    disk = make_disk("outbox", kind)
    work_slowly(studio)
    studio.drop("photo.jpg", "coffee", SIZE)
    with studio.running() as daemon:
        daemon.wait_for("job.started")
        disk.unplug()
        daemon.wait_for("queue.paused")
        assert f"mounted at {disk.point}" in reasons(daemon, "queue.paused")
        assert os.listdir(disk.point) == []
        assert studio.files("inbox") == ["photo.jpg"]
        disk.plug()
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert len(daemon.events("job.published")) == 1
    assert studio.files("outbox") == results("swirls/photo.jpg")
    assert studio.files("archive") == ["swirls/photo.jpg"]
    disk.unplug()
    assert os.listdir(disk.point) == []


# Folders


def test_an_inbox_that_is_deleted_and_made_again(studio: Studio) -> None:
    """Photos in the new one are painted, and the styles' folders come back."""
    studio.configure(intake=OFTEN)
    inbox = studio.folder / "inbox"
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        daemon.wait_until((inbox / "coffee").is_dir)
        shutil.rmtree(inbox)
        daemon.wait_for("inbox.unavailable")
        assert str(inbox) in reasons(daemon, "inbox.unavailable")
        assert not inbox.exists()
        inbox.mkdir()
        studio.drop("photo.jpg", "coffee", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: sorted(os.listdir(inbox)) == ["both", "coffee", "swirls"])
        daemon.wait_for("inbox.recovered")
    assert studio.files("outbox") == results("swirls/photo.jpg")


def test_an_inbox_that_is_made_again_at_once_is_watched(studio: Studio) -> None:
    """A photo in the new one is noticed at once, not only at the next full look."""
    studio.configure(intake=RARELY)
    inbox = studio.folder / "inbox"
    with studio.running() as daemon:
        studio.drop("before.jpg", "coffee", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: all_ended(studio) and studio.files("inbox") == [])
        shutil.rmtree(inbox)
        inbox.mkdir()
        for number in range(2):
            studio.drop(f"after-{number}.jpg", "coffee", SIZE)
            daemon.wait_for("job.published", 2 + number, seconds=100)
    assert studio.files("outbox") == results(
        "swirls/before.jpg", "swirls/after-0.jpg", "swirls/after-1.jpg"
    )


def test_an_inbox_that_is_renamed_away_and_back_while_photos_wait(studio: Studio) -> None:
    """No job is cancelled meanwhile, and whatever came in the other place is painted too."""
    studio.configure(intake=OFTEN)
    inbox, away = studio.folder / "inbox", studio.folder / "away"
    photos = make_wait(studio, "swirls/a.jpg", "swirls/b.jpg")
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("job.started")
        inbox.rename(away)
        daemon.wait_for("inbox.unavailable")
        daemon.wait_for("queue.paused")
        assert str(inbox) in reasons(daemon, "queue.paused")
        assert not inbox.exists()
        shutil.copy(away / "swirls/a.jpg", away / "c.jpg")
        away.rename(inbox)
        daemon.wait_until(lambda: studio.files("inbox") == [])
        let_everything_end(studio, daemon)
        assert daemon.events("job.cancelled") == []
        assert daemon.events("job.rejected") == []
    names = ("aquarelle/first.jpg", *photos, "swirls/c.jpg")
    assert studio.files("outbox") == results(*names)
    assert studio.files("archive") == sorted(names)


def test_many_photos_moved_in_at_once(studio: Studio) -> None:
    """Each has its own painting, sidecar and archived original, under its own name."""
    studio.config.write_text(
        studio.config.read_text().replace(f"{{size: {{long_edge: 48}}, {QUICK}}}", LITTLE)
    )
    photo = studio.drop("photo.jpg", "coffee", (32, 32))
    data = photo.read_bytes()
    photo.unlink()
    prepared = studio.folder / "prepared"
    prepared.mkdir()
    digests = {}
    for number in range(150):
        comment = f"photo {number:03}".encode()
        marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        path = prepared / f"{number:03}.jpg"
        path.write_bytes(data[:2] + marker + data[2:])
        digests[f"swirls/trip/{path.name}"] = sha256(path)
    trip = studio.folder / "inbox/trip"
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        prepared.rename(trip)
        daemon.wait_until(lambda: os.listdir(trip) == [], seconds=350)
        daemon.wait_until(lambda: all_ended(studio))
        assert len(daemon.events("job.published")) == 150

    assert studio.files("inbox") == []
    assert studio.files("rejected") == []
    assert studio.files("outbox") == results(*digests)
    assert inputs_of(studio, *digests) == {n: (digest, False) for n, digest in digests.items()}
    archive = studio.folder / "archive"
    assert {name: sha256(archive / name) for name in studio.files("archive")} == digests


def test_a_tree_moved_in(studio: Studio) -> None:
    """Every file in it is painted in its folder's styles; sub-folders are kept."""
    names = (
        "coffee/one.jpg", "coffee/trip/day1/two.jpg", "coffee/trip/day2/morning/three.jpg",
        "both/four.jpg", "both/trip/five.jpg", "elsewhere/trip/six.jpg",
    )  # fmt: skip
    for name in names:
        studio.drop(name, "coffee", SIZE)
    inbox, prepared = studio.folder / "inbox", studio.folder / "prepared"
    inbox.rename(prepared)
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("daemon.started")
        for folder in ("coffee", "both", "elsewhere"):
            (prepared / folder).rename(inbox / folder)
        daemon.wait_until(lambda: studio.files("inbox") == [])
        let_everything_end(studio, daemon)
    expected = (
        "coffee/one.jpg", "coffee/trip/day1/two.jpg", "coffee/trip/day2/morning/three.jpg",
        "coffee/four.jpg", "coffee/trip/five.jpg", "swirls/four.jpg", "swirls/trip/five.jpg",
        "swirls/elsewhere/trip/six.jpg",
    )  # fmt: skip
    assert studio.files("outbox") == results(*expected)
    assert studio.files("archive") == sorted(expected)
    assert studio.files("rejected") == []


def test_a_style_folder_that_is_renamed_while_files_wait_in_it(studio: Studio) -> None:
    """They are painted in the default style, and the style's folder comes back."""
    studio.configure(intake=OFTEN)
    photos = make_wait(studio, "coffee/a.jpg", "coffee/trip/b.jpg")
    digests = [sha256(path) for path in photos.values()]
    inbox = studio.folder / "inbox"
    with studio.running() as daemon:
        daemon.wait_for("job.started")
        (inbox / "coffee").rename(inbox / "tea")
        daemon.wait_until((inbox / "coffee").is_dir)
        daemon.wait_until(lambda: studio.files("inbox") == [])
        let_everything_end(studio, daemon)
        assert len(daemon.events("job.cancelled")) == 2
    names = ("swirls/tea/a.jpg", "swirls/tea/trip/b.jpg")
    assert studio.files("outbox") == results("aquarelle/first.jpg", *names)
    assert studio.files("archive") == ["aquarelle/first.jpg", *names]
    assert inputs_of(studio, *names) == {
        name: (digest, False) for name, digest in zip(names, digests, strict=True)
    }


# Files that wait


def test_files_that_are_renamed_replaced_or_deleted_while_they_wait(studio: Studio) -> None:
    """What lies in the inbox when its turn comes is painted once; other jobs are cancelled."""
    names = ("swirls/old.jpg", "swirls/photo.jpg", "swirls/deleted.jpg", "swirls/quiet.jpg")
    photos = make_wait(studio, *names)
    renamed, replaced, deleted, quiet = photos.values()
    other = studio.drop("other.jpg", "astronaut", (80, 80)).rename(studio.folder / "other.jpg")
    digests = {
        "swirls/new.jpg": sha256(renamed),
        "swirls/photo.jpg": sha256(other),
        "swirls/quiet.jpg": sha256(quiet),
    }
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("job.started")
        renamed.rename(renamed.with_name("new.jpg"))
        other.replace(replaced)
        deleted.unlink()
        daemon.wait_until(lambda: studio.files("inbox") == [])
        let_everything_end(studio, daemon)
        cancelled = sorted(str(event["input"]) for event in daemon.events("job.cancelled"))
        assert cancelled == ["swirls/deleted.jpg", "swirls/old.jpg", "swirls/photo.jpg"]
        assert daemon.events("queue.paused") == []
    assert studio.files("outbox") == results("aquarelle/first.jpg", *digests)
    assert studio.files("rejected") == []
    assert inputs_of(studio, *digests) == {n: (digest, False) for n, digest in digests.items()}
    archive = studio.folder / "archive"
    assert {name: sha256(archive / name) for name in digests} == digests


# Files that are worked on


def test_files_that_are_renamed_replaced_or_deleted_while_they_are_worked_on(
    studio: Studio,
) -> None:
    """What was read is delivered, and whatever lies there now is painted as well."""
    work_slowly(studio)
    renamed, replaced, deleted = (
        studio.drop(name, "coffee", SIZE) for name in ("1-old.jpg", "2-replaced.jpg", "3-gone.jpg")
    )
    other = studio.drop("other.jpg", "astronaut", (80, 80)).rename(studio.folder / "other.jpg")
    read, new = sha256(renamed), sha256(other)
    with Watchman(studio), studio.running() as daemon:

        def wait_until_begun(photo: Path) -> None:
            daemon.wait_until(
                lambda: photo.name in [e["input"] for e in daemon.events("job.started")]
            )

        wait_until_begun(renamed)
        renamed.rename(renamed.with_name("4-new.jpg"))
        wait_until_begun(replaced)
        other.replace(replaced)
        wait_until_begun(deleted)
        deleted.unlink()
        daemon.wait_for("job.published", 5)
        let_everything_end(studio, daemon)
        assert daemon.events("job.cancelled") == []
        assert daemon.events("queue.paused") == []
    expected = {
        "swirls/1-old.jpg": (read, True),
        "swirls/2-replaced.jpg": (read, True),
        "swirls/2-replaced-2.jpg": (new, False),
        "swirls/3-gone.jpg": (read, True),
        "swirls/4-new.jpg": (read, False),
    }
    assert studio.files("outbox") == results(*expected)
    assert inputs_of(studio, *expected) == expected
    archive = studio.folder / "archive"
    assert {name: sha256(archive / name) for name in studio.files("archive")} == {
        "swirls/2-replaced.jpg": new,
        "swirls/4-new.jpg": read,
    }
    assert studio.files("rejected") == []


def test_a_file_rewritten_with_its_size_and_date_kept_while_it_is_worked_on(
    studio: Studio,
) -> None:
    """The sidecar tells of the change, and the new content is painted as well."""
    studio.configure(intake=OFTEN)
    work_slowly(studio)
    photo = studio.drop("photo.bmp", "coffee", SIZE)
    before, facts = sha256(photo), photo.stat()
    other = studio.drop("other.bmp", "astronaut", SIZE).rename(studio.folder / "other.bmp")
    after = sha256(other)
    with Watchman(studio), studio.running() as daemon:
        daemon.wait_for("job.started")
        with open(photo, "r+b") as stream:
            stream.write(other.read_bytes())
        os.utime(photo, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert (photo.stat().st_size, photo.stat().st_mtime_ns) == (
            facts.st_size, facts.st_mtime_ns
        )  # fmt: skip
        daemon.wait_for("job.published", 2)
        let_everything_end(studio, daemon)
    assert studio.files("outbox") == results("swirls/photo.bmp", "swirls/photo-2.bmp")
    assert inputs_of(studio, "swirls/photo.bmp", "swirls/photo-2.bmp") == {
        "swirls/photo.bmp": (before, True),
        "swirls/photo-2.bmp": (after, False),
    }
    archive = studio.folder / "archive"
    assert [sha256(archive / name) for name in studio.files("archive")] == [after]

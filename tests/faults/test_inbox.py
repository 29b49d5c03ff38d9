"""Folders, files and disks that are moved, replaced or removed while the daemon works."""

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

from tests.daemon_harness import Daemon, DaemonHarness
from tests.faults.conftest import QUICK, add_slow_style, paint_slowly
from tests.faults.output_checker import OutputChecker

pytestmark = pytest.mark.timeout(400)

SIZE = (96, 72)
OFTEN = "{settle_seconds: 0.2, truncated_grace_seconds: 2, rescan_seconds: 1}"
"""The inbox is scanned once a second."""

RARELY = "{settle_seconds: 0.2, truncated_grace_seconds: 2, rescan_seconds: 3600}"
"""Changes are only noticed by inotify events."""

LITTLE = (
    "{size: {long_edge: 32}, steps: 1, content_layers: {relu1_1: 1}, style_layers: {relu1_1: 1}}"
)
"""Overrides for the fastest possible job."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as a hexadecimal string."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def results(*names: str) -> list[str]:
    """Return the names of the files in the outbox if exactly these results are published."""
    return sorted([*names, *(f"{name}.json" for name in names)])


def inputs_of(harness: DaemonHarness, *names: str) -> dict[str, tuple[object, object]]:
    """Return, for each result, the digest of its input, and whether the photo has changed since."""
    inputs = {name: harness.sidecar(f"outbox/{name}.json")["input"] for name in names}
    return {name: (info["sha256"], info["changed"]) for name, info in inputs.items()}


def all_ended(harness: DaemonHarness) -> bool:
    """Return whether no job is queued or running."""
    path = harness.folder / "state" / "journal.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
        return bool(journal.execute(query).fetchone() == (0,))


def let_everything_end(harness: DaemonHarness, daemon: Daemon) -> None:
    """Wait until all jobs have ended, including one for an additional photo."""
    last = "coffee/zzz.png"
    harness.drop(last, "chelsea", SIZE)
    result = harness.folder / "outbox" / f"{last}.json"
    daemon.wait_until(lambda: result.exists() and all_ended(harness))
    for root, name in (("outbox", f"{last}.json"), ("outbox", last), ("archive", last)):
        daemon.wait_until((harness.folder / root / name).exists)
        (harness.folder / root / name).unlink()


def make_wait(harness: DaemonHarness, *names: str) -> dict[str, Path]:
    """Put photos into the inbox that have to wait until another one is done."""
    add_slow_style(harness)
    harness.drop("aquarelle/first.jpg", "coffee", SIZE)
    return {name: harness.drop(name, "coffee", SIZE) for name in names}


def work_slowly(harness: DaemonHarness) -> None:
    """Make each job take at least two seconds."""
    paint_slowly(harness, 20)


def reasons(daemon: Daemon, *events: str) -> str:
    """Return the logged reasons of these events."""
    return "\n".join(str(event["reason"]) for name in events for event in daemon.events(name))


# Disks


@dataclass(frozen=True)
class Disk:
    """A file system that is mounted at `point` and can be unmounted."""

    point: Path
    source: tuple[str, ...]

    def plug(self) -> None:
        """Mount it."""
        subprocess.run(["mount", *self.source, self.point], check=True, timeout=30)

    def unplug(self) -> None:
        """Unmount it, even if it is in use."""
        subprocess.run(["umount", "-l", self.point], check=True, timeout=30)


MakeDisk = Callable[[str, str], Disk]


@pytest.fixture
def make_disk(harness: DaemonHarness, tmp_path: Path) -> Iterator[MakeDisk]:
    """Return a function that mounts a file system of some kind at a folder of the harness."""

    def make(root: str, kind: str) -> Disk:
        content = tmp_path / "content"
        content.mkdir()
        point = harness.folder / root
        point.mkdir()
        # Mounts would outlive the test, so they are removed even if it fails.
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


def test_styles_whose_disk_is_unmounted_are_waited_for(
    harness: DaemonHarness, make_disk: MakeDisk
) -> None:
    """Their photos are painted in no other style meanwhile, and the daemon does not start."""
    disk = make_disk("more styles", "ext4")
    shutil.copy(harness.folder / "styles/swirls.png", disk.point / "wave.png")
    (disk.point / "wave.yaml").write_text(
        f"recipe: udacity\noverrides: {{size: {{long_edge: 48}}, {QUICK}}}\n"
    )
    harness.configure(styles_folder="more styles", intake=OFTEN)
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        disk.unplug()
        daemon.wait_for("config.rejected")
        assert f"mounted at {disk.point}" in reasons(daemon, "config.rejected")
        harness.drop("wave/a.jpg", "coffee", SIZE)
        daemon.wait_for("job.postponed")
        disk.plug()
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: harness.files("inbox") == [])
    assert harness.files("outbox") == results("wave/a.jpg")
    disk.unplug()
    once = harness.do("once")
    assert (once.returncode, f"mounted at {disk.point}" in once.stderr) == (75, True)


@pytest.mark.parametrize("kind", ["ext4", "folder of the same disk"])
def test_an_inbox_whose_disk_is_unmounted_while_photos_wait(
    harness: DaemonHarness, make_disk: MakeDisk, kind: str
) -> None:
    """If the inbox is unmounted, the queue pauses; each photo is painted once after it is back."""
    disk = make_disk("inbox", kind)
    harness.configure(intake=OFTEN)
    photos = make_wait(harness, "swirls/a.jpg", "swirls/b.jpg")
    digests = {name: sha256(path) for name, path in photos.items()}
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        disk.unplug()
        daemon.wait_for("inbox.unavailable")
        daemon.wait_for("queue.paused")
        assert f"mounted at {disk.point}" in reasons(daemon, "inbox.unavailable")
        assert f"mounted at {disk.point}" in reasons(daemon, "queue.paused")
        assert os.listdir(disk.point) == []
        disk.plug()
        daemon.wait_until(lambda: harness.files("inbox") == [])
        let_everything_end(harness, daemon)
        assert daemon.events("job.cancelled") == []
        assert daemon.events("job.rejected") == []
        assert len(daemon.events("job.published")) == 4

    names = ("aquarelle/first.jpg", *photos)
    assert harness.files("outbox") == results(*names)
    assert harness.files("archive") == sorted(names)
    assert inputs_of(harness, *photos) == {n: (digests[n], False) for n in digests}


def test_a_photo_whose_disk_is_unmounted_while_it_is_worked_on_has_not_changed(
    harness: DaemonHarness, make_disk: MakeDisk
) -> None:
    """If the inbox is unmounted during a job, the result is published once, as not changed."""
    disk = make_disk("inbox", "folder of another disk")
    work_slowly(harness)
    photo = harness.drop("photo.jpg", "coffee", SIZE)
    digest = sha256(photo)
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        disk.unplug()
        daemon.wait_for("queue.paused")
        assert f"mounted at {disk.point}" in reasons(daemon, "queue.paused")
        disk.plug()
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert len(daemon.events("job.published")) == 1

    assert harness.files("outbox") == results("swirls/photo.jpg")
    assert sha256(harness.folder / "archive/swirls/photo.jpg") == digest
    assert inputs_of(harness, "swirls/photo.jpg") == {"swirls/photo.jpg": (digest, False)}


def test_photos_that_are_kept_are_not_painted_again_after_their_disk_was_away(
    harness: DaemonHarness, make_disk: MakeDisk
) -> None:
    """Kept photos are not painted again after their disk was unmounted, or a start without it."""
    disk = make_disk("inbox", "folder of another disk")
    harness.configure(intake=OFTEN, output="{after_success: keep}")
    for name in ("a.jpg", "coffee/b.jpg"):
        harness.drop(name, "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.published", 2)
        # Once a later job has ended, nothing of the first two is left to do.
        (harness.folder / "inbox/swirls/letter.jpg").write_text("not a photo")
        daemon.wait_until((harness.folder / "rejected/swirls/letter.jpg.json").exists)
        disk.unplug()
        daemon.wait_for("inbox.unavailable")
        assert f"mounted at {disk.point}" in reasons(daemon, "inbox.unavailable")
        assert os.listdir(disk.point) == []
        disk.plug()
        daemon.wait_for("inbox.recovered")
        harness.drop("c.jpg", "coffee", SIZE)
        daemon.wait_for("job.published", 3)
    assert [event["input"] for event in daemon.events("job.published")] == [
        "a.jpg", "coffee/b.jpg", "c.jpg"
    ]  # fmt: skip

    disk.unplug()
    with harness.running() as without_disk:
        assert without_disk.process.wait(60) == 75
    assert f"mounted at {disk.point}" in without_disk.log.read_text()
    assert os.listdir(disk.point) == []

    disk.plug()
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        harness.drop("d.jpg", "coffee", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: all_ended(harness))
    assert [event["input"] for event in daemon.events("job.published")] == ["d.jpg"]
    assert harness.files("inbox") == ["a.jpg", "c.jpg", "coffee/b.jpg", "d.jpg"]
    assert harness.files("outbox") == results(
        "swirls/a.jpg", "swirls/c.jpg", "swirls/d.jpg", "coffee/b.jpg"
    )


def is_watched_by(daemon: Daemon, folder: Path) -> bool:
    """Return whether the process has an inotify watch on a folder."""
    watch = f" ino:{folder.stat().st_ino:x} "
    for file in Path(f"/proc/{daemon.process.pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            if watch in file.read_text():
                return True
    return False


def test_an_inbox_whose_disk_was_away_for_a_moment_is_watched(
    harness: DaemonHarness, make_disk: MakeDisk
) -> None:
    """After an unmount and remount, which send no event, the next full scan renews the watches."""
    harness.configure(intake="{settle_seconds: 0.2, rescan_seconds: 2}")
    disk = make_disk("inbox", "ext4")
    with harness.running() as daemon:
        harness.drop("before.jpg", "coffee", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: all_ended(harness) and harness.files("inbox") == [])
        daemon.wait_until(lambda: is_watched_by(daemon, harness.folder / "inbox"))
        disk.unplug()
        disk.plug()
        daemon.wait_until(lambda: is_watched_by(daemon, harness.folder / "inbox"))
        harness.drop("after.jpg", "coffee", SIZE)
        daemon.wait_for("job.published", 2)
    assert harness.files("outbox") == results("swirls/before.jpg", "swirls/after.jpg")


@pytest.mark.parametrize("kind", ["folder of another disk", "folder of the same disk"])
def test_an_outbox_whose_disk_is_unmounted_while_a_photo_is_painted(
    harness: DaemonHarness, make_disk: MakeDisk, kind: str
) -> None:
    """Nothing is written below the bare mount point; the result is published once it is back."""
    disk = make_disk("outbox", kind)
    work_slowly(harness)
    harness.drop("photo.jpg", "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        disk.unplug()
        daemon.wait_for("queue.paused")
        assert f"mounted at {disk.point}" in reasons(daemon, "queue.paused")
        assert os.listdir(disk.point) == []
        assert harness.files("inbox") == ["photo.jpg"]
        disk.plug()
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert len(daemon.events("job.published")) == 1
    assert harness.files("outbox") == results("swirls/photo.jpg")
    assert harness.files("archive") == ["swirls/photo.jpg"]
    disk.unplug()
    assert os.listdir(disk.point) == []


# Folders


def test_an_inbox_that_is_deleted_and_made_again(harness: DaemonHarness) -> None:
    """If the inbox is deleted and made again, it works as before, and has its style folders."""
    harness.configure(intake=OFTEN)
    inbox = harness.folder / "inbox"
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        daemon.wait_until((inbox / "coffee").is_dir)
        shutil.rmtree(inbox)
        daemon.wait_for("inbox.unavailable")
        assert str(inbox) in reasons(daemon, "inbox.unavailable")
        assert not inbox.exists()
        inbox.mkdir()
        harness.drop("photo.jpg", "coffee", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: sorted(os.listdir(inbox)) == ["both", "coffee", "swirls"])
        daemon.wait_for("inbox.recovered")
    assert harness.files("outbox") == results("swirls/photo.jpg")


def test_an_inbox_that_is_made_again_at_once_is_watched(harness: DaemonHarness) -> None:
    """A photo in a newly made inbox is noticed by inotify, without waiting for a full scan."""
    harness.configure(intake=RARELY)
    inbox = harness.folder / "inbox"
    with harness.running() as daemon:
        harness.drop("before.jpg", "coffee", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: all_ended(harness) and harness.files("inbox") == [])
        shutil.rmtree(inbox)
        inbox.mkdir()
        for number in range(2):
            harness.drop(f"after-{number}.jpg", "coffee", SIZE)
            daemon.wait_for("job.published", 2 + number, seconds=100)
    assert harness.files("outbox") == results(
        "swirls/before.jpg", "swirls/after-0.jpg", "swirls/after-1.jpg"
    )


def test_an_inbox_that_is_renamed_away_and_back_while_photos_wait(harness: DaemonHarness) -> None:
    """If the inbox is renamed and renamed back, no job is cancelled and new photos are painted."""
    harness.configure(intake=OFTEN)
    inbox, away = harness.folder / "inbox", harness.folder / "away"
    photos = make_wait(harness, "swirls/a.jpg", "swirls/b.jpg")
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        inbox.rename(away)
        daemon.wait_for("inbox.unavailable")
        daemon.wait_for("queue.paused")
        assert str(inbox) in reasons(daemon, "queue.paused")
        assert not inbox.exists()
        shutil.copy(away / "swirls/a.jpg", away / "c.jpg")
        away.rename(inbox)
        daemon.wait_until(lambda: harness.files("inbox") == [])
        let_everything_end(harness, daemon)
        assert daemon.events("job.cancelled") == []
        assert daemon.events("job.rejected") == []
    names = ("aquarelle/first.jpg", *photos, "swirls/c.jpg")
    assert harness.files("outbox") == results(*names)
    assert harness.files("archive") == sorted(names)


def test_many_photos_moved_in_at_once(harness: DaemonHarness) -> None:
    """150 photos moved in at once each get a result, a sidecar and an archived original."""
    harness.config.write_text(
        harness.config.read_text().replace(f"{{size: {{long_edge: 48}}, {QUICK}}}", LITTLE)
    )
    photo = harness.drop("photo.jpg", "coffee", (32, 32))
    data = photo.read_bytes()
    photo.unlink()
    source = harness.folder / "prepared"
    source.mkdir()
    digests = {}
    for number in range(150):
        comment = f"photo {number:03}".encode()
        marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        path = source / f"{number:03}.jpg"
        path.write_bytes(data[:2] + marker + data[2:])
        digests[f"swirls/trip/{path.name}"] = sha256(path)
    trip = harness.folder / "inbox/trip"
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        source.rename(trip)
        daemon.wait_until(lambda: os.listdir(trip) == [], seconds=350)
        daemon.wait_until(lambda: all_ended(harness))
        assert len(daemon.events("job.published")) == 150

    assert harness.files("inbox") == []
    assert harness.files("rejected") == []
    assert harness.files("outbox") == results(*digests)
    assert inputs_of(harness, *digests) == {n: (digest, False) for n, digest in digests.items()}
    archive = harness.folder / "archive"
    assert {name: sha256(archive / name) for name in harness.files("archive")} == digests


def test_a_tree_moved_in(harness: DaemonHarness) -> None:
    """All files of a moved-in tree are painted in their folder's styles, with their sub-paths."""
    names = (
        "coffee/one.jpg", "coffee/trip/day1/two.jpg", "coffee/trip/day2/morning/three.jpg",
        "both/four.jpg", "both/trip/five.jpg", "elsewhere/trip/six.jpg",
    )  # fmt: skip
    for name in names:
        harness.drop(name, "coffee", SIZE)
    inbox, prepared = harness.folder / "inbox", harness.folder / "prepared"
    inbox.rename(prepared)
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("daemon.started")
        for folder in ("coffee", "both", "elsewhere"):
            (prepared / folder).rename(inbox / folder)
        daemon.wait_until(lambda: harness.files("inbox") == [])
        let_everything_end(harness, daemon)
    expected = (
        "coffee/one.jpg", "coffee/trip/day1/two.jpg", "coffee/trip/day2/morning/three.jpg",
        "coffee/four.jpg", "coffee/trip/five.jpg", "swirls/four.jpg", "swirls/trip/five.jpg",
        "swirls/elsewhere/trip/six.jpg",
    )  # fmt: skip
    assert harness.files("outbox") == results(*expected)
    assert harness.files("archive") == sorted(expected)
    assert harness.files("rejected") == []


def test_a_style_folder_that_is_renamed_while_files_wait_in_it(harness: DaemonHarness) -> None:
    """Photos in a renamed style folder get the default style, and the folder is recreated."""
    harness.configure(intake=OFTEN)
    photos = make_wait(harness, "coffee/a.jpg", "coffee/trip/b.jpg")
    digests = [sha256(path) for path in photos.values()]
    inbox = harness.folder / "inbox"
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        (inbox / "coffee").rename(inbox / "tea")
        daemon.wait_until((inbox / "coffee").is_dir)
        daemon.wait_until(lambda: harness.files("inbox") == [])
        let_everything_end(harness, daemon)
        assert len(daemon.events("job.cancelled")) == 2
    names = ("swirls/tea/a.jpg", "swirls/tea/trip/b.jpg")
    assert harness.files("outbox") == results("aquarelle/first.jpg", *names)
    assert harness.files("archive") == ["aquarelle/first.jpg", *names]
    assert inputs_of(harness, *names) == {
        name: (digest, False) for name, digest in zip(names, digests, strict=True)
    }


# Files of queued jobs


def test_files_that_are_renamed_replaced_or_deleted_while_they_wait(harness: DaemonHarness) -> None:
    """If files are renamed, replaced or deleted before their turn, the new content is painted."""
    names = ("swirls/old.jpg", "swirls/photo.jpg", "swirls/deleted.jpg", "swirls/quiet.jpg")
    photos = make_wait(harness, *names)
    renamed, replaced, deleted, quiet = photos.values()
    other = harness.drop("other.jpg", "astronaut", (80, 80)).rename(harness.folder / "other.jpg")
    digests = {
        "swirls/new.jpg": sha256(renamed),
        "swirls/photo.jpg": sha256(other),
        "swirls/quiet.jpg": sha256(quiet),
    }
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        renamed.rename(renamed.with_name("new.jpg"))
        other.replace(replaced)
        deleted.unlink()
        daemon.wait_until(lambda: harness.files("inbox") == [])
        let_everything_end(harness, daemon)
        cancelled = sorted(str(event["input"]) for event in daemon.events("job.cancelled"))
        assert cancelled == ["swirls/deleted.jpg", "swirls/old.jpg", "swirls/photo.jpg"]
        assert daemon.events("queue.paused") == []
    assert harness.files("outbox") == results("aquarelle/first.jpg", *digests)
    assert harness.files("rejected") == []
    assert inputs_of(harness, *digests) == {n: (digest, False) for n, digest in digests.items()}
    archive = harness.folder / "archive"
    assert {name: sha256(archive / name) for name in digests} == digests


# Files of running jobs


def test_files_that_are_renamed_replaced_or_deleted_while_they_are_worked_on(
    harness: DaemonHarness,
) -> None:
    """If files change during their job, both the old and the new content give a result."""
    work_slowly(harness)
    renamed, replaced, deleted = (
        harness.drop(name, "coffee", SIZE) for name in ("1-old.jpg", "2-replaced.jpg", "3-gone.jpg")
    )
    other = harness.drop("other.jpg", "astronaut", (80, 80)).rename(harness.folder / "other.jpg")
    read, new = sha256(renamed), sha256(other)
    with OutputChecker(harness), harness.running() as daemon:

        def wait_until_begun(photo: Path) -> None:
            daemon.wait_until(
                lambda: photo.name in [e["input"] for e in daemon.events("job.painting_started")]
            )

        wait_until_begun(renamed)
        renamed.rename(renamed.with_name("4-new.jpg"))
        wait_until_begun(replaced)
        other.replace(replaced)
        wait_until_begun(deleted)
        deleted.unlink()
        daemon.wait_for("job.published", 5)
        let_everything_end(harness, daemon)
        assert daemon.events("job.cancelled") == []
        assert daemon.events("queue.paused") == []
    expected = {
        "swirls/1-old.jpg": (read, True),
        "swirls/2-replaced.jpg": (read, True),
        "swirls/2-replaced-2.jpg": (new, False),
        "swirls/3-gone.jpg": (read, True),
        "swirls/4-new.jpg": (read, False),
    }
    assert harness.files("outbox") == results(*expected)
    assert inputs_of(harness, *expected) == expected
    archive = harness.folder / "archive"
    assert {name: sha256(archive / name) for name in harness.files("archive")} == {
        "swirls/2-replaced.jpg": new,
        "swirls/4-new.jpg": read,
    }
    assert harness.files("rejected") == []


def test_a_file_rewritten_with_its_size_and_date_kept_while_it_is_worked_on(
    harness: DaemonHarness,
) -> None:
    """A photo rewritten during its job with the same size and date is marked, and painted again."""
    harness.configure(intake=OFTEN)
    work_slowly(harness)
    photo = harness.drop("photo.bmp", "coffee", SIZE)
    before, stat = sha256(photo), photo.stat()
    other = harness.drop("other.bmp", "astronaut", SIZE).rename(harness.folder / "other.bmp")
    after = sha256(other)
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        with open(photo, "r+b") as stream:
            stream.write(other.read_bytes())
        os.utime(photo, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert (photo.stat().st_size, photo.stat().st_mtime_ns) == (
            stat.st_size, stat.st_mtime_ns
        )  # fmt: skip
        daemon.wait_for("job.published", 2)
        let_everything_end(harness, daemon)
    assert harness.files("outbox") == results("swirls/photo.bmp", "swirls/photo-2.bmp")
    assert inputs_of(harness, "swirls/photo.bmp", "swirls/photo-2.bmp") == {
        "swirls/photo.bmp": (before, True),
        "swirls/photo-2.bmp": (after, False),
    }
    archive = harness.folder / "archive"
    assert [sha256(archive / name) for name in harness.files("archive")] == [after]


def test_files_that_are_no_pictures_stay_and_are_counted(harness: DaemonHarness) -> None:
    """What phones and exports put beside photos is neither rejected nor waited for."""
    harness.configure(intake=OFTEN)
    harness.drop("a.jpg", "coffee", SIZE)
    inbox = harness.folder / "inbox"
    others = {
        "a.jpg.supplemental-metadata.json": b'{"title": "a.jpg", "photoTakenTime": {}}',
        "IMG_1.AAE": b"<?xml version='1.0'?><plist version='1.0'><dict/></plist>",
        "swirls/a.xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
        "swirls/notes": b"BM: bring milk",
        "clip.mov": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
        "empty.txt": b"",
    }
    for name, data in others.items():
        (inbox / name).parent.mkdir(exist_ok=True)
        (inbox / name).write_bytes(data)
    named = inbox / "named.png"
    named.write_bytes(b"not a picture")
    picture = inbox / "swirls/no-suffix"
    picture.write_bytes((inbox / "a.jpg").read_bytes())
    with harness.running() as daemon:
        daemon.wait_for("job.published", 2)
        daemon.wait_until(lambda: harness.status()["not_pictures"] == len(others))
        assert harness.files("inbox") == sorted(others)
        assert harness.files("rejected") == ["swirls/named.png", "swirls/named.png.json"]
        assert "6 files in the inbox left alone: no pictures" in harness.do("status").stdout
        # A file that becomes a picture is painted.
        (inbox / "swirls/notes").write_bytes((harness.folder / "archive/swirls/a.jpg").read_bytes())
        daemon.wait_for("job.published", 3)
        daemon.wait_until(lambda: harness.status()["not_pictures"] == len(others) - 1)
        harness.configure(intake=OFTEN.replace("}", ", not_pictures: reject}"))
    assert harness.do("once").returncode == 1
    assert harness.files("inbox") == []

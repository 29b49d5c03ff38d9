"""Files and folders without the needed permissions: each is reported, and stops no others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon_harness import Daemon, DaemonHarness
from tests.faults.conftest import paint_slowly
from tests.faults.disks import needs_root, remount, small_disk

pytestmark = [pytest.mark.timeout(400), needs_root]

needs_setpriv = pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="root can't be told to obey modes"
)
OBEYING_MODES = (
    "setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner",
    "--inh-caps=-dac_override,-dac_read_search,-fowner",
)  # fmt: skip
"""Runs a command as root without the capabilities to bypass modes and sticky bits."""

ANNA, DAEMON = 61001, 61000
"""User IDs, which do not have to exist."""

SIZE = (96, 72)


def assert_reported(harness: DaemonHarness, path: Path, *texts: str) -> None:
    """Check that status, doctor and explain name a path and have these texts."""
    for command in (("status",), ("doctor",), ("explain", str(path))):
        output = " ".join(harness.do(*command).stdout.split())
        for text in (path.name, *texts):
            assert text in output, f"styled {command[0]} does not say {text!r}:\n{output}"


def assert_never_paused(daemon: Daemon) -> None:
    """Check that the queue was never paused."""
    assert daemon.events("queue.paused") == []


@needs_setpriv
def test_a_sticky_inbox_stops_nobody(harness: DaemonHarness) -> None:
    """Photos in another user's sticky folder are painted and reported, and moved later."""
    folder = harness.folder / "inbox/swirls"
    for path in (folder.parent, folder):
        path.mkdir(exist_ok=True)
        os.chown(path, ANNA, ANNA)
        path.chmod(0o3777)
    with harness.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for("daemon.started")
        for count, name in enumerate(("a.jpg", "b.jpg"), start=1):
            os.chown(harness.drop(f"aside-{name}", "coffee", SIZE), ANNA, ANNA)
            (harness.folder / f"inbox/aside-{name}").rename(folder / name)
            daemon.wait_for("job.published", count)
            daemon.wait_for("input.stuck", count)
        assert_never_paused(daemon)
        assert harness.status()["stuck_count"] == 2
        assert_reported(harness, folder / "a.jpg", "can't be moved", "chmod -t")
        assert harness.files("inbox") == ["swirls/a.jpg", "swirls/b.jpg"]
        assert harness.files("archive") == []
        folder.chmod(0o777)
        daemon.wait_until(lambda: harness.files("inbox") == [], 100)
        daemon.wait_until(lambda: harness.status()["stuck_count"] == 0, 20)
    assert harness.files("archive") == ["swirls/a.jpg", "swirls/b.jpg"]
    assert len(harness.files("outbox")) == 4


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Make a file immutable, even for root; skip the test if the file system cannot."""
    if shutil.which("chattr") is None:
        pytest.skip("chattr is not installed")
    if subprocess.run(["chattr", "+i", path], capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], capture_output=True)


def test_an_immutable_photo_stops_nobody(harness: DaemonHarness) -> None:
    """An immutable photo is painted or rejected once, stays in the inbox, and stops no others."""
    photo = harness.drop("a.jpg", "coffee", SIZE)
    letter = harness.folder / "inbox/letter.jpg"
    letter.write_bytes(b"Dear reader. " * 99)
    with immutable(photo), immutable(letter), harness.running() as daemon:
        daemon.wait_for("input.stuck", 2)
        harness.drop("b.jpg", "chelsea", SIZE)
        daemon.wait_for("job.published", 2)
        daemon.wait_until(lambda: "b.jpg" not in harness.files("inbox"))
        assert_never_paused(daemon)
        assert_reported(harness, photo, "can't be moved", "immutable")
        rejected = harness.sidecar("rejected/swirls/letter.jpg.json")["rejected"]
        assert "not a picture" in str(rejected["reason"])
        assert harness.files("inbox") == ["a.jpg", "letter.jpg"]
    # A restart repeats neither of them.
    with immutable(photo), immutable(letter), harness.running() as daemon:
        daemon.wait_for("input.stuck", 2)
        assert daemon.events("job.claimed") == []
    assert harness.files("rejected") == ["swirls/letter.jpg.json"]


def test_a_library_that_may_only_be_read(harness: DaemonHarness) -> None:
    """With `after_success: keep` a read-only inbox works; invalid files in it are reported once."""
    inbox = harness.folder / "inbox"
    harness.configure(output="{after_success: keep}")
    with small_disk(inbox, "8m"):
        harness.drop("a.jpg", "coffee", SIZE)
        (inbox / "notes.jpg").write_text("no photo " * 50)
        harness.drop("trip/b.jpg", "chelsea", SIZE)
        remount(inbox, "ro")
        with harness.running() as daemon:
            daemon.wait_for("job.published", 2)
            daemon.wait_for("job.rejected")
            assert_never_paused(daemon)
            (note,) = harness.status()["problems"]
            assert "may only be read" in note
        assert harness.files("outbox") == [
            "swirls/a.jpg", "swirls/a.jpg.json", "swirls/trip/b.jpg", "swirls/trip/b.jpg.json"
        ]  # fmt: skip
        assert harness.files("rejected") == ["swirls/notes.jpg.json"]
        once = harness.do("once")
        assert once.returncode == 0, once.stderr  # kept files do not count as left
        assert len(harness.files("outbox")) == 4
        remount(inbox, "rw")


@needs_setpriv
def test_one_folder_of_the_outbox_that_can_t_be_written_stops_its_own_photos(
    harness: DaemonHarness,
) -> None:
    """If an outbox folder cannot be written its photos wait unpainted; other styles' are done."""
    folder = harness.folder / "outbox/swirls"
    folder.mkdir(parents=True)
    os.chown(folder, ANNA, ANNA)
    folder.chmod(0o755)
    with harness.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for("daemon.started")
        waiting = harness.drop("swirls/a.jpg", "coffee", SIZE)
        harness.drop("coffee/b.jpg", "chelsea", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_for("job.postponed")
        assert_never_paused(daemon)
        assert daemon.events("job.painting_started")[0]["style"] == "coffee"
        assert "may not be written" in harness.do("explain", str(waiting)).stdout
        assert str(folder) in " ".join(harness.do("doctor").stdout.split())
    assert harness.files("inbox") == ["swirls/a.jpg"]


@needs_setpriv
def test_a_folder_that_can_t_be_listed_is_named(harness: DaemonHarness) -> None:
    """A folder that cannot be listed is reported, and explain does not promise its photos."""
    private = harness.folder / "inbox/swirls/private"
    private.mkdir(parents=True)
    photo = harness.drop("swirls/private/p.jpg", "coffee", SIZE)
    os.chown(private, ANNA, ANNA)
    private.chmod(0o700)
    with harness.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for("path.skipped")
        daemon.wait_until(lambda: harness.status()["skipped"])
        assert_reported(harness, private, "can't be read", "Permission denied")
        explained = json.loads(harness.do("explain", "--json", str(photo)).stdout)
        assert explained["verdict"] == "skipped"
        assert "is taken" not in str(explained)


@needs_setpriv
@pytest.mark.parametrize("with_a_letter", [False, True])
def test_once_ends_although_a_photo_can_t_be_read(
    harness: DaemonHarness, with_a_letter: bool
) -> None:
    """`once` names an unreadable photo and exits with 75, or with 1 if a file was rejected."""
    private = harness.drop("private.jpg", "coffee", SIZE)
    os.chown(private, ANNA, ANNA)
    private.chmod(0o600)
    harness.drop("fine.jpg", "chelsea", SIZE)
    if with_a_letter:
        (harness.folder / "inbox/letter.jpg").write_bytes(b"Dear reader. " * 99)
    command = [*OBEYING_MODES, *harness.command("once")]
    once = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert once.returncode == (1 if with_a_letter else 75), once.stderr
    assert "private.jpg was not processed" in once.stderr
    assert "Permission denied" in once.stderr
    assert harness.files("outbox") == ["swirls/fine.jpg", "swirls/fine.jpg.json"]


def test_once_ends_although_a_file_is_never_closed(harness: DaemonHarness) -> None:
    """`once` leaves files that are open for writing or half downloaded, and exits with 75."""
    harness.configure(intake="{settle_seconds: 0.2, truncated_grace_seconds: 1}")
    half = harness.drop("half.jpg", "coffee", SIZE)
    half.with_name("half.jpg.aria2").touch()
    photo = harness.drop("open.jpg", "chelsea", SIZE)
    with open(photo, "ab"):
        once = harness.do("once")
    assert once.returncode == 75, once.stderr
    for text in (
        "open.jpg was not processed: is still open",
        "half.jpg was not processed: waits for half.jpg.aria2",
    ):
        assert text in once.stderr
    assert harness.files("inbox") == ["half.jpg", "half.jpg.aria2", "open.jpg"]
    assert harness.files("outbox") == []


def test_a_style_whose_picture_is_missing_stops_its_own_photos(harness: DaemonHarness) -> None:
    """Photos of a style whose image is missing wait, even from the start, until it exists."""
    image = harness.folder / "styles/coffee.jpg"
    image.rename(harness.folder / "away.jpg")
    harness.drop("coffee/a.jpg", "coffee", SIZE)
    harness.drop("swirls/b.jpg", "chelsea", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("style.unavailable")
        daemon.wait_for("job.published")
        assert daemon.events("job.published")[0]["style"] == "swirls"
        (problem,) = harness.status()["problems"]
        assert "photos of the style coffee wait" in problem
        assert str(image) in problem
        assert (
            str(image) in harness.do("explain", str(harness.folder / "inbox/coffee/a.jpg")).stdout
        )
        assert str(image) in " ".join(harness.do("doctor").stdout.split())
        (harness.folder / "away.jpg").rename(image)
        daemon.wait_for("style.recovered", seconds=60)
        daemon.wait_for("job.published", 2, seconds=60)
        assert harness.status()["problems"] == []


def test_a_folder_that_looks_like_a_style_s_is_named(harness: DaemonHarness) -> None:
    """A folder whose name differs from a style's only in case is reported."""
    harness.drop("Swirls/a.jpg", "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("folder.misspelled")
        daemon.wait_until(lambda: harness.status()["misspelled"])
        assert_reported(harness, harness.folder / "inbox/Swirls", 'not the folder of "swirls"')


def test_what_root_makes_belongs_to_the_owner_of_the_folder(harness: DaemonHarness) -> None:
    """Files made by `sudo styled once` belong to the owner of the folders, not to root."""
    harness.drop("swirls/trip/a.jpg", "coffee", SIZE)
    for path in (harness.folder, *harness.folder.rglob("*")):
        os.chown(path, DAEMON, DAEMON)
    assert harness.do("once").returncode == 0
    wrong_owner = [path for path in harness.folder.rglob("*") if path.lstat().st_uid != DAEMON]
    assert wrong_owner == []
    assert (harness.folder / "outbox/swirls/trip/a.jpg").exists()


def test_a_photo_that_is_opened_for_writing_while_it_is_painted_stays(
    harness: DaemonHarness,
) -> None:
    """A photo that is open for writing after its job is moved once it is closed."""
    paint_slowly(harness, 25)
    photo = harness.drop("a.jpg", "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        with open(photo, "ab"):
            daemon.wait_for("input.stuck")
            assert "still open for writing" in str(daemon.events("input.stuck")[0]["reason"])
            assert harness.files("outbox") == ["swirls/a.jpg", "swirls/a.jpg.json"]
            assert photo.exists()
        daemon.wait_until(lambda: not photo.exists(), 60)
    assert harness.files("archive") == ["swirls/a.jpg"]


NOTHING = {
    "empty": "",
    "without styles": "default_style: null\nengine: {weights: untrained, device: cpu}\n",
    "cut off": "styles:\n  swirls: {image: sty",
}


@pytest.mark.parametrize("what", NOTHING)
def test_a_reload_of_nothing_changes_nothing(harness: DaemonHarness, what: str) -> None:
    """A reload of an empty or incomplete file cancels no job, is reported, and can be repeated."""
    paint_slowly(harness, 25)
    valid = harness.config.read_text()
    for name in ("a.jpg", "b.jpg"):
        harness.drop(name, "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        harness.config.write_text(NOTHING[what])
        assert harness.do("config", "show").returncode == 78
        assert harness.do("check").returncode == 78
        daemon.process.send_signal(1)
        daemon.wait_for("config.rejected")
        harness.config.write_text(valid)  # status and the others read it too
        (problem,) = harness.status()["problems"]
        assert "a reload has changed nothing" in problem
        daemon.process.send_signal(1)
        daemon.wait_for("config.reloaded")
        assert harness.status()["problems"] == []
        daemon.wait_for("job.published", 2)
        assert daemon.events("job.cancelled") == []


def test_a_start_without_styles_is_a_bad_configuration(harness: DaemonHarness) -> None:
    """Starting without styles exits with 78, so that systemd does not restart it."""
    harness.config.write_text(NOTHING["without styles"])
    for command in ("run", "once"):
        completed = harness.do(command)
        assert completed.returncode == 78, completed.stderr
        assert "names no style" in completed.stderr


def test_a_configuration_that_is_still_being_written_is_waited_for(harness: DaemonHarness) -> None:
    """A reload waits until the configuration file has settled, in case an editor is writing it."""
    valid = harness.config.read_text()
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        with open(harness.config, "w") as stream:
            stream.flush()
            daemon.process.send_signal(1)
            time.sleep(1.0)  # longer than the time after which a file counts as settled
            stream.write(valid)
        daemon.wait_for("config.reloaded")
        assert daemon.events("config.rejected") == []

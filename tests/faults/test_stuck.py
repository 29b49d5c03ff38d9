"""What can't be read, moved or written, each by itself: it is said, and never stops the others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import paint_slowly
from tests.faults.disks import needs_root, remount, small_disk
from tests.studio import Daemon, Studio

pytestmark = [pytest.mark.timeout(400), needs_root]

needs_setpriv = pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="root can't be told to obey modes"
)
OBEYING_MODES = (
    "setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner",
    "--inh-caps=-dac_override,-dac_read_search,-fowner",
)  # fmt: skip
"""Root without the right to do what modes and sticky bits forbid."""

ANNA, DAEMON = 61001, 61000
"""Numbers of users that need not exist."""

SIZE = (96, 72)


def status_of(studio: Studio) -> Any:
    """Return what `styled status --json` says."""
    return json.loads(studio.do("status", "--json").stdout)


def assert_said(studio: Studio, path: Path, *words: str) -> None:
    """Check that status, doctor and explain speak of a path in these words."""
    for command in (("status",), ("doctor",), ("explain", str(path))):
        said = " ".join(studio.do(*command).stdout.split())
        for word in (path.name, *words):
            assert word in said, f"styled {command[0]} does not say {word!r}:\n{said}"


def assert_never_paused(daemon: Daemon) -> None:
    """Check that the queue went on all the time."""
    assert daemon.events("queue.paused") == []


@needs_setpriv
def test_a_sticky_inbox_stops_nobody(studio: Studio) -> None:
    """Its photos are painted, can't be taken out, and that is said; the next one is painted."""
    folder = studio.folder / "inbox/swirls"
    for path in (folder.parent, folder):
        path.mkdir(exist_ok=True)
        os.chown(path, ANNA, ANNA)
        path.chmod(0o3777)
    with studio.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for("daemon.started")
        for count, name in enumerate(("a.jpg", "b.jpg"), start=1):
            os.chown(studio.drop(f"aside-{name}", "coffee", SIZE), ANNA, ANNA)
            (studio.folder / f"inbox/aside-{name}").rename(folder / name)
            daemon.wait_for("job.published", count)
            daemon.wait_for("input.stuck", count)
        assert_never_paused(daemon)
        assert status_of(studio)["stuck_count"] == 2
        assert_said(studio, folder / "a.jpg", "can't be moved", "chmod -t")
        assert studio.files("inbox") == ["swirls/a.jpg", "swirls/b.jpg"]
        assert studio.files("archive") == []
        folder.chmod(0o777)
        daemon.wait_until(lambda: studio.files("inbox") == [], 100)
        daemon.wait_until(lambda: status_of(studio)["stuck_count"] == 0, 20)
    assert studio.files("archive") == ["swirls/a.jpg", "swirls/b.jpg"]
    assert len(studio.files("outbox")) == 4


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Keep even root from changing a file, where its file system knows how."""
    if shutil.which("chattr") is None:
        pytest.skip("chattr is not installed")
    if subprocess.run(["chattr", "+i", path], capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], capture_output=True)


def test_an_immutable_photo_stops_nobody(studio: Studio) -> None:
    """It is painted once, and stays; one that is no photo is rejected in words, and stays."""
    photo = studio.drop("a.jpg", "coffee", SIZE)
    letter = studio.folder / "inbox/letter.jpg"
    letter.write_bytes(b"Dear reader. " * 99)
    with immutable(photo), immutable(letter), studio.running() as daemon:
        daemon.wait_for("input.stuck", 2)
        studio.drop("b.jpg", "chelsea", SIZE)
        daemon.wait_for("job.published", 2)
        daemon.wait_until(lambda: "b.jpg" not in studio.files("inbox"))
        assert_never_paused(daemon)
        assert_said(studio, photo, "can't be moved", "immutable")
        rejected = studio.sidecar("rejected/swirls/letter.jpg.json")["rejected"]
        assert "not a picture" in str(rejected["reason"])
        assert studio.files("inbox") == ["a.jpg", "letter.jpg"]
    # A restart repeats neither.
    with immutable(photo), immutable(letter), studio.running() as daemon:
        daemon.wait_for("input.stuck", 2)
        assert daemon.events("job.claimed") == []
    assert studio.files("rejected") == ["swirls/letter.jpg.json"]


def test_a_library_that_may_only_be_read(studio: Studio) -> None:
    """With `after_success: keep` it needs nothing; what is no photo there is told of, once."""
    inbox = studio.folder / "inbox"
    studio.configure(output="{after_success: keep}")
    with small_disk(inbox, "8m"):
        studio.drop("a.jpg", "coffee", SIZE)
        (inbox / "notes.txt").write_text("no photo " * 50)
        studio.drop("trip/b.jpg", "chelsea", SIZE)
        remount(inbox, "ro")
        with studio.running() as daemon:
            daemon.wait_for("job.published", 2)
            daemon.wait_for("job.rejected")
            assert_never_paused(daemon)
            (note,) = status_of(studio)["troubles"]
            assert "may only be read" in note
        assert studio.files("outbox") == [
            "swirls/a.jpg", "swirls/a.jpg.json", "swirls/trip/b.jpg", "swirls/trip/b.jpg.json"
        ]  # fmt: skip
        assert studio.files("rejected") == ["swirls/notes.txt.json"]
        once = studio.do("once")
        assert once.returncode == 0, once.stderr  # what is kept is nothing that is left to be done
        assert len(studio.files("outbox")) == 4
        remount(inbox, "rw")


@needs_setpriv
def test_one_folder_of_the_outbox_that_can_t_be_written_stops_its_own_photos(
    studio: Studio,
) -> None:
    """They wait, unpainted; those of another style are done."""
    folder = studio.folder / "outbox/swirls"
    folder.mkdir(parents=True)
    os.chown(folder, ANNA, ANNA)
    folder.chmod(0o755)
    with studio.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for("daemon.started")
        waiting = studio.drop("swirls/a.jpg", "coffee", SIZE)
        studio.drop("coffee/b.jpg", "chelsea", SIZE)
        daemon.wait_for("job.published")
        daemon.wait_for("job.waits")
        assert_never_paused(daemon)
        assert daemon.events("job.started")[0]["style"] == "coffee"
        assert "may not be written" in studio.do("explain", str(waiting)).stdout
        assert str(folder) in " ".join(studio.do("doctor").stdout.split())
    assert studio.files("inbox") == ["swirls/a.jpg"]


@needs_setpriv
def test_a_folder_that_can_t_be_listed_is_named(studio: Studio) -> None:
    """`explain` promises nothing that will not happen."""
    private = studio.folder / "inbox/swirls/private"
    private.mkdir(parents=True)
    photo = studio.drop("swirls/private/p.jpg", "coffee", SIZE)
    os.chown(private, ANNA, ANNA)
    private.chmod(0o700)
    with studio.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for("folder.skipped")
        daemon.wait_until(lambda: status_of(studio)["unreadable"])
        assert_said(studio, private, "can't be looked into", "Permission denied")
        explained = json.loads(studio.do("explain", "--json", str(photo)).stdout)
        assert explained["verdict"] == "unreadable"
        assert "is taken" not in str(explained)


@needs_setpriv
@pytest.mark.parametrize("with_a_letter", [False, True])
def test_once_ends_although_a_photo_can_t_be_read(studio: Studio, with_a_letter: bool) -> None:
    """It is named, and the exit code is 75; or 1 where something was rejected as well."""
    private = studio.drop("private.jpg", "coffee", SIZE)
    os.chown(private, ANNA, ANNA)
    private.chmod(0o600)
    studio.drop("fine.jpg", "chelsea", SIZE)
    if with_a_letter:
        (studio.folder / "inbox/letter.jpg").write_bytes(b"Dear reader. " * 99)
    command = [*OBEYING_MODES, *studio.command("once")]
    once = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert once.returncode == (1 if with_a_letter else 75), once.stderr
    assert "private.jpg is left" in once.stderr
    assert "Permission denied" in once.stderr
    assert studio.files("outbox") == ["swirls/fine.jpg", "swirls/fine.jpg.json"]


def test_once_ends_although_a_file_is_never_closed(studio: Studio) -> None:
    """Nor one whose download was broken off; neither is touched."""
    studio.configure(intake="{settle_seconds: 0.2, truncated_grace_seconds: 1}")
    half = studio.drop("half.jpg", "coffee", SIZE)
    half.with_name("half.jpg.aria2").touch()
    photo = studio.drop("open.jpg", "chelsea", SIZE)
    with open(photo, "ab"):
        once = studio.do("once")
    assert once.returncode == 75, once.stderr
    for words in ("open.jpg is left: is still open", "half.jpg is left: waits for half.jpg.aria2"):
        assert words in once.stderr
    assert studio.files("inbox") == ["half.jpg", "half.jpg.aria2", "open.jpg"]
    assert studio.files("outbox") == []


def test_a_style_whose_picture_is_missing_stops_its_own_photos(studio: Studio) -> None:
    """At the start, too: a drive may come late. Once it is there, they are painted."""
    image = studio.folder / "styles/coffee.jpg"
    image.rename(studio.folder / "away.jpg")
    studio.drop("coffee/a.jpg", "coffee", SIZE)
    studio.drop("swirls/b.jpg", "chelsea", SIZE)
    with studio.running() as daemon:
        daemon.wait_for("style.unavailable")
        daemon.wait_for("job.published")
        assert daemon.events("job.published")[0]["style"] == "swirls"
        (trouble,) = status_of(studio)["troubles"]
        assert "photos of the style coffee wait" in trouble
        assert str(image) in trouble
        assert str(image) in studio.do("explain", str(studio.folder / "inbox/coffee/a.jpg")).stdout
        assert str(image) in " ".join(studio.do("doctor").stdout.split())
        (studio.folder / "away.jpg").rename(image)
        daemon.wait_for("style.recovered", seconds=60)
        daemon.wait_for("job.published", 2, seconds=60)
        assert status_of(studio)["troubles"] == []


def test_a_folder_that_looks_like_a_style_s_is_named(studio: Studio) -> None:
    """Case and the Unicode form of an accent are no reason to guess."""
    studio.drop("Swirls/a.jpg", "coffee", SIZE)
    with studio.running() as daemon:
        daemon.wait_for("folder.misspelled")
        daemon.wait_until(lambda: status_of(studio)["misspelled"])
        assert_said(studio, studio.folder / "inbox/Swirls", 'not the folder of "swirls"')


def test_what_root_makes_belongs_to_the_owner_of_the_folder(studio: Studio) -> None:
    """`sudo styled once` leaves nothing that the service could not write."""
    studio.drop("swirls/trip/a.jpg", "coffee", SIZE)
    for path in (studio.folder, *studio.folder.rglob("*")):
        os.chown(path, DAEMON, DAEMON)
    assert studio.do("once").returncode == 0
    made = [path for path in studio.folder.rglob("*") if path.lstat().st_uid != DAEMON]
    assert made == []
    assert (studio.folder / "outbox/swirls/trip/a.jpg").exists()


def test_a_photo_that_is_opened_for_writing_while_it_is_painted_stays(studio: Studio) -> None:
    """Its painting is delivered; it leaves once whoever has opened it closes it."""
    paint_slowly(studio, 25)
    photo = studio.drop("a.jpg", "coffee", SIZE)
    with studio.running() as daemon:
        daemon.wait_for("job.started")
        with open(photo, "ab"):
            daemon.wait_for("input.stuck")
            assert "still open for writing" in str(daemon.events("input.stuck")[0]["reason"])
            assert studio.files("outbox") == ["swirls/a.jpg", "swirls/a.jpg.json"]
            assert photo.exists()
        daemon.wait_until(lambda: not photo.exists(), 60)
    assert studio.files("archive") == ["swirls/a.jpg"]


NOTHING = {
    "empty": "",
    "without styles": "default_style: null\nengine: {weights: untrained, device: cpu}\n",
    "cut off": "styles:\n  swirls: {image: sty",
}


@pytest.mark.parametrize("what", NOTHING)
def test_a_reload_of_nothing_changes_nothing(studio: Studio, what: str) -> None:
    """No job is cancelled; log and status say so; and the right file is taken over again."""
    paint_slowly(studio, 25)
    right = studio.config.read_text()
    for name in ("a.jpg", "b.jpg"):
        studio.drop(name, "coffee", SIZE)
    with studio.running() as daemon:
        daemon.wait_for("job.started")
        studio.config.write_text(NOTHING[what])
        assert studio.do("config", "show").returncode == 78
        assert studio.do("check").returncode == 78
        daemon.process.send_signal(1)
        daemon.wait_for("config.kept")
        studio.config.write_text(right)  # status and the others read it too
        (trouble,) = status_of(studio)["troubles"]
        assert "a reload has changed nothing" in trouble
        daemon.process.send_signal(1)
        daemon.wait_for("config.reloaded")
        assert status_of(studio)["troubles"] == []
        daemon.wait_for("job.published", 2)
        assert daemon.events("job.cancelled") == []


def test_a_start_without_styles_is_a_bad_configuration(studio: Studio) -> None:
    """systemd does not try it again."""
    studio.config.write_text(NOTHING["without styles"])
    for command in ("run", "once"):
        done = studio.do(command)
        assert done.returncode == 78, done.stderr
        assert "names no style" in done.stderr


def test_a_configuration_that_is_still_being_written_is_waited_for(studio: Studio) -> None:
    """An editor that empties the file before it fills it again takes nothing away."""
    right = studio.config.read_text()
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        with open(studio.config, "w") as stream:
            stream.flush()
            daemon.process.send_signal(1)
            time.sleep(1.0)  # longer than a file has to stay as it is
            stream.write(right)
        daemon.wait_for("config.reloaded")
        assert daemon.events("config.kept") == []

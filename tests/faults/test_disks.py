"""Disks that are full, read-only or forbidden: the queue pauses, says so, and goes on."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.faults.disks import fill, needs_root, remount, small_disk
from tests.faults.watchman import Watchman
from tests.studio import Daemon, Studio

pytestmark = [pytest.mark.timeout(400), needs_root]

needs_setpriv = pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="root can't be told to obey modes"
)
OBEYING_MODES = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")

PHOTOS = ("a.png", "b.png", "c.png")


def drop_photos(studio: Studio) -> None:
    """Drop three photos."""
    for name in PHOTOS:
        studio.drop(name, "chelsea", (96, 72))


def pauses(daemon: Daemon) -> str:
    """Return what the daemon said each time that the queue was paused."""
    return "\n".join(str(event["reason"]) for event in daemon.events("queue.paused"))


def assert_all_done_once(studio: Studio, attempts: int = 1) -> None:
    """Each photo has one result by so many attempts at most, and its original is archived."""
    results = [f"swirls/{name}" for name in PHOTOS]
    assert studio.files("archive") == results
    assert studio.files("outbox") == sorted([*results, *(f"{name}.json" for name in results)])
    assert studio.files("rejected") == []
    for name in results:
        assert studio.sidecar(f"outbox/{name}.json")["job"]["attempts"] <= attempts  # type: ignore[operator]


@pytest.mark.parametrize("where", ["outbox", "archive"])
def test_a_full_disk_is_waited_out(studio: Studio, where: str) -> None:
    """The input is kept, no attempt is consumed, and work goes on once there is room."""
    folder = studio.folder / where
    with small_disk(folder, "1m"), Watchman(studio, "outbox", "rejected"):
        ballast = fill(folder)
        with studio.running() as daemon:
            daemon.wait_for("daemon.started")
            drop_photos(studio)
            daemon.wait_for("queue.paused")
            assert str(folder) in pauses(daemon)
            assert "No space left on device" in pauses(daemon)
            status = json.loads(studio.do("status", "--json").stdout)
            assert status["state"].startswith("paused: ")
            assert studio.files("inbox") == list(PHOTOS)
            ballast.unlink()
            daemon.wait_until(lambda: studio.files("inbox") == [])
            daemon.wait_for("queue.resumed")
        assert_all_done_once(studio)


def test_a_full_state_is_waited_out(studio: Studio) -> None:
    """Without its journal it does nothing that it could not remember having done."""
    state = studio.folder / "state"
    with small_disk(state, "2m"), Watchman(studio):
        with studio.running() as daemon:
            daemon.wait_for("daemon.started")
            ballast = fill(state)
            drop_photos(studio)
            daemon.wait_until(
                lambda: daemon.events("queue.paused") or daemon.events("inbox.unavailable")
            )
            said = json.dumps([*daemon.events("queue.paused"), *daemon.events("inbox.unavailable")])
            assert "the journal" in said
            assert "full" in said
            assert studio.files("inbox") == list(PHOTOS)
            assert studio.files("outbox") == []
            ballast.unlink()
            daemon.wait_until(lambda: studio.files("inbox") == [])
        assert_all_done_once(studio)


def test_a_stop_with_a_full_state_is_a_stop(studio: Studio) -> None:
    """What can't be noted any more is no failure, and the next start goes on."""
    state = studio.folder / "state"
    with small_disk(state, "2m"):
        drop_photos(studio)
        with studio.running() as daemon:
            daemon.wait_for("job.published")
            ballast = fill(state)
            daemon.wait_until(lambda: daemon.events("queue.paused") or not studio.files("inbox"))
        assert daemon.process.poll() == 0
        ballast.unlink()
        with studio.running() as daemon:
            daemon.wait_until(lambda: studio.files("inbox") == [])
        # Nobody could write down that it was a stop and no crash.
        assert_all_done_once(studio, attempts=2)


@pytest.mark.parametrize("where", ["outbox", "archive"])
def test_a_disk_that_turns_read_only_is_waited_out(studio: Studio, where: str) -> None:
    """As disks do on their own when they have errors."""
    folder = studio.folder / where
    with small_disk(folder, "4m"):
        with studio.running() as daemon:
            daemon.wait_for("daemon.started")
            remount(folder, "ro")
            drop_photos(studio)
            daemon.wait_for("queue.paused")
            assert "Read-only file system" in pauses(daemon)
            assert studio.files("inbox") == list(PHOTOS)
            remount(folder, "rw")
            daemon.wait_until(lambda: studio.files("inbox") == [])
        # Not before: the gallery is written after the last photo has left the inbox.
        assert_all_done_once(studio)


@needs_setpriv
@pytest.mark.parametrize(("where", "waits"), [("outbox", "job.waits"), ("archive", "input.stuck")])
def test_a_missing_permission_is_waited_out(studio: Studio, where: str, waits: str) -> None:
    """Nothing is rejected because of a folder's mode; once that is mended all is done."""
    drop_photos(studio)
    locked = studio.folder / where / "swirls"
    locked.mkdir(parents=True)
    locked.chmod(0o555)
    with studio.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for(waits, 3)
        assert str(locked) in str(daemon.events(waits)[0]["reason"])
        assert daemon.events("queue.paused") == []
        assert studio.files("inbox") == list(PHOTOS)
        locked.chmod(0o755)
        daemon.wait_until(lambda: studio.files("inbox") == [])
    assert_all_done_once(studio)


@needs_setpriv
def test_photos_in_a_locked_inbox_are_painted_and_leave_once_they_may(studio: Studio) -> None:
    """The folder belongs to somebody else, say: that is said, once for each photo."""
    drop_photos(studio)
    inbox = studio.folder / "inbox"
    # Its folders are made at the start: only what comes later is forbidden.
    for name in ("swirls", "coffee", "both"):
        (inbox / name).mkdir(exist_ok=True)
    inbox.chmod(0o555)
    with studio.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for("input.stuck", 3)
        assert all("may not be changed" in str(e["reason"]) for e in daemon.events("input.stuck"))
        assert studio.files("inbox") == list(PHOTOS)
        inbox.chmod(0o755)
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert daemon.events("queue.paused") == []
    assert_all_done_once(studio)

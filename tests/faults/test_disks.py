"""Full, read-only and forbidden file systems: jobs wait and are done later."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.daemon_harness import Daemon, DaemonHarness
from tests.faults.disks import fill, needs_root, remount, small_disk
from tests.faults.output_checker import OutputChecker

pytestmark = [pytest.mark.timeout(400), needs_root]

needs_setpriv = pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="root can't be told to obey modes"
)
OBEYING_MODES = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")

PHOTOS = ("a.png", "b.png", "c.png")


def drop_photos(harness: DaemonHarness) -> None:
    """Drop three photos."""
    for name in PHOTOS:
        harness.drop(name, "chelsea", (96, 72))


def pauses(daemon: Daemon) -> str:
    """Return the logged reasons of all pauses of the queue."""
    return "\n".join(str(event["reason"]) for event in daemon.events("queue.paused"))


def assert_all_done_once(harness: DaemonHarness, attempts: int = 1) -> None:
    """Check that each photo has one result, by at most this many attempts, and is archived."""
    results = [f"swirls/{name}" for name in PHOTOS]
    assert harness.files("archive") == results
    assert harness.files("outbox") == sorted([*results, *(f"{name}.json" for name in results)])
    assert harness.files("rejected") == []
    for name in results:
        assert harness.sidecar(f"outbox/{name}.json")["job"]["attempts"] <= attempts  # type: ignore[operator]


@pytest.mark.parametrize("where", ["outbox", "archive"])
def test_a_full_disk_is_waited_out(harness: DaemonHarness, where: str) -> None:
    """On a full disk the input is kept and no attempt is counted; jobs are done later."""
    folder = harness.folder / where
    with small_disk(folder, "1m"), OutputChecker(harness, "outbox", "rejected"):
        ballast = fill(folder)
        with harness.running() as daemon:
            daemon.wait_for("daemon.started")
            drop_photos(harness)
            daemon.wait_for("queue.paused")
            assert str(folder) in pauses(daemon)
            assert "No space left on device" in pauses(daemon)
            status = json.loads(harness.do("status", "--json").stdout)
            assert status["state"].startswith("paused: ")
            assert harness.files("inbox") == list(PHOTOS)
            ballast.unlink()
            daemon.wait_until(lambda: harness.files("inbox") == [])
            daemon.wait_for("queue.resumed")
        assert_all_done_once(harness)


def test_a_full_state_is_waited_out(harness: DaemonHarness) -> None:
    """If the state folder is full, no job is done that the journal could not record."""
    state = harness.folder / "state"
    with small_disk(state, "2m"), OutputChecker(harness):
        with harness.running() as daemon:
            daemon.wait_for("daemon.started")
            ballast = fill(state)
            drop_photos(harness)
            daemon.wait_until(
                lambda: daemon.events("queue.paused") or daemon.events("inbox.unavailable")
            )
            logged = json.dumps(
                [*daemon.events("queue.paused"), *daemon.events("inbox.unavailable")]
            )
            assert "the journal" in logged
            assert "full" in logged
            assert harness.files("inbox") == list(PHOTOS)
            assert harness.files("outbox") == []
            ballast.unlink()
            daemon.wait_until(lambda: harness.files("inbox") == [])
        assert_all_done_once(harness)


def test_a_stop_with_a_full_state_is_a_stop(harness: DaemonHarness) -> None:
    """A stop with a full state folder exits with 0, and the next start does the jobs."""
    state = harness.folder / "state"
    with small_disk(state, "2m"):
        drop_photos(harness)
        with harness.running() as daemon:
            daemon.wait_for("job.published")
            ballast = fill(state)
            daemon.wait_until(lambda: daemon.events("queue.paused") or not harness.files("inbox"))
        assert daemon.process.poll() == 0
        ballast.unlink()
        with harness.running() as daemon:
            daemon.wait_until(lambda: harness.files("inbox") == [])
        # The journal could not record that it was a stop and not a crash.
        assert_all_done_once(harness, attempts=2)


@pytest.mark.parametrize("where", ["outbox", "archive"])
def test_a_disk_that_turns_read_only_is_waited_out(harness: DaemonHarness, where: str) -> None:
    """If a file system becomes read-only, as it does after I/O errors, the queue pauses."""
    folder = harness.folder / where
    with small_disk(folder, "4m"):
        with harness.running() as daemon:
            daemon.wait_for("daemon.started")
            remount(folder, "ro")
            drop_photos(harness)
            daemon.wait_for("queue.paused")
            assert daemon.events("job.painting_started") == []  # nothing is painted for nothing
            assert "Read-only file system" in pauses(daemon)
            assert harness.files("inbox") == list(PHOTOS)
            remount(folder, "rw")
            daemon.wait_until(lambda: harness.files("inbox") == [])
        # Only after the stop: the gallery is written after the last photo has left the inbox.
        assert_all_done_once(harness)


@needs_setpriv
@pytest.mark.parametrize(
    ("where", "event"), [("outbox", "job.postponed"), ("archive", "input.stuck")]
)
def test_a_missing_permission_is_waited_out(harness: DaemonHarness, where: str, event: str) -> None:
    """A folder without write permission rejects no photo; all are done once it is writable."""
    drop_photos(harness)
    locked = harness.folder / where / "swirls"
    locked.mkdir(parents=True)
    locked.chmod(0o555)
    with harness.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for(event, 3)
        assert str(locked) in str(daemon.events(event)[0]["reason"])
        assert daemon.events("queue.paused") == []
        assert harness.files("inbox") == list(PHOTOS)
        locked.chmod(0o755)
        daemon.wait_until(lambda: harness.files("inbox") == [])
    assert_all_done_once(harness)


@needs_setpriv
def test_photos_in_a_locked_inbox_are_painted_and_leave_once_they_may(
    harness: DaemonHarness,
) -> None:
    """Photos in a read-only inbox are painted, logged once each, and moved once permitted."""
    drop_photos(harness)
    inbox = harness.folder / "inbox"
    # The daemon makes these folders at its start, which must not fail.
    for name in ("swirls", "coffee", "both"):
        (inbox / name).mkdir(exist_ok=True)
    inbox.chmod(0o555)
    with harness.running_from_scratch(OBEYING_MODES) as daemon:
        daemon.wait_for("input.stuck", 3)
        assert all("may not be changed" in str(e["reason"]) for e in daemon.events("input.stuck"))
        assert harness.files("inbox") == list(PHOTOS)
        inbox.chmod(0o755)
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert daemon.events("queue.paused") == []
    assert_all_done_once(harness)


@needs_root
def test_a_nearly_full_disk_is_left_as_it_is(harness: DaemonHarness) -> None:
    """With `min_free` the queue pauses before a disk is full, and goes on once it has room."""
    outbox = harness.folder / "outbox"
    harness.configure(output="{min_free: 6MB}")
    with small_disk(outbox, "8m"), OutputChecker(harness, "outbox", "rejected"):
        ballast = fill(outbox, leaving_bytes=5_000_000)
        drop_photos(harness)
        with harness.running() as daemon:
            daemon.wait_for("queue.paused")
            assert "less than output.min_free (0.006 GB)" in pauses(daemon)
            assert "less than output.min_free" in harness.status()["state"]
            assert harness.do("doctor").stdout.count("output.min_free") >= 1
            assert harness.do("once").returncode == 73  # the daemon has the folders
            ballast.unlink()
            daemon.wait_for("job.published", len(PHOTOS))
            daemon.wait_until(lambda: harness.files("inbox") == [])
        assert_all_done_once(harness)

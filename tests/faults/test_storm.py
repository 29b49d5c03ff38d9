"""Very many files at once, and inboxes without inotify."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.daemon_harness import Daemon, DaemonHarness

pytestmark = pytest.mark.timeout(600)

LINKS_OF_ONE = 20_000  # ext4 allows 65,000
MB = 1_000_000


def put_many(harness: DaemonHarness, folder: Path, count: int) -> None:
    """Fill a folder of the inbox with photos, by hard links."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if number % LINKS_OF_ONE == 0:
            source = harness.drop(f"../source-{number}.jpg", "coffee", (96, 72))
        os.link(source, folder / f"IMG_{number:06}.jpg")


def memory_bytes(daemon: Daemon, key: str) -> int:
    """Return `VmRSS` (resident memory) or `VmHWM` (its peak) of the daemon, in bytes."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def jobs_in_journal(harness: DaemonHarness) -> int:
    """Return the number of jobs in the journal."""
    with closing(sqlite3.connect(harness.folder / "state/journal.sqlite3")) as journal:
        count: int = journal.execute("SELECT count(*) FROM jobs").fetchone()[0]
    return count


# More than the 16,384 events that the kernel queues for an inotify instance.
@pytest.mark.parametrize("files", [17_000, pytest.param(100_000, marks=pytest.mark.heavy)])
def test_a_storm_of_photos(harness: DaemonHarness, files: int) -> None:
    """Many photos at once, found by events or at the start, are all submitted, in little memory."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        harness.drop("first.jpg", "coffee", (96, 72))
        daemon.wait_for("job.published")
        idle = memory_bytes(daemon, "VmRSS")
        put_many(harness, harness.folder / "inbox/coffee/storm", files)
        daemon.wait_until(lambda: jobs_in_journal(harness) == files + 1)
        assert memory_bytes(daemon, "VmHWM") - idle < 300 * MB
    for path in (harness.folder / "state").glob("journal*"):
        path.unlink()

    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        daemon.wait_until(lambda: jobs_in_journal(harness) >= files - len(harness.files("archive")))
        assert memory_bytes(daemon, "VmHWM") - idle < 300 * MB
        left = {path.name for path in (harness.folder / "inbox/coffee/storm").iterdir()}
        done = {path.name for path in (harness.folder / "archive").rglob("IMG_*.jpg")}
        assert len(left | done) == files
    assert harness.files("rejected") == []


def test_without_kernel_events_the_inbox_is_polled_and_that_is_reported(
    harness: DaemonHarness,
) -> None:
    """At the inotify watch limit the inbox is polled; log, status and sidecar show it."""
    limit = 'echo 2 > /proc/sys/user/max_inotify_watches && exec "$@"'
    within = ("unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh")
    if subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    with harness.running_from_scratch(within) as daemon:
        daemon.wait_for("daemon.started")
        harness.drop("a.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: harness.files("inbox") == [])
        (warning,) = daemon.events("inbox.polled")
        assert "inotify" in str(warning["reason"])
        status = json.loads(harness.do("status", "--json").stdout)
        assert any("polled" in one["message"] for one in of_kind("polling", status["degraded"]))
    degraded = harness.sidecar("outbox/swirls/a.jpg.json")["degraded"]
    assert any("polled" in one["message"] for one in of_kind("polling", degraded))


def of_kind(kind: str, degraded: Any) -> list[dict[str, str]]:
    """Return the degradations of one kind."""
    return [degradation for degradation in degraded if degradation["kind"] == kind]


def opened_by(pid: int) -> list[str]:
    """Return the targets of the open file descriptors of a process."""
    targets = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            targets.append(os.readlink(descriptor))
    return targets


def test_polling_works_alone(harness: DaemonHarness) -> None:
    """With `mode: polling` no inotify instance is used, and that is not a degradation."""
    harness.configure(intake="{mode: polling, settle_seconds: 0.2}")
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        harness.drop("coffee/a.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert not any("inotify" in target for target in opened_by(daemon.process.pid))
    assert not harness.sidecar("outbox/coffee/a.jpg.json")["degraded"]

"""Very many files at once, and kernels that will not tell of them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.studio import Daemon, Studio

pytestmark = pytest.mark.timeout(600)

LINKS_OF_ONE = 20_000  # ext4 allows 65,000
MB = 1_000_000


def put_many(studio: Studio, folder: Path, count: int) -> None:
    """Fill a folder of the inbox with photos, as fast as the file system can."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if number % LINKS_OF_ONE == 0:
            source = studio.drop(f"../source-{number}.jpg", "coffee", (96, 72))
        os.link(source, folder / f"IMG_{number:06}.jpg")


def memory_bytes(daemon: Daemon, key: str) -> int:
    """Return `VmRSS` or the highest of it, `VmHWM`, of the process."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def known(studio: Studio) -> int:
    """Return how many jobs the journal knows."""
    with closing(sqlite3.connect(studio.folder / "state/journal.sqlite3")) as journal:
        count: int = journal.execute("SELECT count(*) FROM jobs").fetchone()[0]
    return count


# More than the 16,384 events that the kernel keeps for a process that does not read them.
@pytest.mark.parametrize("files", [17_000, pytest.param(100_000, marks=pytest.mark.heavy)])
def test_a_storm_of_photos(studio: Studio, files: int) -> None:
    """As a storm of events, and found at the start: all are known, in little memory."""
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        studio.drop("first.jpg", "coffee", (96, 72))
        daemon.wait_for("job.published")
        idle = memory_bytes(daemon, "VmRSS")
        put_many(studio, studio.folder / "inbox/coffee/storm", files)
        daemon.wait_until(lambda: known(studio) == files + 1)
        assert memory_bytes(daemon, "VmHWM") - idle < 300 * MB
    for path in (studio.folder / "state").glob("journal*"):
        path.unlink()

    with studio.running() as daemon:
        daemon.wait_for("job.started")
        daemon.wait_until(lambda: known(studio) >= files - len(studio.files("archive")))
        assert memory_bytes(daemon, "VmHWM") - idle < 300 * MB
        left = {path.name for path in (studio.folder / "inbox/coffee/storm").iterdir()}
        done = {path.name for path in (studio.folder / "archive").rglob("IMG_*.jpg")}
        assert len(left | done) == files
    assert studio.files("rejected") == []


def test_without_kernel_events_the_inbox_is_polled_and_that_is_said(studio: Studio) -> None:
    """The limit of watches is reached: photos are painted, and log, status and sidecar say so."""
    limit = 'echo 2 > /proc/sys/user/max_inotify_watches && exec "$@"'
    within = ("unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh")
    if subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    with studio.running_from_scratch(within) as daemon:
        daemon.wait_for("daemon.started")
        studio.drop("a.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: studio.files("inbox") == [])
        (warning,) = daemon.events("inbox.polled")
        assert "inotify" in str(warning["reason"])
        status = json.loads(studio.do("status", "--json").stdout)
        assert any("polled" in one["message"] for one in of_kind("polling", status["degraded"]))
    degraded = studio.sidecar("outbox/swirls/a.jpg.json")["degraded"]
    assert any("polled" in one["message"] for one in of_kind("polling", degraded))


def of_kind(kind: str, degraded: Any) -> list[dict[str, str]]:
    """Return the degradations of one kind."""
    return [degradation for degradation in degraded if degradation["kind"] == kind]


def opened_by(pid: int) -> list[str]:
    """Return what a process has open; what it closes meanwhile is not in it."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(descriptor))
    return found


def test_polling_works_alone(studio: Studio) -> None:
    """No inotify instance is used, and that is no degradation: it was asked for."""
    studio.configure(intake="{mode: polling, settle_seconds: 0.2}")
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        studio.drop("coffee/a.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert not any("inotify" in what for what in opened_by(daemon.process.pid))
    assert not studio.sidecar("outbox/coffee/a.jpg.json")["degraded"]

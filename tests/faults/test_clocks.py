"""Unusual file dates, and jumps of the time of day."""

from __future__ import annotations

import hashlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.daemon_harness import Daemon, DaemonHarness
from tests.faults.conftest import add_slow_style

pytestmark = pytest.mark.timeout(400)

SIZE = (96, 72)
YEAR_SECONDS = 365 * 86400
STRANGE_YEARS = {"future.jpg": 2200, "zero.jpg": 1970, "negative.jpg": 1960}

SHIM = """\
import pathlib, time

_real, _offset = time.time, pathlib.Path(__file__).with_name("offset")
time.time = lambda: _real() + float(_offset.read_text())
"""
"""Content of `sitecustomize.py`, which Python imports at its start."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as a hexadecimal string."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_digests(harness: DaemonHarness) -> dict[str, object]:
    """Return the input digest of each result in the default style, by the result's name."""
    names = [name for name in harness.files("outbox") if name.endswith(".json")]
    return {
        name.removeprefix("swirls/").removesuffix(".json"): harness.sidecar(f"outbox/{name}")[
            "input"
        ]["sha256"]
        for name in names
        if name.startswith("swirls/")
    }


def wait_until_the_inbox_is_empty(harness: DaemonHarness, daemon: Daemon) -> None:
    """Wait until all photos have left the inbox."""
    daemon.wait_until(lambda: harness.files("inbox") == [])


def test_files_from_the_future_and_from_before_the_epoch(harness: DaemonHarness) -> None:
    """Photos dated in the future or before 1970 are painted once, and keep their date."""
    digests: dict[str, str] = {}
    mtimes: dict[str, int] = {}
    for name, year in STRANGE_YEARS.items():
        path = harness.drop(name, "coffee", (SIZE[0] + len(digests), SIZE[1]))
        mtimes[name] = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 10**9
        os.utime(path, ns=(mtimes[name], mtimes[name]))
        if path.stat().st_mtime_ns != mtimes[name]:
            pytest.skip(f"this file system can't hold a date in {year}")
        digests[name] = sha256(path)
    with harness.running() as daemon:
        daemon.wait_for("job.published", len(digests))
        wait_until_the_inbox_is_empty(harness, daemon)
        assert len(daemon.events("job.published")) == len(digests)
        assert daemon.events("job.cancelled") == []
    assert read_digests(harness) == digests
    archive = harness.folder / "archive/swirls"
    assert {name: (archive / name).stat().st_mtime_ns for name in mtimes} == mtimes


def test_files_of_the_same_size_and_date(harness: DaemonHarness) -> None:
    """Photos of the same size and date are different inputs."""
    digests = {}
    for number, photo in enumerate(("coffee", "astronaut", "chelsea")):
        path = harness.drop(f"{number}.bmp", photo, SIZE)
        os.utime(path, (0, 0))
        digests[f"{number}.bmp"] = sha256(path)
    assert len({path.stat().st_size for path in (harness.folder / "inbox").iterdir()}) == 1
    with harness.running() as daemon:
        daemon.wait_for("job.published", 3)
        wait_until_the_inbox_is_empty(harness, daemon)
    assert read_digests(harness) == digests
    assert len(set(digests.values())) == 3


def test_files_rewritten_before_their_turn_with_their_dates_kept(harness: DaemonHarness) -> None:
    """A photo rewritten with its old date before its turn is painted once, with the new content."""
    add_slow_style(harness)
    harness.drop("aquarelle/first.jpg", "coffee", SIZE)
    others = {"same.bmp": SIZE, "smaller.bmp": (80, 80)}
    before: dict[Path, os.stat_result] = {}
    after: dict[Path, bytes] = {}
    for name, size in others.items():
        data = harness.drop("other.bmp", "astronaut", size).read_bytes()
        path = harness.drop(f"swirls/{name}", "coffee", SIZE)
        before[path], after[path] = path.stat(), data
        assert (len(data) == before[path].st_size) is (size == SIZE)
    (harness.folder / "inbox/other.bmp").unlink()
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        for path, stat in before.items():
            path.write_bytes(after[path])
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert daemon.events("job.published") == []
        daemon.wait_for("job.published", 3)
        wait_until_the_inbox_is_empty(harness, daemon)
        assert len(daemon.events("job.published")) == 3
        assert daemon.events("job.rejected") == []
    digests = {path.name: hashlib.sha256(data).hexdigest() for path, data in after.items()}
    assert read_digests(harness) == digests
    for name, digest in digests.items():
        assert harness.sidecar(f"outbox/swirls/{name}.json")["input"]["changed"] is False
        assert sha256(harness.folder / "archive/swirls" / name) == digest


def test_the_time_of_day_jumps_while_the_daemon_runs(harness: DaemonHarness) -> None:
    """If the time of day jumps by years, waiting photos are neither rejected nor delayed."""
    harness.configure(intake="{settle_seconds: 0.2, truncated_grace_seconds: 600}")
    shim = harness.folder / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(SHIM)

    def jump(seconds: float) -> None:
        (shim / "offset.new").write_text(str(seconds))
        (shim / "offset.new").rename(shim / "offset")

    jump(0)
    data = harness.drop("half.jpg", "coffee", SIZE).read_bytes()
    half = harness.folder / "inbox/half.jpg"
    half.write_bytes(data[: len(data) // 2])
    with harness.running_from_scratch(
        within=["env", f"PYTHONPATH={shim}:{':'.join(sys.path)}"]
    ) as daemon:
        for count, years in enumerate((0, 20, -20), start=1):
            jump(years * YEAR_SECONDS)
            harness.drop(f"{count}.jpg", "coffee", (SIZE[0] + count, SIZE[1]))
            daemon.wait_for("job.published", count)
        daemon.wait_for("input.incomplete")
        assert daemon.events("job.rejected") == []
        with open(half, "ab") as stream:
            stream.write(data[len(data) // 2 :])
        daemon.wait_for("job.published", 4)
        wait_until_the_inbox_is_empty(harness, daemon)
    finish_years = [
        int(str(harness.sidecar(f"outbox/swirls/{n}.jpg.json")["job"]["finished_at"])[:4])
        for n in (1, 2, 3)
    ]
    assert finish_years[1] - finish_years[0] in (19, 20)
    assert finish_years[0] - finish_years[2] in (20, 21)
    assert read_digests(harness)["half.jpg"] == hashlib.sha256(data).hexdigest()
    assert harness.files("rejected") == []

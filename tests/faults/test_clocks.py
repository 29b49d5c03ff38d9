"""Times that make no sense: those of files, and that of the day."""

from __future__ import annotations

import hashlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.conftest import add_slow_style
from tests.studio import Daemon, Studio

pytestmark = pytest.mark.timeout(400)

SIZE = (96, 72)
YEAR_SECONDS = 365 * 86400
STRANGE_YEARS = {"future.jpg": 2200, "zero.jpg": 1970, "negative.jpg": 1960}

SHIM = """\
import pathlib, time

_real, _offset = time.time, pathlib.Path(__file__).with_name("offset")
time.time = lambda: _real() + float(_offset.read_text())
"""
"""Python imports a module of the name `sitecustomize` before everything else."""


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_digests(studio: Studio) -> dict[str, object]:
    """Return what each result in the default style was made of."""
    names = [name for name in studio.files("outbox") if name.endswith(".json")]
    return {
        name.removeprefix("swirls/").removesuffix(".json"): studio.sidecar(f"outbox/{name}")[
            "input"
        ]["sha256"]
        for name in names
        if name.startswith("swirls/")
    }


def wait_until_the_inbox_is_empty(studio: Studio, daemon: Daemon) -> None:
    """Wait until all photos are where they belong."""
    daemon.wait_until(lambda: studio.files("inbox") == [])


def test_files_from_the_future_and_from_before_the_epoch(studio: Studio) -> None:
    """Each is painted once, and its original keeps its date."""
    digests: dict[str, str] = {}
    moments: dict[str, int] = {}
    for name, year in STRANGE_YEARS.items():
        path = studio.drop(name, "coffee", (SIZE[0] + len(digests), SIZE[1]))
        moments[name] = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 10**9
        os.utime(path, ns=(moments[name], moments[name]))
        if path.stat().st_mtime_ns != moments[name]:
            pytest.skip(f"this file system can't hold a date in {year}")
        digests[name] = sha256(path)
    with studio.running() as daemon:
        daemon.wait_for("job.published", len(digests))
        wait_until_the_inbox_is_empty(studio, daemon)
        assert len(daemon.events("job.published")) == len(digests)
        assert daemon.events("job.cancelled") == []
    assert read_digests(studio) == digests
    archive = studio.folder / "archive/swirls"
    assert {name: (archive / name).stat().st_mtime_ns for name in moments} == moments


def test_files_of_the_same_size_and_date(studio: Studio) -> None:
    """They are told apart by their names."""
    digests = {}
    for number, photo in enumerate(("coffee", "astronaut", "chelsea")):
        path = studio.drop(f"{number}.bmp", photo, SIZE)
        os.utime(path, (0, 0))
        digests[f"{number}.bmp"] = sha256(path)
    assert len({path.stat().st_size for path in (studio.folder / "inbox").iterdir()}) == 1
    with studio.running() as daemon:
        daemon.wait_for("job.published", 3)
        wait_until_the_inbox_is_empty(studio, daemon)
    assert read_digests(studio) == digests
    assert len(set(digests.values())) == 3


def test_files_rewritten_before_their_turn_with_their_dates_kept(studio: Studio) -> None:
    """What lies there when its turn comes is painted, once, whether its size is the same."""
    add_slow_style(studio)
    studio.drop("aquarelle/first.jpg", "coffee", SIZE)
    others = {"same.bmp": SIZE, "smaller.bmp": (80, 80)}
    before: dict[Path, os.stat_result] = {}
    after: dict[Path, bytes] = {}
    for name, size in others.items():
        data = studio.drop("other.bmp", "astronaut", size).read_bytes()
        path = studio.drop(f"swirls/{name}", "coffee", SIZE)
        before[path], after[path] = path.stat(), data
        assert (len(data) == before[path].st_size) is (size == SIZE)
    (studio.folder / "inbox/other.bmp").unlink()
    with studio.running() as daemon:
        daemon.wait_for("job.started")
        for path, facts in before.items():
            path.write_bytes(after[path])
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert daemon.events("job.published") == []
        daemon.wait_for("job.published", 3)
        wait_until_the_inbox_is_empty(studio, daemon)
        assert len(daemon.events("job.published")) == 3
        assert daemon.events("job.rejected") == []
    digests = {path.name: hashlib.sha256(data).hexdigest() for path, data in after.items()}
    assert read_digests(studio) == digests
    for name, digest in digests.items():
        assert studio.sidecar(f"outbox/swirls/{name}.json")["input"]["changed"] is False
        assert sha256(studio.folder / "archive/swirls" / name) == digest


def test_the_time_of_day_jumps_while_the_daemon_runs(studio: Studio) -> None:
    """Forth or back by years: whatever waits is neither given up nor left behind."""
    studio.configure(intake="{settle_seconds: 0.2, truncated_grace_seconds: 600}")
    shim = studio.folder / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(SHIM)

    def jump(seconds: float) -> None:
        (shim / "offset.new").write_text(str(seconds))
        (shim / "offset.new").rename(shim / "offset")

    jump(0)
    data = studio.drop("half.jpg", "coffee", SIZE).read_bytes()
    half = studio.folder / "inbox/half.jpg"
    half.write_bytes(data[: len(data) // 2])
    with studio.running_from_scratch(
        within=["env", f"PYTHONPATH={shim}:{':'.join(sys.path)}"]
    ) as daemon:
        for count, years in enumerate((0, 20, -20), start=1):
            jump(years * YEAR_SECONDS)
            studio.drop(f"{count}.jpg", "coffee", (SIZE[0] + count, SIZE[1]))
            daemon.wait_for("job.published", count)
        daemon.wait_for("input.awaited")
        assert daemon.events("job.rejected") == []
        with open(half, "ab") as stream:
            stream.write(data[len(data) // 2 :])
        daemon.wait_for("job.published", 4)
        wait_until_the_inbox_is_empty(studio, daemon)
    years_told = [
        int(str(studio.sidecar(f"outbox/swirls/{n}.jpg.json")["job"]["finished_at"])[:4])
        for n in (1, 2, 3)
    ]
    assert years_told[1] - years_told[0] in (19, 20)
    assert years_told[0] - years_told[2] in (20, 21)
    assert read_digests(studio)["half.jpg"] == hashlib.sha256(data).hexdigest()
    assert studio.files("rejected") == []

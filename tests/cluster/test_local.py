"""Several engines on this machine: `cluster.address: local`."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from styled.cluster.connection import SESSION_PREFIX
from tests.cluster.conftest import harness_of
from tests.cluster.ray_cluster import StepSeconds, processes_below, ray_processes
from tests.daemon_harness import PYRAMID, Daemon, DaemonHarness, make_harness
from tests.faults.output_checker import OutputChecker

SLOW = PYRAMID.replace("steps: 3", "steps: 300\n      min_improvement: 0")
PHOTOS = {
    "coffee.jpg": "coffee", "cat.png": "chelsea", "coffee/rocket.jpg": "rocket",
    "both/face.png": "astronaut",
}  # fmt: skip


def drop_photos(harness: DaemonHarness) -> None:
    """Drop the photos, and one with settings, a mask and an initial image of its own."""
    for name, photo in PHOTOS.items():
        harness.drop(name, photo)
    inbox = harness.folder / "inbox"
    mask = Image.new("L", (60, 40), 0)
    mask.paste(255, (0, 0, 30, 40))
    mask.save(inbox / "steered.png.mask.png")
    Image.new("RGB", (60, 40), "orange").save(inbox / "steered.png.init.png")
    (inbox / "steered.png.yaml").write_text("strength: 70\n")
    harness.drop("steered.png", "coffee", (120, 80))


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonHarness, Daemon]]:
    """Return a daemon with two engines that has painted all photos and is still running."""
    harness = harness_of(tmp_path_factory.mktemp("local") / "harness", "local", "2")
    with OutputChecker(harness, "outbox", "archive"), harness.running() as daemon:
        daemon.wait_for("engine.ready", 2)
        drop_photos(harness)
        (harness.folder / "inbox/page.jpg").write_bytes(b"<!DOCTYPE html>")
        daemon.wait_until(lambda: len(harness.files("outbox")) == 12 and not harness.files("inbox"))
        yield harness, daemon


def hashes(harness: DaemonHarness) -> dict[str, str]:
    """Return the SHA-256 of each result."""
    outbox = harness.folder / "outbox"
    names = [name for name in harness.files("outbox") if not name.endswith(".json")]
    return {name: hashlib.sha256((outbox / name).read_bytes()).hexdigest() for name in names}


def test_the_bytes_are_those_of_the_engine_in_the_daemon(
    painted: tuple[DaemonHarness, Daemon], tmp_path: Path
) -> None:
    """With the same number of threads, a cluster changes nothing about a picture."""
    harness, _ = painted
    alone = make_harness(
        tmp_path / "alone", PYRAMID.replace("precision: float32", "precision: float32, threads: 1")
    )
    drop_photos(alone)
    assert alone.do("once").returncode == 0
    assert hashes(harness) == hashes(alone)
    assert len(hashes(harness)) == 6
    assert harness.files("archive") == alone.files("archive")


def test_sidecars_name_the_machine(painted: tuple[DaemonHarness, Daemon]) -> None:
    """Everything else is as with one engine."""
    harness, _ = painted
    sidecar: dict[str, Any] = harness.sidecar("outbox/swirls/coffee.jpg.json")
    assert sidecar["engine"]["node"] == "127.0.0.1"
    assert sidecar["engine"]["name"] in ("engine-0", "engine-1")
    assert sidecar["engine"]["threads"] == 1
    assert sidecar["result"]["width"] == 96
    assert {one["kind"] for one in sidecar["degraded"]} <= {"weights", "device"}


def test_an_error_of_a_photo_is_the_same_as_without_a_cluster(
    painted: tuple[DaemonHarness, Daemon],
) -> None:
    """A worker raises it, and the head rejects the photo with its reason and remedies."""
    harness, _ = painted
    assert harness.files("rejected") == ["swirls/page.jpg", "swirls/page.jpg.json"]
    rejected = harness.sidecar("rejected/swirls/page.jpg.json")["rejected"]
    assert rejected["failure"] == "input"
    assert rejected["reason"] == "the file is not a picture that styled can read"
    assert rejected["remedies"]


def test_thumbnails_are_those_of_the_workers(painted: tuple[DaemonHarness, Daemon]) -> None:
    """They are there as soon as the result is, without reading it again."""
    harness, daemon = painted
    thumbs = list((harness.folder / "outbox/gallery_files/thumbs").rglob("*.webp"))
    assert len(thumbs) >= 10
    assert not daemon.events("thumbnail.failed")


def test_processes_that_decode_are_kept(painted: tuple[DaemonHarness, Daemon]) -> None:
    """Ray would end them after a second, since the engines hold all CPUs."""
    _, daemon = painted

    def idle() -> set[int]:
        lines = processes_below(daemon.process.pid)
        return {pid for pid, line in lines if line.startswith("ray::IDLE")}

    before = idle()
    time.sleep(4)
    assert before & idle()


def test_status_names_engines_and_machines(painted: tuple[DaemonHarness, Daemon]) -> None:
    """As text, as JSON and as metrics."""
    harness, daemon = painted
    daemon.wait_for("engine.ready", 2)
    status = json.loads(harness.do("status", "--json").stdout)
    assert [(one["name"], one["device"], one["node"]) for one in status["engines"]] == [
        ("engine-0", "cpu", "127.0.0.1"), ("engine-1", "cpu", "127.0.0.1"),
    ]  # fmt: skip
    assert status["device"] == "cluster local"
    assert "2 engines on 1 machine" in harness.do("status").stdout
    metrics = harness.folder / "state/metrics.prom"
    line = 'styled_engine_info{device="cpu",engine="engine-1",node="127.0.0.1"} 1.0'
    daemon.wait_until(lambda: line in metrics.read_text())
    assert {event["engine"] for event in daemon.events("job.published")} == {"engine-0", "engine-1"}


def test_all_ports_are_on_the_loopback_interface(painted: tuple[DaemonHarness, Daemon]) -> None:
    """Ray's ports are equivalent to a shell."""
    _, daemon = painted
    pids = {daemon.process.pid, *(pid for pid, _ in processes_below(daemon.process.pid))}
    listening = 0
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in _sockets_of(pids):
                listening += 1
                assert fields[1].partition(":")[0].endswith(("0100007F",)), line
    assert listening > 3


def _sockets_of(pids: set[int]) -> set[str]:
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = link.readlink()
            except OSError:
                continue
            if str(target).startswith("socket:["):
                inodes.add(str(target)[8:-1])
    return inodes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_remains(tmp_path: Path, number: int) -> None:
    """After SIGTERM, within 5 s, and after SIGKILL: no process, no shared memory; jobs resume.

    The second daemon has fewer engines than the first: one of a cluster, or its own.
    """
    harness = harness_of(tmp_path / "harness", "local", "2", SLOW)
    harness.configure(queue="{checkpoint_seconds: 0.5}")
    step_seconds = StepSeconds(tmp_path, 0.5)
    harness.environment.update(step_seconds.environment)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        harness.drop(name)
    with harness.running() as daemon:
        checkpoints = harness.folder / "state/checkpoints"
        daemon.wait_until(lambda: len(list(checkpoints.glob("*.ckpt"))) == 2)
        pid = json.loads(harness.do("status", "--json").stdout)["pid"]
        assert len([line for _, line in processes_below(pid) if "ray::EngineActor" in line]) == 2
        start = time.monotonic()
        daemon.process.send_signal(number)
        code = daemon.process.wait(30)
        assert time.monotonic() - start < 5
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    session = f"{SESSION_PREFIX}{pid}-"
    deadline = time.monotonic() + 10
    while ray_processes(session):
        assert time.monotonic() < deadline, ray_processes(session)
        time.sleep(0.1)
    assert not list(Path("/dev/shm").glob("plasma*"))
    if number == signal.SIGTERM:
        assert not list(Path("/tmp").glob(f"{session}*"))
    text = harness.config.read_text().replace("steps: 300", "steps: 3")
    if number == signal.SIGTERM:
        # Jobs that were begun on a cluster are resumed without one, too.
        text = text.replace("address: local", "address: null")
    harness.config.write_text(text.replace("engines: 2", "engines: 1"))
    step_seconds.set(0.0)
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
    assert len(harness.files("outbox")) == 6

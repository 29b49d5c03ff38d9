"""Machines that join, leave, die or do not fit; and a cluster that is lost and comes back."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import styled
from tests.cluster.conftest import harness_of
from tests.cluster.ray_cluster import RayCluster
from tests.daemon_harness import PYRAMID, Daemon, DaemonHarness

JOBS = PYRAMID.replace("steps: 3", "steps: STEPS\n      min_improvement: 0")

RAY_LINE = re.compile(r"\[[-\d]+ [:,\d]+ [A-Z] \d+ \d+\] \w+\.cc:\d+: ")
"""How a line begins that Ray's core prints: time, level, process, thread, source."""

PRETEND_TO_BE_NEWER = """
import importlib.metadata
real = importlib.metadata.version
importlib.metadata.version = lambda name: "9.9.9" if name == "styled" else real(name)
"""


KILL_BY_SOME_PHOTOS = """
import hashlib, os
real = hashlib.sha256
def sha256(data=b"", **options):
    if bytes(data[-6:]) == b"DEADLY":
        os.kill(os.getpid(), 9)
    return real(data, **options)
hashlib.sha256 = sha256
"""
"""A worker that loads this dies right after decoding such a photo."""

FAIL_AT_FIRST = """
import dataclasses, os
real = dataclasses.replace
def replace(instance, **changes):
    if "node" in changes:
        try:
            os.close(os.open("FLAG", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            raise RuntimeError("the device is busy")
    return real(instance, **changes)
dataclasses.replace = replace
"""
"""The first engine that a worker with this makes fails at the end of its start."""


def cluster_harness(
    folder: Path, cluster: RayCluster, steps: int = 3, **settings: str
) -> DaemonHarness:
    """Return a working folder for a cluster."""
    configuration = JOBS.replace("STEPS", str(steps))
    harness = harness_of(folder / "harness", cluster.address, configuration=configuration)
    harness.configure(**{"queue": "{checkpoint_seconds: 0.5, max_attempts: 1}", **settings})
    harness.environment.update(cluster.environment)
    return harness


def status_of(harness: DaemonHarness) -> dict[str, Any]:
    """Return the output of `styled status --json`."""
    status: dict[str, Any] = json.loads(harness.do("status", "--json").stdout)
    return status


def has_checkpoint(harness: DaemonHarness) -> bool:
    """Return whether a job has left a checkpoint."""
    return bool(list((harness.folder / "state/checkpoints").glob("*.ckpt")))


def test_machines_come_and_go(tmp_path: Path, cluster: RayCluster) -> None:
    """One that joins is used within 10 s; a job of one that dies resumes on another.

    With `max_attempts: 1` any attempt that counted would reject the photo.
    """
    harness = cluster_harness(tmp_path, cluster, steps=300)
    cluster.step_seconds.set(0.2)
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        harness.drop("a.jpg", size=(320, 240))
        first = cluster.add("first")
        daemon.wait_until(lambda: "Ray runtime started" in first.log.read_text())
        since = time.monotonic()
        daemon.wait_for("job.painting_started")
        assert time.monotonic() - since < 60  # 10 s on a machine of its own
        daemon.wait_until(lambda: has_checkpoint(harness))
        cluster.add("second")
        daemon.wait_for("engine.ready", 2)
        first.kill()
        cluster.step_seconds.set(0.0)
        daemon.wait_for("job.published")
        assert len(daemon.events("job.resumed")) >= 1
        assert harness.files("rejected") == []
        daemon.wait_until(lambda: "the machine first is gone" in status_of(harness)["problems"])
        assert [engine["node"] for engine in status_of(harness)["engines"]] == ["second"]
        cluster.add("first")  # it is back
        daemon.wait_until(lambda: not status_of(harness)["problems"])
        cluster.nodes[1].leave()
        daemon.wait_for("node.left", 2)
        assert daemon.events("node.left")[1]["expected"] is True
        assert not status_of(harness)["problems"]
    sidecar: dict[str, Any] = harness.sidecar("outbox/swirls/a.jpg.json")
    assert sidecar["engine"]["node"] == "second"
    assert sidecar["job"]["attempts"] == 1
    assert sidecar["job"]["resumed"] is True


def test_an_engine_that_dies_is_replaced(tmp_path: Path, cluster: RayCluster) -> None:
    """While it paints, the attempt counts; while it is idle, nothing happens to the next job."""
    harness = cluster_harness(
        tmp_path, cluster, steps=60, queue="{checkpoint_seconds: 0.5, max_attempts: 2}"
    )
    cluster.step_seconds.set(0.5)
    node = cluster.add("only")
    with harness.running() as daemon:
        daemon.wait_for("engine.ready")
        doctor = harness.do("doctor").stdout
        assert "engine-0: cpu of only" in doctor
        assert "only: 0 GPUs, 1 core, same versions" in doctor
        harness.drop("a.jpg", size=(320, 240))
        daemon.wait_until(lambda: has_checkpoint(harness))
        (job,) = json.loads(harness.do("jobs", "--json").stdout)
        assert (job["engine"], job["device"], job["node"]) == ("engine-0", "cpu", "only")
        assert "on engine-0: cpu of only" in " ".join(harness.do("jobs").stdout.split())
        _kill_engine(node.pids("ray::EngineActor"))
        cluster.step_seconds.set(0.0)
        daemon.wait_for("job.published")
        assert daemon.events("job.attempt_failed")[0]["failure"] == "crash"
        assert "a process on only died" in str(daemon.events("engine.lost")[0]["reason"])
        _kill_engine(node.pids("ray::EngineActor"))
        harness.drop("b.jpg", size=(320, 240))
        daemon.wait_for("job.published", 2)
    deadline = time.monotonic() + 20
    while node.pids("ray::EngineActor"):  # nothing of the daemon's remains in the cluster
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first: dict[str, Any] = harness.sidecar("outbox/swirls/a.jpg.json")
    second: dict[str, Any] = harness.sidecar("outbox/swirls/b.jpg.json")
    assert (first["job"]["attempts"], first["job"]["resumed"]) == (2, True)
    assert (second["job"]["attempts"], second["job"]["resumed"]) == (1, False)


def _kill_engine(pids: list[int]) -> None:
    assert len(pids) == 1
    os.kill(pids[0], signal.SIGKILL)


def test_a_photo_that_kills_its_decoder_is_rejected_alone(
    tmp_path: Path, cluster: RayCluster
) -> None:
    """It kills one process of a worker at each attempt; other photos and the daemon go on."""
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "sitecustomize.py").write_text(KILL_BY_SOME_PHOTOS)
    harness = cluster_harness(tmp_path, cluster, queue="{max_attempts: 2}")
    cluster.add("only", environment={"PYTHONPATH": str(poison)})
    with harness.running() as daemon:
        daemon.wait_for("engine.ready")
        path = harness.drop("a.jpg", size=(160, 120))
        (harness.folder / "inbox/deadly.jpg").write_bytes(path.read_bytes() + b"DEADLY")
        harness.drop("z.jpg", size=(160, 120))
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert len(daemon.events("daemon.started")) == 1
    rejected = harness.sidecar("rejected/swirls/deadly.jpg.json")["rejected"]
    assert rejected["failure"] == "crash"
    assert "a process on only died" in str(rejected["reason"])
    assert len(harness.files("outbox")) == 4
    assert harness.sidecar("outbox/swirls/z.jpg.json")["job"]["attempts"] == 1


def test_a_machine_with_another_version_is_refused(tmp_path: Path, cluster: RayCluster) -> None:
    """It is named, with both versions; the others work."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text(PRETEND_TO_BE_NEWER)
    harness = cluster_harness(tmp_path, cluster)
    cluster.add("newer", environment={"PYTHONPATH": str(other)})
    with harness.running() as daemon:
        reason = (
            f"the machine newer is not used: it has styled 9.9.9, and this machine "
            f"{styled.__version__}"
        )
        daemon.wait_for("daemon.started")
        daemon.wait_until(lambda: _is_in_problems(harness, reason))
        cluster.add("same")
        harness.drop("a.jpg", size=(160, 120))
        daemon.wait_for("job.published")
        assert status_of(harness)["problems"] == [reason]
    sidecar: dict[str, Any] = harness.sidecar("outbox/swirls/a.jpg.json")
    assert sidecar["engine"]["node"] == "same"
    assert {"kind": "cluster", "message": reason} in sidecar["degraded"]


def test_an_engine_that_can_not_start_makes_room_for_the_next(
    tmp_path: Path, cluster: RayCluster
) -> None:
    """Its process ends: on a machine with one CPU the next one would wait for minutes."""
    worker = tmp_path / "worker"
    worker.mkdir()
    code = FAIL_AT_FIRST.replace("FLAG", str(tmp_path / "flag"))
    (worker / "sitecustomize.py").write_text(code)
    harness = cluster_harness(tmp_path, cluster)
    cluster.add("only", environment={"PYTHONPATH": str(worker)})
    with harness.running() as daemon:
        daemon.wait_for("engine.lost")
        daemon.wait_for("engine.ready", seconds=100)
        assert len(daemon.events("engine.lost")) == 1
        assert "the device is busy" in str(daemon.events("engine.lost")[0])


def _is_in_problems(harness: DaemonHarness, reason: str) -> bool:
    return any(reason in problem for problem in status_of(harness)["problems"])


def test_a_cluster_that_is_lost_is_waited_for(tmp_path: Path, cluster: RayCluster) -> None:
    """The daemon goes on, says so, and resumes the job when the cluster is back.

    A photo that was prepared when the cluster was lost is prepared again, without an attempt.
    """
    harness = cluster_harness(tmp_path, cluster, steps=60)
    cluster.step_seconds.set(0.5)
    cluster.add("first")
    with harness.running() as daemon:
        harness.drop("a.jpg", size=(320, 240))
        daemon.wait_until(lambda: has_checkpoint(harness))
        harness.drop("prepared.jpg", size=(160, 120))
        daemon.wait_until(
            lambda: "ready" in (job["phase"] for job in status_of(harness)["current"])
        )
        cluster.close()
        daemon.wait_for("cluster.lost")
        # Ray may have ended the daemon with its own processes: then it could not connect again.
        _wait_for_problem(daemon, harness, "photos wait until it is back")
        harness.drop("b.jpg", size=(160, 120))
        cluster.step_seconds.set(0.0)
        cluster.start_head()
        cluster.add("second")
        daemon.wait_for("job.published", 3)
        assert not status_of(harness)["problems"]
        daemon.process.send_signal(signal.SIGTERM)  # Ray has replaced the handlers meanwhile
        assert daemon.process.wait(15) == 0
    for name, is_resumed in (("a", True), ("prepared", False), ("b", False)):
        sidecar: dict[str, Any] = harness.sidecar(f"outbox/swirls/{name}.jpg.json")
        assert (sidecar["job"]["attempts"], sidecar["job"]["resumed"]) == (1, is_resumed), name
    assert daemon.events("engine.internal_error") == []
    assert harness.files("rejected") == []
    lines = daemon.log.read_text().splitlines()
    others = [line for line in lines if not line.startswith("{") and not RAY_LINE.match(line)]
    assert others == [], "only JSON lines, and those of Ray's core (docs/cluster.md)"


def _wait_for_problem(daemon: Daemon, harness: DaemonHarness, text: str) -> None:
    daemon.wait_until(lambda: _is_in_problems(harness, text))

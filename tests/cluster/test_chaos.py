"""The promises, while engines, machines and the daemon are killed at random."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.conftest import harness_of
from tests.cluster.ray_cluster import Node, RayCluster
from tests.daemon_harness import PYRAMID, Daemon, DaemonHarness
from tests.faults.output_checker import OutputChecker

JOBS_OF_SECONDS = PYRAMID.replace("steps: 3", "steps: 20\n      min_improvement: 0")


@pytest.mark.parametrize(
    ("photos", "most"),
    [(12, 4), pytest.param(60, 16, marks=[pytest.mark.heavy, pytest.mark.timeout(1500)])],
)
def test_every_photo_comes_out_once(
    tmp_path: Path, cluster: RayCluster, photos: int, most: int
) -> None:
    """One result, one sidecar and one original each, whatever dies; nothing is rejected."""
    rng = random.Random(photos)
    harness = harness_of(tmp_path / "harness", cluster.address, configuration=JOBS_OF_SECONDS)
    harness.configure(queue="{checkpoint_seconds: 0.3, max_attempts: 50}")
    harness.environment.update(cluster.environment)
    cluster.step_seconds.set(0.03)
    originals = {}
    for number in range(photos):
        path = harness.drop(f"photo{number}.png", "coffee", (120 + number, 90))
        originals[path.name] = path.read_bytes()
    for number in range(3):
        cluster.add(f"node{number}")
    kills: Counter[str] = Counter()
    resumed = 0
    with OutputChecker(harness) as checker:
        while harness.files("inbox"):
            with harness.running() as daemon:
                daemon.wait_for("engine.ready")
                chaos = Chaos(harness, cluster, daemon, rng, kills, most)
                chaos.go_on_until_the_daemon_is_killed()
                resumed += len(daemon.events("job.resumed"))
    assert checker.seen > 2 * photos
    assert kills.total() == most
    assert min(kills.values()) == most // 4
    assert resumed > 0 or photos < 60  # few kills may all hit jobs without a checkpoint
    reasons = {
        name: harness.sidecar(f"rejected/{name}")["rejected"]
        for name in harness.files("rejected")
        if name.endswith(".json")
    }
    assert reasons == {}
    names = sorted(originals)
    assert harness.files("archive") == [f"swirls/{name}" for name in names]
    assert harness.files("outbox") == sorted(
        path for name in names for path in (f"swirls/{name}", f"swirls/{name}.json")
    )
    for name, data in originals.items():
        assert (harness.folder / "archive/swirls" / name).read_bytes() == data
        sidecar = json.loads((harness.folder / f"outbox/swirls/{name}.json").read_bytes())
        result = (harness.folder / "outbox/swirls" / name).read_bytes()
        assert sidecar["result"]["sha256"] == hashlib.sha256(result).hexdigest()
        assert sidecar["input"]["sha256"] == hashlib.sha256(data).hexdigest()


class Chaos:
    """Kills something every few seconds, `most` times in all, and replaces what is missing."""

    def __init__(
        self, harness: DaemonHarness, cluster: RayCluster, daemon: Daemon, rng: random.Random,
        kills: Counter[str], most: int,
    ) -> None:  # fmt: skip
        self._harness = harness
        self._cluster = cluster
        self._daemon = daemon
        self._rng = rng
        self._kills = kills
        self._most = most

    def go_on_until_the_daemon_is_killed(self) -> None:
        """Return at the end of all jobs too."""
        while self._harness.files("inbox"):
            if sum(self._kills.values()) == self._most:
                self._daemon.wait_until(lambda: not self._harness.files("inbox"), 600)
                return
            time.sleep(self._rng.uniform(2.0, 5.0))
            self.go_on_with_three_nodes()
            actions = [self.kill_engine, self.kill_raylet, self.kill_node, self.kill_daemon]
            self._rng.shuffle(actions)
            # Each kind in turn, in another order each time.
            action = min(actions, key=lambda action: self._kills[action.__name__])
            action()
            self._kills[action.__name__] += 1
            if action == self.kill_daemon:
                return

    def go_on_with_three_nodes(self) -> None:
        """Start nodes in the place of those that are dead, and wait for an engine."""
        nodes = self._cluster.nodes
        for node in [node for node in nodes if not node.pids("raylet/raylet")]:
            node.kill()
            nodes.remove(node)
            self._cluster.add(f"{node.name}-again")
        with suppress(AssertionError):
            ready = len(self._daemon.events("engine.ready"))
            self._daemon.wait_for("engine.ready", ready, 20)

    def _node(self) -> Node:
        return self._rng.choice(self._cluster.nodes)

    def kill_engine(self) -> None:
        """Kill the process of an engine."""
        pids = [pid for node in self._cluster.nodes for pid in node.pids("ray::EngineActor")]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(self._rng.choice(pids), signal.SIGKILL)

    def kill_raylet(self) -> None:
        """Kill Ray's daemon on a machine."""
        self._node().kill_raylet()

    def kill_node(self) -> None:
        """Kill all processes of a machine."""
        self._node().kill()

    def kill_daemon(self) -> None:
        """Kill styled itself."""
        self._daemon.kill()

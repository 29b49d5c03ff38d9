"""Which machines are in the cluster, which of them can be used, and which are gone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from styled.cluster import probe
from styled.cluster.connection import node_records
from styled.cluster.placement import Node

GONE_SECONDS = 3600.0
"""How long the loss of a machine is reported, unless it comes back."""

EXPECTED_TERMINATION = 1
"""Ray's `NodeDeathInfo.Reason` of a machine that left of its own accord."""

PROBE_SECONDS = 60.0
"""How long a machine may take to tell its versions, before it is asked again."""

# Ray sends the code of this module along: it must run where styled is missing.
ray.cloudpickle.register_pickle_by_value(probe)  # type: ignore[no-untyped-call]  # Ray's


@dataclass(slots=True)
class _Probe:
    answer: ray.ObjectRef[Any]
    asked_at: float


@dataclass(slots=True)
class Membership:
    """The machines of one connection.

    Attributes:
        usable: The machines with the same versions as this one.
        refused: Name of a machine that differs -> in which way.
        gone: Name of a machine that was lost -> when, in monotonic seconds.
    """

    usable: list[Node] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    _checked: dict[str, str | None] = field(default_factory=dict)  # node id -> its difference
    _probes: dict[str, _Probe] = field(default_factory=dict)
    _alive: set[str] = field(default_factory=set)
    _own: dict[str, str | None] = field(default_factory=probe.versions)

    def update(self) -> None:
        """Look up the machines, and ask new ones for their versions without waiting for them."""
        now = time.monotonic()
        nodes, previous = {}, self._alive
        for record in node_records():
            node_id, name = record["NodeID"], record["NodeName"]
            if record["Alive"]:
                resources = record["Resources"]
                cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
                if cpus or gpus:  # otherwise nothing is to be computed there
                    nodes[node_id] = Node(node_id, name, cpus, gpus)
            elif node_id in previous and record.get("DeathReason") != EXPECTED_TERMINATION:
                self.gone[name] = now
        self._alive = set(nodes)
        names = {node.name for node in nodes.values()}
        self.gone = {
            name: since
            for name, since in self.gone.items()
            if name not in names and now - since < GONE_SECONDS
        }
        for node in nodes.values():
            if node.id not in self._checked:
                self._check(node, now)
        self._probes = {id_: one for id_, one in self._probes.items() if id_ in nodes}
        self.refused = {
            node.name: difference
            for node in nodes.values()
            if (difference := self._checked.get(node.id)) is not None
        }
        self.usable = [
            node
            for node in nodes.values()
            if node.id in self._checked and self._checked[node.id] is None
        ]

    @property
    def is_being_probed(self) -> bool:
        """Whether the answer of a machine is awaited."""
        return bool(self._probes)

    def _check(self, node: Node, now: float) -> None:
        """Ask a machine for its versions, or take its answer."""
        asked = self._probes.get(node.id)
        if asked is None or now - asked.asked_at > PROBE_SECONDS:
            task = ray.remote(probe.versions).options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            )
            self._probes[node.id] = _Probe(task.remote(), now)
            return
        if not ray.wait([asked.answer], timeout=0)[0]:
            return
        del self._probes[node.id]
        try:
            self._checked[node.id] = probe.difference(self._own, ray.get(asked.answer))
        except RayError:
            return  # it is asked again, or gone

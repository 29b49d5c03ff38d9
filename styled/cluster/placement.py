"""Decides on which machines of the cluster engines are placed: pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from styled.config import ClusterConfig


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's, in hexadecimal; another one each time that the machine joins.
        name: Its IP address, unless `ray start --node-name` has given it another name.
        cpus: As given to Ray; 0: nothing is to be computed there.
        gpus: Likewise.
    """

    id: str
    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an engine is to be, and what it gets.

    Attributes:
        gpus: Number or share of GPUs; 0: it computes on CPUs.
        cpus: What it asks Ray for.
        threads: torch's threads.
    """

    node: Node
    gpus: float
    cpus: float
    threads: int


def new_placements(
    nodes: Sequence[Node],
    taken: Mapping[str, Sequence[Placement]],
    config: ClusterConfig,
    *,
    use_gpus: bool,
) -> list[Placement]:
    """Return the placements of engines that are still to be made; none that exists is moved.

    Args:
        nodes: All usable machines.
        taken: Node id -> the placements of its engines.
        config: The section `cluster`.
        use_gpus: Whether engines are to compute on GPUs. Then machines without one get none.
    """
    suited = [node for node in nodes if (node.gpus > 0 if use_gpus else node.cpus >= 1)]
    placements: list[Placement] = []
    taken_there = {node.id: list(taken.get(node.id, ())) for node in suited}
    wanted = math.inf if config.engines == "auto" else config.engines
    while sum(map(len, taken_there.values())) < wanted:
        # The machine with the fewest engines is next, so that a given number is spread evenly.
        for node in sorted(suited, key=lambda node: len(taken_there[node.id])):
            placement = _placement_on(
                node, taken_there[node.id], config, len(suited), use_gpus=use_gpus
            )
            if placement is not None:
                placements.append(placement)
                taken_there[node.id].append(placement)
                break
        else:
            break
    return placements


def _placement_on(
    node: Node, taken: Sequence[Placement], config: ClusterConfig, nodes: int, *, use_gpus: bool
) -> Placement | None:
    """Return one more placement on a machine, None if it is full."""
    free_cpus = node.cpus - sum(placement.cpus for placement in taken)
    if use_gpus:
        share = config.gpus_per_engine
        per_gpu = 1.0 if share >= 1 else math.floor(1 / share)
        capacity = node.gpus // share if share >= 1 else node.gpus * per_gpu
        cpus = min(1.0, node.cpus) if config.cpus_per_engine == "auto" else config.cpus_per_engine
        if len(taken) >= capacity or cpus > free_cpus:
            return None
        return Placement(node, share, cpus, max(1, int(cpus)))
    if config.cpus_per_engine != "auto":
        cpus = config.cpus_per_engine
    elif config.engines == "auto":
        cpus = node.cpus
    else:
        cpus = max(1, node.cpus // math.ceil(config.engines / nodes))
    if cpus > free_cpus or (config.engines == "auto" and taken):
        return None
    return Placement(node, 0, cpus, max(1, int(cpus)))

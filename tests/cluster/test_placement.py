"""Where engines are placed."""

from __future__ import annotations

from typing import Any

import pytest

from styled.cluster.placement import Node, Placement, new_placements
from styled.config import ClusterConfig

GPU = Node("g", "gpu", cpus=8, gpus=4)
SMALL = Node("s", "small", cpus=2, gpus=0)
LARGE = Node("l", "large", cpus=8, gpus=0)
HEAD = Node("h", "head", cpus=0, gpus=0)


def planned(
    nodes: list[Node], taken: dict[str, list[Placement]] | None = None, **settings: Any
) -> dict[str, list[tuple[float, float, int]]]:
    """Return for each machine the GPUs, CPUs and threads of each new engine."""
    config = ClusterConfig(address="auto", **settings)
    use_gpus = any(node.gpus for node in nodes)
    result: dict[str, list[tuple[float, float, int]]] = {}
    for placement in new_placements(nodes, taken or {}, config, use_gpus=use_gpus):
        result.setdefault(placement.node.name, []).append(
            (placement.gpus, placement.cpus, placement.threads)
        )
    return result


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ([GPU], {}, {"gpu": [(1, 1, 1)] * 4}),
        ([GPU, SMALL, HEAD], {}, {"gpu": [(1, 1, 1)] * 4}),
        ([GPU], {"gpus_per_engine": 0.5}, {"gpu": [(0.5, 1, 1)] * 8}),
        # Two of 0.4 fit on one GPU, never three on one and a bit.
        ([Node("g", "gpu", 8, 2)], {"gpus_per_engine": 0.4}, {"gpu": [(0.4, 1, 1)] * 4}),
        ([GPU], {"gpus_per_engine": 2}, {"gpu": [(2, 1, 1)] * 2}),
        ([GPU], {"gpus_per_engine": 3}, {"gpu": [(3, 1, 1)]}),
        ([GPU], {"cpus_per_engine": 3}, {"gpu": [(1, 3, 3)] * 2}),
        ([GPU], {"engines": 3}, {"gpu": [(1, 1, 1)] * 3}),
        ([GPU], {"engines": 9}, {"gpu": [(1, 1, 1)] * 4}),
        ([SMALL, LARGE, HEAD], {}, {"small": [(0, 2, 2)], "large": [(0, 8, 8)]}),
        ([SMALL], {"engines": 2}, {"small": [(0, 1, 1)] * 2}),
        ([SMALL], {"engines": 5}, {"small": [(0, 1, 1)] * 2}),
        ([LARGE], {"engines": 2, "cpus_per_engine": 3}, {"large": [(0, 3, 3)] * 2}),
        ([LARGE], {"engines": 3, "cpus_per_engine": 3}, {"large": [(0, 3, 3)] * 2}),
        ([HEAD], {}, {}),
        ([HEAD], {"engines": 3}, {}),
        ([], {"engines": 3}, {}),
    ],
)
def test_engines_fill_the_machines(
    nodes: list[Node], settings: dict[str, Any], expected: dict[str, list[tuple[float, float, int]]]
) -> None:
    """`auto` is one for each GPU, or for each machine without GPUs; a number is spread evenly."""
    assert planned(nodes, **settings) == expected


def test_a_number_of_engines_is_spread() -> None:
    """Machines with fewer engines come first."""
    other = Node("o", "other", cpus=8, gpus=4)
    assert planned([GPU, other], engines=4) == {"gpu": [(1, 1, 1)] * 2, "other": [(1, 1, 1)] * 2}


def test_engines_that_exist_stay() -> None:
    """Only what is missing is added, on a machine that has joined too."""
    taken = {"g": [Placement(GPU, 1, 1, 1)] * 3}
    assert planned([GPU], taken) == {"gpu": [(1, 1, 1)]}
    other = Node("o", "other", cpus=8, gpus=4)
    assert planned([GPU, other], taken, engines=5) == {"other": [(1, 1, 1)] * 2}
    assert planned([GPU, other], taken, engines=3) == {}
    assert planned([SMALL], {"s": [Placement(SMALL, 0, 2, 2)]}) == {}

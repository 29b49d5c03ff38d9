"""Fixtures: a cluster for the tests of a file, and working folders that use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.ray_cluster import RayCluster, short_folder
from tests.daemon_harness import PYRAMID, DaemonHarness, make_harness

CLUSTER = "cluster: {{address: {address}, engines: {engines}, cpus_per_engine: 1}}\n"


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    """Return a cluster with a head node only."""
    with short_folder() as folder:
        cluster = RayCluster(folder)
        yield cluster
        cluster.close()


def harness_of(
    folder: Path, address: str, engines: str = "auto", configuration: str = PYRAMID
) -> DaemonHarness:
    """Return a working folder whose daemon uses a cluster."""
    text = configuration + CLUSTER.format(address=address, engines=engines)
    return make_harness(folder, text)

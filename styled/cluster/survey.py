"""Looks at a cluster from outside the daemon, for `styled doctor`."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from styled.cluster.connection import Connection
from styled.cluster.membership import Membership
from styled.cluster.placement import Node

ANSWER_SECONDS = 30.0
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Survey:
    """The machines of a cluster.

    Attributes:
        usable: Those that engines can run on.
        refused: Name of a machine that differs -> in which way.
    """

    usable: tuple[Node, ...]
    refused: dict[str, str]


def survey(address: str) -> Survey:
    """Connect to a cluster that runs already, ask its machines for their versions, disconnect.

    Raises:
        ClusterUnavailable: it can't be reached.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="survey") as pool:
        return pool.submit(_survey, address).result()


def _survey(address: str) -> Survey:
    connection = Connection(address)
    connection.connect()
    try:
        members = Membership()
        deadline = time.monotonic() + ANSWER_SECONDS
        members.update()
        while members.is_being_probed and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            members.update()
        return Survey(tuple(members.usable), dict(members.refused))
    finally:
        connection.close()

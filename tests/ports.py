"""Ports for the servers of tests."""

from __future__ import annotations

import random
import socket

PORTS = range(20_000, 32_768)
"""Below those that Linux gives to connections by itself, and above those of Ray's workers."""


def free_port(address: str = "") -> int:
    """Return a port that nothing uses now, and that no connection is given by chance."""
    while True:
        port = random.SystemRandom().choice(PORTS)  # tests may seed the usual generator
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        return port

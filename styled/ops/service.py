"""Talking to systemd: when the service is ready, what it does, and that it is alive.

The protocol is a few lines of text in a datagram; see sd_notify(3). Without a systemd that
listens, nothing is sent.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from styled.ops.lines import printable
from styled.ops.pulse import Pulse

LONGEST_STATUS = 200
"""Characters; more would not be shown in one line."""

SEND_SECONDS = 1.0
"""How long to wait for a listener that does not read."""

PINGS_PER_LIMIT = 4
"""How often the watchdog is told at most, within the time after which it bites."""


class ServiceManager:
    """Whoever has started this process and wants to know how it is, if anybody does."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read from the environment who that is."""
        address = environment.get("NOTIFY_SOCKET", "")
        # An @ stands for the abstract name space.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = _watchdog_seconds(environment)
        self._status: str | None = None

    @property
    def listens(self) -> bool:
        """Whether there is anybody who wants to know."""
        return bool(self._address)

    def tell_ready(self) -> None:
        """Say that the start, or a reload, is complete."""
        self._send("READY=1")

    def tell_reloading(self) -> None:
        """Say that a reload has begun; `tell_ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def tell_stopping(self) -> None:
        """Say that it is about to end."""
        self._send("STOPPING=1")

    def tell_status(self, status: str) -> None:
        """Say in one line what is going on, if it is not what was said last."""
        line = printable(status.splitlines()[0] if status else "")[:LONGEST_STATUS]
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def tell_alive(self) -> None:
        """Keep the watchdog from biting for another `watchdog_seconds`."""
        self._send("WATCHDOG=1")

    def ask_for_time(self, seconds: float) -> None:
        """Ask for so much more time, from now on, to start."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # Nobody listening is no reason to stop working.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(SEND_SECONDS)
            # Unconnected, it would seem to be writable all the time that the listener's queue is
            # full, and waiting would take a whole core.
            sender.connect(self._address)
            sender.send("\n".join(lines).encode())


class Watchdog:
    """Tells the service manager that all is well, as long as it is.

    It is told only after every part has given a sign of life since it was last told: what it
    allows between two of them is thereby how long the slowest part may hang.
    """

    def __init__(
        self,
        manager: ServiceManager,
        pulse: Pulse,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch `pulse`, whose clock is `clock`."""
        self._manager = manager
        self._pulse = pulse
        self._clock = clock
        self._told_at = clock()

    def attend(self) -> None:
        """Tell the manager if it is time and all is well."""
        limit = self._manager.watchdog_seconds
        now = self._clock()
        if limit is None or now - self._told_at < limit / PINGS_PER_LIMIT:
            return
        if self._pulse.have_all_advanced_since(self._told_at):
            self._told_at = now
            self._manager.tell_alive()


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return how long systemd waits for a sign of life of this very process, if it does."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if microseconds > 0 else None

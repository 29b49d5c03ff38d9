"""Notifications to systemd: readiness, status line and watchdog.

The protocol is lines of text in a datagram; see sd_notify(3). Nothing is sent without
`NOTIFY_SOCKET`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from styled.ops.heartbeats import Heartbeats
from styled.ops.humanize import printable

MAX_STATUS_CHARS = 200
"""In characters, so that it fits into one line."""

SEND_SECONDS = 1.0
"""Timeout of sending, for a receiver whose queue is full."""

PINGS_PER_LIMIT = 4
"""Maximum number of watchdog pings within the watchdog's timeout."""


class Notifier:
    """Sends notifications to the service manager that has started this process, if any.

    Attributes:
        watchdog_seconds: The watchdog's timeout; None: there is no watchdog for this process.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read the socket's address and the watchdog's timeout from the environment."""
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the abstract socket namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = _watchdog_seconds(environment)
        self._status: str | None = None

    @property
    def is_enabled(self) -> bool:
        """Whether a service manager receives the notifications."""
        return bool(self._address)

    def notify_ready(self) -> None:
        """Report that the start, or a reload, is complete."""
        self._send("READY=1")

    def notify_reloading(self) -> None:
        """Report that a reload has begun; `notify_ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def notify_stopping(self) -> None:
        """Report that the process is stopping."""
        self._send("STOPPING=1")

    def notify_status(self, status: str) -> None:
        """Send the first line of `status`, escaped and shortened, if it has changed."""
        line = printable(status.splitlines()[0] if status else "")[:MAX_STATUS_CHARS]
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def notify_alive(self) -> None:
        """Reset the watchdog: its timeout of `watchdog_seconds` starts again."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Request that the start may take another `seconds` from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # Errors are ignored: without a receiver the daemon goes on.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(SEND_SECONDS)
            # An unconnected socket is reported as writable even while the receiver's queue is
            # full, so waiting would busy-loop on a core.
            sender.connect(self._address)
            sender.send("\n".join(lines).encode())


class Watchdog:
    """Pings systemd's watchdog as long as all parts of the daemon make progress.

    A ping is sent only if every part has sent a heartbeat since the last ping, so a part may hang
    for at most the watchdog's timeout.
    """

    def __init__(
        self,
        notifier: Notifier,
        heartbeats: Heartbeats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch `heartbeats`, which must use the same `clock`."""
        self._notifier = notifier
        self._heartbeats = heartbeats
        self._clock = clock
        self._pinged_at = clock()

    def ping(self) -> None:
        """Send a ping if it is due and all parts have advanced since the last one."""
        limit = self._notifier.watchdog_seconds
        now = self._clock()
        if limit is None or now - self._pinged_at < limit / PINGS_PER_LIMIT:
            return
        if self._heartbeats.have_all_advanced_since(self._pinged_at):
            self._pinged_at = now
            self._notifier.notify_alive()


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return the watchdog's timeout; None if there is none, or it is for another process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if microseconds > 0 else None

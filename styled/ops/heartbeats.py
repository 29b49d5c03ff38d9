"""Heartbeats: detect parts of the daemon (threads) that make no progress any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Heartbeats:
    """Remembers the last heartbeat of each part, and until when it may be idle.

    A part that has never sent a heartbeat is not considered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Measure time by `clock`, in monotonic seconds."""
        self._clock = clock
        self._alive_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def beat(self, part: str, idle_for: float = 0.0) -> None:
        """Record a heartbeat of `part`, which may be idle for `idle_for` seconds; thread-safe."""
        with self._lock:
            self._alive_until[part] = self._clock() + idle_for

    def touch(self, part: str) -> None:
        """Record a heartbeat on behalf of `part`, without shortening its idle time."""
        with self._lock:
            now = self._clock()
            self._alive_until[part] = max(self._alive_until.get(part, now), now)

    def have_all_advanced_since(self, moment: float) -> bool:
        """Return whether every part has sent a heartbeat since `moment`, or may be idle."""
        with self._lock:
            return all(until >= moment for until in self._alive_until.values())

    def stalled(self, seconds: float) -> dict[str, float]:
        """Return the parts that are overdue by at least `seconds`, and by how many seconds."""
        now = self._clock()
        with self._lock:
            return {
                part: now - until
                for part, until in self._alive_until.items()
                if now - until >= seconds
            }

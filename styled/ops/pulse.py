"""Signs of life: whether every part of the daemon still gets on with its work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pulse:
    """Remembers when each part last gave a sign of life, and until when it may rest.

    A part that has never given one is not missed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Measure by `clock`."""
        self._clock = clock
        self._alive_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def beat(self, part: str, rest_seconds: float = 0.0) -> None:
        """Give a sign of life of `part`, which may rest for so long; called from any thread."""
        with self._lock:
            self._alive_until[part] = self._clock() + rest_seconds

    def touch(self, part: str) -> None:
        """Give a sign of life on behalf of `part`, whose rest goes on if it rests."""
        with self._lock:
            now = self._clock()
            self._alive_until[part] = max(self._alive_until.get(part, now), now)

    def have_all_advanced_since(self, moment: float) -> bool:
        """Tell whether every part has given a sign of life since `moment`, or may rest."""
        with self._lock:
            return all(until >= moment for until in self._alive_until.values())

    def silent_for(self, seconds: float) -> dict[str, float]:
        """Return the parts that should have given a sign of life so long ago, and how long."""
        now = self._clock()
        with self._lock:
            return {
                part: now - until
                for part, until in self._alive_until.items()
                if now - until >= seconds
            }

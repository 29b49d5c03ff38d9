"""Shows other processes, such as a container's health check, whether the daemon makes progress.

The file is in the folder that `RUNTIME_DIRECTORY` names, as systemd does for units with
`RuntimeDirectory=`, and the container image too. It has to be in memory: a daemon that writes
every few seconds would keep disks from sleeping.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from styled.errors import ServiceUnhealthy
from styled.ops.humanize import format_duration

FILE_NAME = "heartbeat.json"

INTERVAL_SECONDS = 10.0
"""Interval of heartbeats in the file."""

LATE_SECONDS = 60.0
"""A daemon whose last heartbeat is older than this is taken for dead or stalled."""


@dataclass(frozen=True, slots=True)
class HeartbeatRecord:
    """A heartbeat.

    Attributes:
        at: When, in monotonic seconds, which all processes of a machine share.
        status: What the daemon is doing, in a line.
        stalled: Which parts make no progress; empty if all do.
    """

    at: float
    status: str
    stalled: str = ""


class HeartbeatFile:
    """Writes and reads the daemon's last heartbeat."""

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use the first folder of `RUNTIME_DIRECTORY`; without it nothing is written."""
        folder = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        self._path = Path(folder, FILE_NAME) if folder else None
        self._clock = clock
        self._written_at = -INTERVAL_SECONDS

    def is_due(self) -> bool:
        """Return whether a heartbeat should be written now."""
        return self._path is not None and self._clock() - self._written_at >= INTERVAL_SECONDS

    def write(self, status: str, stalled: str = "") -> None:
        """Write a heartbeat; without a folder, or if that can't be written, do nothing."""
        if self._path is None:
            return
        self._written_at = self._clock()
        heartbeat = HeartbeatRecord(self._written_at, status, stalled)
        new = self._path.with_suffix(".new")
        with suppress(OSError):  # the reader will notice
            new.write_text(json.dumps(asdict(heartbeat)))
            new.replace(self._path)

    def remove(self) -> None:
        """Remove the file: the daemon has ended."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def check(self) -> str:
        """Return what the daemon is doing, in a line.

        Raises:
            ServiceUnhealthy: There is no daemon, or it makes no progress.
        """
        if self._path is None:
            raise ServiceUnhealthy(
                "this is the health check of containers, which set RUNTIME_DIRECTORY; elsewhere "
                "nothing writes heartbeats",
                "ask styled status",
                "or set it to a folder in memory, for the daemon and for this command",
            )
        try:
            heartbeat = HeartbeatRecord(**json.loads(self._path.read_bytes()))
            seconds = self._clock() - heartbeat.at
        except (OSError, ValueError, TypeError):
            raise ServiceUnhealthy(f"there is no heartbeat in {self._path.parent}") from None
        if seconds > LATE_SECONDS:
            raise ServiceUnhealthy(f"the last heartbeat was {format_duration(seconds)} ago")
        if heartbeat.stalled:
            raise ServiceUnhealthy(heartbeat.stalled)
        return heartbeat.status

"""Records stalled parts of the daemon in a file, since access to the journal may hang too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from styled.atomic import atomic_write
from styled.errors import ResourceUnavailable

FILE_NAME = "stalled.json"


@dataclass(frozen=True, slots=True)
class StallRecord:
    """The stalled parts of the daemon.

    Attributes:
        reason: A message; empty if nothing has stalled.
        parts: Their names in `Heartbeats`.
    """

    reason: str = ""
    parts: Sequence[str] = ()

    def save(self, state: Path) -> None:
        """Write it to the state folder, unless that can't be written."""
        with suppress(ResourceUnavailable):
            content = {"reason": self.reason, "parts": list(self.parts)}
            atomic_write(state / FILE_NAME, json.dumps(content).encode())

    @classmethod
    def load(cls, state: Path) -> StallRecord:
        """Read the record in the state folder; an empty one if it is missing or invalid."""
        try:
            content = json.loads((state / FILE_NAME).read_bytes())
            return cls(str(content["reason"]), tuple(map(str, content["parts"])))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

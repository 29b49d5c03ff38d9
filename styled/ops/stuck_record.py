"""Which parts of the daemon have got stuck, in a file: the journal may be what hangs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from styled.atomic import atomic_write
from styled.errors import ResourceUnavailable

FILE_NAME = "stuck.json"


@dataclass(frozen=True, slots=True)
class StuckRecord:
    """What has got stuck.

    Attributes:
        reason: In words; empty: nothing has.
        parts: By the names that the heartbeats give them.
    """

    reason: str = ""
    parts: Sequence[str] = ()

    def save(self, state: Path) -> None:
        """Keep it in the state folder, if that can be written."""
        with suppress(ResourceUnavailable):
            content = {"reason": self.reason, "parts": list(self.parts)}
            atomic_write(state / FILE_NAME, json.dumps(content).encode())

    @classmethod
    def load(cls, state: Path) -> StuckRecord:
        """Return what is kept in the state folder."""
        try:
            content = json.loads((state / FILE_NAME).read_bytes())
            return cls(str(content["reason"]), tuple(map(str, content["parts"])))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

"""The kinds of degradations, and where they are documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from styled.degradation import KINDS, Kind
from styled.sidecar import sidecar_schema

GUIDE = Path(__file__).parent.parent / "docs/guide.md"


def test_every_kind_has_a_meaning() -> None:
    """The type and the table of meanings name the same kinds, in the same order."""
    assert tuple(KINDS) == get_args(Kind)


def test_the_guide_lists_every_kind() -> None:
    """The guide has the same kinds and texts as `KINDS`."""
    section = GUIDE.read_text("utf-8").split("| kind | what it means |\n|---|---|\n")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section.split("\n\n")[0], flags=re.MULTILINE)
    assert dict(rows) == KINDS


def test_the_sidecars_schema_explains_every_kind() -> None:
    """The schema's description has the meaning of every kind."""
    schema: dict[str, dict[str, dict[str, dict[str, dict[str, object]]]]] = sidecar_schema()  # type: ignore[assignment]  # read as JSON
    kind = schema["$defs"]["Degradation"]["properties"]["kind"]
    assert kind["enum"] == list(KINDS)
    assert all(f"{name}: {meaning}" in str(kind["description"]) for name, meaning in KINDS.items())

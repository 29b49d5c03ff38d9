"""Pictures that are damaged at random, by the thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fuzz_intake import fuzz


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_damaged_pictures_do_no_harm(tmp_path: Path) -> None:
    """None ends the process, hangs it, makes it grow or raises what it should not."""
    facts = fuzz(120, seed=1, findings=tmp_path)
    assert sorted(tmp_path.iterdir()) == []
    assert facts["deaths"] == 0
    assert facts["executions"] > 100

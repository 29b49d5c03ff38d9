"""Randomly damaged images, by the thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fuzz_intake import fuzz


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_damaged_pictures_do_no_harm(tmp_path: Path) -> None:
    """Damaged images do not end or hang the process, leak memory or raise unexpected errors."""
    summary = fuzz(120, seed=1, findings=tmp_path)
    assert sorted(tmp_path.iterdir()) == []
    assert summary["deaths"] == 0
    assert summary["executions"] > 100

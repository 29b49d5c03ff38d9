"""A working folder for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.studio import Studio, make_studio


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """Make a working folder with two styles."""
    return make_studio(tmp_path / "studio")

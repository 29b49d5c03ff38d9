"""Fixtures of the end-to-end tests: a working folder for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon_harness import DaemonHarness, make_harness


@pytest.fixture
def harness(tmp_path: Path) -> DaemonHarness:
    """Make a working folder with two styles."""
    return make_harness(tmp_path / "harness")

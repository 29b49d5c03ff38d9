"""Fixtures of the end-to-end tests: a working folder for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon_harness import SHORTCUTS, DaemonHarness, make_harness


@pytest.fixture(autouse=True)
def _shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make processes that are not forked start faster."""
    monkeypatch.setenv("PYTHONPATH", SHORTCUTS)


@pytest.fixture
def harness(tmp_path: Path) -> DaemonHarness:
    """Make a working folder with two styles."""
    return make_harness(tmp_path / "harness")

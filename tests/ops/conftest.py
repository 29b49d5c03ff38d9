"""A simulated clock for whatever measures time."""

from __future__ import annotations

import pytest


class Clock:
    """A clock whose time the tests set."""

    def __init__(self) -> None:
        """Start at zero."""
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()

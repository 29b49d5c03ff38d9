"""Heartbeats, on a simulated clock."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from threading import Thread

import pytest

from styled.ops.heartbeats import Heartbeats
from tests.ops.conftest import Clock


@pytest.fixture
def heartbeats(clock: Clock) -> Heartbeats:
    return Heartbeats(clock)


def test_who_never_gave_a_sign_is_not_missed(heartbeats: Heartbeats, clock: Clock) -> None:
    """A part that has not started yet is not considered."""
    clock.now = 1e6
    assert heartbeats.have_all_advanced_since(1e6)
    assert heartbeats.stalled(0.0) == {}


def test_a_sign_counts_from_its_moment_on(heartbeats: Heartbeats, clock: Clock) -> None:
    """A part has advanced since all times up to that of its last heartbeat, and none after."""
    clock.now = 5.0
    heartbeats.beat("intake")
    clock.now = 9.0
    assert heartbeats.have_all_advanced_since(5.0)
    assert not heartbeats.have_all_advanced_since(5.1)
    heartbeats.beat("intake")
    assert heartbeats.have_all_advanced_since(9.0)


@pytest.mark.parametrize("behind", ["intake", "scheduler", "metrics"])
def test_one_part_behind_is_enough(heartbeats: Heartbeats, clock: Clock, behind: str) -> None:
    """A part that does not advance is detected, whichever it is."""
    parts = ("intake", "scheduler", "metrics")
    for part in parts:
        heartbeats.beat(part)
    clock.now = 2.0
    for part in parts:
        if part != behind:
            heartbeats.beat(part)
    assert heartbeats.have_all_advanced_since(0.0)
    assert not heartbeats.have_all_advanced_since(1.0)
    assert heartbeats.stalled(1.0) == {behind: 2.0}


def test_who_rests_counts_as_having_advanced(heartbeats: Heartbeats, clock: Clock) -> None:
    """This holds until its announced idle time is over."""
    heartbeats.beat("scheduler", 60.0)
    clock.now = 60.0
    assert heartbeats.have_all_advanced_since(60.0)
    assert heartbeats.stalled(0.5) == {}
    clock.now = 61.0
    assert not heartbeats.have_all_advanced_since(60.5)
    assert heartbeats.stalled(0.5) == {"scheduler": 1.0}


def test_waking_early_ends_the_rest(heartbeats: Heartbeats, clock: Clock) -> None:
    """A new heartbeat replaces an earlier announced idle time, so a hang after it is detected."""
    heartbeats.beat("scheduler", 1000.0)
    clock.now = 10.0
    heartbeats.beat("scheduler")
    clock.now = 40.0
    assert not heartbeats.have_all_advanced_since(11.0)
    assert heartbeats.stalled(30.0) == {"scheduler": 30.0}


def test_a_sign_on_behalf_of_a_part_leaves_its_rest(heartbeats: Heartbeats, clock: Clock) -> None:
    """`touch` does not shorten the idle time that the part has announced already."""
    heartbeats.beat("scheduler", 60.0)
    clock.now = 10.0
    heartbeats.touch("scheduler")
    assert heartbeats.have_all_advanced_since(60.0)
    clock.now = 100.0
    heartbeats.touch("scheduler")
    clock.now = 130.0
    assert heartbeats.have_all_advanced_since(100.0)
    assert not heartbeats.have_all_advanced_since(100.1)
    assert heartbeats.stalled(30.0) == {"scheduler": 30.0}


def test_a_sign_on_behalf_of_a_part_may_be_its_first(heartbeats: Heartbeats, clock: Clock) -> None:
    """From then on the part is considered."""
    clock.now = 5.0
    heartbeats.touch("scheduler")
    assert heartbeats.have_all_advanced_since(5.0)
    assert not heartbeats.have_all_advanced_since(6.0)


def test_a_stall_is_reported_after_its_limit(heartbeats: Heartbeats, clock: Clock) -> None:
    """Each part has its own time, and those that are overdue for less are omitted."""
    heartbeats.beat("intake")
    clock.now = 2.0
    heartbeats.beat("scheduler")
    clock.now = 5.0
    assert heartbeats.stalled(5.5) == {}
    assert heartbeats.stalled(5.0) == {"intake": 5.0}
    assert heartbeats.stalled(3.0) == {"intake": 5.0, "scheduler": 3.0}
    heartbeats.beat("intake")
    assert heartbeats.stalled(3.0) == {"scheduler": 3.0}


@pytest.fixture
def _impatient_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_impatient_threads")
def test_parts_may_appear_while_others_look(heartbeats: Heartbeats) -> None:
    """Heartbeats may come from any thread, at any time."""

    for number in range(1000):
        heartbeats.beat(f"part {number}")

    def send() -> None:
        for number in range(1000, 3000):
            heartbeats.beat(f"part {number}")

    thread = Thread(target=send)
    thread.start()
    while thread.is_alive():
        assert heartbeats.have_all_advanced_since(0.0)
        assert heartbeats.stalled(1.0) == {}
    thread.join()
    assert len(heartbeats.stalled(0.0)) == 3000

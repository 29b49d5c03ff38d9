"""Signs of life, on a clock that the tests turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from threading import Thread

import pytest

from styled.ops.pulse import Pulse


class Clock:
    """A clock that only the tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(clock)


def test_who_never_gave_a_sign_is_not_missed(pulse: Pulse, clock: Clock) -> None:
    """Before a part has begun, nothing is wrong with it."""
    clock.now = 1e6
    assert pulse.have_all_advanced_since(1e6)
    assert pulse.silent_for(0.0) == {}


def test_a_sign_counts_from_its_moment_on(pulse: Pulse, clock: Clock) -> None:
    """A part has advanced since all moments up to that of its last sign, and none after."""
    clock.now = 5.0
    pulse.beat("intake")
    clock.now = 9.0
    assert pulse.have_all_advanced_since(5.0)
    assert not pulse.have_all_advanced_since(5.1)
    pulse.beat("intake")
    assert pulse.have_all_advanced_since(9.0)


@pytest.mark.parametrize("behind", ["intake", "scheduler", "metrics"])
def test_one_part_behind_is_enough(pulse: Pulse, clock: Clock, behind: str) -> None:
    """All others may advance: whichever does not is noticed."""
    parts = ("intake", "scheduler", "metrics")
    for part in parts:
        pulse.beat(part)
    clock.now = 2.0
    for part in parts:
        if part != behind:
            pulse.beat(part)
    assert pulse.have_all_advanced_since(0.0)
    assert not pulse.have_all_advanced_since(1.0)
    assert pulse.silent_for(1.0) == {behind: 2.0}


def test_who_rests_counts_as_having_advanced(pulse: Pulse, clock: Clock) -> None:
    """Until the announced rest is over, and no longer."""
    pulse.beat("scheduler", 60.0)
    clock.now = 60.0
    assert pulse.have_all_advanced_since(60.0)
    assert pulse.silent_for(0.5) == {}
    clock.now = 61.0
    assert not pulse.have_all_advanced_since(60.5)
    assert pulse.silent_for(0.5) == {"scheduler": 1.0}


def test_waking_early_ends_the_rest(pulse: Pulse, clock: Clock) -> None:
    """What hangs after it has woken is not excused by the rest that it once announced."""
    pulse.beat("scheduler", 1000.0)
    clock.now = 10.0
    pulse.beat("scheduler")
    clock.now = 40.0
    assert not pulse.have_all_advanced_since(11.0)
    assert pulse.silent_for(30.0) == {"scheduler": 30.0}


def test_a_sign_on_behalf_of_a_part_leaves_its_rest(pulse: Pulse, clock: Clock) -> None:
    """Whoever sees that a part advances may come late: it rests already."""
    pulse.beat("scheduler", 60.0)
    clock.now = 10.0
    pulse.touch("scheduler")
    assert pulse.have_all_advanced_since(60.0)
    clock.now = 100.0
    pulse.touch("scheduler")
    clock.now = 130.0
    assert pulse.have_all_advanced_since(100.0)
    assert not pulse.have_all_advanced_since(100.1)
    assert pulse.silent_for(30.0) == {"scheduler": 30.0}


def test_a_sign_on_behalf_of_a_part_may_be_its_first(pulse: Pulse, clock: Clock) -> None:
    """From then on it is missed."""
    clock.now = 5.0
    pulse.touch("scheduler")
    assert pulse.have_all_advanced_since(5.0)
    assert not pulse.have_all_advanced_since(6.0)


def test_silence_is_told_from_its_length_on(pulse: Pulse, clock: Clock) -> None:
    """Each part with its own time, and those that have been silent for less are left out."""
    pulse.beat("intake")
    clock.now = 2.0
    pulse.beat("scheduler")
    clock.now = 5.0
    assert pulse.silent_for(5.5) == {}
    assert pulse.silent_for(5.0) == {"intake": 5.0}
    assert pulse.silent_for(3.0) == {"intake": 5.0, "scheduler": 3.0}
    pulse.beat("intake")
    assert pulse.silent_for(3.0) == {"scheduler": 3.0}


@pytest.fixture
def _impatient_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_impatient_threads")
def test_parts_may_appear_while_others_look(pulse: Pulse) -> None:
    """Signs come from any thread, at any time."""

    for number in range(1000):
        pulse.beat(f"part {number}")

    def appear() -> None:
        for number in range(1000, 3000):
            pulse.beat(f"part {number}")

    thread = Thread(target=appear)
    thread.start()
    while thread.is_alive():
        assert pulse.have_all_advanced_since(0.0)
        assert pulse.silent_for(1.0) == {}
    thread.join()
    assert len(pulse.silent_for(0.0)) == 3000

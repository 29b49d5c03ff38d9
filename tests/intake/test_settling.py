"""The settle gate, on a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from styled.errors import ResourceUnavailable
from styled.intake.scanning import Found
from styled.intake.settling import SettleGate

A = Found("a.jpg", size=10, mtime_ns=1, inode=100)
B = Found("b.jpg", size=20, mtime_ns=1, inode=200)
GROWN = Found("a.jpg", size=11, mtime_ns=1, inode=100)
TOUCHED = Found("a.jpg", size=10, mtime_ns=2, inode=100)
REPLACED = Found("a.jpg", size=10, mtime_ns=1, inode=101)


@pytest.fixture
def gate() -> SettleGate:
    """Return a gate that opens after one second."""
    return SettleGate(1.0)


def test_a_file_settles_after_its_time(gate: SettleGate) -> None:
    """Not at first sight, not too early, and exactly on time."""
    assert gate.pass_settled([A], 5.0) == []
    assert gate.pass_settled([A], 5.9) == []
    assert gate.pass_settled([A], 6.0) == [A]


def test_a_file_is_let_through_once(gate: SettleGate) -> None:
    """Later looks at the same file are no news."""
    gate.pass_settled([A], 0.0)
    assert gate.pass_settled([A], 1.0) == [A]
    assert gate.pass_settled([A], 100.0) == []


def test_without_a_settling_time_the_first_look_counts() -> None:
    """`settle_seconds: 0` is for inboxes that are filled by renaming."""
    assert SettleGate(0.0).pass_settled([A], 0.0) == [A]


@pytest.mark.parametrize("changed", [GROWN, TOUCHED, REPLACED], ids=["size", "time", "inode"])
def test_a_change_starts_the_time_again(gate: SettleGate, changed: Found) -> None:
    """Size, time and inode count, each alone: an uploader may set any of them back."""
    gate.pass_settled([A], 0.0)
    assert gate.pass_settled([changed], 0.9) == []
    assert gate.pass_settled([changed], 1.5) == []
    assert gate.pass_settled([changed], 1.9) == [changed]


@pytest.mark.parametrize("changed", [GROWN, TOUCHED, REPLACED], ids=["size", "time", "inode"])
def test_a_change_after_settling_is_a_new_input(gate: SettleGate, changed: Found) -> None:
    """It has to settle like any other."""
    gate.pass_settled([A], 0.0)
    gate.pass_settled([A], 1.0)
    assert gate.pass_settled([changed], 2.0) == []
    assert gate.pass_settled([changed], 3.0) == [changed]


def test_a_file_that_vanishes_is_forgotten(gate: SettleGate) -> None:
    """When it reappears, its time begins anew, even if it looks the same."""
    gate.pass_settled([A], 0.0)
    gate.pass_settled([], 0.5)
    assert gate.pass_settled([A], 1.0) == []
    assert gate.pass_settled([A], 2.0) == [A]


def test_a_file_that_reappears_after_settling_comes_again(gate: SettleGate) -> None:
    """Somebody has put the same photo there once more."""
    gate.pass_settled([A], 0.0)
    gate.pass_settled([A], 1.0)
    gate.pass_settled([], 2.0)
    gate.pass_settled([A], 3.0)
    assert gate.pass_settled([A], 4.0) == [A]


def test_files_settle_each_for_itself(gate: SettleGate) -> None:
    """One upload that never ends does not hold up the others."""
    gate.pass_settled([A, B], 0.0)
    assert gate.pass_settled([GROWN, B], 1.0) == [B]
    assert gate.pass_settled([GROWN, B], 2.0) == [GROWN]


def test_forgetting_lets_everything_through_once_more(gate: SettleGate) -> None:
    """What has settled need not settle again."""
    gate.pass_settled([A, B], 0.0)
    gate.pass_settled([A, B], 1.0)
    gate.forget()
    assert gate.pass_settled([A, B], 1.1) == [A, B]
    assert gate.pass_settled([A, B], 1.2) == []


def test_forgetting_is_no_short_cut(gate: SettleGate) -> None:
    """What has not settled yet has to wait all the same."""
    gate.pass_settled([A], 0.0)
    gate.forget()
    assert gate.pass_settled([A], 0.5) == []
    assert gate.pass_settled([A], 1.0) == [A]


def test_it_knows_when_to_look_again(gate: SettleGate) -> None:
    """At the first moment at which any waiting file may have settled."""
    assert gate.next_settled_at() is None
    gate.pass_settled([A], 3.0)
    gate.pass_settled([A, B], 3.5)
    assert gate.next_settled_at() == 4.0
    gate.pass_settled([A, B], 4.0)
    assert gate.next_settled_at() == 4.5
    gate.pass_settled([A, B], 4.5)
    assert gate.next_settled_at() is None


def test_a_look_that_breaks_off_changes_nothing(gate: SettleGate) -> None:
    """The inbox may vanish in the middle of a look; nobody's time begins anew."""

    def broken() -> Iterator[Found]:
        yield A
        raise ResourceUnavailable("the inbox is gone")

    gate.pass_settled([A, B], 0.0)
    with pytest.raises(ResourceUnavailable):
        gate.pass_settled(broken(), 0.5)
    assert gate.pass_settled([A, B], 1.0) == [A, B]

"""The settle gate, on a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from styled.errors import ResourceUnavailable
from styled.intake.scanning import Found
from styled.intake.settling import CHECK_AGAIN_SECONDS, SettleGate, UnfinishedFile
from styled.intake.unfinished import Sign

A = Found("a.jpg", size=10, mtime_ns=1, inode=100)
B = Found("b.jpg", size=20, mtime_ns=1, inode=200)
GROWN = Found("a.jpg", size=11, mtime_ns=1, inode=100)
TOUCHED = Found("a.jpg", size=10, mtime_ns=2, inode=100)
REPLACED = Found("a.jpg", size=10, mtime_ns=1, inode=101)


class ScriptedCheck:
    """Finds files unfinished as the test says."""

    def __init__(self) -> None:
        self.signs: dict[str, Sign] = {}
        self.asked: list[str] = []

    def sign_of(self, file: Found, waited_seconds: float) -> Sign | None:
        """Return the scripted sign as long as it counts."""
        self.asked.append(file.path)
        sign = self.signs.get(file.path)
        if sign is None or sign.grace_seconds is None:
            return sign
        return sign if waited_seconds < sign.grace_seconds else None


def settled(gate: SettleGate, found: Iterable[Found], now: float) -> list[Found]:
    """Return what a look lets through."""
    return list(gate.pass_settled(found, now))


@pytest.fixture
def check() -> ScriptedCheck:
    """Return a check that finds every file finished, until told otherwise."""
    return ScriptedCheck()


@pytest.fixture
def gate(check: ScriptedCheck) -> SettleGate:
    """Return a gate that opens after one second."""
    return SettleGate(1.0, check)


def test_a_file_settles_after_its_time(gate: SettleGate) -> None:
    """Not at first sight, not too early, and exactly on time."""
    assert settled(gate, [A], 5.0) == []
    assert settled(gate, [A], 5.9) == []
    assert settled(gate, [A], 6.0) == [A]


def test_a_file_is_let_through_once(gate: SettleGate) -> None:
    """Later looks at the same file are no news."""
    settled(gate, [A], 0.0)
    assert settled(gate, [A], 1.0) == [A]
    assert settled(gate, [A], 100.0) == []


def test_without_a_settling_time_the_first_look_counts() -> None:
    """`settle_seconds: 0` is for inboxes that are filled by renaming."""
    assert settled(SettleGate(0.0, ScriptedCheck()), [A], 0.0) == [A]


@pytest.mark.parametrize("changed", [GROWN, TOUCHED, REPLACED], ids=["size", "time", "inode"])
def test_a_change_starts_the_time_again(gate: SettleGate, changed: Found) -> None:
    """Size, time and inode count, each alone: an uploader may set any of them back."""
    settled(gate, [A], 0.0)
    assert settled(gate, [changed], 0.9) == []
    assert settled(gate, [changed], 1.5) == []
    assert settled(gate, [changed], 1.9) == [changed]


@pytest.mark.parametrize("changed", [GROWN, TOUCHED, REPLACED], ids=["size", "time", "inode"])
def test_a_change_after_settling_is_a_new_input(gate: SettleGate, changed: Found) -> None:
    """It has to settle like any other."""
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    assert settled(gate, [changed], 2.0) == []
    assert settled(gate, [changed], 3.0) == [changed]


def test_a_file_that_vanishes_is_forgotten(gate: SettleGate) -> None:
    """When it reappears, its time begins anew, even if it looks the same."""
    settled(gate, [A], 0.0)
    settled(gate, [], 0.5)
    assert settled(gate, [A], 1.0) == []
    assert settled(gate, [A], 2.0) == [A]


def test_a_file_that_reappears_after_settling_comes_again(gate: SettleGate) -> None:
    """Somebody has put the same photo there once more."""
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    settled(gate, [], 2.0)
    settled(gate, [A], 3.0)
    assert settled(gate, [A], 4.0) == [A]


def test_files_settle_each_for_itself(gate: SettleGate) -> None:
    """One upload that never ends does not hold up the others."""
    settled(gate, [A, B], 0.0)
    assert settled(gate, [GROWN, B], 1.0) == [B]
    assert settled(gate, [GROWN, B], 2.0) == [GROWN]


def test_forgetting_lets_everything_through_once_more(gate: SettleGate) -> None:
    """What has settled need not settle again."""
    settled(gate, [A, B], 0.0)
    settled(gate, [A, B], 1.0)
    gate.forget()
    assert settled(gate, [A, B], 1.1) == [A, B]
    assert settled(gate, [A, B], 1.2) == []


def test_forgetting_is_no_short_cut(gate: SettleGate) -> None:
    """What has not settled yet has to wait all the same."""
    settled(gate, [A], 0.0)
    gate.forget()
    assert settled(gate, [A], 0.5) == []
    assert settled(gate, [A], 1.0) == [A]


def test_it_knows_when_to_look_again(gate: SettleGate) -> None:
    """At the first moment at which any waiting file may have settled."""
    assert gate.next_settled_at() is None
    settled(gate, [A], 3.0)
    settled(gate, [A, B], 3.5)
    assert gate.next_settled_at() == 4.0
    settled(gate, [A, B], 4.0)
    assert gate.next_settled_at() == 4.5
    settled(gate, [A, B], 4.5)
    assert gate.next_settled_at() is None


def test_a_look_that_breaks_off_changes_nothing(gate: SettleGate) -> None:
    """The inbox may vanish in the middle of a look; nobody's time begins anew."""

    def broken() -> Iterator[Found]:
        yield A
        raise ResourceUnavailable("the inbox is gone")

    settled(gate, [A, B], 0.0)
    with pytest.raises(ResourceUnavailable):
        settled(gate, broken(), 0.5)
    assert settled(gate, [A, B], 1.0) == [A, B]


def test_an_unfinished_file_waits_for_its_grace(gate: SettleGate, check: ScriptedCheck) -> None:
    """Counted from its last change; then it is let through all the same, to be judged."""
    check.signs["a.jpg"] = Sign("is empty", grace_seconds=60.0)
    settled(gate, [A], 0.0)
    assert settled(gate, [A], 1.0) == []
    assert gate.unfinished() == [UnfinishedFile("a.jpg", "is empty", until=60.0)]
    assert settled(gate, [A], 59.9) == []
    assert settled(gate, [A], 60.0) == [A]
    assert gate.unfinished() == []


def test_a_change_starts_the_grace_again(gate: SettleGate, check: ScriptedCheck) -> None:
    """An upload may take hours, as long as it goes on; it is unfinished all the while."""
    check.signs["a.jpg"] = Sign("ends too early", grace_seconds=60.0)
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    settled(gate, [GROWN], 50.0)
    assert gate.unfinished() == [UnfinishedFile("a.jpg", "ends too early", until=110.0)]
    assert settled(gate, [GROWN], 109.9) == []
    assert settled(gate, [GROWN], 110.0) == [GROWN]


def test_a_file_whose_sign_goes_is_taken_at_once(gate: SettleGate, check: ScriptedCheck) -> None:
    """Its writer has closed it, say, which changes nothing else about it."""
    check.signs["a.jpg"] = Sign("is still open for writing", grace_seconds=3600.0)
    settled(gate, [A], 0.0)
    assert settled(gate, [A], 1.0) == []
    del check.signs["a.jpg"]
    assert settled(gate, [A], 1.1) == [A]


def test_a_sign_without_a_grace_never_ends(gate: SettleGate, check: ScriptedCheck) -> None:
    """A control file says so for as long as it lies there."""
    check.signs["a.jpg"] = Sign("waits for a.jpg.aria2", grace_seconds=None)
    settled(gate, [A], 0.0)
    assert settled(gate, [A], 1e6) == []
    assert gate.unfinished() == [UnfinishedFile("a.jpg", "waits for a.jpg.aria2", until=None)]


def test_unfinished_files_are_looked_at_again_soon(gate: SettleGate, check: ScriptedCheck) -> None:
    """No event need tell that a writer has gone."""
    check.signs["a.jpg"] = Sign("is still open for writing", grace_seconds=3600.0)
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    assert gate.next_settled_at() is None
    assert gate.next_check_at() == 1.0 + CHECK_AGAIN_SECONDS


def test_an_unchanged_file_is_not_looked_into_at_every_look(
    gate: SettleGate, check: ScriptedCheck
) -> None:
    """Others may change many times a second; what is missing in this one can't have come."""
    check.signs["a.jpg"] = Sign("ends too early", grace_seconds=60.0, is_of_content=True)
    settled(gate, [A], 0.0)
    for moment in (1.0, 1.1, 1.2, 2.9):
        assert settled(gate, [A], moment) == []
    assert check.asked == ["a.jpg"]
    settled(gate, [A], 1.0 + CHECK_AGAIN_SECONDS)
    assert check.asked == ["a.jpg", "a.jpg"]


def test_what_is_not_taken_is_known(gate: SettleGate, check: ScriptedCheck) -> None:
    """Both what is unfinished and what never stops changing."""
    check.signs["b.jpg"] = Sign("is empty", grace_seconds=60.0)
    settled(gate, [A, B], 0.0)
    settled(gate, [GROWN, B], 1.0)
    assert gate.not_taken() == [("a.jpg", "has not stopped changing"), ("b.jpg", "is empty")]


def test_it_knows_whether_waiting_is_of_use(gate: SettleGate, check: ScriptedCheck) -> None:
    """It is for what is cut off, whose grace ends; a writer may stay for hours."""
    assert not gate.may_settle()
    check.signs["a.jpg"] = Sign("is still open for writing", grace_seconds=3600.0)
    settled(gate, [A], 0.0)
    assert gate.may_settle()
    settled(gate, [A], 1.0)
    assert not gate.may_settle()
    check.signs["b.jpg"] = Sign("ends too early", grace_seconds=60.0, is_of_content=True)
    settled(gate, [A, B], 2.0)
    settled(gate, [A, B], 3.0)
    assert gate.may_settle()


def test_a_finished_file_is_looked_into_once(gate: SettleGate, check: ScriptedCheck) -> None:
    """A hundred thousand files are not read again every half minute."""
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    gate.forget()
    settled(gate, [A], 2.0)
    assert check.asked == ["a.jpg"]

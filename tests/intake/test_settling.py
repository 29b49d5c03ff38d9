"""The settle gate, at times given by the tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from styled.errors import ResourceUnavailable
from styled.intake.scanning import FoundFile
from styled.intake.settling import RECHECK_SECONDS, IncompleteFile, SettleGate
from styled.intake.upload_check import Evidence

A = FoundFile("a.jpg", size=10, mtime_ns=1, inode=100)
B = FoundFile("b.jpg", size=20, mtime_ns=1, inode=200)
GROWN = FoundFile("a.jpg", size=11, mtime_ns=1, inode=100)
TOUCHED = FoundFile("a.jpg", size=10, mtime_ns=2, inode=100)
REPLACED = FoundFile("a.jpg", size=10, mtime_ns=1, inode=101)


class ScriptedCheck:
    """Returns the evidence that the test has set."""

    def __init__(self) -> None:
        self.evidence: dict[str, Evidence] = {}
        self.checked: list[str] = []

    def evidence_of(self, file: FoundFile, waited_seconds: float) -> Evidence | None:
        """Return the scripted evidence until its grace ends."""
        self.checked.append(file.path)
        evidence = self.evidence.get(file.path)
        if evidence is None or evidence.grace_seconds is None:
            return evidence
        return evidence if waited_seconds < evidence.grace_seconds else None


def settled(gate: SettleGate, found: Iterable[FoundFile], now: float) -> list[FoundFile]:
    """Return the files that pass in a scan."""
    return list(gate.filter_settled(found, now))


@pytest.fixture
def check() -> ScriptedCheck:
    """Return a check that finds every file complete unless the test sets evidence."""
    return ScriptedCheck()


@pytest.fixture
def gate(check: ScriptedCheck) -> SettleGate:
    """Return a gate that files pass after one second."""
    return SettleGate(1.0, check)


class Submitted:
    """Some files have a job already."""

    def __init__(self, *paths: str) -> None:
        self.paths = set(paths)

    def is_submitted(self, path: str, size: int, mtime_ns: int) -> bool:
        """Return whether it is one of these."""
        return path in self.paths


def test_what_was_submitted_before_is_not_read_again(check: ScriptedCheck) -> None:
    """After a restart queued files pass at once: a broken one is not said to be arriving."""
    check.evidence[A.path] = Evidence("ends too early", 60.0, is_of_content=True)
    gate = SettleGate(1.0, check, None, Submitted(A.path))
    assert settled(gate, [A], 5.0) == []
    assert settled(gate, [A], 6.0) == [A]
    assert check.checked == []
    assert gate.incomplete() == []


def test_a_file_settles_after_its_time(gate: SettleGate) -> None:
    """It passes neither at the first scan nor too early, but exactly on time."""
    assert settled(gate, [A], 5.0) == []
    assert settled(gate, [A], 5.9) == []
    assert settled(gate, [A], 6.0) == [A]


def test_a_file_is_let_through_once(gate: SettleGate) -> None:
    """Later scans of the same file do not yield it again."""
    settled(gate, [A], 0.0)
    assert settled(gate, [A], 1.0) == [A]
    assert settled(gate, [A], 100.0) == []


def test_without_a_settling_time_the_first_look_counts() -> None:
    """`settle_seconds: 0` is for inboxes into which files are renamed."""
    assert settled(SettleGate(0.0, ScriptedCheck()), [A], 0.0) == [A]


@pytest.mark.parametrize("changed", [GROWN, TOUCHED, REPLACED], ids=["size", "time", "inode"])
def test_a_change_starts_the_time_again(gate: SettleGate, changed: FoundFile) -> None:
    """A change of size, mtime or inode alone suffices: an uploader may reset any of them."""
    settled(gate, [A], 0.0)
    assert settled(gate, [changed], 0.9) == []
    assert settled(gate, [changed], 1.5) == []
    assert settled(gate, [changed], 1.9) == [changed]


@pytest.mark.parametrize("changed", [GROWN, TOUCHED, REPLACED], ids=["size", "time", "inode"])
def test_a_change_after_settling_is_a_new_input(gate: SettleGate, changed: FoundFile) -> None:
    """It has to settle like any other."""
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    assert settled(gate, [changed], 2.0) == []
    assert settled(gate, [changed], 3.0) == [changed]


def test_a_file_that_vanishes_is_forgotten(gate: SettleGate) -> None:
    """When it reappears, its settling time restarts, even if it looks the same."""
    settled(gate, [A], 0.0)
    settled(gate, [], 0.5)
    assert settled(gate, [A], 1.0) == []
    assert settled(gate, [A], 2.0) == [A]


def test_a_file_that_reappears_after_settling_comes_again(gate: SettleGate) -> None:
    """The same photo was put there again."""
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    settled(gate, [], 2.0)
    settled(gate, [A], 3.0)
    assert settled(gate, [A], 4.0) == [A]


def test_files_settle_each_for_itself(gate: SettleGate) -> None:
    """One upload that never ends does not delay the others."""
    settled(gate, [A, B], 0.0)
    assert settled(gate, [GROWN, B], 1.0) == [B]
    assert settled(gate, [GROWN, B], 2.0) == [GROWN]


def test_forgetting_lets_everything_through_once_more(gate: SettleGate) -> None:
    """Files that have settled need not settle again."""
    settled(gate, [A, B], 0.0)
    settled(gate, [A, B], 1.0)
    gate.resubmit_all()
    assert settled(gate, [A, B], 1.1) == [A, B]
    assert settled(gate, [A, B], 1.2) == []


def test_forgetting_is_no_short_cut(gate: SettleGate) -> None:
    """Files that have not settled yet still have to wait."""
    settled(gate, [A], 0.0)
    gate.resubmit_all()
    assert settled(gate, [A], 0.5) == []
    assert settled(gate, [A], 1.0) == [A]


def test_it_knows_when_to_look_again(gate: SettleGate) -> None:
    """`next_settled_at` is the earliest time at which a waiting file may settle."""
    assert gate.next_settled_at() is None
    settled(gate, [A], 3.0)
    settled(gate, [A, B], 3.5)
    assert gate.next_settled_at() == 4.0
    settled(gate, [A, B], 4.0)
    assert gate.next_settled_at() == 4.5
    settled(gate, [A, B], 4.5)
    assert gate.next_settled_at() is None


def test_a_look_that_breaks_off_changes_nothing(gate: SettleGate) -> None:
    """The inbox may vanish in the middle of a scan; no settling time restarts."""

    def broken() -> Iterator[FoundFile]:
        yield A
        raise ResourceUnavailable("the inbox is gone")

    settled(gate, [A, B], 0.0)
    with pytest.raises(ResourceUnavailable):
        settled(gate, broken(), 0.5)
    assert settled(gate, [A, B], 1.0) == [A, B]


def test_an_incomplete_file_waits_for_its_grace(gate: SettleGate, check: ScriptedCheck) -> None:
    """The grace counts from its last change; then it passes, and the decoder decides."""
    check.evidence["a.jpg"] = Evidence("is empty", grace_seconds=60.0)
    settled(gate, [A], 0.0)
    assert settled(gate, [A], 1.0) == []
    assert gate.incomplete() == [IncompleteFile("a.jpg", "is empty", until=60.0)]
    assert settled(gate, [A], 59.9) == []
    assert settled(gate, [A], 60.0) == [A]
    assert gate.incomplete() == []


def test_a_change_starts_the_grace_again(gate: SettleGate, check: ScriptedCheck) -> None:
    """An upload may take hours; the file counts as incomplete as long as it changes."""
    check.evidence["a.jpg"] = Evidence("ends too early", grace_seconds=60.0)
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    settled(gate, [GROWN], 50.0)
    assert gate.incomplete() == [IncompleteFile("a.jpg", "ends too early", until=110.0)]
    assert settled(gate, [GROWN], 109.9) == []
    assert settled(gate, [GROWN], 110.0) == [GROWN]


def test_a_file_whose_sign_goes_is_taken_at_once(gate: SettleGate, check: ScriptedCheck) -> None:
    """For instance its writer has closed it, which changes neither size nor mtime."""
    check.evidence["a.jpg"] = Evidence("is still open for writing", grace_seconds=3600.0)
    settled(gate, [A], 0.0)
    assert settled(gate, [A], 1.0) == []
    del check.evidence["a.jpg"]
    assert settled(gate, [A], 1.1) == [A]


def test_a_sign_without_a_grace_never_ends(gate: SettleGate, check: ScriptedCheck) -> None:
    """A control file delays its file for as long as it exists."""
    check.evidence["a.jpg"] = Evidence("waits for a.jpg.aria2", grace_seconds=None)
    settled(gate, [A], 0.0)
    assert settled(gate, [A], 1e6) == []
    assert gate.incomplete() == [IncompleteFile("a.jpg", "waits for a.jpg.aria2", until=None)]


def test_incomplete_files_are_looked_at_again_soon(gate: SettleGate, check: ScriptedCheck) -> None:
    """A writer may close its file without an event."""
    check.evidence["a.jpg"] = Evidence("is still open for writing", grace_seconds=3600.0)
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    assert gate.next_settled_at() is None
    assert gate.next_check_at() == 1.0 + RECHECK_SECONDS


def test_an_unchanged_file_is_not_read_at_every_look(
    gate: SettleGate, check: ScriptedCheck
) -> None:
    """Other files may cause many scans a second; unchanged content is still incomplete."""
    check.evidence["a.jpg"] = Evidence("ends too early", grace_seconds=60.0, is_of_content=True)
    settled(gate, [A], 0.0)
    for moment in (1.0, 1.1, 1.2, 2.9):
        assert settled(gate, [A], moment) == []
    assert check.checked == ["a.jpg"]
    settled(gate, [A], 1.0 + RECHECK_SECONDS)
    assert check.checked == ["a.jpg", "a.jpg"]


def test_what_is_not_taken_is_known(gate: SettleGate, check: ScriptedCheck) -> None:
    """This covers incomplete files and files that never stop changing."""
    check.evidence["b.jpg"] = Evidence("is empty", grace_seconds=60.0)
    settled(gate, [A, B], 0.0)
    settled(gate, [GROWN, B], 1.0)
    assert gate.not_taken() == [("a.jpg", "has not stopped changing"), ("b.jpg", "is empty")]


def test_it_knows_whether_waiting_is_of_use(gate: SettleGate, check: ScriptedCheck) -> None:
    """It is for truncated files, whose grace is short; a writer may hold a file for hours."""
    assert not gate.may_settle()
    check.evidence["a.jpg"] = Evidence("is still open for writing", grace_seconds=3600.0)
    settled(gate, [A], 0.0)
    assert gate.may_settle()
    settled(gate, [A], 1.0)
    assert not gate.may_settle()
    check.evidence["b.jpg"] = Evidence("ends too early", grace_seconds=60.0, is_of_content=True)
    settled(gate, [A, B], 2.0)
    settled(gate, [A, B], 3.0)
    assert gate.may_settle()


def test_a_finished_file_is_read_once(gate: SettleGate, check: ScriptedCheck) -> None:
    """An inbox of 100,000 files is not read again every 30 s."""
    settled(gate, [A], 0.0)
    settled(gate, [A], 1.0)
    gate.resubmit_all()
    settled(gate, [A], 2.0)
    assert check.checked == ["a.jpg"]

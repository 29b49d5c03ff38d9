"""The intake on a simulated clock: when it scans, what it submits, how it recovers."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from structlog.testing import capture_logs

from styled.config.ignore import IgnoreRules
from styled.errors import ResourceUnavailable
from styled.intake import intake as module
from styled.intake import photo_styles
from styled.intake.host import InboxReport, SettledInput
from styled.intake.intake import MIN_PAUSE_SECONDS, POLL_SECONDS, Intake, Mode
from styled.intake.pairing import Pairing
from styled.intake.scanning import FoundFile, ScanNotes, scan
from styled.mounts import Mount

NIGHT = Pairing(("night", "wave"), {}, "night")
WAVE = Pairing(("night", "wave"), {}, "wave")


class Clock:
    """A clock that advances only by waiting, with actions scheduled at given times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._script: list[tuple[float, Callable[[], object]]] = []

    def __call__(self) -> float:
        return self.now

    def at(self, moment: float, action: Callable[[], object]) -> None:
        """Schedule an action; it runs while the code under test waits."""
        self._script.append((moment, action))
        self._script.sort(key=lambda entry: entry[0])

    def pass_until(self, deadline: float, interrupted: Callable[[], bool]) -> None:
        """Advance to `deadline` and run the actions due by then, until `interrupted`."""
        while self._script and self._script[0][0] <= deadline and not interrupted():
            moment, action = self._script.pop(0)
            self.now = max(self.now, moment)
            action()
        if not interrupted():
            self.now = max(self.now, deadline)


class ClockedEvent(threading.Event):
    """An event whose `wait` advances the simulated clock instead of waiting."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        """Advance the clock by `timeout`, or until the event is set."""
        assert timeout is not None
        self._clock.pass_until(self._clock() + timeout, self.is_set)
        return self.is_set()


class ScriptedWatcher:
    """A watcher whose problem the test sets."""

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        self.problem: str | None = None
        self.ensured = 0
        self.stopped = False
        self.closed_files: set[str] = set()

    def ensure(self, *, check_kernel: bool = False) -> str | None:
        """Return the scripted problem."""
        self.ensured += 1
        return self.problem

    def stop(self) -> None:
        """Record the call."""
        self.stopped = True


class RecordingHost:
    """Records what the intake submits and reports; can refuse inputs and unmount the inbox."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.log: list[tuple[float, str, tuple[str, ...]]] = []
        self.batches: list[int] = []
        self.inputs: list[SettledInput] = []
        self.submitted_before: set[str] = set()
        self.arrived: Queue[str] = Queue()
        self.refusing = False
        self.refused_at: list[float] = []
        self.is_mounted = True
        self.maintained_at: list[float] = []
        self.polling_reasons: list[str | None] = []
        self.problems: list[str | None] = []
        self.reports: list[InboxReport] = []
        self.heartbeats: list[tuple[float, float]] = []

    def submit(self, inputs: Sequence[SettledInput]) -> int:
        """Record the inputs, or refuse them."""
        if self.refusing:
            self.refused_at.append(self._clock())
            raise ResourceUnavailable("the journal is full", "free some space")
        self.batches.append(len(inputs))
        self.inputs.extend(inputs)
        for found in inputs:
            self.arrived.put(found.path)
            self.log.append((self._clock(), found.path, tuple(found.destinations)))
        return len(inputs)

    def is_submitted(self, path: str, size: int, mtime_ns: int) -> bool:
        """Return whether an earlier process has submitted it, as the test says."""
        return path in self.submitted_before

    def require_inbox(self) -> None:
        """Raise if the inbox is not mounted."""
        if not self.is_mounted:
            raise ResourceUnavailable("the inbox is not mounted", "mount it")

    def maintain(self) -> None:
        """Record the time."""
        self.maintained_at.append(self._clock())

    def watching_changed(self, problem: str | None) -> None:
        """Record it."""
        self.polling_reasons.append(problem)

    def problem_changed(self, problem: str | None) -> None:
        """Record it."""
        self.problems.append(problem)

    def report_changed(self, report: InboxReport) -> None:
        """Record it."""
        self.reports.append(report)

    def heartbeat(self, idle_for: float) -> None:
        """Record it with its time."""
        self.heartbeats.append((self._clock(), idle_for))

    def paths(self) -> list[str]:
        """Return the submitted paths in order."""
        return [path for _, path, _ in self.log]

    def times(self) -> list[float]:
        """Return the times of the submissions."""
        return [moment for moment, _, _ in self.log]


class IntakeHarness:
    """An intake with a simulated clock, watcher and host, on the real file system."""

    def __init__(
        self, inbox: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode = "auto", settle: float = 1.0
    ) -> None:
        monkeypatch.setattr(module, "Watcher", ScriptedWatcher)
        self.inbox = inbox
        self.clock = Clock()
        self.host = RecordingHost(self.clock)
        self.intake = Intake(
            inbox,
            NIGHT,
            self.host,
            ignore=IgnoreRules([".*"]),
            mode=mode,
            settle_seconds=settle,
            rescan_seconds=30.0,
            clock=self.clock,
        )
        self.intake._wakeup = ClockedEvent(self.clock)
        self.intake._stopping = ClockedEvent(self.clock)
        watcher = self.intake._watcher
        assert isinstance(watcher, ScriptedWatcher)
        self.watcher = watcher

    def put(self, name: str, data: bytes = b"photo") -> None:
        """Put a file into the inbox."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def put_and_notify(self, name: str) -> None:
        """Put a file into the inbox, as if the kernel had reported it."""
        self.put(name)
        self.intake._wakeup.set()

    def scan_at(self, moment: float) -> bool:
        """Scan once at this time."""
        self.clock.now = moment
        return self.intake.scan_once()

    def run_until(self, moment: float) -> None:
        """Run the intake's thread function until this time."""
        self.clock.at(moment, self.intake.stop)
        self.intake._run()


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IntakeHarness:
    """Return a harness with an empty inbox."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return IntakeHarness(inbox, monkeypatch)


# One scan


def test_what_has_left_since_the_scan_found_it_is_not_submitted(
    harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo that was painted and moved meanwhile gets no second job."""
    harness.put("a.jpg")

    def move(*file: object) -> bool:
        (harness.inbox / "a.jpg").unlink(missing_ok=True)
        return False

    harness.scan_at(0.0)
    monkeypatch.setattr(harness.host, "is_submitted", move)
    harness.scan_at(1.0)
    assert harness.host.inputs == []


def test_what_has_settled_is_submitted_once(harness: IntakeHarness) -> None:
    """With its size, mtime and destinations."""
    harness.put("wave/trip/a.jpg", b"12345")
    assert harness.scan_at(0.0) is False
    assert harness.scan_at(1.0) is True
    assert harness.scan_at(2.0) is True
    stat = (harness.inbox / "wave/trip/a.jpg").stat()
    assert harness.host.inputs == [
        SettledInput("wave/trip/a.jpg", 5, stat.st_mtime_ns, {"wave": "trip/a.jpg"})
    ]


def test_one_look_submits_all_at_once(harness: IntakeHarness) -> None:
    """A few photos are submitted in one transaction; a scan without news submits nothing."""
    harness.put("a.jpg")
    harness.put("b.jpg")
    for moment in (0.0, 1.0, 2.0):
        harness.scan_at(moment)
    assert harness.host.batches == [2]


def test_very_many_are_submitted_in_portions(
    harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch can be painted while the scan goes on; the log has one line for all."""
    monkeypatch.setattr(module, "SUBMIT_BATCH", 2)
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"):
        harness.put(name)
    harness.scan_at(0.0)
    with capture_logs() as logs:
        harness.scan_at(1.0)
    assert harness.host.batches == [2, 2, 1]
    assert [(entry["event"], entry["count"]) for entry in logs] == [("jobs.submitted", 5)]


def test_what_belongs_to_no_style_stays(harness: IntakeHarness) -> None:
    """It is not submitted, and it does not count as unsettled."""
    harness.intake.set_pairing(Pairing(("wave",), {}, None))
    harness.put("a.jpg")
    harness.put("wave/b.jpg")
    harness.scan_at(0.0)
    assert harness.scan_at(1.0) is True
    assert harness.host.paths() == ["wave/b.jpg"]


def test_what_is_to_be_ignored_is_ignored(harness: IntakeHarness) -> None:
    """This applies to files and folders."""
    harness.put(".a.jpg")
    harness.put(".trash/b.jpg")
    assert harness.scan_at(0.0) is True


def test_another_pairing_offers_everything_again(harness: IntakeHarness) -> None:
    """After a reload the files may belong to other styles; they need not settle again."""
    harness.put("a.jpg")
    harness.scan_at(0.0)
    harness.scan_at(1.0)
    harness.intake._wakeup.clear()
    harness.intake.set_pairing(WAVE)
    assert harness.intake._wakeup.is_set()
    harness.scan_at(1.1)
    assert harness.host.log == [(1.0, "a.jpg", ("night",)), (1.1, "a.jpg", ("wave",))]


# Problems


def test_a_missing_inbox_is_reported_once_and_got_over(harness: IntakeHarness) -> None:
    """The log says when it disappears and when it is back; no exception is raised."""
    harness.inbox.rmdir()
    with capture_logs() as logs:
        assert harness.scan_at(0.0) is False
        assert harness.scan_at(1.0) is False
        harness.put("a.jpg")
        harness.scan_at(2.0)
        harness.scan_at(3.0)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("inbox.unavailable", "error"),
        ("inbox.recovered", "info"),
        ("jobs.submitted", "info"),
    ]
    assert str(harness.inbox) in logs[0]["reason"]
    assert logs[0]["remedies"]
    assert harness.host.times() == [3.0]


def test_another_problem_is_reported_too(harness: IntakeHarness) -> None:
    """One line for each cause."""
    harness.put("a.jpg")
    harness.scan_at(0.0)
    harness.host.refusing = True
    with capture_logs() as logs:
        harness.scan_at(1.0)
        harness.scan_at(2.0)
        (harness.inbox / "a.jpg").unlink()
        harness.inbox.rmdir()
        harness.scan_at(3.0)
    assert [entry["event"] for entry in logs] == ["inbox.unavailable"] * 2


def test_what_could_not_be_submitted_comes_again(harness: IntakeHarness) -> None:
    """A full journal loses nothing."""
    harness.put("a.jpg")
    harness.scan_at(0.0)
    harness.host.refusing = True
    assert harness.scan_at(1.0) is False
    harness.host.refusing = False
    assert harness.scan_at(1.5) is True
    assert harness.host.log == [(1.5, "a.jpg", ("night",))]


# When it scans


def test_what_lies_there_at_the_start_is_found(harness: IntakeHarness) -> None:
    """It is submitted as soon as it has settled, without any event."""
    harness.put("a.jpg")
    harness.run_until(20.0)
    assert harness.host.times() == [1.0]


def test_a_hint_makes_it_look(harness: IntakeHarness) -> None:
    """It scans at once, and again when the file has settled."""
    harness.clock.at(10.0, lambda: harness.put_and_notify("a.jpg"))
    harness.run_until(20.0)
    assert harness.host.times() == [11.0]


def test_without_a_hint_it_looks_every_so_often(harness: IntakeHarness) -> None:
    """A lost event delays a file by at most `rescan_seconds`, plus the settling time."""
    harness.clock.at(10.0, lambda: harness.put("a.jpg"))
    harness.run_until(40.0)
    assert harness.host.times() == [31.0]


def test_everything_is_offered_again_every_so_often(harness: IntakeHarness) -> None:
    """The journal ignores inputs that it has; anything missed before is submitted now."""
    harness.put("a.jpg")
    harness.run_until(95.0)
    assert harness.host.times() == [1.0, 30.0, 60.0, 90.0]


def test_a_storm_of_hints_is_one_look(
    harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always a minimum pause between two scans."""
    scanned_at: list[float] = []
    real = harness.intake.scan_once

    def scan_once() -> bool:
        scanned_at.append(harness.clock())
        return real()

    monkeypatch.setattr(harness.intake, "scan_once", scan_once)
    for number in range(1000):
        harness.clock.at(10.0 + number / 1000, harness.intake._wakeup.set)
    harness.run_until(20.0)
    assert len(scanned_at) <= 2 + 1.0 / MIN_PAUSE_SECONDS
    assert all(b - a >= MIN_PAUSE_SECONDS * 0.99 for a, b in pairwise(scanned_at))


def test_a_hint_during_a_look_is_not_lost(
    harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that arrives after the scan has passed its folder is found by the next scan."""
    real = harness.intake.scan_once
    arrived = False

    def scan_once() -> bool:
        nonlocal arrived
        result = real()
        if not arrived:
            arrived = True
            harness.put_and_notify("a.jpg")
        return result

    monkeypatch.setattr(harness.intake, "scan_once", scan_once)
    harness.run_until(20.0)
    assert harness.host.times() == [MIN_PAUSE_SECONDS + 1.0]


# Polling


def test_polling_looks_every_second_and_watches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polling is configured, so it is no degradation."""
    harness = IntakeHarness(tmp_path, monkeypatch, mode="polling")
    harness.clock.at(10.5, lambda: harness.put("a.jpg"))
    harness.run_until(20.0)
    (moment,) = harness.host.times()
    assert 11.5 <= moment <= 12.6 + MIN_PAUSE_SECONDS
    assert harness.watcher.ensured == 0
    assert harness.intake.polling_reason is None


def test_where_watching_fails_it_polls_and_says_why(harness: IntakeHarness) -> None:
    """The log has one warning, `degraded` has the reason, and files are still found."""
    harness.watcher.problem = "inotify watch limit reached"
    harness.clock.at(10.5, lambda: harness.put("a.jpg"))
    with capture_logs() as logs:
        harness.run_until(20.0)
    assert harness.intake.polling_reason == "inotify watch limit reached"
    (moment,) = harness.host.times()
    assert 11.5 <= moment <= 12.6 + MIN_PAUSE_SECONDS
    entry, _ = logs
    assert (entry["event"], entry["log_level"]) == ("inbox.polled", "warning")
    assert (entry["reason"], entry["every_seconds"]) == (
        "inotify watch limit reached",
        POLL_SECONDS,
    )


def test_native_mode_does_not_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If watching fails it says so, and the periodic full scan finds the files."""
    harness = IntakeHarness(tmp_path, monkeypatch, mode="native")
    harness.watcher.problem = "inotify watch limit reached"
    harness.clock.at(10.5, lambda: harness.put("a.jpg"))
    with capture_logs() as logs:
        harness.run_until(40.0)
    assert harness.host.times() == [31.0]
    assert (logs[0]["event"], logs[0]["every_seconds"]) == ("inbox.polled", 30.0)
    assert harness.intake.polling_reason == "inotify watch limit reached"


@pytest.mark.parametrize(("mode", "polled"), [("auto", True), ("native", False)])
def test_a_network_drive_is_polled_unless_configured_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, polled: bool
) -> None:
    """This machine's kernel sends no events for files that other machines put there."""
    monkeypatch.setattr(module, "mount_of", lambda folder: Mount("/mnt", "nfs4", "nas:/photos"))
    harness = IntakeHarness(tmp_path, monkeypatch, mode=mode)
    harness.clock.at(10.5, lambda: harness.put("a.jpg"))
    harness.run_until(40.0)
    assert (harness.host.times()[0] < 13.0) is polled
    assert ("nfs4" in (harness.intake.polling_reason or "")) is polled


def test_an_unexpected_error_does_not_end_the_watch(
    harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and the next scan finds what the failed one has missed."""

    def scan_later(inbox: Path, ignore: IgnoreRules, notes: ScanNotes) -> Iterator[FoundFile]:
        if harness.clock() < 5.0:
            raise RuntimeError("unexpected")
        return scan(inbox, ignore, notes)

    monkeypatch.setattr(module, "scan", scan_later)
    harness.put("a.jpg")
    with capture_logs() as logs:
        harness.run_until(20.0)
    assert [entry["event"] for entry in logs].count("intake.internal_error") == 5
    (moment,) = harness.host.times()
    assert 5.0 <= moment <= 8.0


def test_long_looks_are_rare(harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """An inbox whose scan takes 10 s is scanned every 100 s."""
    scanned_at = []

    def scan_slowly(inbox: Path, ignore: IgnoreRules, notes: ScanNotes) -> Iterator[FoundFile]:
        scanned_at.append(harness.clock())
        harness.clock.now += 10.0
        return iter(())

    monkeypatch.setattr(module, "scan", scan_slowly)
    harness.run_until(1000.0)
    pauses = [after - before for before, after in pairwise(scanned_at)]
    assert min(pauses[2:]) >= 100.0
    assert max(pauses[2:]) < 101.0


def test_folders_are_brought_back_at_each_full_look(harness: IntakeHarness) -> None:
    """The folder of a style may have been removed or renamed."""
    harness.clock.at(10.0, lambda: harness.put_and_notify("a.jpg"))
    harness.run_until(70.0)
    assert [round(moment) for moment in harness.host.maintained_at] == [0, 30, 60]


def test_which_file_systems_are_local_is_found_out_at_each_full_look(
    harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another disk may have been mounted meanwhile, with the device number of an earlier one."""
    forgotten_at = []
    monkeypatch.setattr(
        harness.intake._writer_check,
        "forget_mounts",
        lambda: forgotten_at.append(round(harness.clock())),
    )
    harness.clock.at(10.0, lambda: harness.put_and_notify("a.jpg"))
    harness.run_until(70.0)
    assert forgotten_at == [0, 30, 60]


def test_an_inbox_that_is_not_mounted_is_not_looked_at(harness: IntakeHarness) -> None:
    """Its mount point may exist as an empty folder."""
    harness.put("a.jpg")
    harness.host.is_mounted = False
    assert harness.scan_at(0.0) is False
    assert harness.scan_at(5.0) is False
    assert harness.host.log == []


def test_watching_is_tried_again(harness: IntakeHarness) -> None:
    """It is retried at each full scan; once it works, degradation and polling end."""
    harness.watcher.problem = "inotify watch limit reached"

    def mend() -> None:
        harness.watcher.problem = None

    harness.clock.at(5.5, mend)
    harness.clock.at(40.5, lambda: harness.put("a.jpg"))
    harness.run_until(70.0)
    assert harness.intake.polling_reason is None
    assert harness.watcher.ensured < 6
    (moment,) = harness.host.times()
    assert moment >= 60.0


def test_a_problem_is_waited_out_without_hurry(harness: IntakeHarness) -> None:
    """With a full journal it retries once a second, not ten times, until it works."""
    harness.put("a.jpg")
    harness.host.refusing = True

    def mend() -> None:
        harness.host.refusing = False

    harness.clock.at(10.5, mend)
    harness.run_until(20.0)
    assert 8 <= len(harness.host.refused_at) <= 10
    (moment,) = harness.host.times()
    assert 10.5 <= moment <= 10.5 + POLL_SECONDS + MIN_PAUSE_SECONDS


def test_an_inbox_that_comes_back_is_found_soon(harness: IntakeHarness) -> None:
    """No event is needed: nothing could be watched while the inbox was missing."""
    harness.inbox.rmdir()
    harness.clock.at(10.5, lambda: harness.put("a.jpg"))
    harness.run_until(20.0)
    (moment,) = harness.host.times()
    assert 11.5 <= moment <= 11.5 + POLL_SECONDS + 2 * MIN_PAUSE_SECONDS


# Stopping


def test_stopping_stops_the_watcher(harness: IntakeHarness) -> None:
    """It also ends the wait at once."""
    harness.run_until(5.0)
    assert harness.watcher.stopped
    assert harness.clock() == 5.0


def test_stopping_ends_a_scan_that_goes_on(
    harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of a large inbox is not looked at, and nothing is submitted."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        harness.put(name)
    harness.scan_at(0.0)
    listed = []

    def scan_and_stop(*arguments: Any) -> Iterator[FoundFile]:
        for file in scan(*arguments):
            listed.append(file.path)
            harness.intake.stop()
            yield file

    monkeypatch.setattr(module, "scan", scan_and_stop)
    assert harness.scan_at(1.5) is False
    assert len(listed) == 1
    assert harness.host.log == []


def test_stopping_is_never_missed(harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it comes just before the wakeup event is cleared."""
    real = harness.intake._wakeup.clear

    def clear() -> None:
        harness.intake.stop()
        real()

    monkeypatch.setattr(harness.intake._wakeup, "clear", clear)
    harness.intake._run()
    assert harness.clock() <= MIN_PAUSE_SECONDS


def test_stopping_what_was_never_started_is_fine(harness: IntakeHarness) -> None:
    """This happens when another part fails to start."""
    harness.intake.stop()


# With real threads and kernel events


def test_with_kernel_and_threads(tmp_path: Path) -> None:
    """A photo that is renamed into a new folder arrives long before the next full scan."""
    host = RecordingHost(Clock())
    arrived = host.arrived
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.jpg").write_bytes(b"photo")
    (tmp_path / "b.jpg").write_bytes(b"photo")
    intake = Intake(
        inbox, NIGHT, host, ignore=IgnoreRules([]), settle_seconds=0.05, rescan_seconds=3600.0
    )
    threads = set(threading.enumerate())
    intake.start()
    try:
        assert arrived.get(timeout=10) == "a.jpg"
        (inbox / "wave").mkdir()
        (tmp_path / "b.jpg").rename(inbox / "wave" / "b.jpg")
        assert arrived.get(timeout=10) == "wave/b.jpg"
    finally:
        intake.stop()
    assert set(threading.enumerate()) <= threads
    assert intake.polling_reason is None


def test_each_heartbeat_comes_by_the_announced_time(
    harness: IntakeHarness,
) -> None:
    """It sends heartbeats for each file of a scan, and before each wait with its length."""
    for number in range(5):
        harness.put(f"{number}.jpg")
    harness.clock.at(40.0, lambda: harness.put_and_notify("later.jpg"))
    harness.run_until(100.0)
    beats = harness.host.heartbeats
    during = Counter(moment for moment, idle_for in beats if idle_for == 0.0)
    assert sum(count >= 5 for count in during.values()) >= 3  # each file, at each full scan
    for (moment, idle_for), (following, _) in pairwise(beats):
        assert following - moment <= idle_for + module.MIN_PAUSE_SECONDS + 1e-6
    assert max(idle_for for _, idle_for in beats) <= 30.0


def test_a_problem_is_reported_when_it_begins_and_when_it_is_over(harness: IntakeHarness) -> None:
    """The message names the inbox, for `styled status`."""
    away = harness.inbox.with_name("away")
    harness.scan_at(0.0)
    harness.inbox.rename(away)
    harness.scan_at(1.0)
    harness.scan_at(2.0)
    away.rename(harness.inbox)
    harness.scan_at(3.0)
    harness.scan_at(4.0)
    problem, over = harness.host.problems
    assert problem is not None
    assert str(harness.inbox) in problem
    assert over is None


def test_what_belongs_to_no_style_is_counted(harness: IntakeHarness) -> None:
    """A report is sent whenever the count changes."""
    harness.intake.set_pairing(Pairing(("night",), {}, None))
    for name in ("a.jpg", "b.jpg", "night/c.jpg"):
        harness.put(name)
    for moment in (0.0, 2.0, 4.0):
        harness.scan_at(moment)
    harness.put("d.jpg")
    harness.scan_at(6.0)
    assert [report.unpaired for report in harness.host.reports] == [2, 3]
    assert harness.host.paths() == ["night/c.jpg"]
    harness.intake.set_pairing(NIGHT)
    harness.scan_at(8.0)
    assert [report.unpaired for report in harness.host.reports] == [2, 3, 0]


def test_what_is_no_picture_is_counted_and_not_submitted(harness: IntakeHarness) -> None:
    """It is not waited for either; if it becomes a picture, it is submitted."""
    harness.put("a.jpg")
    harness.put("a.json", b"{}")
    harness.scan_at(0.0)
    assert harness.scan_at(2.0)
    assert harness.host.paths() == ["a.jpg"]
    assert [report.not_pictures for report in harness.host.reports] == [1]
    assert harness.intake.not_taken() == []
    harness.put("a.json", b"\xff\xd8 a JPEG by its content \xff\xd9")
    harness.scan_at(4.0)
    harness.scan_at(70.0)
    assert harness.host.paths() == ["a.jpg", "a.json"]
    assert [report.not_pictures for report in harness.host.reports][-1] == 0


def test_what_can_not_be_read_is_submitted(harness: IntakeHarness) -> None:
    """Its job says why, and waits."""
    harness.put("a.json", b"{}")
    (harness.inbox / "a.json").chmod(0)
    if os.access(harness.inbox / "a.json", os.R_OK):
        pytest.skip("root may read everything")
    harness.scan_at(0.0)
    harness.scan_at(100.0)
    harness.scan_at(102.0)
    assert harness.host.paths() == ["a.json"]


def test_settings_that_are_not_valid_are_reported_once(harness: IntakeHarness) -> None:
    """With the photo, the file and the reason; its job says the same."""
    harness.put("a.jpg")
    harness.put("a.jpg.yaml", b"strenght: 3")
    with capture_logs() as logs:
        for moment in (0.0, 2.0, 4.0):
            harness.scan_at(moment)
    (warning,) = [line for line in logs if line["event"] == "settings.invalid"]
    assert (warning["path"], warning["log_level"]) == ("a.jpg", "warning")
    assert "strenght" in warning["reason"]
    assert harness.host.paths() == ["a.jpg"]
    assert list(harness.host.reports[-1].invalid_settings) == [("a.jpg", warning["reason"])]


@pytest.mark.parametrize(
    ("function", "error", "logged"),
    [
        ("open_regular", FileNotFoundError(), []),
        ("parse_photo_settings", RecursionError(), ["a.jpg.yaml"]),
    ],
)
def test_settings_that_vanish_or_break_the_reader_delay_no_photo(
    harness: IntakeHarness,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    error: Exception,
    logged: list[str],
) -> None:
    """The photo goes to the style of its folder; settings that are still there fail its job."""

    def fail(*_: object) -> None:
        raise error

    harness.put("a.jpg")
    harness.put("a.jpg.yaml", b"strength: 30")
    monkeypatch.setattr(photo_styles, function, fail)
    with capture_logs() as logs:
        harness.scan_at(0.0)
        harness.scan_at(2.0)
    assert harness.host.paths() == ["a.jpg"]
    found = [line["path"] for line in logs if line["event"] == "settings.not_read"]
    assert sorted(set(found)) == logged


def test_what_can_t_be_examined_again_is_submitted(
    harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job reports it, and waits."""
    harness.put("a.jpg")

    def fail(path: Path) -> None:
        raise ResourceUnavailable(f"{path} can't be read", "mount it")

    harness.scan_at(0.0)
    monkeypatch.setattr(module, "input_identity", fail)
    harness.scan_at(2.0)
    assert harness.host.paths() == ["a.jpg"]


def test_folders_that_are_almost_a_style_are_reported_once(harness: IntakeHarness) -> None:
    """With the style that is meant."""
    harness.put("Wave/a.jpg")
    with capture_logs() as logs:
        harness.scan_at(0.0)
        harness.put("a.json", b"{}")  # another reason for a new report
        harness.scan_at(2.0)
        harness.scan_at(4.0)
    assert len(harness.host.reports) > 1
    warnings = [line for line in logs if line["event"] == "folder.misspelled"]
    assert [(line["path"], line["style"]) for line in warnings] == [("Wave", "wave")]


def test_a_photo_may_settle_as_long_as_the_inbox_is_there(harness: IntakeHarness) -> None:
    """A photo that is still changing may; without the inbox nothing may."""
    harness.put("a.jpg")
    harness.scan_at(0.0)
    assert harness.intake.may_settle()
    harness.host.is_mounted = False
    harness.scan_at(0.5)
    assert not harness.intake.may_settle()
    assert harness.intake.not_taken() == [("", "the inbox is not mounted")]


def test_no_photo_is_submitted_without_its_settings(
    harness: IntakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they can't be read it waits, which is reported."""
    harness.put("a.jpg")
    harness.put("a.jpg.yaml", b"strength: 30")

    def refuse(path: Path) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(photo_styles, "open_regular", refuse)
        for moment in (0.0, 2.0, 4.0):
            harness.scan_at(moment)
    assert harness.host.paths() == []
    reason = "a.jpg.yaml can't be read: Permission denied"
    assert list(harness.host.reports[-1].invalid_settings) == [("a.jpg", reason)]
    harness.scan_at(6.0)
    harness.scan_at(8.0)
    assert harness.host.paths() == ["a.jpg"]
    assert list(harness.host.reports[-1].invalid_settings) == []

"""The intake on a clock of its own: when it looks, what it submits, how it gets over trouble."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from queue import Queue

import pytest
from structlog.testing import capture_logs

from styled.config.ignore import IgnoreRules
from styled.errors import ResourceUnavailable
from styled.intake import intake as module
from styled.intake.intake import POLL_SECONDS, REST_SECONDS, Intake, Mode, SettledInput
from styled.intake.pairing import Pairing
from styled.intake.scanning import Found, ScanNotes, scan
from styled.mounts import Mount

NIGHT = Pairing(("night", "wave"), {}, "night")
WAVE = Pairing(("night", "wave"), {}, "wave")


class Clock:
    """A clock that only waiting moves, with things that happen at their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._script: list[tuple[float, Callable[[], object]]] = []

    def __call__(self) -> float:
        return self.now

    def at(self, moment: float, action: Callable[[], object]) -> None:
        """Let something happen while somebody waits."""
        self._script.append((moment, action))
        self._script.sort(key=lambda entry: entry[0])

    def pass_until(self, deadline: float, interrupted: Callable[[], bool]) -> None:
        """Let time pass, and what is due in it happen, until something interrupts."""
        while self._script and self._script[0][0] <= deadline and not interrupted():
            moment, action = self._script.pop(0)
            self.now = max(self.now, moment)
            action()
        if not interrupted():
            self.now = max(self.now, deadline)


class ClockedEvent(threading.Event):
    """An event whose waiting takes no time but that of the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        """Let the clock run for as long."""
        assert timeout is not None
        self._clock.pass_until(self._clock() + timeout, self.is_set)
        return self.is_set()


class ScriptedWatcher:
    """Says about watching what the test says."""

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        self.problem: str | None = None
        self.asked = 0
        self.stopped = False
        self.closed_files: set[str] = set()

    def ensure(self, *, thoroughly: bool = False) -> str | None:
        """Return the scripted problem."""
        self.asked += 1
        return self.problem

    def stop(self) -> None:
        """Remember that it was asked to."""
        self.stopped = True


class Submitted:
    """Receives what the intake submits, and when; may refuse it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.log: list[tuple[float, str, tuple[str, ...]]] = []
        self.refusing = False
        self.refused_at: list[float] = []

    def __call__(self, inputs: Sequence[SettledInput]) -> int:
        if self.refusing:
            self.refused_at.append(self._clock())
            raise ResourceUnavailable("the journal is full", "free some space")
        for found in inputs:
            self.log.append((self._clock(), found.path, tuple(found.destinations)))
        return len(inputs)

    def paths(self) -> list[str]:
        """Return the submitted paths in their order."""
        return [path for _, path, _ in self.log]

    def times(self) -> list[float]:
        """Return when something was submitted."""
        return [moment for moment, _, _ in self.log]


class Bench:
    """An intake whose surroundings are scripted, but for the file system."""

    def __init__(
        self, inbox: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode = "auto", settle: float = 1.0
    ) -> None:
        monkeypatch.setattr(module, "Watcher", ScriptedWatcher)
        self.inbox = inbox
        self.clock = Clock()
        self.submitted = Submitted(self.clock)
        self.intake = Intake(
            inbox,
            NIGHT,
            self.submitted,
            ignore=IgnoreRules([".*"]),
            mode=mode,
            settle_seconds=settle,
            rescan_seconds=30.0,
            clock=self.clock,
        )
        self.intake._hint = ClockedEvent(self.clock)
        self.intake._stopping = ClockedEvent(self.clock)
        watcher = self.intake._watcher
        assert isinstance(watcher, ScriptedWatcher)
        self.watcher = watcher

    def put(self, name: str, data: bytes = b"photo") -> None:
        """Put a file into the inbox."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def put_and_hint(self, name: str) -> None:
        """Put a file into the inbox, and let the kernel say so."""
        self.put(name)
        self.intake._hint.set()

    def look_at(self, moment: float) -> bool:
        """Look once at this moment."""
        self.clock.now = moment
        return self.intake.look()

    def run_until(self, moment: float) -> None:
        """Let the intake do all that it does in its thread, until told to stop."""
        self.clock.at(moment, self.intake.stop)
        self.intake._run()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench with an empty inbox."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return Bench(inbox, monkeypatch)


def counted(bench: Bench) -> list[int]:
    """Have the bench's intake submit to nobody, and return how many inputs each time."""
    calls: list[int] = []

    def submit(inputs: Sequence[SettledInput]) -> int:
        calls.append(len(inputs))
        return len(inputs)

    bench.intake._submit = submit
    return calls


# One look


def test_what_has_settled_is_submitted_once(bench: Bench) -> None:
    """With its size, its time and what it is wanted for."""
    bench.put("wave/trip/a.jpg", b"12345")
    received: list[SettledInput] = []

    def submit(inputs: Sequence[SettledInput]) -> int:
        received.extend(inputs)
        return len(inputs)

    bench.intake._submit = submit
    assert bench.look_at(0.0) is False
    assert bench.look_at(1.0) is True
    assert bench.look_at(2.0) is True
    facts = (bench.inbox / "wave/trip/a.jpg").stat()
    assert received == [
        SettledInput("wave/trip/a.jpg", 5, facts.st_mtime_ns, {"wave": "trip/a.jpg"})
    ]


def test_one_look_submits_all_at_once(bench: Bench) -> None:
    """A few photos are one transaction, and an empty look is none."""
    calls = counted(bench)
    bench.put("a.jpg")
    bench.put("b.jpg")
    for moment in (0.0, 1.0, 2.0):
        bench.look_at(moment)
    assert calls == [2]


def test_very_many_are_submitted_in_portions(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on the first begins while the others are listed; the log has one line for all."""
    monkeypatch.setattr(module, "SUBMITTED_AT_ONCE", 2)
    calls = counted(bench)
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"):
        bench.put(name)
    bench.look_at(0.0)
    with capture_logs() as logs:
        bench.look_at(1.0)
    assert calls == [2, 2, 1]
    assert [(entry["event"], entry["count"]) for entry in logs] == [("jobs.submitted", 5)]


def test_what_belongs_to_no_style_stays(bench: Bench) -> None:
    """It is not submitted, and it does not count as unsettled."""
    bench.intake.look_at_everything_again(Pairing(("wave",), {}, None))
    bench.put("a.jpg")
    bench.put("wave/b.jpg")
    bench.look_at(0.0)
    assert bench.look_at(1.0) is True
    assert bench.submitted.paths() == ["wave/b.jpg"]


def test_what_is_to_be_ignored_is_ignored(bench: Bench) -> None:
    """Files as well as folders."""
    bench.put(".a.jpg")
    bench.put(".trash/b.jpg")
    assert bench.look_at(0.0) is True


def test_another_pairing_offers_everything_again(bench: Bench) -> None:
    """After a reload the same files may be wanted in other styles, without settling again."""
    bench.put("a.jpg")
    bench.look_at(0.0)
    bench.look_at(1.0)
    bench.intake._hint.clear()
    bench.intake.look_at_everything_again(WAVE)
    assert bench.intake._hint.is_set()
    bench.look_at(1.1)
    assert bench.submitted.log == [(1.0, "a.jpg", ("night",)), (1.1, "a.jpg", ("wave",))]


# Trouble


def test_a_missing_inbox_is_reported_once_and_got_over(bench: Bench) -> None:
    """The log says when it goes and when it is back; nothing is raised."""
    bench.inbox.rmdir()
    with capture_logs() as logs:
        assert bench.look_at(0.0) is False
        assert bench.look_at(1.0) is False
        bench.put("a.jpg")
        bench.look_at(2.0)
        bench.look_at(3.0)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("inbox.unavailable", "error"),
        ("inbox.recovered", "info"),
        ("jobs.submitted", "info"),
    ]
    assert str(bench.inbox) in logs[0]["reason"]
    assert logs[0]["remedies"]
    assert bench.submitted.times() == [3.0]


def test_another_trouble_is_reported_too(bench: Bench) -> None:
    """One line for each cause."""
    bench.put("a.jpg")
    bench.look_at(0.0)
    bench.submitted.refusing = True
    with capture_logs() as logs:
        bench.look_at(1.0)
        bench.look_at(2.0)
        (bench.inbox / "a.jpg").unlink()
        bench.inbox.rmdir()
        bench.look_at(3.0)
    assert [entry["event"] for entry in logs] == ["inbox.unavailable"] * 2


def test_what_could_not_be_submitted_comes_again(bench: Bench) -> None:
    """A full journal loses nothing."""
    bench.put("a.jpg")
    bench.look_at(0.0)
    bench.submitted.refusing = True
    assert bench.look_at(1.0) is False
    bench.submitted.refusing = False
    assert bench.look_at(1.5) is True
    assert bench.submitted.log == [(1.5, "a.jpg", ("night",))]


# When it looks


def test_what_lies_there_at_the_start_is_found(bench: Bench) -> None:
    """It is submitted as soon as it has settled, without any event."""
    bench.put("a.jpg")
    bench.run_until(20.0)
    assert bench.submitted.times() == [1.0]


def test_a_hint_makes_it_look(bench: Bench) -> None:
    """At once, and again when the file must have settled."""
    bench.clock.at(10.0, lambda: bench.put_and_hint("a.jpg"))
    bench.run_until(20.0)
    assert bench.submitted.times() == [11.0]


def test_without_a_hint_it_looks_every_so_often(bench: Bench) -> None:
    """An event that was lost costs at most one period and the settling."""
    bench.clock.at(10.0, lambda: bench.put("a.jpg"))
    bench.run_until(40.0)
    assert bench.submitted.times() == [31.0]


def test_everything_is_offered_again_every_so_often(bench: Bench) -> None:
    """The journal knows what it has; whatever else went wrong is mended by this."""
    bench.put("a.jpg")
    bench.run_until(95.0)
    assert bench.submitted.times() == [1.0, 30.0, 60.0, 90.0]


def test_a_storm_of_hints_is_one_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks there is always a rest."""
    looks: list[float] = []
    real = bench.intake.look

    def look() -> bool:
        looks.append(bench.clock())
        return real()

    monkeypatch.setattr(bench.intake, "look", look)
    for number in range(1000):
        bench.clock.at(10.0 + number / 1000, bench.intake._hint.set)
    bench.run_until(20.0)
    assert len(looks) <= 2 + 1.0 / REST_SECONDS
    assert all(b - a >= REST_SECONDS * 0.99 for a, b in pairwise(looks))


def test_a_hint_during_a_look_is_not_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that arrives just behind the look's back is found by the next."""
    real = bench.intake.look
    arrived = False

    def look() -> bool:
        nonlocal arrived
        result = real()
        if not arrived:
            arrived = True
            bench.put_and_hint("a.jpg")
        return result

    monkeypatch.setattr(bench.intake, "look", look)
    bench.run_until(20.0)
    assert bench.submitted.times() == [REST_SECONDS + 1.0]


# Polling


def test_polling_looks_every_second_and_watches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As asked for, so it is no degradation."""
    bench = Bench(tmp_path, monkeypatch, mode="polling")
    bench.clock.at(10.5, lambda: bench.put("a.jpg"))
    bench.run_until(20.0)
    (moment,) = bench.submitted.times()
    assert 11.5 <= moment <= 12.6 + REST_SECONDS
    assert bench.watcher.asked == 0
    assert bench.intake.degraded is None


def test_where_watching_fails_it_polls_and_says_why(bench: Bench) -> None:
    """The log has one warning, `degraded` has the reason, and files are found all the same."""
    bench.watcher.problem = "inotify watch limit reached"
    bench.clock.at(10.5, lambda: bench.put("a.jpg"))
    with capture_logs() as logs:
        bench.run_until(20.0)
    assert bench.intake.degraded == "inotify watch limit reached"
    (moment,) = bench.submitted.times()
    assert 11.5 <= moment <= 12.6 + REST_SECONDS
    entry, _ = logs
    assert (entry["event"], entry["log_level"]) == ("inbox.polled", "warning")
    assert (entry["reason"], entry["every_seconds"]) == (
        "inotify watch limit reached",
        POLL_SECONDS,
    )


def test_native_mode_does_not_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where watching fails it says so, and the regular full look finds what is there."""
    bench = Bench(tmp_path, monkeypatch, mode="native")
    bench.watcher.problem = "inotify watch limit reached"
    bench.clock.at(10.5, lambda: bench.put("a.jpg"))
    with capture_logs() as logs:
        bench.run_until(40.0)
    assert bench.submitted.times() == [31.0]
    assert (logs[0]["event"], logs[0]["every_seconds"]) == ("inbox.polled", 30.0)
    assert bench.intake.degraded == "inotify watch limit reached"


@pytest.mark.parametrize(("mode", "polled"), [("auto", True), ("native", False)])
def test_a_network_drive_is_polled_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, polled: bool
) -> None:
    """Its server does not tell this machine's kernel what others put there."""
    monkeypatch.setattr(module, "mount_of", lambda folder: Mount("/mnt", "nfs4", "nas:/photos"))
    bench = Bench(tmp_path, monkeypatch, mode=mode)
    bench.clock.at(10.5, lambda: bench.put("a.jpg"))
    bench.run_until(40.0)
    assert (bench.submitted.times()[0] < 13.0) is polled
    assert ("nfs4" in (bench.intake.degraded or "")) is polled


def test_an_unexpected_error_does_not_end_the_watch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and the next look finds what the failed one has not."""

    def scan_later(inbox: Path, ignore: IgnoreRules, notes: ScanNotes) -> Iterator[Found]:
        if bench.clock() < 5.0:
            raise RuntimeError("nobody thought of this")
        return scan(inbox, ignore, notes)

    monkeypatch.setattr(module, "scan", scan_later)
    bench.put("a.jpg")
    with capture_logs() as logs:
        bench.run_until(20.0)
    assert [entry["event"] for entry in logs].count("intake.crashed") == 5
    (moment,) = bench.submitted.times()
    assert 5.0 <= moment <= 8.0


def test_long_looks_are_rare(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An inbox that takes ten seconds to look at is looked at every hundred."""
    looks = []

    def scan_slowly(inbox: Path, ignore: IgnoreRules, notes: ScanNotes) -> Iterator[Found]:
        looks.append(bench.clock())
        bench.clock.now += 10.0
        return iter(())

    monkeypatch.setattr(module, "scan", scan_slowly)
    bench.run_until(1000.0)
    pauses = [after - before for before, after in pairwise(looks)]
    assert min(pauses[2:]) >= 100.0


def test_folders_are_brought_back_at_each_full_look(bench: Bench) -> None:
    """Somebody may have removed or renamed the folder of a style."""
    made: list[float] = []
    bench.intake._maintain = lambda: made.append(bench.clock())
    bench.clock.at(10.0, lambda: bench.put_and_hint("a.jpg"))
    bench.run_until(70.0)
    assert [round(moment) for moment in made] == [0, 30, 60]


def test_an_inbox_that_is_not_mounted_is_not_looked_at(bench: Bench) -> None:
    """A folder of its name may well be there: its mount point."""
    bench.put("a.jpg")

    def require() -> None:
        raise ResourceUnavailable("the inbox is not mounted", "mount it")

    bench.intake._require_inbox = require
    assert bench.look_at(0.0) is False
    assert bench.look_at(5.0) is False
    assert bench.submitted.log == []


def test_watching_is_tried_again(bench: Bench) -> None:
    """At the next full look: once it works the degradation is over, and so is the polling."""
    bench.watcher.problem = "inotify watch limit reached"

    def mend() -> None:
        bench.watcher.problem = None

    bench.clock.at(5.5, mend)
    bench.clock.at(40.5, lambda: bench.put("a.jpg"))
    bench.run_until(70.0)
    assert bench.intake.degraded is None
    assert bench.watcher.asked < 6
    (moment,) = bench.submitted.times()
    assert moment >= 60.0


def test_trouble_is_waited_out_without_hurry(bench: Bench) -> None:
    """A full journal is tried every second, not ten times, and taken up when it works."""
    bench.put("a.jpg")
    bench.submitted.refusing = True

    def mend() -> None:
        bench.submitted.refusing = False

    bench.clock.at(10.5, mend)
    bench.run_until(20.0)
    assert 8 <= len(bench.submitted.refused_at) <= 10
    (moment,) = bench.submitted.times()
    assert 10.5 <= moment <= 10.5 + POLL_SECONDS + REST_SECONDS


def test_an_inbox_that_comes_back_is_found_soon(bench: Bench) -> None:
    """Without any event: nothing could be watched while it was away."""
    bench.inbox.rmdir()
    bench.clock.at(10.5, lambda: bench.put("a.jpg"))
    bench.run_until(20.0)
    (moment,) = bench.submitted.times()
    assert 11.5 <= moment <= 11.5 + POLL_SECONDS + 2 * REST_SECONDS


# Stopping


def test_stopping_stops_the_watcher(bench: Bench) -> None:
    """And ends the waiting at once."""
    bench.run_until(5.0)
    assert bench.watcher.stopped
    assert bench.clock() == 5.0


def test_stopping_is_never_missed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when it comes at the very moment at which old hints are cleared."""
    real = bench.intake._hint.clear

    def clear() -> None:
        bench.intake.stop()
        real()

    monkeypatch.setattr(bench.intake._hint, "clear", clear)
    bench.intake._run()
    assert bench.clock() <= REST_SECONDS


def test_stopping_what_was_never_started_is_fine(bench: Bench) -> None:
    """As when the start of something else fails."""
    bench.intake.stop()


# All of it at once


def test_with_kernel_and_threads(tmp_path: Path) -> None:
    """A photo that is renamed into a new folder arrives long before the next full look."""
    arrived: Queue[str] = Queue()

    def submit(inputs: Sequence[SettledInput]) -> int:
        for found in inputs:
            arrived.put(found.path)
        return len(inputs)

    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.jpg").write_bytes(b"photo")
    (tmp_path / "b.jpg").write_bytes(b"photo")
    intake = Intake(
        inbox, NIGHT, submit, ignore=IgnoreRules([]), settle_seconds=0.05, rescan_seconds=3600.0
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
    assert set(threading.enumerate()) == threads
    assert intake.degraded is None


def test_it_gives_a_sign_of_life_whenever_it_has_said_it_would(bench: Bench) -> None:
    """Before each wait it says how long that will be, and during a look at every file."""
    for number in range(5):
        bench.put(f"{number}.jpg")
    beats: list[tuple[float, float]] = []
    bench.intake._beat = lambda rest_seconds: beats.append((bench.clock.now, rest_seconds))
    bench.clock.at(40.0, lambda: bench.put_and_hint("later.jpg"))
    bench.run_until(100.0)
    during = Counter(moment for moment, rest_seconds in beats if rest_seconds == 0.0)
    assert sum(count >= 5 for count in during.values()) >= 3  # each file, at each full look
    for (moment, rest_seconds), (following, _) in pairwise(beats):
        assert following - moment <= rest_seconds + module.REST_SECONDS + 1e-6
    assert max(rest for _, rest in beats) <= 30.0


def test_trouble_is_told_when_it_begins_and_when_it_is_over(bench: Bench) -> None:
    """In words, for whoever asks how the daemon is."""
    told: list[str | None] = []
    bench.intake._on_trouble = told.append
    away = bench.inbox.with_name("away")
    bench.look_at(0.0)
    bench.inbox.rename(away)
    bench.look_at(1.0)
    bench.look_at(2.0)
    away.rename(bench.inbox)
    bench.look_at(3.0)
    bench.look_at(4.0)
    trouble, over = told
    assert trouble is not None
    assert str(bench.inbox) in trouble
    assert over is None


def test_what_belongs_to_no_style_is_counted(bench: Bench) -> None:
    """Whenever the count changes; the log says it once."""
    counts: list[int] = []
    bench.intake._on_report = lambda report: counts.append(report.unpaired)
    bench.intake.look_at_everything_again(Pairing(("night",), {}, None))
    for name in ("a.jpg", "b.jpg", "night/c.jpg"):
        bench.put(name)
    for moment in (0.0, 2.0, 4.0):
        bench.look_at(moment)
    bench.put("d.jpg")
    bench.look_at(6.0)
    assert counts == [2, 3]
    assert bench.submitted.paths() == ["night/c.jpg"]
    bench.intake.look_at_everything_again(NIGHT)
    bench.look_at(8.0)
    assert counts == [2, 3, 0]

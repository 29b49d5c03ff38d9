"""The intake stage: one reconciling look at the inbox, whenever there may be a reason."""

from __future__ import annotations

import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import structlog

from styled.config.ignore import IgnoreRules
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.intake.pairing import Pairing
from styled.intake.scanning import Found, ScanNotes, Skipped, scan
from styled.intake.settling import SettleGate, UnfinishedFile
from styled.intake.unfinished import UnfinishedCheck
from styled.intake.watching import Watcher
from styled.mounts import mount_of
from styled.open_files import WriterCheck

log = structlog.get_logger()

Mode = Literal["auto", "native", "polling"]

POLL_SECONDS = 1.0
"""How often to look where the kernel does not tell of changes."""

REST_SECONDS = 0.1
"""The least pause between two looks: a storm of events collapses into one of them."""

LOOKING_SHARE = 10
"""Looking again without a reason waits at least so many times as long as a look has taken."""

SUBMITTED_AT_ONCE = 1000
"""So that the first photos of a hundred thousand are worked on while the others are listed."""


@dataclass(frozen=True, slots=True)
class SettledInput:
    """A file that has stopped changing, and what it is wanted for.

    Attributes:
        path: Relative to the inbox.
        size: In bytes.
        mtime_ns: Nanoseconds since the epoch.
        destinations: For each style, the result's path below the style's folder.
    """

    path: str
    size: int
    mtime_ns: int
    destinations: dict[str, str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that is taken to be unfinished.

    Attributes:
        path: Relative to the inbox.
        reason: Why, in one sentence.
        until: Unix time at which it is judged by what is there; None: not before it changes.
    """

    path: str
    reason: str
    until: float | None


@dataclass(frozen=True, slots=True)
class InboxReport:
    """What lies in the inbox and is not taken.

    Attributes:
        unpaired: How many files belong to no style.
        unfinished: The files that are still on their way.
        skipped: What can't be looked into.
        misspelled: Folders that differ from a style's only by case or Unicode form, and that
            style's folder.
    """

    unpaired: int = 0
    unfinished: tuple[Waiting, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    misspelled: tuple[tuple[str, str], ...] = ()


MOST_REPORTED = 200
"""How many paths of each kind a report names."""


class _Stopping(Exception):
    """Told to stop amid a look."""


class Intake:
    """Looks at the inbox at start, when the kernel hints, and every so often regardless.

    Attributes:
        report: What the last look has found that is not taken.
    """

    def __init__(
        self,
        inbox: Path,
        pairing: Pairing,
        submit: Callable[[Sequence[SettledInput]], int],
        *,
        ignore: IgnoreRules,
        mode: Mode = "auto",
        settle_seconds: float = 1.0,
        rescan_seconds: float = 30.0,
        truncated_grace_seconds: float = 60.0,
        open_grace_seconds: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        require_inbox: Callable[[], None] = lambda: None,
        maintain: Callable[[], None] = lambda: None,
        on_degraded: Callable[[str | None], None] = lambda reason: None,
        on_trouble: Callable[[str | None], None] = lambda trouble: None,
        on_report: Callable[[InboxReport], None] = lambda report: None,
        beat: Callable[[float], None] = lambda rest_seconds: None,
    ) -> None:
        """Hand settled inputs to `submit`, which returns how many new jobs they are.

        Args:
            inbox: May come and go.
            pairing: Decides what is handed on.
            submit: Like the callables below, called from the intake's own thread; may
                raise ResourceUnavailable, then the same inputs come again.
            ignore: Names that are left alone.
            mode: `native` relies on the kernel's events, `polling` does without, and `auto`
                polls where there are none.
            settle_seconds: How long a file must stay as it is.
            truncated_grace_seconds: How much longer, where something is missing from it.
            open_grace_seconds: How much longer, where somebody still has it open for writing.
            rescan_seconds: How often everything is looked at and offered again.
            clock: Monotonic seconds.
            now: Unix time.
            require_inbox: Called before each look; raises ResourceUnavailable where the
                inbox is not there, even if a folder of its name is.
            maintain: Called every `rescan_seconds`, to bring back folders that were removed.
            on_degraded: Told whenever watching fails, and with None once it works again.
            on_trouble: Told what is wrong with the inbox, and with None once nothing is.
            on_report: Told what is not taken, whenever that has changed.
            beat: Called as a sign of life, with how many seconds may pass until the next.
        """
        self._inbox = inbox
        self._pairing = pairing
        self._submit = submit
        self._ignore = ignore
        self._mode = mode
        self._rescan_seconds = rescan_seconds
        self._clock = clock
        self._require_inbox = require_inbox
        self._maintain = maintain
        self._on_degraded = on_degraded
        self._on_trouble = on_trouble
        self._on_report = on_report
        self.report = InboxReport()
        self._unpaired = 0
        self._unfinished: list[UnfinishedFile] = []
        self._now = now
        self._beat = beat
        self._hint = threading.Event()
        self._stopping = threading.Event()
        self._watcher = Watcher(inbox, self._hint.set)
        self._writer_check = WriterCheck()
        self._gate = SettleGate(
            settle_seconds,
            UnfinishedCheck(
                inbox,
                self._writer_check,
                closed_files=self._watcher.closed_files,
                truncated_grace_seconds=truncated_grace_seconds,
                open_grace_seconds=open_grace_seconds,
            ),
        )
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._next_full_look = clock()
        self._look_seconds = 0.0
        self._trouble: str | None = None
        self.degraded: str | None = None

    def start(self) -> None:
        """Start watching in a thread of its own."""
        self._thread.start()

    def stop(self, within_seconds: float = 2.0) -> None:
        """Stop watching and join the thread, unless it hangs on a drive that is gone."""
        self._stopping.set()
        self._hint.set()
        if self._thread.is_alive():
            self._thread.join(within_seconds)

    def look(self) -> bool:
        """Look at the whole inbox once, and submit what has settled.

        Returns:
            Whether everything that lies there has settled.
        """
        began = self._clock()
        try:
            self._require_inbox()
            notes, self._unpaired = ScanNotes(), 0
            found = self._until_stopped(scan(self._inbox, self._ignore, notes))
            self._hand_on(self._gate.pass_settled(self._paired(found), began))
        except ResourceUnavailable as error:
            # What was let through but not handed on must come again.
            self._gate.forget()
            if self._trouble != error.message:
                log.error("inbox.unavailable", reason=error.message, remedies=error.remedies)
                self._on_trouble(error.message)
            self._trouble = error.message
            return False
        except _Stopping:
            return False
        if self._trouble is not None:
            log.info("inbox.recovered")
            self._trouble = None
            self._on_trouble(None)
        self._note_report(notes)
        self._look_seconds = self._clock() - began
        return not self._gate.not_taken()

    def may_settle(self) -> bool:
        """Tell whether waiting for `truncated_grace_seconds` may bring a file that is not taken."""
        return self._trouble is None and self._gate.may_settle()

    def not_taken(self) -> list[tuple[str, str]]:
        """Return what the last look has left, each path with the reason."""
        if self._trouble is not None:
            return [("", self._trouble)]
        skipped = [(one.path, f"can't be looked into: {one.reason}") for one in self.report.skipped]
        return [*self._gate.not_taken(), *skipped]

    def look_at_everything_again(self, pairing: Pairing) -> None:
        """Use another pairing from now on, for everything that lies in the inbox."""
        self._pairing = pairing
        self._gate.forget()
        self._hint.set()

    def _until_stopped(self, found: Iterable[Found]) -> Iterator[Found]:
        for file in found:
            if self._stopping.is_set():
                raise _Stopping
            self._beat(0.0)
            yield file

    def _paired(self, found: Iterable[Found]) -> Iterator[Found]:
        """Pass on what belongs to a style; the rest stays where it is, and is counted."""
        for file in found:
            if self._pairing.destinations(file.path):
                yield file
            else:
                self._unpaired += 1

    def _note_report(self, notes: ScanNotes) -> None:
        """Log what is new among what is not taken, and hand it on where it has changed."""
        before, offset = self.report, self._now() - self._clock()
        unfinished = self._gate.unfinished()[:MOST_REPORTED]
        names = (*self._pairing.styles, *self._pairing.folders)
        by_form = {_caseless(name): name for name in names}
        report = InboxReport(
            self._unpaired,
            tuple(
                Waiting(file.path, file.reason, None if file.until is None else file.until + offset)
                for file in unfinished
            ),
            tuple(notes.skipped[:MOST_REPORTED]),
            tuple(
                (folder, by_form[_caseless(folder)])
                for folder in sorted(set(notes.folders).difference(names))
                if _caseless(folder) in by_form
            ),
        )
        is_same = replace(report, unfinished=()) == replace(before, unfinished=())
        if is_same and _rounded(unfinished) == _rounded(self._unfinished):
            return
        if report.unpaired and not before.unpaired:
            log.warning("inbox.unpaired", count=report.unpaired)
        awaited = {file.path for file in self._unfinished}
        for file in unfinished:
            if file.path not in awaited:
                log.info("input.awaited", path=readable(file.path), reason=file.reason)
        for folder, style in set(report.misspelled).difference(before.misspelled):
            log.warning("folder.misspelled", path=readable(folder), style=style)
        self.report, self._unfinished = report, unfinished
        self._on_report(report)

    def _hand_on(self, settled: Iterable[Found]) -> None:
        inputs = (
            SettledInput(file.path, file.size, file.mtime_ns, destinations)
            for file in settled
            # Asked once more: a reload may have changed it since.
            if (destinations := self._pairing.destinations(file.path))
        )
        submitted = 0
        while portion := list(islice(inputs, SUBMITTED_AT_ONCE)):
            submitted += self._submit(portion)
            self._beat(0.0)
        if submitted:
            log.info("jobs.submitted", count=submitted)

    # In its own thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._hint.clear()
            self._beat(0.0)
            try:
                self._turn()
            # Nobody would notice if this thread died: photos would simply not be found any
            # more. Whatever it was, the next look may go better.
            except Exception:
                log.exception("intake.crashed", next_look_seconds=POLL_SECONDS)
                self._trouble = "the last look at the inbox failed: see the log"
                self._on_trouble(self._trouble)
                self._gate.forget()
            if self._stopping.wait(REST_SECONDS):
                break  # without this, the hint of stop() might be the one cleared above
            seconds = max(0.0, self._next_look_at() - self._clock())
            self._beat(seconds)
            self._hint.wait(seconds)
        self._watcher.stop()

    def _turn(self) -> None:
        """Look once; now and then at everything, as if nothing had been seen before."""
        is_full = self._clock() >= self._next_full_look
        if is_full:
            # The journal knows what it has, and whatever a hint or a look has missed is found.
            self._gate.forget()
            self._writer_check.forget_mounts()
            self._next_full_look = self._clock() + self._rarely(self._rescan_seconds)
            self._maintain()
        self._watch(thoroughly=is_full)
        self.look()

    def _rarely(self, seconds: float) -> float:
        return max(seconds, LOOKING_SHARE * self._look_seconds)

    def _next_look_at(self) -> float:
        soon = self._clock() + self._rarely(POLL_SECONDS)
        if self._trouble is not None:
            # What has settled long ago is no reason to hurry.
            return min(self._next_full_look, soon)
        moments = [self._next_full_look]
        if self._mode == "polling" or (self._mode == "auto" and self.degraded is not None):
            moments.append(soon)
        settles = self._gate.next_settled_at()
        if settles is not None:
            moments.append(settles)
        check = self._gate.next_check_at()
        if check is not None:
            moments.append(max(check, self._clock() + self._rarely(0.0)))
        return min(moments)

    def _watch(self, *, thoroughly: bool) -> None:
        if self._mode == "polling":
            return
        if self.degraded is not None and not thoroughly:
            return  # trying is not for free
        problem = self._no_use_in_watching() or self._watcher.ensure(thoroughly=thoroughly)
        if problem == self.degraded:
            return
        every = POLL_SECONDS if self._mode == "auto" else self._rescan_seconds
        if problem is not None:
            log.warning("inbox.polled", reason=problem, every_seconds=every)
        self.degraded = problem
        self._on_degraded(
            None if problem is None else f"the inbox is polled every {every:g} s: {problem}"
        )

    def _no_use_in_watching(self) -> str | None:
        if self._mode != "auto":
            return None
        mount = mount_of(self._inbox)
        if mount is None or not mount.is_remote:
            return None
        self._watcher.stop()
        return (
            f"{self._inbox} is on a network drive ({mount.kind}), which does not tell of new "
            "files (to accept that: intake.mode: polling)"
        )


def _rounded(unfinished: Sequence[UnfinishedFile]) -> list[tuple[str, str, int | None]]:
    """Return files with the tens of seconds until they are judged: each change puts that off."""
    return [
        (file.path, file.reason, None if file.until is None else int(file.until // 10))
        for file in unfinished
    ]


def _caseless(name: str) -> str:
    """Return what names have in common that look alike: case and Unicode form aside."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())

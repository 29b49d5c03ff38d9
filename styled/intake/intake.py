"""Scans the inbox at start, on inotify events and periodically, and submits settled files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import structlog

from styled.config.ignore import IgnoreRules
from styled.errors import ResourceUnavailable
from styled.files import caseless, input_identity, readable
from styled.intake.host import InboxReport, IncompleteInput, IntakeHost, SettledInput
from styled.intake.pairing import Pairing
from styled.intake.photo_styles import PhotoStyles
from styled.intake.picture_check import PictureCheck
from styled.intake.scanning import FoundFile, ScanNotes, scan
from styled.intake.settling import IncompleteFile, SettleGate
from styled.intake.upload_check import UploadCheck
from styled.intake.watching import Watcher
from styled.mounts import mount_of
from styled.open_files import WriterCheck

log = structlog.get_logger()

Mode = Literal["auto", "native", "polling"]

POLL_SECONDS = 1.0
"""How often to scan where the kernel sends no events."""

MIN_PAUSE_SECONDS = 0.1
"""Minimum pause between two scans: a burst of events causes a single scan."""

SCAN_INTERVAL_FACTOR = 10
"""Periodic scans are at least this many times as far apart as the last scan took."""

SUBMIT_BATCH = 1000
"""Files per submission: of 100,000 photos the first are painted while the scan goes on."""


MAX_REPORTED = 200
"""Maximum number of paths of each kind in a report."""


class _Stopping(Exception):
    """A stop was requested during a scan."""


class Intake:
    """Scans the inbox at start, on kernel events, and periodically in any case.

    Attributes:
        report: Files and folders of the last scan that do not become jobs.
        polling_reason: Why the inbox can't be watched by kernel events; None if it is, or in mode
            `polling`.
    """

    def __init__(
        self,
        inbox: Path,
        pairing: Pairing,
        host: IntakeHost,
        *,
        ignore: IgnoreRules,
        mode: Mode = "auto",
        settle_seconds: float = 1.0,
        rescan_seconds: float = 30.0,
        truncated_grace_seconds: float = 60.0,
        open_grace_seconds: float = 3600.0,
        leave_not_pictures: bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Scan `inbox`, and submit settled inputs to `host`.

        Args:
            inbox: May disappear and reappear at any time.
            pairing: Maps a path to its styles.
            host: Receives inputs and reports.
            ignore: Names of files that are never inputs.
            mode: `native` uses kernel events only, `polling` never uses them, and `auto` polls
                if they are not available.
            settle_seconds: How long a file must stay unchanged.
            truncated_grace_seconds: How long after its last change a file with incomplete content
                is accepted.
            open_grace_seconds: How long after its last change a file is accepted that a process
                has open for writing.
            leave_not_pictures: Whether files that are not pictures, neither by name nor by content,
                are left where they are; otherwise they are submitted like all others.
            rescan_seconds: How often all inputs are submitted again.
            clock: Monotonic seconds.
            now: Unix time.
        """
        self._inbox = inbox
        self._pairing = pairing
        self._photo_styles = PhotoStyles(inbox, pairing)
        self._host = host
        self._ignore = ignore
        self._mode = mode
        self._rescan_seconds = rescan_seconds
        self._clock = clock
        self.report = InboxReport()
        self._unpaired = 0
        self._has_new_pairing = False
        self._incomplete: list[IncompleteFile] = []
        self._now = now
        self._wakeup = threading.Event()
        self._stopping = threading.Event()
        self._watcher = Watcher(inbox, self._wakeup.set)
        self._writer_check = WriterCheck()
        self._gate = SettleGate(
            settle_seconds,
            UploadCheck(
                inbox,
                self._writer_check,
                closed_files=self._watcher.closed_files,
                truncated_grace_seconds=truncated_grace_seconds,
                open_grace_seconds=open_grace_seconds,
            ),
            PictureCheck(inbox) if leave_not_pictures else None,
            host,
        )
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._next_full_scan = clock()
        self._scan_seconds = 0.0
        self._problem: str | None = None
        self.polling_reason: str | None = None

    def start(self) -> None:
        """Start watching in a thread of its own."""
        self._thread.start()

    def stop(self, within_seconds: float = 2.0) -> None:
        """Stop watching and join the thread; give up if it hangs on an unreachable drive."""
        self._stopping.set()
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join(within_seconds)

    def scan_once(self) -> bool:
        """Scan the whole inbox once, and submit the files that have settled.

        Returns:
            Whether all files have settled.
        """
        began = self._clock()
        if self._has_new_pairing:
            self._has_new_pairing = False
            self._gate.resubmit_all()
        try:
            self._host.require_inbox()
            notes, self._unpaired = ScanNotes(), 0
            found = self._until_stopped(scan(self._inbox, self._ignore, notes))
            self._submit(self._gate.filter_settled(self._paired(found), began))
            self._photo_styles.end_scan()
        except ResourceUnavailable as error:
            # Files that have passed the gate but were not submitted must pass it again.
            self._gate.resubmit_all()
            if self._problem != error.message:
                log.error("inbox.unavailable", reason=error.message, remedies=error.remedies)
                self._host.problem_changed(error.message)
            self._problem = error.message
            return False
        except _Stopping:
            return False
        if self._problem is not None:
            log.info("inbox.recovered")
            self._problem = None
            self._host.problem_changed(None)
        self._update_report(notes)
        self._scan_seconds = self._clock() - began
        return not self._gate.not_taken()

    def may_settle(self) -> bool:
        """Return whether another file may settle within `truncated_grace_seconds`."""
        return self._problem is None and self._gate.may_settle()

    def not_taken(self) -> list[tuple[str, str]]:
        """Return pairs (path, reason) of what the last scan has not submitted."""
        if self._problem is not None:
            return [("", self._problem)]
        skipped = [(one.path, one.reason) for one in self.report.skipped]
        return [*self._gate.not_taken(), *skipped]

    def set_pairing(self, pairing: Pairing) -> None:
        """Use another pairing from now on, also for files that were submitted before."""
        self._pairing, self._photo_styles = pairing, PhotoStyles(self._inbox, pairing)
        self._has_new_pairing = True  # the next scan submits all files again, in its own thread
        self._wakeup.set()

    def _until_stopped(self, found: Iterable[FoundFile]) -> Iterator[FoundFile]:
        for file in found:
            if self._stopping.is_set():
                raise _Stopping
            self._host.heartbeat(0.0)
            yield file

    def _paired(self, found: Iterable[FoundFile]) -> Iterator[FoundFile]:
        """Yield files that belong to a style; count the others in `_unpaired`."""
        for file in found:
            if self._photo_styles.destinations(file):
                yield file
            elif file.path not in self._photo_styles.problems:
                self._unpaired += 1

    def _update_report(self, notes: ScanNotes) -> None:
        """Build the report; if it has changed, log the new entries and pass it to the host."""
        previous, offset = self.report, self._now() - self._clock()
        incomplete = self._gate.incomplete()[:MAX_REPORTED]
        names = (*self._pairing.styles, *self._pairing.folders)
        by_form = {caseless(name): name for name in names}
        report = InboxReport(
            self._unpaired,
            self._gate.not_pictures() + notes.orphans,
            tuple(
                IncompleteInput(
                    file.path, file.reason, None if file.until is None else file.until + offset
                )
                for file in incomplete
            ),
            tuple(notes.skipped[:MAX_REPORTED]),
            tuple(
                (folder, by_form[caseless(folder)])
                for folder in sorted(set(notes.folders).difference(names))
                if caseless(folder) in by_form
            ),
            tuple(sorted(self._photo_styles.problems.items())[:MAX_REPORTED]),
        )
        is_same = replace(report, incomplete=()) == replace(previous, incomplete=())
        if is_same and _rounded(incomplete) == _rounded(self._incomplete):
            return
        if report.unpaired and not previous.unpaired:
            log.warning("inbox.unpaired", count=report.unpaired)
        if report.not_pictures and not previous.not_pictures:
            log.info("inbox.not_pictures_left", count=report.not_pictures)
        awaited = {file.path for file in self._incomplete}
        for file in incomplete:
            if file.path not in awaited:
                log.info("input.incomplete", path=readable(file.path), reason=file.reason)
        for folder, style in set(report.misspelled).difference(previous.misspelled):
            log.warning("folder.misspelled", path=readable(folder), style=style)
        for path, problem in set(report.invalid_settings).difference(previous.invalid_settings):
            log.warning("settings.invalid", path=readable(path), reason=problem)
        self.report, self._incomplete = report, incomplete
        self._host.report_changed(report)

    def _submit(self, settled: Iterable[FoundFile]) -> None:
        inputs = (
            SettledInput(file.path, file.size, file.mtime_ns, destinations)
            for file in settled
            # Computed again: a reload may have changed the pairing since.
            if (destinations := self._photo_styles.destinations(file)) and self._is_there(file)
        )
        submitted = 0
        while batch := list(islice(inputs, SUBMIT_BATCH)):
            submitted += self._host.submit(batch)
            self._host.heartbeat(0.0)
        if submitted:
            log.info("jobs.submitted", count=submitted)

    def _is_there(self, file: FoundFile) -> bool:
        """Return whether a file is still in the inbox, or is known to have a job.

        A scan of a large inbox takes long. A photo that it has found at the beginning may have been
        painted and moved since: it would get a second job, which finds nothing.
        """
        if self._host.is_submitted(file.path, file.size, file.mtime_ns):
            return True
        try:
            return input_identity(self._inbox / file.path) == (file.size, file.mtime_ns)
        except ResourceUnavailable:
            return True  # its job reports it

    # In its own thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wakeup.clear()
            self._host.heartbeat(0.0)
            try:
                self._cycle()
            # If this thread died, new photos would silently no longer be found. The next scan
            # may succeed, so keep running after any error.
            except Exception:
                log.exception("intake.internal_error", next_scan_seconds=POLL_SECONDS)
                self._problem = "the last scan of the inbox failed: see the log"
                self._host.problem_changed(self._problem)
                self._gate.resubmit_all()
            if self._stopping.wait(MIN_PAUSE_SECONDS):
                break  # the `_wakeup` that stop() sets may be the one that was cleared above
            seconds = max(0.0, self._next_scan_at() - self._clock())
            self._host.heartbeat(seconds)
            self._wakeup.wait(seconds)
        self._watcher.stop()

    def _cycle(self) -> None:
        """Scan once; every `rescan_seconds` submit all files again."""
        is_full = self._clock() >= self._next_full_scan
        if is_full:
            # The journal ignores inputs that it has already. Anything missed before is found now.
            self._gate.resubmit_all()
            self._writer_check.forget_mounts()
            self._next_full_scan = self._clock() + self._at_least(self._rescan_seconds)
            self._host.maintain()
        self._watch(check_kernel=is_full)
        self.scan_once()

    def _at_least(self, seconds: float) -> float:
        return max(seconds, SCAN_INTERVAL_FACTOR * self._scan_seconds)

    def _next_scan_at(self) -> float:
        soon = self._clock() + self._at_least(POLL_SECONDS)
        if self._problem is not None:
            # Files that settled long ago would otherwise cause a scan at once, again and again.
            return min(self._next_full_scan, soon)
        times = [self._next_full_scan]
        if self._mode == "polling" or (self._mode == "auto" and self.polling_reason is not None):
            times.append(soon)
        settles = self._gate.next_settled_at()
        if settles is not None:
            times.append(settles)
        check = self._gate.next_check_at()
        if check is not None:
            times.append(max(check, self._clock() + self._at_least(0.0)))
        return min(times)

    def _watch(self, *, check_kernel: bool) -> None:
        if self._mode == "polling":
            return
        if self.polling_reason is not None and not check_kernel:
            return  # starting a watcher is expensive: retry at the next full scan
        problem = self._reason_to_poll() or self._watcher.ensure(check_kernel=check_kernel)
        if problem == self.polling_reason:
            return
        every = POLL_SECONDS if self._mode == "auto" else self._rescan_seconds
        if problem is not None:
            log.warning("inbox.polled", reason=problem, every_seconds=every)
        self.polling_reason = problem
        self._host.watching_changed(
            None if problem is None else f"the inbox is polled every {every:g} s: {problem}"
        )

    def _reason_to_poll(self) -> str | None:
        if self._mode != "auto":
            return None
        mount = mount_of(self._inbox)
        if mount is None or not mount.is_remote:
            return None
        self._watcher.stop()
        return (
            f"{self._inbox} is on a network drive ({mount.kind}), which sends no events for new "
            "files (to accept that: intake.mode: polling)"
        )


def _rounded(incomplete: Sequence[IncompleteFile]) -> list[tuple[str, str, int | None]]:
    """Return files with `until` in units of 10 s: it moves with each write to a file."""
    return [
        (file.path, file.reason, None if file.until is None else int(file.until // 10))
        for file in incomplete
    ]

"""How an input leaves the inbox: once all of its jobs have ended, and not before."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from styled.config import Config
from styled.errors import InputStuck
from styled.files import identity, lies_in, readable, sha256_of
from styled.jobs.job import ON_REQUEST, Job, JobState
from styled.jobs.journal import Journal
from styled.jobs.journal_queries import FINISHED
from styled.jobs.protocols import Publisher
from styled.jobs.sidecars import sidecar_of_rejection
from styled.mounts import Mounts
from styled.open_files import WriterCheck, Writers

log = structlog.get_logger()

STYLE_REMOVED = "style removed"
"""The failure of a job that was cancelled because its style is no longer configured."""

MOUNTS_SECONDS = 5.0
"""How long it is remembered which file systems are local."""

LOCKS = 16
"""So many inputs may leave at the same time."""


class InputCleanup:
    """Moves originals to where they belong once all jobs of an input have ended."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        publisher: Publisher,
        mounts: Mounts,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Work as `config.output.after_success` says."""
        self._inbox = config.inbox
        self._after_success = config.output.after_success
        self._journal = journal
        self._publisher = publisher
        self._mounts = mounts
        self._writer_guard = WriterGuard(config.intake.open_grace_seconds)
        self._now = now
        # An input leaves once, though the jobs of two styles may end at the same moment.
        self._locks = [threading.Lock() for _ in range(LOCKS)]

    def release_input(self, job: Job, *, again: bool = False) -> None:
        """Move the original of `job` to where it belongs, if all jobs of that input have ended.

        Every step may be repeated: after a crash between any two of them, call this again.

        Args:
            job: Has ended.
            again: This may have been done before: what is kept is not read once more to see
                whether it is still the same.

        Raises:
            InputStuck: it may not be moved, or somebody still writes to it.
            FolderNotWritable, PlaceRefused: its own new place can't be had.
            ResourceUnavailable: the new place is full, read-only or gone, or the inbox is.
        """
        with self._locks[hash(job.input) % LOCKS]:
            self._release(job, again=again)

    def _release(self, job: Job, *, again: bool) -> None:
        siblings = self._journal.jobs_of_input(job)
        if not siblings or any(sibling.state not in FINISHED for sibling in siblings):
            return
        done = [s for s in siblings if s.state is JobState.DONE]
        # A photo that nobody wants painted goes where it can be had back from.
        rejected = [s for s in siblings if s.state is JobState.REJECTED or s.failure == ON_REQUEST]
        source = self._inbox / job.input
        keep = self._after_success == "keep" and bool(done)
        read = next((s.input_sha256 for s in siblings if s.input_sha256), None)
        is_there = is_unchanged(self._inbox, job, None if keep and again else read)
        if not is_there:
            # Or all photos would be forgotten when their disk is not mounted.
            self._mounts.require(self._inbox)
        if not done and not rejected:
            # Cancelled because it is gone, or because its style is: then it is painted after
            # all once that style is back.
            if not is_there or any(s.failure == STYLE_REMOVED for s in siblings):
                self._journal.mark_input_gone(job)
            return

        sha256 = sha256_of(source) if rejected and is_there else None
        archived = [
            sibling
            for sibling in done
            if self._after_success == "archive" and (is_there or sibling.original)
        ]
        places = {
            sibling.id: self._place_for(sibling, source, is_there=is_there)
            for sibling in (*archived, *rejected)
        }
        stuck: InputStuck | None = None
        try:
            if is_there and (places or not keep):
                self._writer_guard.require_closed(source)
            was_there = is_there and self._publisher.take_original(
                source, list(places.values()), same_as=(job.size, job.mtime_ns), keep=keep
            )
        except InputStuck as error:
            # Why it was rejected is said all the same, where people look for that.
            was_there, stuck = True, error
        for sibling in rejected:
            if stuck is not None and self._publisher.has_sidecar(places[sibling.id], sibling.id):
                continue  # from an earlier attempt
            # Absent only after a crash that came after the move, or where it was taken away.
            changed = not was_there and not places[sibling.id].exists()
            self._publisher.publish_sidecar(
                places[sibling.id],
                sidecar_of_rejection(
                    sibling,
                    sha256 or sha256_of(places[sibling.id]),
                    changed=changed,
                    now=self._now(),
                ),
            )
        if stuck is not None:
            raise stuck
        if not keep or not was_there:
            self._journal.mark_input_gone(job)
        log.debug(
            "input.released", path=readable(job.input), places=[str(p) for p in places.values()]
        )

    def _place_for(self, job: Job, source: Path, *, is_there: bool) -> Path:
        """Return where the original of a job goes; the journal knows it from now on."""
        publisher = self._publisher
        root = publisher.archive if job.state is JobState.DONE else publisher.rejected
        reserved = Path(job.original) if job.original else None
        if reserved is not None and not is_there:
            return reserved  # where a dead process has already moved it
        place = publisher.place_for_original(
            root, f"{job.style}/{job.destination}", source, reserved
        )
        if place != reserved:
            self._journal.reserve_original(job, place)
        return place


class WriterGuard:
    """Keeps files from being moved away from under a program that still writes to them."""

    def __init__(self, grace_seconds: float) -> None:
        """Wait for a writer for so long after the last change of its file."""
        self._grace_seconds = grace_seconds
        self._check = WriterCheck()
        self._mounts_read_at = -math.inf

    def require_closed(self, source: Path) -> None:
        """Do nothing, unless a program of this machine has the file open for writing.

        Raises:
            InputStuck: one has.
        """
        now = time.monotonic()
        if now - self._mounts_read_at > MOUNTS_SECONDS:
            self._mounts_read_at = now
            self._check.forget_mounts()
        if self._check.writers(source) is not Writers.SOME:
            return
        try:
            changed_at = os.lstat(source).st_ctime
        except OSError:
            return
        if time.time() - changed_at < self._grace_seconds:
            raise InputStuck(
                f"{source} is still open for writing",
                "it leaves the inbox once the program that writes to it has closed it "
                "(lsof or fuser -v names that program)",
            )


def is_unchanged(inbox: Path, job: Job, input_sha256: str | None) -> bool:
    """Tell whether the very file that `job` is about still lies in the inbox.

    Its bytes decide where they are known: a file may be rewritten and keep its size and
    its date.

    Raises:
        ResourceUnavailable: nobody can tell.
    """
    source = inbox / job.input
    return (
        lies_in(inbox, job.input)
        and identity(source) == (job.size, job.mtime_ns)
        and (input_sha256 is None or sha256_of(source) == input_sha256)
    )

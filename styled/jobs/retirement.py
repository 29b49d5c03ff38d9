"""How an input leaves the inbox: once all of its jobs have ended, and not before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog

from styled.errors import InputStuck
from styled.files import identity, lies_in, readable, sha256_of
from styled.jobs.account import sidecar_of_rejection
from styled.jobs.job import ON_REQUEST, Job, JobState
from styled.jobs.journal import Journal
from styled.jobs.looking import FINISHED
from styled.jobs.protocols import Delivery
from styled.open_files import WriterCheck, Writers

log = structlog.get_logger()

AfterSuccess = Literal["archive", "keep", "delete"]

STYLE_REMOVED = "style removed"
"""The failure of a job that was cancelled because its style is no longer configured."""


def retire_input(
    job: Job,
    journal: Journal,
    delivery: Delivery,
    inbox: Path,
    require_inbox: Callable[[], None],
    after_success: AfterSuccess,
    writer_guard: WriterGuard,
    now: float,
    *,
    again: bool = False,
) -> None:
    """Move the original of `job` to where it belongs, if all jobs of that input have ended.

    Every step may be repeated: a crash between any two of them is mended by calling this
    again, and saying so: then what is kept is not read once more to see whether it is still
    the same.

    Raises:
        InputStuck: it may not be moved, or somebody still writes to it.
        FolderNotWritable, PlaceRefused: its own new place can't be had.
        ResourceUnavailable: the new place is full, read-only or gone, or the inbox is.
    """
    siblings = journal.jobs_of_input(job)
    if not siblings or any(sibling.state not in FINISHED for sibling in siblings):
        return
    done = [s for s in siblings if s.state is JobState.DONE]
    # A photo that nobody wants painted goes where it can be had back from.
    rejected = [s for s in siblings if s.state is JobState.REJECTED or s.failure == ON_REQUEST]
    source = inbox / job.input
    keep = after_success == "keep" and bool(done)
    read = next((s.input_sha256 for s in siblings if s.input_sha256), None)
    is_there = is_unchanged(inbox, job, None if keep and again else read)
    if not is_there:
        require_inbox()  # or all photos would be forgotten when their disk is not mounted
    if not done and not rejected:
        # Cancelled because it is gone, or because its style is: then it is painted after
        # all once that style is back.
        if not is_there or any(s.failure == STYLE_REMOVED for s in siblings):
            journal.forget_input(job)
        return

    sha256 = sha256_of(source) if rejected and is_there else None
    places: dict[str, Path] = {}
    for sibling in (*(done if after_success == "archive" else ()), *rejected):
        root = delivery.archive if sibling.state is JobState.DONE else delivery.rejected
        reserved = Path(sibling.original) if sibling.original else None
        if reserved is not None and not is_there:
            place = reserved  # where a dead process has already moved it
        else:
            place = delivery.place_for_original(
                root, f"{sibling.style}/{sibling.destination}", source, reserved
            )
        if place != reserved:
            journal.reserve_original(sibling, place)
        places[sibling.id] = place
    stuck: InputStuck | None = None
    try:
        if is_there and (places or not keep):
            writer_guard.require_closed(source)
        was_there = is_there and delivery.take_original(
            source, list(places.values()), same_as=(job.size, job.mtime_ns), keep=keep
        )
    except InputStuck as error:
        # Why it was rejected is said all the same, where people look for that.
        was_there, stuck = True, error
    for sibling in rejected:
        if stuck is not None and delivery.has_sidecar(places[sibling.id], sibling.id):
            continue  # from an earlier attempt
        # Absent only after a crash that came after the move, or where it was taken away.
        changed = not was_there and not places[sibling.id].exists()
        delivery.publish_sidecar(
            places[sibling.id],
            sidecar_of_rejection(
                sibling, sha256 or sha256_of(places[sibling.id]), changed=changed, now=now
            ),
        )
    if stuck is not None:
        raise stuck
    if not keep or not was_there:
        journal.forget_input(job)
    log.debug("input.retired", path=readable(job.input), places=[str(p) for p in places.values()])


class WriterGuard:
    """Keeps files from being moved away from under a program that still writes to them."""

    def __init__(self, grace_seconds: float) -> None:
        """Wait for a writer for so long after the last change of its file."""
        self._grace_seconds = grace_seconds
        self._check = WriterCheck()

    def require_closed(self, source: Path) -> None:
        """Do nothing, unless a program of this machine has the file open for writing.

        Raises:
            InputStuck: one has.
        """
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

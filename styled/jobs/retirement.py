"""How an input leaves the inbox: once all of its jobs have ended, and not before."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import structlog

from styled.jobs.account import sidecar_of_rejection
from styled.jobs.job import Job, JobState
from styled.jobs.journal import FINISHED, Journal
from styled.jobs.protocols import Delivery
from styled.sidecar import readable

log = structlog.get_logger()

AfterSuccess = Literal["archive", "keep", "delete"]


def retire_input(
    job: Job,
    journal: Journal,
    delivery: Delivery,
    inbox: Path,
    after_success: AfterSuccess,
    now: float,
) -> None:
    """Move the original of `job` to where it belongs, if all jobs of that input have ended.

    Every step may be repeated: a crash between any two of them is mended by calling this
    again.

    Raises:
        ResourceUnavailable: the new place is full, read-only or gone.
    """
    siblings = journal.jobs_of_input(job)
    if not siblings or any(sibling.state not in FINISHED for sibling in siblings):
        return
    done = [s for s in siblings if s.state is JobState.DONE]
    rejected = [s for s in siblings if s.state is JobState.REJECTED]
    source = inbox / job.input
    if not done and not rejected:
        if identity(source) != (job.size, job.mtime_ns):
            journal.forget_input(job)  # cancelled because it is gone
        return

    keep = after_success == "keep" and bool(done)
    sha256 = _sha256(source) if rejected else None
    places: dict[str, Path] = {}
    for sibling in (*(done if after_success == "archive" else ()), *rejected):
        root = delivery.rejected if sibling.state is JobState.REJECTED else delivery.archive
        reserved = Path(sibling.original) if sibling.original else None
        place = delivery.place_for_original(
            root, f"{sibling.style}/{sibling.destination}", source, reserved
        )
        if place != reserved:
            journal.reserve_original(sibling, place)
        places[sibling.id] = place
    was_there = delivery.take_original(
        source, list(places.values()), same_as=(job.size, job.mtime_ns), keep=keep
    )
    for sibling in rejected:
        # Absent only after a crash that came after the move, or where it was taken away.
        changed = not was_there and not places[sibling.id].exists()
        delivery.publish_sidecar(
            places[sibling.id],
            sidecar_of_rejection(
                sibling, sha256 or _sha256(places[sibling.id]), changed=changed, now=now
            ),
        )
    if not keep:
        journal.forget_input(job)
    log.debug("input.retired", path=readable(job.input), places=[str(p) for p in places.values()])


def identity(path: Path) -> tuple[int, int] | None:
    """Return size and mtime_ns of a file, None where there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _sha256(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None

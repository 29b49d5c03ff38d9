"""Collects the decisions of one turn of the scheduler's loop until they are committed and sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from styled.job_io.prepare_request import PrepareRequest
from styled.job_io.requests import (
    CleanupRequest,
    GalleryRequest,
    PublishRequest,
    ReleaseRequest,
    UnpublishRequest,
)
from styled.jobs.events import Assignment
from styled.journal.job import JobFinished

Request = (
    PrepareRequest | PublishRequest | UnpublishRequest | ReleaseRequest | CleanupRequest
    | GalleryRequest
)  # fmt: skip


@dataclass(slots=True)
class PendingEffects:
    """Writes, requests and assignments for the end of the turn.

    Attributes:
        writes: Journal writes, executed in this order in one transaction. If it fails, they and
            everything else here stay for the next turn.
        requests: For the I/O pool; sent after the commit, like all below.
        assignments: For engine slots: the name of the slot and the assignment.
        finished_jobs: Jobs that have ended, for the observer.
    """

    writes: list[Callable[[], object]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    assignments: list[tuple[str, Assignment]] = field(default_factory=list)
    finished_jobs: list[JobFinished] = field(default_factory=list)

    def write(self, method: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Add a call of a journal method to the turn's transaction."""
        self.writes.append(partial(method, *args, **kwargs))

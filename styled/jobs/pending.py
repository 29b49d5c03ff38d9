"""What one turn of the scheduler's loop has decided, until it is durable and then sent out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from styled.jobs.engine_slot import Assignment
from styled.jobs.job import JobFinished
from styled.jobs.prepare_request import PrepareRequest
from styled.jobs.requests import (
    GalleryRequest,
    PublishRequest,
    ReleaseRequest,
    TidyRequest,
    WithdrawRequest,
)

Request = (
    PrepareRequest | PublishRequest | WithdrawRequest | ReleaseRequest | TidyRequest
    | GalleryRequest
)  # fmt: skip


@dataclass(slots=True)
class Pending:
    """What is to be done at the end of the turn.

    Attributes:
        writes: Into the journal, in this order, in one transaction. Where that fails they stay
            for the next turn, and all else with them.
        requests: For the I/O pool.
        assignments: For engine slots, by name.
        finished: Jobs that have ended.
    """

    writes: list[Callable[[], object]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    assignments: list[tuple[str, Assignment]] = field(default_factory=list)
    finished: list[JobFinished] = field(default_factory=list)

    def write(self, method: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Have a method of the journal called in the turn's transaction."""
        self.writes.append(partial(method, *args, **kwargs))

"""Keys that identify a job in each line of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog

from styled.files import readable
from styled.journal.job import Job


def log_context_of(job: Job) -> dict[str, str]:
    """Return the log keys that identify a job."""
    return {"job": job.id, "input": readable(job.input), "style": job.style}


@contextmanager
def job_log_context(context: Mapping[str, str]) -> Iterator[None]:
    """Add these keys to every line that this thread logs within the context."""
    tokens = structlog.contextvars.bind_contextvars(**context)
    try:
        yield
    finally:
        structlog.contextvars.reset_contextvars(**tokens)

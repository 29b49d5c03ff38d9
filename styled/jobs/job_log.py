"""Log helpers: the keys that identify a job, and the end of each scale."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import structlog

from styled.engine_api import Progress
from styled.files import readable
from styled.jobs.job import Job

log = structlog.get_logger()


def log_context_of(job: Job) -> dict[str, str]:
    """Return the log keys that identify a job."""
    return {"job": job.id, "input": readable(job.input), "style": job.style}


def job_log_context(context: Mapping[str, str]) -> AbstractContextManager[None]:
    """Add these keys to every line that this thread logs within the context."""
    return structlog.contextvars.bound_contextvars(**context)


def log_scale(progress: Progress) -> None:
    """Log the end of a scale, to show the progress of long jobs."""
    log.info(
        "scale.finished",
        scale=progress.scale,
        scales=progress.scales,
        width=progress.size.width,
        height=progress.size.height,
        steps=progress.step,
        loss=round(progress.loss, 6),
        fraction=round(progress.fraction, 3),
    )

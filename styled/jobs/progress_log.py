"""Log lines about the progress of a job: the end of a scale, and the publication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import structlog

from styled.engine_api import Painted, Progress
from styled.files import readable
from styled.job_io.publication import Published

if TYPE_CHECKING:
    from styled.jobs.running import RunningJob

log = structlog.get_logger()


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


def log_published(
    running: RunningJob, painted: Painted, published: Published, seconds: Mapping[str, float]
) -> None:
    """Log that a job is done; `seconds` are those of its phases."""
    engine = running.engine_info
    log.info(
        "job.published",
        result=readable(published.result.path),
        width=published.result.width,
        height=published.result.height,
        steps=painted.steps,
        precision=painted.precision,
        tile_px=painted.tile_px,
        loss=round(painted.trace[-1].total, 6),
        resumed=painted.resumed,
        changed=published.changed,
        attempts=running.job.attempts,
        engine=running.engine_name,
        device=engine and engine.device,
        node=engine and engine.node,
        peak_memory_bytes=painted.peak_memory_bytes,
        degraded=[asdict(degradation) for degradation in published.degraded],
        **{f"{phase}_seconds": round(spent, 3) for phase, spent in seconds.items()},
    )

"""Builds the sidecar of a finished or rejected job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from styled import __version__
from styled.degradation import Degradation
from styled.engine_api import EngineInfo, Painted, TraceRow
from styled.journal.job import Job
from styled.recipes import Recipe
from styled.sidecar import (
    EngineRun,
    FileInfo,
    InputInfo,
    JobInfo,
    LossInfo,
    LossTerms,
    Rejection,
    ResultInfo,
    SettingsInfo,
    Sidecar,
    StyleImageInfo,
    StyleInfo,
    TimingInfo,
    utc,
)

if TYPE_CHECKING:
    from styled.codec.prepare import Prepared


def input_info(
    prepared: Prepared,
    path: str,
    *,
    changed: bool,
    settings: SettingsInfo | None = None,
    mask: FileInfo | None = None,
) -> InputInfo:
    """Return the sidecar's entry for the photo."""
    photo = prepared.input_file.photo
    return InputInfo(
        path=path,
        sha256=prepared.input_file.sha256,
        bytes=prepared.input_file.size_bytes,
        format=photo.format,
        width=photo.width,
        height=photo.height,
        orientation=photo.orientation,
        icc=photo.icc,
        changed=changed,
        settings=settings,
        mask=mask,
    )


def style_info(prepared: Prepared, name: str) -> StyleInfo:
    """Return the sidecar's entry for the style."""
    images = tuple(
        StyleImageInfo(path=str(style.path), sha256=style.sha256, weight=style.weight)
        for style in prepared.styles
    )
    return StyleInfo(
        name=name, images=images, init_image=prepared.init_info, proof=prepared.proof_info
    )


def engine_run(
    info: EngineInfo, engine_name: str | None, recipe: Recipe, painted: Painted
) -> EngineRun:
    """Return the sidecar's entry for the engine; `engine_name` is its name in the daemon."""
    return EngineRun(
        name=engine_name,
        weights_source=info.weights_source,
        weights_sha256=info.weights_sha256,
        device=info.device,
        device_model=info.device_model,
        node=info.node,
        threads=info.threads,
        deterministic=info.deterministic,
        precision=painted.precision,
        torch=info.torch,
        styled=__version__,
        seed=recipe.seed,
        peak_memory_bytes=painted.peak_memory_bytes,
        tile_px=painted.tile_px,
    )


def recipe_fields(recipe: Recipe) -> dict[str, JsonValue]:
    """Return all fields of the recipe, as JSON values."""
    resolved: dict[str, JsonValue] = json.loads(json.dumps(recipe, default=_fields))
    return resolved


def _fields(record: Any) -> dict[str, object]:
    """Return the fields of a data class; its values may be data classes too."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def loss_info(trace: Sequence[TraceRow]) -> LossInfo:
    """Return the sidecar's entry for the losses."""
    first, last = trace[0], trace[-1]
    return LossInfo(first=_losses(first), last=_losses(last), trace=tuple(trace))


def _losses(row: TraceRow) -> LossTerms:
    return LossTerms(total=row.total, content=row.content, style=row.style, tv=row.tv)


def degradations_of_inputs(prepared: Prepared) -> tuple[Degradation, ...]:
    """Return the degradations of decoding the photo and the style images."""
    of_styles = [
        replace(degradation, message=f"style {style.path.name}: {degradation.message}")
        for style in prepared.styles
        for degradation in style.degraded
    ]
    return (*prepared.input_file.photo.degraded, *of_styles)


def sidecar_of_result(
    job: Job,
    prepared: Prepared,
    painted: Painted,
    info: EngineInfo,
    result: ResultInfo,
    timing: TimingInfo,
    *,
    degraded: Sequence[Degradation],
    changed: bool,
    now: float,
    engine_name: str | None = None,
    settings: SettingsInfo | None = None,
    mask: FileInfo | None = None,
) -> Sidecar:
    """Return the sidecar of a finished job.

    `engine_name` is the name of the engine in the daemon; `settings` and `mask` are those beside
    the photo.
    """
    return Sidecar(
        job=_job_info(job, painted.resumed, now),
        input=input_info(prepared, job.input, changed=changed, settings=settings, mask=mask),
        style=style_info(prepared, job.style),
        recipe=recipe_fields(prepared.recipe),
        engine=engine_run(info, engine_name, prepared.recipe, painted),
        result=result,
        losses=loss_info(painted.trace),
        timing=timing,
        degraded=tuple(degraded),
    )


def sidecar_of_rejection(job: Job, sha256: str | None, *, changed: bool, now: float) -> Sidecar:
    """Return the sidecar of a rejected input."""
    return Sidecar(
        job=_job_info(job, False, job.finished_at or now),
        input=InputInfo(path=job.input, sha256=sha256, bytes=job.size, changed=changed),
        style=StyleInfo(name=job.style, images=()),
        rejected=Rejection(
            reason=job.reason or "unknown",
            failure=job.failure or "unknown",
            remedies=job.remedies,
        ),
        degraded=job.degraded,
    )


def _job_info(job: Job, resumed: bool, finished_at: float) -> JobInfo:
    return JobInfo(
        id=job.id,
        attempts=job.attempts,
        resumed=resumed,
        submitted_at=utc(job.submitted_at),
        started_at=utc(job.started_at or finished_at),
        finished_at=utc(finished_at),
    )

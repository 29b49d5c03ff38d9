"""The account of a job: its sidecar, put together from what happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from pydantic import JsonValue

from styled import __version__
from styled.degradation import Degradation
from styled.engine.local import EngineFacts
from styled.engine.progress import Stylized, TraceRow
from styled.jobs.job import Job
from styled.jobs.preparation import Prepared
from styled.recipes import Recipe
from styled.sidecar import (
    EngineFacts as EngineSection,
)
from styled.sidecar import (
    InputFacts,
    JobFacts,
    Losses,
    LossFacts,
    Rejection,
    ResultFacts,
    Sidecar,
    StyleFacts,
    StyleImageFacts,
    TimingFacts,
    utc,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A painted picture, and what is known about its making."""

    stylized: Stylized
    resumed: bool
    peak_memory_bytes: int
    degraded: tuple[Degradation, ...]


def input_facts(prepared: Prepared, path: str, *, changed: bool) -> InputFacts:
    """Describe the photo."""
    photo = prepared.read.photo
    return InputFacts(
        path=path,
        sha256=prepared.read.sha256,
        bytes=prepared.read.bytes,
        format=photo.format,
        width=photo.width,
        height=photo.height,
        orientation=photo.orientation,
        icc=photo.icc,
        changed=changed,
    )


def style_facts(prepared: Prepared, name: str) -> StyleFacts:
    """Describe the style."""
    images = tuple(
        StyleImageFacts(path=str(style.path), sha256=style.sha256, weight=style.weight)
        for style in prepared.styles
    )
    return StyleFacts(name=name, images=images)


def engine_facts(
    facts: EngineFacts, recipe: Recipe, stylized: Stylized, peak_memory_bytes: int
) -> EngineSection:
    """Describe the engine."""
    return EngineSection(
        weights_source=facts.weights_source,
        weights_sha256=facts.weights_sha256,
        device=facts.device,
        device_model=facts.device_model,
        threads=facts.threads,
        deterministic=facts.deterministic,
        precision=stylized.precision,
        torch=facts.torch,
        styled=__version__,
        seed=recipe.seed,
        peak_memory_bytes=peak_memory_bytes,
        tile_px=stylized.tile_px,
    )


def recipe_facts(recipe: Recipe) -> dict[str, JsonValue]:
    """Describe the recipe, with every field resolved."""
    facts: dict[str, JsonValue] = json.loads(json.dumps(asdict(recipe)))
    return facts


def loss_facts(trace: Sequence[TraceRow]) -> LossFacts:
    """Describe how the optimisation went."""
    first, last = trace[0], trace[-1]
    return LossFacts(first=_losses(first), last=_losses(last), trace=tuple(trace))


def _losses(row: TraceRow) -> Losses:
    return Losses(total=row.total, content=row.content, style=row.style, tv=row.tv)


def degradations_of_inputs(prepared: Prepared) -> tuple[Degradation, ...]:
    """Return what of the photo and of the style's pictures can't be used as it is."""
    of_styles = [
        replace(degradation, message=f"style {style.path.name}: {degradation.message}")
        for style in prepared.styles
        for degradation in style.degraded
    ]
    return (*prepared.read.photo.degraded, *of_styles)


def sidecar_of_result(
    job: Job,
    prepared: Prepared,
    outcome: Outcome,
    facts: EngineFacts,
    result: ResultFacts,
    timing: TimingFacts,
    *,
    changed: bool,
    now: float,
) -> Sidecar:
    """Return the sidecar of a finished job."""
    return Sidecar(
        job=_job_facts(job, outcome.resumed, now),
        input=input_facts(prepared, job.input, changed=changed),
        style=style_facts(prepared, job.style),
        recipe=recipe_facts(prepared.recipe),
        engine=engine_facts(facts, prepared.recipe, outcome.stylized, outcome.peak_memory_bytes),
        result=result,
        losses=loss_facts(outcome.stylized.trace),
        timing=timing,
        degraded=outcome.degraded,
    )


def sidecar_of_rejection(job: Job, sha256: str | None, *, changed: bool, now: float) -> Sidecar:
    """Return the sidecar of a rejected input."""
    return Sidecar(
        job=_job_facts(job, False, job.finished_at or now),
        input=InputFacts(path=job.input, sha256=sha256, bytes=job.size, changed=changed),
        style=StyleFacts(name=job.style, images=()),
        rejected=Rejection(
            reason=job.reason or "unknown",
            failure=job.failure or "unknown",
            remedies=job.remedies,
        ),
        degraded=job.degraded,
    )


def _job_facts(job: Job, resumed: bool, finished_at: float) -> JobFacts:
    return JobFacts(
        id=job.id,
        attempts=job.attempts,
        resumed=resumed,
        submitted_at=utc(job.submitted_at),
        started_at=utc(job.started_at or finished_at),
        finished_at=utc(finished_at),
    )

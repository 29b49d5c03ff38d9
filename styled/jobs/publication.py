"""What is handed on when a painting is to be published, and when it has been."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from styled.degradation import Degradation
from styled.engine_api import EngineInfo, Painted
from styled.jobs.job import Job
from styled.sidecar import ResultFacts, TimingFacts

if TYPE_CHECKING:  # it imports torch
    from styled.jobs.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Publication:
    """A painting that is to be published.

    Attributes:
        engine: What painted it.
        degraded: In which ways it is less than what was asked for, before it is encoded.
        prepare_seconds: How long it took to prepare it.
        optimise_seconds: How long it took to paint it.
    """

    job: Job
    prepared: Prepared
    painted: Painted
    engine: EngineInfo
    degraded: tuple[Degradation, ...]
    prepare_seconds: float
    optimise_seconds: float


@dataclass(frozen=True, slots=True)
class Published:
    """A result that is published.

    Attributes:
        changed: Whether the photo in the inbox was changed or removed meanwhile.
        degraded: In which ways the result is less than what was asked for, all in all.
    """

    result: ResultFacts
    timing: TimingFacts
    changed: bool
    degraded: tuple[Degradation, ...]

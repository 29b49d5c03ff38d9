"""Input and result of publishing a painting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from styled.config import OutputConfig
from styled.degradation import Degradation
from styled.engine_api import EngineInfo, Painted
from styled.journal.job import Job
from styled.sidecar import FileInfo, ResultInfo, SettingsInfo, TimingInfo

if TYPE_CHECKING:  # it imports torch
    from styled.codec.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Publication:
    """A painting that is to be published.

    Attributes:
        engine_info: The engine that painted it.
        engine_name: The name of that engine's slot.
        output: How the result is saved.
        degraded: All degradations before encoding.
        settings, mask: Those beside the photo.
        prepare_seconds: Duration of preparing it.
        ready_seconds: How long it then waited for an engine.
        optimise_seconds: Duration of painting it.
    """

    job: Job
    prepared: Prepared
    painted: Painted
    engine_info: EngineInfo
    engine_name: str
    output: OutputConfig
    degraded: tuple[Degradation, ...]
    settings: SettingsInfo | None
    mask: FileInfo | None
    prepare_seconds: float
    ready_seconds: float
    optimise_seconds: float


@dataclass(frozen=True, slots=True)
class Published:
    """A published result.

    Attributes:
        changed: Whether the photo in the inbox was changed or removed after it was read.
        degraded: All degradations of the result, including those of encoding.
    """

    result: ResultInfo
    timing: TimingInfo
    changed: bool
    degraded: tuple[Degradation, ...]

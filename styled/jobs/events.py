"""Everything that can happen to the queue. Only the scheduler's thread takes events from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from styled.config import Style
from styled.degradation import Degradation
from styled.engine_api import EngineEvent, EngineInfo
from styled.errors import StyledError
from styled.jobs.io_pool import IoDone


@dataclass(frozen=True, slots=True)
class Wakeup:
    """There may be something to do: photos were submitted."""


@dataclass(frozen=True, slots=True)
class StylesChanged:
    """The configuration was reloaded."""

    styles: Mapping[str, Style]


@dataclass(frozen=True, slots=True)
class ServiceDegraded:
    """What the service does without just now, besides what engines say."""

    degradations: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Begin nothing new, and stop with a checkpoint what is being painted."""


@dataclass(frozen=True, slots=True)
class EngineReady:
    """A slot has an engine, and is free."""

    slot: str
    info: EngineInfo


@dataclass(frozen=True, slots=True)
class EngineLost:
    """A slot has no engine any more.

    Attributes:
        retry_seconds: When the slot tries to get another one; None: it can't.
    """

    slot: str
    error: StyledError
    retry_seconds: float | None


@dataclass(frozen=True, slots=True)
class EngineStalled:
    """An engine has given no sign of life for so long that it is given up, if it can be."""

    slot: str


@dataclass(frozen=True, slots=True)
class EngineSaid:
    """An engine has reported something of what it paints.

    Attributes:
        run: The number of the assignment that it belongs to.
    """

    slot: str
    run: int
    event: EngineEvent


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint of a job is on disk."""

    job_id: str


@dataclass(frozen=True, slots=True)
class PreviewSaved:
    """A preview of a job is on disk."""

    job_id: str
    path: Path


Event = (
    Wakeup
    | StylesChanged
    | ServiceDegraded
    | StopRequested
    | EngineReady
    | EngineLost
    | EngineStalled
    | EngineSaid
    | CheckpointSaved
    | PreviewSaved
    | IoDone
)

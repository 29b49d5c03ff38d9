"""The events of the scheduler's queue. Any thread may post them; only the scheduler takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from styled.config import Style
from styled.degradation import Degradation
from styled.engine_api import EngineEvent, EngineInfo, PaintTask
from styled.errors import StyledError
from styled.files import FileStamps
from styled.job_io.io_pool import IoDone

if TYPE_CHECKING:
    from styled.jobs.engine_slot import EngineSlot


@dataclass(frozen=True, slots=True)
class Assignment:
    """A task for one engine.

    Attributes:
        assignment_id: A unique number.
        log_context: Keys of the task's log lines.
        stamps: Of the files that the task was made from; if one has changed since, the task is
            not started.
    """

    assignment_id: int
    task: PaintTask
    log_context: dict[str, str]
    stamps: FileStamps = ()


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Jobs may have been queued: run a turn of the loop."""


@dataclass(frozen=True, slots=True)
class StylesChanged:
    """The configuration was reloaded."""

    styles: Mapping[str, Style]


@dataclass(frozen=True, slots=True)
class ServiceDegradationsChanged:
    """The current degradations of a part of the service have changed; not of single engines.

    Attributes:
        part: Whose degradations they are, such as `intake`.
    """

    part: str
    degraded: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A stop was requested: start nothing new, and stop running tasks with a checkpoint."""


@dataclass(frozen=True, slots=True)
class SlotAdded:
    """There is a further slot; the scheduler starts it."""

    slot: EngineSlot


@dataclass(frozen=True, slots=True)
class SlotRemoved:
    """A slot is no longer to be used, for instance because its machine is gone.

    Attributes:
        reason: A sentence.
    """

    engine_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngineReady:
    """A slot has an engine, which is free."""

    engine_name: str
    info: EngineInfo


@dataclass(frozen=True, slots=True)
class EngineLost:
    """A slot has lost its engine, or could not make one.

    Attributes:
        retry_seconds: Seconds until the slot tries to make another one; None: it can't.
    """

    engine_name: str
    error: StyledError
    retry_seconds: float | None


@dataclass(frozen=True, slots=True)
class EngineStalled:
    """An engine has sent no heartbeat for so long that it should be replaced if possible."""

    engine_name: str


@dataclass(frozen=True, slots=True)
class EngineReported:
    """An event of the task that an engine runs.

    Attributes:
        assignment_id: The number of the assignment.
    """

    engine_name: str
    assignment_id: int
    event: EngineEvent


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint of a job was written to disk."""

    job_id: str


@dataclass(frozen=True, slots=True)
class PreviewSaved:
    """A preview of a job was written to `path`."""

    job_id: str
    path: Path


Event = (
    Wakeup
    | StylesChanged
    | ServiceDegradationsChanged
    | StopRequested
    | SlotAdded
    | SlotRemoved
    | EngineReady
    | EngineLost
    | EngineStalled
    | EngineReported
    | CheckpointSaved
    | PreviewSaved
    | IoDone
)

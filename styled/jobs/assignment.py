"""The assignment of a job to an engine."""

from __future__ import annotations

from dataclasses import dataclass

from styled.engine_api import PaintTask
from styled.files import FileStamps


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

"""Converts rows of the journal's table to jobs."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import fields

from styled.degradation import Degradation
from styled.journal.job import Job, JobProgress, JobState, Phase

COLUMNS = ", ".join(field.name for field in fields(Job))
"""The columns that `job_of` takes, in this order."""

_PATH_COLUMNS = frozenset({"input", "destination", "result", "original"})


def job_of(row: tuple[object, ...]) -> Job:
    """Return the job in a row with the columns `COLUMNS`."""
    values = {
        field.name: os.fsdecode(value)
        if field.name in _PATH_COLUMNS and isinstance(value, bytes)
        else value
        for field, value in zip(fields(Job), row, strict=True)
    }
    values["state"] = JobState(str(values["state"]))
    values["mtime_ns"] = int(str(values["mtime_ns"]))
    values["progress"] = _progress(values["progress"])
    values["cancel_requested"] = bool(values["cancel_requested"])
    values["phase"] = None if values["phase"] is None else Phase(str(values["phase"]))
    values["is_suspect"] = bool(values["is_suspect"])
    values["is_released"] = bool(values["is_released"])
    values["degraded"] = tuple(Degradation(**item) for item in json.loads(str(values["degraded"])))
    values["remedies"] = tuple(json.loads(str(values["remedies"])))
    return Job(**values)  # type: ignore[arg-type]  # the columns are the fields, in order


def _progress(text: object) -> JobProgress | None:
    """Parse the progress column; return None if another version of styled has written it."""
    if text is None:
        return None
    with suppress(ValueError, TypeError):
        return JobProgress(**json.loads(str(text)))
    return None

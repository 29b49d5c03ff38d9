"""The sidecar: a JSON file beside each result that records exactly how it was made.

This module defines the format only. Jobs create sidecars, delivery publishes them, and the gallery
and commands read them.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from styled.degradation import Degradation
from styled.files import readable

SCHEMA_FILE = Path(__file__).with_name("sidecar.schema.json")
"""The JSON Schema that ships with the package."""


def utc(unix_seconds: float) -> datetime:
    """Return a Unix time as a datetime in UTC."""
    return datetime.fromtimestamp(unix_seconds, UTC)


Readable = Annotated[str, AfterValidator(readable)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobInfo(_Section):
    """Which job made this."""

    id: str
    attempts: int = Field(
        ge=0,
        description="Number of attempts; clean stops do not count. 0: cancelled beforehand.",
    )
    resumed: bool = Field(description="Whether it was resumed from a checkpoint.")
    submitted_at: datetime
    started_at: datetime
    finished_at: datetime


class SettingsInfo(_Section):
    """The settings that lay beside the photo."""

    path: Readable = Field(description="The name of the file.")
    sha256: str
    values: dict[str, JsonValue] = Field(description="As the file has them.")


class FileInfo(_Section):
    """A further input file."""

    path: Readable = Field(description="The name of the file.")
    sha256: str


class InputInfo(_Section):
    """The photo, as it was read."""

    path: Readable = Field(description="Relative to the inbox.")
    sha256: str | None = None
    bytes: int
    format: str | None = None
    width: int | None = Field(default=None, description="Upright, in pixels.")
    height: int | None = None
    orientation: int | None = Field(default=None, description="EXIF orientation as found, 1 to 8.")
    icc: str | None = Field(default=None, description="Description of the colour profile.")
    changed: bool = Field(
        default=False,
        description="The file in the inbox was changed or removed while it was worked on.",
    )
    settings: SettingsInfo | None = Field(
        default=None, description="The photo's own settings, from a file beside it."
    )
    mask: FileInfo | None = Field(default=None, description="The mask; white pixels are painted.")


class StyleImageInfo(_Section):
    """One of the style's pictures."""

    path: Readable
    sha256: str
    weight: float


class StyleInfo(_Section):
    """The style."""

    name: str
    images: tuple[StyleImageInfo, ...]
    init_image: FileInfo | None = Field(default=None, description="The initial image.")
    proof: FileInfo | None = Field(
        default=None,
        description="The ICC profile of the soft proof: photo and style were converted to it and "
        "back.",
    )


class EngineRun(_Section):
    """The engine that computed the result."""

    name: str | None = Field(
        default=None, description="As in the log and in `styled status`; null: a single command."
    )
    weights_source: Readable
    weights_sha256: str
    device: str
    device_model: str = Field(description="The model of the GPU or the CPU.")
    node: str | None = Field(
        default=None, description="The machine of the cluster; null: that of the daemon."
    )
    threads: int = Field(ge=1, description="torch's intra-op threads. On a CPU they decide bytes.")
    deterministic: bool | None = Field(
        default=None,
        description="Whether deterministic algorithms were chosen; null: there was no choice.",
    )
    precision: str
    torch: str
    styled: str
    seed: int
    peak_memory_bytes: int
    tile_px: int | None = Field(
        default=None, description="The longest edge of the tiles that a large picture was cut into."
    )


class ResultInfo(_Section):
    """The picture."""

    path: Readable = Field(description="Relative to the outbox.")
    sha256: str
    width: int
    height: int
    format: str
    bits: int = Field(default=8, description="Bits per channel: 8 or 16.")
    color: str | None = Field(
        default=None, description="The colour space; null: the file does not say."
    )
    painted_width: int | None = Field(
        default=None,
        description="Width at which it was painted, before it was resized; null: the same.",
    )
    painted_height: int | None = None
    detail_steps: int = Field(
        default=0, description="Steps that were then taken at a larger size, that of the photo."
    )
    frames: Readable | None = Field(
        default=None, description="Folder of the saved frames, relative to the outbox."
    )


class LossTerms(_Section):
    """Weighted losses: total = content + style + tv."""

    total: float
    content: float
    style: float
    tv: float


class LossInfo(_Section):
    """The losses of the optimisation."""

    first: LossTerms
    last: LossTerms
    columns: tuple[str, ...] = ("scale", "step", "total", "content", "style", "tv")
    trace: tuple[tuple[int, int, float, float, float, float], ...]


class TimingInfo(_Section):
    """Seconds spent."""

    waited: float
    prepare: float
    optimise: float
    publish: float


class Rejection(_Section):
    """Why there is no result."""

    reason: str = Field(description="One sentence, on one line.")
    failure: str = Field(
        description="input, incomplete, engine, configuration, crash, internal or cancelled."
    )
    remedies: tuple[str, ...] = Field(
        default=(), description="What can be done about it, each by itself."
    )


class Sidecar(_Section):
    """How a result was made, or why an input was rejected. Times are UTC."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    job: JobInfo
    input: InputInfo
    style: StyleInfo | None = None
    recipe: dict[str, JsonValue] | None = Field(
        default=None, description="The recipe's name and every field of it, as used."
    )
    engine: EngineRun | None = None
    result: ResultInfo | None = Field(
        default=None, description="null where the input was rejected."
    )
    losses: LossInfo | None = None
    timing: TimingInfo | None = None
    degraded: tuple[Degradation, ...] = Field(
        default=(), description="In which ways the result is less than what was asked for."
    )
    rejected: Rejection | None = None

    def to_json(self) -> bytes:
        """Return the content of the sidecar file."""
        text = self.model_dump_json(by_alias=True, indent=2)
        return text.encode() + b"\n"


def sidecar_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of sidecars, as shipped in `sidecar.schema.json`."""
    schema: dict[str, JsonValue] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Sidecar.model_json_schema(by_alias=True, mode="serialization"),
    }
    return schema


def job_id_in(path: Path) -> str | None:
    """Return the id of the job in the sidecar at `path`, None if there is no valid sidecar."""
    if not os.path.isfile(path):
        return None  # reading a pipe would block
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    job = content.get("job") if isinstance(content, dict) else None
    job_id = job.get("id") if isinstance(job, dict) else None
    return job_id if isinstance(job_id, str) else None

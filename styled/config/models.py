"""The configuration file as it is written: what each key may hold, and its default.

Paths stay as they were written (but for `~`), and recipes stay a name and overrides;
`styled.config.resolved` makes the final configuration of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from styled.config.ignore import DEFAULT_IGNORE
from styled.config.overrides import RecipeChoice, RecipeName, RecipeOverrides
from styled.config.values import (
    Count,
    Device,
    FilePath,
    Flag,
    FolderName,
    MemoryLimit,
    NamePattern,
    NonNegative,
    NotEmpty,
    Number,
    OrEmpty,
    Positive,
    Section,
    Threads,
    Weights,
)
from styled.config.wording import expected


def _recipe_by_name(value: object) -> object:
    """Read the short form `recipe: pyramid` as `recipe: {name: pyramid}`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict | RecipeChoice):
        return value
    raise expected("the name of a recipe, or a mapping of its fields")


def _image_by_path(value: object) -> object:
    """Read the short form `a.jpg` as `{path: a.jpg}`."""
    if isinstance(value, str):
        return {"path": value}
    if isinstance(value, dict | StyleImageEntry):
        return value
    raise expected("a path, or a mapping of path and weight")


class EngineConfig(Section):
    """What the pictures are computed with."""

    device: Device = Field(
        default="auto", description="auto, cpu, cuda, cuda:N (the N-th GPU) or mps."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the network; bfloat16 is faster on recent devices.",
    )
    weights: Weights = Field(
        default="imagenet", description="imagenet, untrained, or a .pth or .safetensors file."
    )
    memory_limit: MemoryLimit = Field(
        default="auto", description="Most memory to use: auto, or a size such as 4GB or 6GiB."
    )

    threads: Threads = Field(
        default="auto",
        description="Threads that torch computes with: auto (as many as torch takes by itself), "
        "or a number. On a CPU it decides the exact pixels.",
    )
    deterministic: Flag = Field(
        default=True,
        description="Choose deterministic algorithms on CUDA; elsewhere there is no choice.",
    )

    @property
    def thread_count(self) -> int | None:
        """How many threads torch computes with; None: as many as it takes by itself."""
        return None if self.threads == "auto" else self.threads

    @property
    def memory_bytes(self) -> int | None:
        """The most memory to use; None: as much as is free."""
        return None if self.memory_limit == "auto" else self.memory_limit


class IntakeConfig(Section):
    """How the inbox is watched, and what in it counts as an input."""

    mode: Literal["auto", "native", "polling"] = Field(
        default="auto",
        description="native: events of the system; polling: looking every second; auto: native, "
        "and polling where that does not work or on network drives.",
    )
    settle_seconds: NonNegative = Field(
        default=1.0, description="How long a file must stay unchanged before it is taken."
    )
    rescan_seconds: Positive = Field(
        default=30, description="How often the whole inbox is looked through, events or not."
    )
    truncated_grace_seconds: NonNegative = Field(
        default=60,
        description="How long a file that is empty or ends too early may wait for its rest.",
    )
    open_grace_seconds: NonNegative = Field(
        default=3600,
        description="How long a file may wait that a program of this machine has open for writing.",
    )
    ignore: tuple[NamePattern, ...] = Field(
        default=DEFAULT_IGNORE,
        description="Patterns (* ? [...]) of names of files and folders left alone.",
    )
    max_pixels: Count = Field(
        default=200_000_000,
        description="Larger photos are rejected: they may be decompression bombs.",
    )


class QueueConfig(Section):
    """How jobs are worked through."""

    max_attempts: Annotated[int, Number(ge=1, le=100)] = Field(
        default=3, description="How often a job is tried before its input is rejected."
    )
    checkpoint_seconds: Positive = Field(
        default=30,
        description="How often a running job is saved; a crash costs at most this much work.",
    )
    history_days: Positive = Field(
        default=90, description="How long finished jobs are remembered for `styled status`."
    )
    history_jobs: Count = Field(
        default=10_000, description="How many finished jobs are remembered at most."
    )


class OutputConfig(Section):
    """What results look like, and what becomes of their originals."""

    format: Literal["same", "jpeg", "png", "tiff", "webp"] = Field(
        default="same", description="File format of the results; same: that of the photo."
    )
    quality: Annotated[int, Number(ge=1, le=100)] = Field(
        default=95, description="Quality of JPEG, WebP, AVIF and HEIC files, from 1 to 100."
    )
    size: Literal["painted", "input"] = Field(
        default="painted",
        description="Size of the results: as the recipe paints them, or that of the photo.",
    )
    metadata: Literal["keep", "strip"] = Field(
        default="keep",
        description="Whether results have the EXIF data, GPS, XMP and IPTC of their photos.",
    )
    color: Literal["srgb", "input"] = Field(
        default="srgb", description="Colour space of the results: sRGB, or that of the photo."
    )
    grayscale: Literal["color", "keep"] = Field(
        default="color",
        description="Whether grey photos become colourful paintings, or stay grey.",
    )
    bits: Literal["same", 8, 16] = Field(
        default="same",
        description="Bits of each number in PNG and TIFF files; same: as many as the photo has.",
    )
    keep_frames: Annotated[int, Number(ge=1)] | None = Field(
        default=None,
        description="Keep a picture of every so many steps beside the result; null: do not.",
    )
    gallery: Flag = Field(
        default=True, description="Keep a page with all results, gallery.html, in the outbox."
    )
    after_success: Literal["archive", "keep", "delete"] = Field(
        default="archive", description="What happens to the photo once its result is safe."
    )


class MetricsConfig(Section):
    """Where figures for Prometheus can be had."""

    textfile: Flag = Field(
        default=True, description="Keep them in metrics.prom in the state folder."
    )
    http_port: Annotated[int, Number(ge=1, le=65535)] | None = Field(
        default=None, description="Also serve them at this port of 127.0.0.1; null: do not."
    )


class StyleImageEntry(Section):
    """One of the images that make up a style."""

    path: FilePath = Field(description="The image file.")
    weight: Positive = Field(default=1.0, description="Its share, relative to the other images.")


StyleImageOrPath = Annotated[
    StyleImageEntry, BeforeValidator(_image_by_path, json_schema_input_type=str | StyleImageEntry)
]
RecipeOrName = Annotated[
    RecipeChoice, BeforeValidator(_recipe_by_name, json_schema_input_type=RecipeName | RecipeChoice)
]


class StyleEntry(Section):
    """A style: one image or several, and how to paint with them."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["images"]}]}
    )

    image: FilePath | None = Field(default=None, description="The image to paint in the style of.")
    images: NotEmpty[tuple[StyleImageOrPath, ...]] | None = Field(
        default=None, description="Several images to mix, instead of one."
    )
    recipe: RecipeOrName = Field(
        default_factory=RecipeChoice, description="A recipe's name, or its name and fields."
    )
    overrides: OrEmpty[RecipeOverrides] = Field(
        default_factory=RecipeOverrides, description="What differs from the recipe."
    )


class ConfigFile(Section):
    """Configuration of styled. Relative paths start at the folder of this file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, title="styled configuration"
    )

    inbox: FilePath = Field(
        default=Path("inbox"), description="Folder that photos are dropped into."
    )
    outbox: FilePath = Field(default=Path("outbox"), description="Folder that results appear in.")
    rejected: FilePath = Field(
        default=Path("rejected"),
        description="Folder for inputs that cannot be done, and the reasons.",
    )
    archive: FilePath = Field(
        default=Path("archive"), description="Folder for the originals of finished jobs."
    )
    state: FilePath = Field(
        default=Path("state"), description="Folder for the journal, checkpoints and previews."
    )
    default_style: str | None = Field(
        default=None, description="Style of photos that lie in no style's folder."
    )
    styles: OrEmpty[dict[FolderName, StyleEntry]] = Field(
        default_factory=dict, description="The styles; each has a folder in the inbox."
    )
    folders: OrEmpty[dict[FolderName, NotEmpty[tuple[str, ...]]]] = Field(
        default_factory=dict,
        description="Further inbox folders, each with the styles that its photos are painted in.",
    )
    engine: OrEmpty[EngineConfig] = Field(
        default_factory=EngineConfig, description="What the pictures are computed with."
    )
    intake: OrEmpty[IntakeConfig] = Field(
        default_factory=IntakeConfig, description="How the inbox is watched."
    )
    queue: OrEmpty[QueueConfig] = Field(
        default_factory=QueueConfig, description="How jobs are worked through."
    )
    output: OrEmpty[OutputConfig] = Field(
        default_factory=OutputConfig, description="What results look like."
    )
    metrics: OrEmpty[MetricsConfig] = Field(
        default_factory=MetricsConfig, description="Where figures for Prometheus can be had."
    )

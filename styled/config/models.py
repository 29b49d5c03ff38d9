"""Pydantic models of the configuration file: the type and the default of each key.

Paths are kept as written, except that `~` is expanded, and recipes are kept as a name and
overrides. `styled.config.resolved` builds the final configuration from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from styled.config.ignore import DEFAULT_IGNORE
from styled.config.messages import expected
from styled.config.overrides import RecipeChoice, RecipeName, RecipeOverrides, Strength
from styled.config.values import (
    ClusterAddress,
    Count,
    DeviceSetting,
    DiskSpaceSetting,
    EngineCount,
    FilePath,
    Flag,
    FolderName,
    GpuShare,
    HookCommand,
    MemoryLimit,
    NamePattern,
    NonNegative,
    NotEmpty,
    Number,
    OrEmpty,
    Positive,
    Section,
    Threads,
    WeightsSetting,
)


def _recipe_by_name(value: object) -> object:
    """Convert the short form `recipe: pyramid` to `recipe: {name: pyramid}`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict | RecipeChoice):
        return value
    raise expected("the name of a recipe, or a mapping of its fields")


def _image_by_path(value: object) -> object:
    """Convert the short form `a.jpg` to `{path: a.jpg}`."""
    if isinstance(value, str):
        return {"path": value}
    if isinstance(value, dict | StyleImageEntry):
        return value
    raise expected("a path, or a mapping of path and weight")


def _folder_by_styles(value: object) -> object:
    """Convert the short form `[a, b]` to `{styles: [a, b]}`."""
    if isinstance(value, list | tuple):
        return {"styles": value}
    if isinstance(value, dict | FolderEntry):
        return value
    raise expected("a list of styles, or a mapping of styles and priority")


Priority = Annotated[int, Number(ge=-100, le=100)]


class EngineConfig(Section):
    """Device, precision, weights and resources of the computation."""

    device: DeviceSetting = Field(
        default="auto", description="auto, cpu, cuda, cuda:N (the N-th GPU) or mps."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the network; bfloat16 is faster on recent devices.",
    )
    weights: WeightsSetting = Field(
        default="imagenet", description="imagenet, untrained, or a .pth or .safetensors file."
    )
    memory_limit: MemoryLimit = Field(
        default="auto", description="Memory limit: auto, or a size such as 4GB or 6GiB."
    )

    threads: Threads = Field(
        default="auto",
        description="Threads that torch computes with: auto (torch's default), or a number. "
        "On a CPU the number affects the exact pixels.",
    )
    deterministic: Flag = Field(
        default=True,
        description="Use deterministic algorithms on CUDA; no effect on other devices.",
    )

    @property
    def thread_count(self) -> int | None:
        """The number of threads that torch computes with; None: torch's default."""
        return None if self.threads == "auto" else self.threads

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes; None: as much as is free."""
        return None if self.memory_limit == "auto" else self.memory_limit


class ClusterConfig(Section):
    """Engines on all GPUs of this machine, or on a Ray cluster."""

    address: ClusterAddress = Field(
        default=None,
        description="null: one engine in the daemon; local: one engine for each GPU of this "
        "machine; auto or HOST:PORT: engines on a running Ray cluster.",
    )
    engines: EngineCount = Field(
        default="auto",
        description="Number of engines; auto: one for each GPU, or for each machine where there "
        "are no GPUs, following machines that join or leave.",
    )
    gpus_per_engine: GpuShare = Field(
        default=1, description="GPUs of an engine; 0.5: two engines share a GPU."
    )
    cpus_per_engine: Threads = Field(
        default="auto",
        description="CPU cores and torch threads of an engine; auto: 1 with a GPU, otherwise an "
        "equal share of its machine's.",
    )


class IntakeConfig(Section):
    """How the inbox is watched, and which of its files are inputs."""

    mode: Literal["auto", "native", "polling"] = Field(
        default="auto",
        description="native: events of the system; polling: scanning every second; auto: native, "
        "or polling if that does not work or the inbox is on a network drive.",
    )
    settle_seconds: NonNegative = Field(
        default=1.0, description="How long a file must stay unchanged before it is taken."
    )
    rescan_seconds: Positive = Field(
        default=30, description="Interval of full scans of the inbox, in both modes."
    )
    truncated_grace_seconds: NonNegative = Field(
        default=60,
        description="How long a file that is empty or ends too early is waited for.",
    )
    damaged: Literal["reject", "paint"] = Field(
        default="reject",
        description="What happens to a photo of which a part is missing: it is rejected, or "
        "painted as far as it goes, which its sidecar says.",
    )
    open_grace_seconds: NonNegative = Field(
        default=3600,
        description="How long a file is waited for that a program on this machine has open for "
        "writing.",
    )
    ignore: tuple[NamePattern, ...] = Field(
        default=DEFAULT_IGNORE,
        description="Patterns (* ? [...]) of names of files and folders that are ignored.",
    )
    ignore_also: tuple[NamePattern, ...] = Field(
        default=(), description="Further patterns, beside those of `ignore`."
    )
    not_pictures: Literal["leave", "reject"] = Field(
        default="leave",
        description="What happens to files that are not pictures, neither by name nor by content: "
        "they are left where they are, or rejected.",
    )
    remove_empty_folders: Flag = Field(
        default=False,
        description="Whether sub-folders are removed that are empty after their photos have left.",
    )
    max_pixels: Count = Field(
        default=200_000_000,
        description="Larger photos are rejected: they may be decompression bombs.",
    )

    @property
    def ignored_names(self) -> tuple[str, ...]:
        """All patterns of names that are ignored."""
        return (*self.ignore, *self.ignore_also)


class QueueConfig(Section):
    """How jobs are processed and remembered."""

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
    """Format and properties of results, and what happens to the originals."""

    format: Literal["same", "jpeg", "png", "tiff", "webp"] = Field(
        default="same", description="File format of the results; same: that of the photo."
    )
    quality: Annotated[int, Number(ge=1, le=100)] = Field(
        default=95, description="Quality of JPEG, WebP, AVIF and HEIC files, from 1 to 100."
    )
    size: Literal["painted", "input"] = Field(
        default="painted",
        description="Size of the results: the recipe's size, or that of the photo.",
    )
    metadata: Literal["keep", "strip"] = Field(
        default="keep",
        description="Whether results keep the EXIF data, GPS, XMP and IPTC of their photos.",
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
        description="Bits per channel in PNG and TIFF files; same: as many as the photo has.",
    )
    keep_frames: Annotated[int, Number(ge=1)] | None = Field(
        default=None,
        description="Save a picture every so many steps beside the result; null: off.",
    )
    gallery: Flag = Field(
        default=True, description="Maintain gallery.html, a page of all results, in the outbox."
    )
    after_success: Literal["archive", "keep", "delete"] = Field(
        default="archive",
        description="What happens to the photo once its result is safely on disk.",
    )
    min_free: DiskSpaceSetting = Field(
        default=1_000_000_000,
        description="No job begins while a disk that it writes to has less free space than this, "
        "such as 500MB or 2GiB; 0: off.",
    )


class StyleOutput(Section):
    """Values in place of those in the section `output`; null: as there."""

    format: Literal["same", "jpeg", "png", "tiff", "webp"] | None = Field(
        default=None, description="File format of this style's results."
    )
    quality: Annotated[int, Number(ge=1, le=100)] | None = Field(
        default=None, description="Quality of JPEG, WebP, AVIF and HEIC files, from 1 to 100."
    )
    size: Literal["painted", "input"] | None = Field(
        default=None, description="Size of the results: the recipe's size, or that of the photo."
    )
    metadata: Literal["keep", "strip"] | None = Field(
        default=None, description="Whether results keep the metadata of their photos."
    )
    color: Literal["srgb", "input"] | None = Field(
        default=None, description="Colour space of the results: sRGB, or that of the photo."
    )
    grayscale: Literal["color", "keep"] | None = Field(
        default=None, description="Whether grey photos become colourful paintings, or stay grey."
    )
    bits: Literal["same", 8, 16] | None = Field(
        default=None, description="Bits per channel in PNG and TIFF files."
    )
    keep_frames: Annotated[int, Number(ge=1)] | None = Field(
        default=None, description="Save a picture every so many steps beside the result."
    )


class MetricsConfig(Section):
    """Where Prometheus metrics are published."""

    textfile: Flag = Field(
        default=True, description="Write metrics to metrics.prom in the state folder."
    )
    http_port: Annotated[int, Number(ge=1, le=65535)] | None = Field(
        default=None, description="Also serve metrics at this port of 127.0.0.1; null: off."
    )


class HooksConfig(Section):
    """Commands that are run when jobs end."""

    on_done: HookCommand = Field(
        default=(), description="Command for each finished painting, once it is published."
    )
    on_rejected: HookCommand = Field(default=(), description="Command for each rejected photo.")
    on_idle: HookCommand = Field(
        default=(), description="Command that is run when the queue has become empty."
    )
    timeout_seconds: Positive = Field(
        default=60, description="How long a command may run; then it is ended."
    )

    @property
    def any(self) -> bool:
        """Whether any hook is configured."""
        return bool(self.on_done or self.on_rejected or self.on_idle)


class StyleImageEntry(Section):
    """One of the images that make up a style."""

    path: FilePath = Field(description="The image file.")
    weight: Positive = Field(default=1.0, description="Its weight, relative to the other images.")


StyleImageOrPath = Annotated[
    StyleImageEntry, BeforeValidator(_image_by_path, json_schema_input_type=str | StyleImageEntry)
]
RecipeOrName = Annotated[
    RecipeChoice, BeforeValidator(_recipe_by_name, json_schema_input_type=RecipeName | RecipeChoice)
]


class StyleEntry(Section):
    """A style: one image or several, and the recipe to paint with."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["images"]}]}
    )

    image: FilePath | None = Field(default=None, description="The image to paint in the style of.")
    images: NotEmpty[tuple[StyleImageOrPath, ...]] | None = Field(
        default=None, description="Several images to blend, instead of one."
    )
    init_image: FilePath | None = Field(
        default=None,
        description="An initial image, stretched to the painting's size; null: recipe.init.",
    )
    proof: FilePath | None = Field(
        default=None,
        description="An ICC profile, such as a printer's: photo and style image are converted to "
        "it and back first, so that the painting starts from colours that can be printed.",
    )
    recipe: RecipeOrName = Field(
        default_factory=RecipeChoice, description="A recipe's name, or its name and fields."
    )
    overrides: OrEmpty[RecipeOverrides] = Field(
        default_factory=RecipeOverrides, description="Values that replace those of the recipe."
    )
    strength: Strength | None = Field(
        default=None,
        description="0 (nearly the photo) to 100 (nearly texture alone), 50 is the recipe as it "
        "is; null: that of the recipe.",
    )
    priority: Priority = Field(
        default=0, description="Photos of higher priority are painted first; from -100 to 100."
    )
    output: OrEmpty[StyleOutput] = Field(
        default_factory=StyleOutput,
        description="Values that replace those of the section `output`.",
    )


class FolderEntry(Section):
    """A further inbox folder."""

    styles: NotEmpty[tuple[str, ...]] = Field(
        description="The styles that its photos are painted in."
    )
    priority: Priority | None = Field(
        default=None, description="Priority of its photos; null: that of their styles."
    )


_Names = Annotated[list[str], Field(min_length=1)]
FolderOrStyles = Annotated[
    FolderEntry, BeforeValidator(_folder_by_styles, json_schema_input_type=_Names | FolderEntry)
]


class ConfigFile(Section):
    """Configuration of styled. Relative paths are relative to the folder of this file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, title="styled configuration"
    )

    inbox: FilePath = Field(
        default=Path("inbox"), description="Folder that photos are dropped into."
    )
    outbox: FilePath = Field(default=Path("outbox"), description="Folder that results appear in.")
    rejected: FilePath = Field(
        default=Path("rejected"),
        description="Folder for inputs that cannot be painted, and the reasons.",
    )
    archive: FilePath = Field(
        default=Path("archive"), description="Folder for the originals of finished jobs."
    )
    state: FilePath = Field(
        default=Path("state"), description="Folder for the journal, checkpoints and previews."
    )
    default_style: str | None = Field(
        default=None, description="Style of photos that are not in the folder of a style."
    )
    styles_folder: FilePath | None = Field(
        default=None,
        description="Folder in which each picture is a style named after its file, with settings "
        "in a NAME.yaml beside it; null: none. It is watched.",
    )
    styles: OrEmpty[dict[FolderName, StyleEntry]] = Field(
        default_factory=dict, description="The styles; each has a folder in the inbox."
    )
    folders: OrEmpty[dict[FolderName, FolderOrStyles]] = Field(
        default_factory=dict,
        description="Further inbox folders, each with the styles that its photos are painted in, "
        "and with a priority.",
    )
    engine: OrEmpty[EngineConfig] = Field(
        default_factory=EngineConfig,
        description="Device, precision, weights and resources of the computation.",
    )
    cluster: OrEmpty[ClusterConfig] = Field(
        default_factory=ClusterConfig,
        description="Engines on several GPUs or machines.",
    )
    intake: OrEmpty[IntakeConfig] = Field(
        default_factory=IntakeConfig, description="How the inbox is watched."
    )
    queue: OrEmpty[QueueConfig] = Field(
        default_factory=QueueConfig, description="How jobs are processed and remembered."
    )
    output: OrEmpty[OutputConfig] = Field(
        default_factory=OutputConfig, description="Format and properties of results."
    )
    metrics: OrEmpty[MetricsConfig] = Field(
        default_factory=MetricsConfig, description="Where Prometheus metrics are published."
    )
    hooks: OrEmpty[HooksConfig] = Field(
        default_factory=HooksConfig, description="Commands that are run when jobs end."
    )

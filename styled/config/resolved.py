"""The configuration as the rest of styled uses it: absolute paths and complete recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from styled.config.merging import resolve_recipe
from styled.config.models import (
    ClusterConfig,
    ConfigFile,
    EngineConfig,
    HooksConfig,
    IntakeConfig,
    MetricsConfig,
    OutputConfig,
    QueueConfig,
    StyleEntry,
    StyleOutput,
)
from styled.config.styles_folder import FolderStamp
from styled.recipes import Recipe


@dataclass(frozen=True, slots=True)
class StyleImage:
    """One of the images that make up a style; weights are relative to one another."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Style:
    """The images of a style, the recipe to paint with, and its own values of `output`.

    Attributes:
        init_image: The initial image; None: as the recipe says.
        proof: An ICC profile that photo and style are converted to and back; None: none.
    """

    images: tuple[StyleImage, ...]
    recipe: Recipe
    output: StyleOutput = field(default_factory=StyleOutput)
    init_image: Path | None = None
    proof: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the style."""
        others = (self.init_image, self.proof)
        return (*(image.path for image in self.images), *(path for path in others if path))


@dataclass(frozen=True, slots=True)
class Priorities:
    """Which photos are painted first.

    Attributes:
        styles: Of each style.
        folders: Of inbox folders that have one of their own.
    """

    styles: Mapping[str, int]
    folders: Mapping[str, int]

    def of(self, path: str, style: str) -> int:
        """Return the priority of a photo, whose path is relative to the inbox, in a style."""
        folder, _, below = path.partition("/")
        if below and folder in self.folders:
            return self.folders[folder]
        return self.styles.get(style, 0)


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration. Paths are absolute, but symbolic links in them are not resolved."""

    base: Path  # the folder that relative paths in the file refer to
    path: Path | None  # the file, as given by the caller; None: built-in defaults
    # folders
    inbox: Path
    outbox: Path
    rejected: Path
    archive: Path
    state: Path
    # styles
    default_style: str | None
    styles_folder: Path | None
    styles: Mapping[str, Style]
    folders: Mapping[str, tuple[str, ...]]  # inbox folder -> names of styles
    priorities: Priorities
    # behaviour
    engine: EngineConfig
    cluster: ClusterConfig
    intake: IntakeConfig
    queue: QueueConfig
    output: OutputConfig
    metrics: MetricsConfig
    hooks: HooksConfig
    # pictures of the styles folder that are not styles, and why
    left_out: tuple[str, ...] = ()
    # of the styles folder, taken before it was read: to notice later changes
    styles_stamp: FolderStamp = ()

    @property
    def inbox_folders(self) -> tuple[str, ...]:
        """Names of the inbox folders that determine the styles of their photos."""
        return (*self.styles, *self.folders)

    def output_of(self, style: Style) -> OutputConfig:
        """Return the section `output` as it holds for a style."""
        return self.output.model_copy(update=style.output.model_dump(exclude_none=True))


def resolve(file: ConfigFile, base: Path, path: Path | None) -> Config:
    """Build the configuration from a validated file.

    Args:
        file: The validated content of the file.
        base: The absolute folder that relative paths in the file refer to.
        path: The path of the file, if there is one.
    """
    engine = file.engine
    if isinstance(engine.weights, Path):
        engine = engine.model_copy(update={"weights": base / engine.weights})
    return Config(
        base=base,
        path=path,
        inbox=base / file.inbox,
        outbox=base / file.outbox,
        rejected=base / file.rejected,
        archive=base / file.archive,
        state=base / file.state,
        default_style=file.default_style,
        styles_folder=None if file.styles_folder is None else base / file.styles_folder,
        styles={name: _resolve_style(entry, base) for name, entry in file.styles.items()},
        folders={name: entry.styles for name, entry in file.folders.items()},
        priorities=Priorities(
            {name: entry.priority for name, entry in file.styles.items()},
            {name: e.priority for name, e in file.folders.items() if e.priority is not None},
        ),
        engine=engine,
        cluster=file.cluster,
        intake=file.intake,
        queue=file.queue,
        output=file.output,
        metrics=file.metrics,
        hooks=file.hooks,
    )


def _resolve_style(entry: StyleEntry, base: Path) -> Style:
    images = [StyleImage(base / image.path, image.weight) for image in entry.images or ()]
    if entry.image is not None:
        images.append(StyleImage(base / entry.image))
    recipe = resolve_recipe(entry.recipe.name, entry.recipe, entry.overrides)
    if entry.strength is not None:
        recipe = replace(recipe, strength=entry.strength)
    return Style(
        tuple(images),
        recipe,
        entry.output,
        None if entry.init_image is None else base / entry.init_image,
        None if entry.proof is None else base / entry.proof,
    )

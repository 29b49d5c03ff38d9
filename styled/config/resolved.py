"""The configuration as the rest of styled sees it: absolute paths and whole recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from styled.config.merging import resolve_recipe
from styled.config.models import (
    ConfigFile,
    EngineConfig,
    IntakeConfig,
    MetricsConfig,
    OutputConfig,
    QueueConfig,
    StyleEntry,
)
from styled.recipes import Recipe


@dataclass(frozen=True, slots=True)
class StyleImage:
    """One of the images that make up a style; weights are relative to one another."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Style:
    """What to paint with, and how."""

    images: tuple[StyleImage, ...]
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration. All paths are absolute, but symbolic links in them stay."""

    base: Path  # the folder that relative paths in the file start at
    path: Path | None  # the file as it was named; None: built-in defaults
    # where things are
    inbox: Path
    outbox: Path
    rejected: Path
    archive: Path
    state: Path
    # what to paint
    default_style: str | None
    styles: Mapping[str, Style]
    folders: Mapping[str, tuple[str, ...]]  # inbox folder -> names of styles
    # how to work
    engine: EngineConfig
    intake: IntakeConfig
    queue: QueueConfig
    output: OutputConfig
    metrics: MetricsConfig


def resolve(file: ConfigFile, base: Path, path: Path | None) -> Config:
    """Return the configuration that a file without problems stands for.

    Args:
        file: The validated content of the file.
        base: The absolute folder that its relative paths start at.
        path: The file itself, if there is one.
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
        styles={name: _resolve_style(entry, base) for name, entry in file.styles.items()},
        folders=dict(file.folders),
        engine=engine,
        intake=file.intake,
        queue=file.queue,
        output=file.output,
        metrics=file.metrics,
    )


def _resolve_style(entry: StyleEntry, base: Path) -> Style:
    images = [StyleImage(base / image.path, image.weight) for image in entry.images or ()]
    if entry.image is not None:
        images.append(StyleImage(base / entry.image))
    return Style(tuple(images), resolve_recipe(entry.recipe.name, entry.recipe, entry.overrides))

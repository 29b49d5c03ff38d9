"""Tells where a photo's settings come from: recipe, style, folder, or file beside the photo."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from styled.config import Config, Style
from styled.config.photo_settings import MAX_BYTES, PhotoSettings, parse_photo_settings
from styled.errors import ConfigError
from styled.files import MASK_SUFFIX, SETTINGS_SUFFIX, companions_of, readable
from styled.open_files import open_regular
from styled.recipes import RECIPES, Recipe


def settings_sources(
    photo: Path, relative: str, styles: Iterable[str], config: Config
) -> Iterator[str]:
    """Yield one sentence for each style of a photo: which of its settings come from where.

    Args:
        photo: The file in the inbox.
        relative: Its path relative to the inbox.
        styles: The names of the styles that it is painted in.
        config: The configuration.
    """
    companions = companions_of(photo)
    settings, problem = _photo_settings(companions.get(SETTINGS_SUFFIX), config)
    if problem:
        yield f"its own settings are not valid: {problem}"
    for name in styles:
        style = config.styles.get(name)
        if style is None:
            continue
        parts = list(_parts(relative, name, style, settings, config))
        if len(parts) > 1 or settings is not None:  # all else is as the recipe says
            yield f"{name}: {'; '.join(parts)}"
    mask = settings.mask if settings is not None and settings.mask is not None else None
    if mask is None and MASK_SUFFIX in companions:
        mask = companions[MASK_SUFFIX].name
    if mask is not None:
        yield f"it is painted where {readable(mask)} is white"


def _parts(
    relative: str, name: str, style: Style, settings: PhotoSettings | None, config: Config
) -> Iterator[str]:
    final = style if settings is None else settings.applied_to(style)
    yield f"recipe {final.recipe.name}"
    base = RECIPES[final.recipe.name]
    if final.recipe.name == style.recipe.name:
        if changed := _changed(base, style.recipe):
            yield f"from the style: {changed}"
        base = style.recipe
    if changed := _changed(base, final.recipe):
        yield f"from its own settings: {changed}"
    outputs = (("the style", style.output), ("its own settings", settings and settings.output))
    for source, output in outputs:
        given = output.model_dump(exclude_none=True) if output else {}
        if given:
            yield f"output from {source}: {_listed(given)}"
    folder = relative.partition("/")[0]
    priority = config.priorities.of(relative, name)
    if priority:
        is_folders = "/" in relative and folder in config.priorities.folders
        yield f"priority {priority} from the {'folder' if is_folders else 'style'}"


def _photo_settings(path: Path | None, config: Config) -> tuple[PhotoSettings | None, str]:
    """Return the settings beside a photo, None if there are none; and what is wrong with them."""
    if path is None:
        return None, ""
    try:
        with open(open_regular(path), "rb") as file:
            data = file.read(MAX_BYTES + 1)
        return parse_photo_settings(data, path, config.styles), ""
    except OSError as error:
        return None, f"{readable(path.name)}: {error.strerror}"
    except ConfigError as error:
        return None, "; ".join(error.message.splitlines())


def _changed(before: Recipe, after: Recipe) -> str:
    """Return the fields of a recipe that differ, with their values."""
    old, new = asdict(before), asdict(after)
    return _listed({
        key: value for key, value in new.items() if value != old[key] and key != "source"
    })  # fmt: skip


def _listed(values: dict[str, object]) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in values.items())


def _text(value: object) -> str:
    if isinstance(value, dict):  # only what is set of a size
        value = {key: item for key, item in value.items() if item not in (None, False)}
    return value if isinstance(value, str) else json.dumps(value)

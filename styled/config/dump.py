"""Export the configuration: its JSON Schema for editors, its resolved values as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel

from styled.config.models import ConfigFile
from styled.config.resolved import Config, Style
from styled.recipes import Recipe


def config_schema() -> dict[str, object]:
    """Return the JSON Schema of the configuration file, for completion and checks in editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ConfigFile.model_json_schema(),
    }


def show_config(config: Config) -> str:
    """Return the resolved configuration as YAML; loading it gives the same configuration."""
    return yaml.safe_dump(config_data(config), sort_keys=False, allow_unicode=True)


def config_data(config: Config) -> dict[str, object]:
    """Return the resolved configuration as a file has it, in types that YAML and JSON have."""
    content: dict[str, object] = {
        field.name: _plain(getattr(config, field.name))
        for field in fields(config)
        if field.name
        not in ("base", "path", "priorities", "styles", "folders", "left_out", "styles_stamp")
    }
    priorities = config.priorities
    content["styles"] = {
        name: {**_style(style), "priority": priorities.styles.get(name, 0)}
        for name, style in config.styles.items()
    }
    content["folders"] = {
        name: {"styles": list(styles), "priority": priorities.folders.get(name)}
        for name, styles in config.folders.items()
    }
    return content


def _style(style: Style) -> dict[str, object]:
    images = [{"path": str(image.path), "weight": image.weight} for image in style.images]
    return {
        "images": images,
        "init_image": _plain(style.init_image),
        "proof": _plain(style.proof),
        "recipe": _recipe(style.recipe),
        "output": _plain(style.output),
    }


def _recipe(recipe: Recipe) -> dict[str, object]:
    """Return the fields of a recipe that can be configured: all but `source`, the citation."""
    return {
        field.name: _plain(getattr(recipe, field.name))
        for field in fields(recipe)
        if field.name != "source"
    }


def _plain(value: object) -> object:
    """Convert a value to the types that YAML has."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

"""Tests of the example configuration: it loads, is complete, and shows the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from styled.config import (
    ClusterConfig,
    ConfigFile,
    EngineConfig,
    IntakeConfig,
    MetricsConfig,
    OutputConfig,
    QueueConfig,
    RecipeOverrides,
    config_schema,
    load_config,
)
from styled.config.models import StyleEntry, StyleImageEntry
from styled.config.overrides import OptimizerOverrides, ScalesOverrides, SizeOverrides
from styled.recipes import PYRAMID

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
CHOICES_OF_THE_USER = {"default_style", "styles", "folders"}  # empty by default


@pytest.fixture(scope="module")
def example() -> dict[str, dict[str, dict[str, object]]]:
    """Return the content of the example, parsed by a plain YAML parser."""
    content: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    return content


def test_the_example_loads() -> None:
    """The example is valid, whatever folder it is in."""
    config = load_config(EXAMPLE)
    assert config.default_style == "starry-night"
    assert [image.weight for image in config.styles["two-masters"].images] == [0.7, 0.3]
    assert config.folders == {"all": ("starry-night", "two-masters"), "rush": ("starry-night",)}
    assert dict(config.priorities.folders) == {"rush": 10}


def test_the_example_passes_the_schema(example: object) -> None:
    """The example is valid according to the published JSON Schema."""
    assert not list(Draft202012Validator(config_schema()).iter_errors(example))


def test_the_example_shows_every_key(example: dict[str, dict[str, dict[str, object]]]) -> None:
    """The example has all fields of the file, of each section and of a style."""
    assert set(example) == set(ConfigFile.model_fields)
    sections: dict[str, type[BaseModel]] = {
        "engine": EngineConfig,
        "cluster": ClusterConfig,
        "intake": IntakeConfig,
        "queue": QueueConfig,
        "output": OutputConfig,
        "metrics": MetricsConfig,
    }
    for section, model in sections.items():
        assert set(example[section]) == set(model.model_fields)
    styles = example["styles"].values()
    assert {key for style in styles for key in style} == set(StyleEntry.model_fields)
    images = example["styles"]["two-masters"]["images"]
    assert isinstance(images, list)
    assert set(images[0]) == set(StyleImageEntry.model_fields)


@pytest.mark.parametrize(
    ("field", "model"),
    [
        (None, RecipeOverrides),
        ("size", SizeOverrides),
        ("scales", ScalesOverrides),
        ("optimizer", OptimizerOverrides),
    ],
)
def test_the_example_shows_every_field_of_a_recipe(
    example: dict[str, dict[str, dict[str, object]]], field: str | None, model: type[BaseModel]
) -> None:
    """The example shows all fields of a recipe that can be overridden."""
    shown = example["styles"]["starry-night"]["overrides"]
    assert isinstance(shown, dict)
    assert set(shown[field] if field else shown) == set(model.model_fields)


def test_the_example_shows_the_defaults() -> None:
    """All settings except styles and folders have their default value in the example."""
    file = ConfigFile.model_validate(yaml.safe_load(EXAMPLE.read_text("utf-8")))
    default = ConfigFile()
    for name in set(ConfigFile.model_fields) - CHOICES_OF_THE_USER:
        assert getattr(file, name) == getattr(default, name), name


def test_the_example_shows_the_default_recipe_at_its_values() -> None:
    """The overrides of the style that lists every field are the values of the recipe."""
    assert load_config(EXAMPLE).styles["starry-night"].recipe == PYRAMID

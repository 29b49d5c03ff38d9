"""Tests of `styled recipes` and `styled config`."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from styled.cli.init import init_folder
from styled.config import apply_set_options
from styled.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from tests.cli.conftest import Run


def test_all_recipes_are_listed(run: Run) -> None:
    """Each recipe has a row, and one of them is marked as the default."""
    result = run("recipes")
    assert result.exit_code == 0
    rows = [line.split()[0] for line in result.output.splitlines()[1:] if line.strip()]
    assert rows == list(RECIPES)
    assert result.output.count("(default)") == 1
    assert f"{DEFAULT_RECIPE} (default)" in result.output


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_is_shown_with_every_value(run: Run, recipe: Recipe) -> None:
    """The output is YAML with all fields, whose names and values are valid for `--set`."""
    shown = yaml.safe_load(run("recipes", recipe.name).output)
    assert set(shown) == set(Recipe.__slots__)
    assert shown["name"] == recipe.name
    settings = [f"steps={shown['steps']}", f"tv_weight={shown['tv_weight']}"]
    assert apply_set_options(settings, recipe) == recipe


def test_an_unknown_recipe_is_78(run: Run) -> None:
    """The error for a typo suggests the closest name."""
    result = run("recipes", "pyramyd")
    assert result.exit_code == 78
    assert "pyramyd" in result.output
    assert "pyramid" in result.output


def test_the_schema_describes_the_configuration_that_init_writes(run: Run, cwd: Path) -> None:
    """The configuration of `styled init` is valid according to `styled config schema`."""
    schema = json.loads(run("config", "schema").output)
    config = yaml.safe_load(init_folder(cwd).config.read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"inbocks": "a"}, schema)


def test_the_resolved_configuration_is_shown(run: Run, cwd: Path) -> None:
    """`config show` prints YAML with the values of all settings."""
    init_folder(cwd)
    shown = yaml.safe_load(run("config", "show").output)
    assert shown["styles"]["red-trees"]["recipe"]["size"]["long_edge"] == 512
    assert shown["queue"]["max_attempts"] == 3

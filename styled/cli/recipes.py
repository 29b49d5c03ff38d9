"""`styled recipes`: lists the recipes, or shows the values of one."""

from __future__ import annotations

import json
from dataclasses import asdict

import yaml
from rich.table import Table

from styled.cli.exit_codes import console
from styled.config import resolve_recipe
from styled.recipes import DEFAULT_RECIPE, RECIPES


def show_recipes() -> None:
    """Print a table of all recipes."""
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "optimiser", "steps", "style loss", "start", "size"):
        table.add_column(heading)
    for name, recipe in RECIPES.items():
        size = {key: value for key, value in asdict(recipe.size).items() if value}
        table.add_row(
            f"{name} (default)" if name == DEFAULT_RECIPE else name,
            f"{recipe.optimizer.name} {recipe.optimizer.learning_rate:g}",
            f"{recipe.steps} a scale" if recipe.scales else str(recipe.steps),
            recipe.style_loss,
            recipe.init,
            ", ".join(f"{key} {value}" for key, value in size.items()),
        )
    console.print(table)


def show_recipe(name: str) -> None:
    """Print all values of a recipe as YAML, with the keys that override them.

    Raises:
        ConfigError: There is no such recipe.
    """
    values = asdict(resolve_recipe(name))
    # The conversion to JSON and back turns tuples into lists, which `safe_dump` supports.
    print(yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False), end="")

"""`styled recipes`."""

from __future__ import annotations

import json
from dataclasses import asdict

import yaml
from rich.table import Table

from styled.cli.exits import console
from styled.config import resolve_recipe
from styled.recipes import DEFAULT_RECIPE, RECIPES


def show_recipes() -> None:
    """List all recipes."""
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
    """Print every value of one recipe, in the form in which it is overridden.

    Raises:
        ConfigError: there is no such recipe.
    """
    values = asdict(resolve_recipe(name))
    # Through JSON, because YAML would mark tuples as such.
    print(yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False), end="")

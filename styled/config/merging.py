"""A recipe and its overrides become a recipe."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel

from styled.config.overrides import (
    SIZE_CHOICES,
    OptimizerOverrides,
    RecipeOverrides,
    ScalesOverrides,
    SizeOverrides,
)
from styled.config.wording import hint, quoted
from styled.errors import ConfigError
from styled.recipes import IMAGENET_STD, RECIPES, Optimizer, OptimizerName, Recipe, Scales, Size

Record = TypeVar("Record", Recipe, Size, Optimizer, Scales)

_METHODS: Mapping[OptimizerName, Optimizer] = {
    "lbfgs": Optimizer(name="lbfgs", history=5, reach=0.05, rounding=0.01, by_frequency=True),
    "adam": Optimizer(name="adam", learning_rate=0.02, betas=(0.9, 0.99)),
}
"""What an optimiser is given that is chosen in place of the recipe's, by name alone.

Nothing of one method suits another: its rate is far off, its decay ends the other too early.
These are for pixels in [0, 1].
"""


def resolve_recipe(name: str, *overrides: RecipeOverrides) -> Recipe:
    """Return the named recipe with the overrides applied, the last one having the last word.

    Raises:
        ConfigError: There is no recipe of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {quoted(name)}{hint(name, RECIPES, 'recipes')}")
    recipe = RECIPES[name]
    for layer in overrides:
        recipe = apply_overrides(recipe, layer)
    return recipe


def apply_overrides(recipe: Recipe, overrides: RecipeOverrides) -> Recipe:
    """Return the recipe with every field replaced that the overrides give."""
    changes = _given(overrides)
    changes.pop("name", None)  # of a RecipeChoice: it has been looked up by now
    if overrides.size is not None:
        changes["size"] = _apply_size(recipe.size, overrides.size)
    if isinstance(overrides.style_size, SizeOverrides):
        own = recipe.style_size if isinstance(recipe.style_size, Size) else Size()
        changes["style_size"] = _apply_size(own, overrides.style_size)
    if overrides.optimizer is not None:
        changes["optimizer"] = _apply_optimizer(recipe, overrides.optimizer)
    if "scales" in overrides.model_fields_set:
        changes["scales"] = _apply_scales(recipe.scales, overrides.scales)
    return _replaced(recipe, changes)


def _apply_size(size: Size, overrides: SizeOverrides) -> Size:
    changes = _given(overrides)
    if any(name in changes for name in SIZE_CHOICES):
        changes = dict.fromkeys(SIZE_CHOICES) | changes
    return _replaced(size, changes)


def _apply_optimizer(recipe: Recipe, overrides: OptimizerOverrides) -> Optimizer:
    optimizer = recipe.optimizer
    if overrides.name not in (None, optimizer.name):
        optimizer = _METHODS[overrides.name]
        if recipe.space == "normalized":
            unit = statistics.fmean(IMAGENET_STD)
            optimizer = replace(
                optimizer, reach=optimizer.reach / unit, rounding=optimizer.rounding / unit
            )
    return _replaced(optimizer, _given(overrides))


def _apply_scales(scales: Scales | None, overrides: ScalesOverrides | None) -> Scales | None:
    if overrides is None:
        return None
    return _replaced(scales or Scales(), _given(overrides))


def _given(overrides: BaseModel) -> dict[str, object]:
    """Return the fields that have a value; null means "as the recipe has it"."""
    return {name: value for name, value in overrides if value is not None}


def _replaced(record: Record, changes: Mapping[str, object]) -> Record:
    # A test proves that the models have exactly the records' fields.
    return replace(record, **changes)  # type: ignore[arg-type]  # validated by the models

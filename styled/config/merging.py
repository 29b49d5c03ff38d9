"""Apply overrides to recipes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel

from styled.config.messages import hint, quoted
from styled.config.overrides import (
    SIZE_CHOICES,
    OptimizerOverrides,
    RecipeOverrides,
    ScalesOverrides,
    SizeOverrides,
)
from styled.errors import ConfigError
from styled.recipes import (
    IMAGENET_STD,
    RECIPES,
    OptimizerName,
    OptimizerSettings,
    Recipe,
    Scales,
    Size,
)

RecipePart = TypeVar("RecipePart", Recipe, Size, OptimizerSettings, Scales)

_OPTIMIZER_DEFAULTS: Mapping[OptimizerName, OptimizerSettings] = {
    "lbfgs": OptimizerSettings(
        name="lbfgs", history=5, trust_radius=0.05, tv_smoothing=0.01, frequency_preconditioner=True
    ),
    "adam": OptimizerSettings(name="adam", learning_rate=0.02, betas=(0.9, 0.99)),
}
"""Default settings of an optimiser that replaces the recipe's own, if only its name is given.

The recipe's settings are not kept, because they suit only its own method: the learning rate would
be wrong by far, and the decay would end the other method too early. Values are for pixels in
[0, 1].
"""


def resolve_recipe(name: str, *overrides: RecipeOverrides) -> Recipe:
    """Return the named recipe with the overrides applied in order: the last one wins.

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
    """Return the recipe with all fields replaced that are set in the overrides."""
    changes = _non_null_fields(overrides)
    changes.pop("name", None)  # from a RecipeChoice: it selected `recipe`
    if overrides.size is not None:
        changes["size"] = _apply_size(recipe.size, overrides.size)
    if isinstance(overrides.style_size, SizeOverrides):
        current = recipe.style_size if isinstance(recipe.style_size, Size) else Size()
        changes["style_size"] = _apply_size(current, overrides.style_size)
    if overrides.optimizer is not None:
        changes["optimizer"] = _apply_optimizer(recipe, overrides.optimizer)
    if "scales" in overrides.model_fields_set:
        changes["scales"] = _apply_scales(recipe.scales, overrides.scales)
    return _replace_fields(recipe, changes)


def _apply_size(size: Size, overrides: SizeOverrides) -> Size:
    changes = _non_null_fields(overrides)
    if any(name in changes for name in SIZE_CHOICES):
        changes = dict.fromkeys(SIZE_CHOICES) | changes
    return _replace_fields(size, changes)


def _apply_optimizer(recipe: Recipe, overrides: OptimizerOverrides) -> OptimizerSettings:
    optimizer = recipe.optimizer
    if overrides.name not in (None, optimizer.name):
        optimizer = _OPTIMIZER_DEFAULTS[overrides.name]
        if recipe.space == "normalized":
            mean_std = statistics.fmean(IMAGENET_STD)
            optimizer = replace(
                optimizer,
                trust_radius=optimizer.trust_radius / mean_std,
                tv_smoothing=optimizer.tv_smoothing / mean_std,
            )
    return _replace_fields(optimizer, _non_null_fields(overrides))


def _apply_scales(scales: Scales | None, overrides: ScalesOverrides | None) -> Scales | None:
    if overrides is None:
        return None
    return _replace_fields(scales or Scales(), _non_null_fields(overrides))


def _non_null_fields(overrides: BaseModel) -> dict[str, object]:
    """Return the fields that have a value; null means "keep the recipe's value"."""
    return {name: value for name, value in overrides if value is not None}


def _replace_fields(record: RecipePart, changes: Mapping[str, object]) -> RecipePart:
    # A test checks that the models have exactly the fields of the recipe's dataclasses.
    return replace(record, **changes)  # type: ignore[arg-type]  # validated by the models

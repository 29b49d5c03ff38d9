"""Tests of recipe overrides: which values are valid, and how they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import pytest
from pydantic import BaseModel, ValidationError

from styled.config import RecipeOverrides, apply_overrides
from styled.config.overrides import OptimizerOverrides, ScalesOverrides, SizeOverrides
from styled.recipes import D2L, LAYER_NAMES, PYRAMID, OptimizerSettings, Recipe, Scales, Size


def overridden(data: Mapping[str, object], recipe: Recipe = PYRAMID) -> Recipe:
    """Return the recipe with overrides applied that are given as in a file."""
    return apply_overrides(recipe, RecipeOverrides.model_validate(data))


@pytest.mark.parametrize(
    ("model", "record", "not_overridable"),
    [
        (RecipeOverrides, Recipe, {"name", "source"}),
        (SizeOverrides, Size, set()),
        (ScalesOverrides, Scales, set()),
        (OptimizerOverrides, OptimizerSettings, set()),
    ],
)
def test_every_field_of_a_recipe_can_be_overridden(
    model: type[BaseModel], record: type, not_overridable: set[str]
) -> None:
    """The override models have the same fields as the dataclasses of a recipe."""
    assert set(model.model_fields) == {field.name for field in fields(record)} - not_overridable


def test_every_field_is_described() -> None:
    """Each field has a description, which editors show."""
    for model in (RecipeOverrides, SizeOverrides, ScalesOverrides, OptimizerOverrides):
        for name, field in model.model_fields.items():
            assert field.description, name


def test_no_overrides_change_nothing() -> None:
    """Absent keys and null do not change the recipe."""
    assert overridden({}) == PYRAMID
    assert overridden({"steps": None, "size": None, "optimizer": {"history": None}}) == PYRAMID


def test_plain_fields_are_replaced() -> None:
    """An override replaces the recipe's value; the layers are replaced as a whole."""
    recipe = overridden({"steps": 3, "pooling": "average", "style_layers": {"conv3_1": 1}})
    assert recipe == replace(PYRAMID, steps=3, pooling="average", style_layers={"conv3_1": 1.0})


@pytest.mark.parametrize(
    ("override", "size"),
    [
        ({"short_edge": 300}, Size(short_edge=300)),
        ({"megapixels": 0.5}, Size(megapixels=0.5)),
        ({"exact": [300, 450]}, Size(exact=(300, 450))),
        ({"upscale": True}, Size(long_edge=512, upscale=True)),
        ({"exact": [300, 450], "upscale": True}, Size(exact=(300, 450), upscale=True)),
    ],
)
def test_one_size_takes_the_place_of_another(override: Mapping[str, object], size: Size) -> None:
    """Setting one kind of size clears the other kinds; `upscale` is independent of them."""
    assert overridden({"size": override}).size == size


def test_scales_may_be_changed_in_part_or_switched_off() -> None:
    """Null means a single scale; overriding one field of the scales keeps the others."""
    single = overridden({"scales": None})
    assert single.scales is None
    changed = overridden({"scales": {"start_px": 64}}).scales
    assert changed == Scales(start_px=64, factor=1.6, steps=15)
    assert overridden({"scales": {"factor": 2}}, single).scales == Scales(factor=2)
    changed = overridden({"scales": {"steps": 9}}).scales
    assert changed == Scales(start_px=100, factor=1.6, steps=9)


def test_another_optimizer_comes_with_its_own_settings() -> None:
    """Learning rate, decay and trust radius are kept only if the optimiser stays the same."""
    adam = overridden({"optimizer": {"name": "adam"}})
    assert adam.optimizer == OptimizerSettings(name="adam", learning_rate=0.02, betas=(0.9, 0.99))
    lbfgs = overridden({"optimizer": {"name": "lbfgs"}}, adam).optimizer
    assert lbfgs == OptimizerSettings(
        name="lbfgs", history=5, trust_radius=0.05, tv_smoothing=0.01, frequency_preconditioner=True
    )
    chosen = overridden({"optimizer": {"name": "adam", "learning_rate": 0.3}})
    assert chosen.optimizer.learning_rate == 0.3
    assert overridden({"optimizer": {"name": "adam"}}, chosen) == chosen
    assert overridden({"optimizer": {"betas": [0.8, 0.9]}}, chosen).optimizer == (
        OptimizerSettings(name="adam", learning_rate=0.3, betas=(0.8, 0.9))
    )


def test_what_an_optimizer_comes_with_is_in_the_units_of_the_recipe() -> None:
    """With normalised pixels the default radius is divided by their mean std: 0.05 / 0.226."""
    lbfgs = overridden({"optimizer": {"name": "lbfgs"}}, D2L).optimizer
    assert lbfgs.trust_radius == pytest.approx(0.2212, abs=1e-4)
    assert lbfgs.tv_smoothing == pytest.approx(0.0442, abs=1e-4)
    assert (lbfgs.learning_rate, lbfgs.decay_every) == (1.0, 0)


@pytest.mark.parametrize(
    "data",
    [
        {"content_weight": -1},
        {"steps": 0},
        {"steps": 100_001},
        {"steps": 2.0},
        {"steps": True},
        {"seed": -1},
        {"style_scale": 0},
        {"trace_every": 0},
        {"normalize_input": 1},
        {"pooling": "mean"},
        {"size": {"long_edge": 31}},
        {"size": {"exact": [300]}},
        {"size": {"exact": [300, 450, 3]}},
        {"size": {"long_edge": 300, "megapixels": 1}},
        {"scales": {"factor": 1}},
        {"optimizer": {"learning_rate": 0}},
        {"optimizer": {"history": 101}},
        {"optimizer": {"betas": [0.9, 1]}},
        {"content_layers": {}},
        {"content_layers": {"relu4_2": 0}},
        {"content_layers": {"relu4_2": -1, "relu4_1": 2}},
        {"content_layers": {"relu6_1": 1}},
        {"name": "gatys"},
    ],
)
def test_values_out_of_range_are_refused(data: Mapping[str, object]) -> None:
    """Values that the engine does not support are invalid."""
    with pytest.raises(ValidationError):
        RecipeOverrides.model_validate(data)


def test_every_layer_of_the_network_may_be_used() -> None:
    """All layer names of the recipes are valid in overrides."""
    weights = dict.fromkeys(LAYER_NAMES, 1.0)
    assert overridden({"content_layers": weights}).content_layers == weights

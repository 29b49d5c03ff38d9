"""Strength: how far a painting departs from its photo, the same for all recipes and networks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from styled.engine.memory_estimate import MemoryEstimate
from styled.engine.objective import Objective, layer_features, style_targets
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.recipes import RECIPES, Recipe, Scales, effective, style_share
from tests.benchmarks.strength import is_monotone, measure
from tests.engine.conftest import SHALLOW, picture, untrained
from tests.trained_ranges import with_trained_ranges

STRENGTHS = (0, 25, 50, 100)

PHOTO, STYLE = picture(64, 48), picture(60, 64, seed=1)


def short(recipe: Recipe) -> Recipe:
    """Return a recipe that takes a second for a small picture."""
    layers = {"content_layers": SHALLOW.content_layers, "style_layers": SHALLOW.style_layers}
    scales = Scales(start_px=48, steps=8) if recipe.scales else None
    # A step of `d2l` at its own rate moves the last image by more than these differences.
    optimizer = recipe.optimizer
    if recipe.name == "d2l":
        optimizer = replace(optimizer, learning_rate=0.03)
    return replace(
        recipe, **layers, optimizer=optimizer, steps=25, scales=scales, style_size="scaled"  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("name", list(RECIPES))
def test_content_and_style_are_monotone(network: Vgg19, name: str) -> None:
    """From the photo itself to far from it; see docs/recipes.md for real photos and paintings."""
    results = measure(network, PHOTO, STYLE, short(RECIPES[name]), STRENGTHS)
    assert is_monotone(results[:3]), results
    # Above 50 so few steps on so small a picture are no measure of the content; see
    # tests/benchmarks/strength.py.
    assert results[3].style <= 1.05 * results[2].style
    assert results[0].difference < 0.02
    lower = [one.difference for one in results[:3]]
    assert all(before < after for before, after in pairwise(lower))
    assert results[-1].style < results[0].style


def test_it_holds_for_a_network_with_the_ranges_of_a_trained_one() -> None:
    """The scale of the features and of the weights does not matter."""
    network = Vgg19(with_trained_ranges(untrained()))
    results = measure(network, PHOTO, STYLE, short(RECIPES["pyramid"]), STRENGTHS[:3])
    assert is_monotone(results), results
    assert results[0].difference < 0.02


def test_fifty_is_the_recipe_as_it_is(network: Vgg19) -> None:
    """Bit for bit, for all recipes."""
    for recipe in RECIPES.values():
        assert effective(recipe) == recipe
        assert style_share(recipe) == 1


@pytest.mark.parametrize(
    ("name", "style_factor", "tv_factor"),
    [("pyramid", 100, 1), ("avgpool", 100, 100), ("d2l", 10, 10**0.6), ("gatys", 1e4, 1)],
)
def test_above_fifty_the_weights_grow_exponentially(
    name: str, style_factor: float, tv_factor: float
) -> None:
    """As the table in docs/recipes.md says: at 75, halfway, by the root of the factor at 100."""
    recipe = RECIPES[name]
    for strength, power in ((75, 0.5), (100, 1)):
        strong = effective(replace(recipe, strength=strength))
        assert strong.content_weight == recipe.content_weight
        assert strong.style_weight == pytest.approx(recipe.style_weight * style_factor**power)
        assert strong.tv_weight == pytest.approx(recipe.tv_weight * tv_factor**power)


def test_at_strength_zero_coarser_scales_leave_the_photo_as_it_is(network: Vgg19) -> None:
    """Enlarging a coarse painting loses detail, which comes back from the photo."""
    recipe = replace(short(RECIPES["pyramid"]), scales=Scales(start_px=32, steps=4))
    noisy = PHOTO + 0.1 * torch.randn(PHOTO.shape, generator=torch.Generator().manual_seed(1))
    photo = noisy.clamp(0, 1)
    (zero,) = measure(network, photo, STYLE, recipe, (0,))
    assert zero.difference < 1 / 255


def test_a_transparent_photo_at_strength_zero_stays_as_it_is(network: Vgg19) -> None:
    """The photo as its own style is weighted by its opacity like the style would be."""
    alpha = torch.ones(1, 1, 48, 64)
    alpha[..., 32:] = 0
    photo = torch.cat([PHOTO, alpha], dim=1)
    (run,) = [stylize(network, photo, [(STYLE, 1.0)], replace(short(SHALLOW), strength=0.0))]
    while True:
        try:
            next(run)
        except StopIteration as end:
            image = end.value.image
            break
    assert float((image - PHOTO)[..., :28].abs().max()) < 0.02


def test_the_weights_of_several_styles_keep_their_ratio(network: Vgg19) -> None:
    """At strength 40, 0.6 and 0.2 of the target are the styles', and 0.2 is the photo's."""
    seen: list[list[float]] = []

    def targets_of(network, recipe, styles, tile_px):  # type: ignore[no-untyped-def]
        seen.append([weight for _, weight in styles])
        raise KeyboardInterrupt

    recipe = replace(short(SHALLOW), strength=40.0)
    run = stylize(network, PHOTO, [(STYLE, 3.0), (PHOTO, 1.0)], recipe, targets_of=targets_of)
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert seen == [pytest.approx([2.4, 0.8, 0.8])]


def test_the_memory_of_the_photo_as_a_style_is_estimated(network: Vgg19) -> None:
    """It is one style more."""
    one = MemoryEstimate.of(network, SHALLOW, PHOTO, [(STYLE, 1.0)])
    two = MemoryEstimate.of(network, SHALLOW, PHOTO, [(STYLE, 1.0), (PHOTO, 1.0)])
    assert len(two.styles) == len(one.styles) + 1


class _ScaledGradients(torch.autograd.Function):
    """What neural-style-pt puts behind each loss: its gradient is normalised, then weighted."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad / (grad.norm() + 1e-8) * ctx.weight**2, None


def test_normalized_gradients_are_those_of_neural_style_pt(network64: Vgg19) -> None:
    """By automatic differentiation of the losses, with that function behind each of them."""
    recipe = replace(
        RECIPES["gatys"], content_layers={"relu2_2": 1.0}, content_weight=3.0, style_weight=50.0,
        style_layers={"relu1_1": 0.5, "relu2_1": 0.2}, normalize_gradients=True, space="srgb",
    )  # fmt: skip
    photo, style = PHOTO.double(), picture(64, 48, seed=1).double()
    image = picture(64, 48, seed=2).double()
    targets = style_targets(network64, recipe, [(style, 1.0)])
    objective = Objective(network64, effective(recipe), photo, targets)
    _, gradient = objective.evaluate(image)
    image.requires_grad_()
    layers = {**recipe.content_layers, **recipe.style_layers}
    features = layer_features(network64, recipe, image, layers)
    with torch.no_grad():
        wanted = layer_features(network64, recipe, photo, recipe.content_layers)["relu2_2"]
        of_style = layer_features(network64, recipe, style, recipe.style_layers)
    losses = [(0.5 * (features["relu2_2"] - wanted).square().sum(), recipe.content_weight)]
    for name, weight in recipe.style_layers.items():
        gram, count, channels = _gram(features[name])
        difference = gram - _gram(of_style[name])[0]
        losses.append((
            difference.square().sum() / (4 * channels**2 * count**2), recipe.style_weight * weight
        ))  # fmt: skip
    total = torch.stack([
        _ScaledGradients.apply(loss, weight) * weight for loss, weight in losses
    ]).sum()  # fmt: skip
    (expected,) = torch.autograd.grad(total, image)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-9)


def _gram(features: Tensor) -> tuple[Tensor, int, int]:
    """Return the Gram matrix, the number of positions and that of channels."""
    rows = features[0].flatten(1)
    return rows @ rows.T, rows.shape[1], rows.shape[0]


def test_normalized_gradients_square_the_weights() -> None:
    """As neural-style-pt scales the gradient of each term: by its sign, times its weight twice."""
    recipe = replace(RECIPES["gatys"], normalize_gradients=True)
    squared = effective(recipe)
    weight = torch.tensor(recipe.style_weight * recipe.style_layers["relu3_1"])
    normalised = weight / (weight.norm() + 1e-8) * weight * weight
    assert squared.style_weight * squared.style_layers["relu3_1"] == pytest.approx(
        float(normalised), rel=1e-6
    )
    assert squared.content_weight == recipe.content_weight**2

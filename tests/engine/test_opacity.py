"""Transparent pixels are excluded from losses and statistics, with and without tiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from styled.engine.color import (
    color_statistics,
    keep_colors,
    match_histogram,
    recolored_styles,
)
from styled.engine.guard import RunSettings
from styled.engine.losses import content_loss, moments
from styled.engine.memory_estimate import MemoryEstimate
from styled.engine.objective import Objective, layer_features, style_targets, to_space
from styled.engine.opacity import Opacity, split_opacity, with_opacity
from styled.engine.style_losses import WassersteinTarget
from styled.engine.stylize import stylize
from styled.engine.tiling import receptive_margin, tiles
from styled.engine.vgg import Vgg19
from styled.engine_api import PixelSize
from styled.recipes import PYRAMID, RECIPES, Init, PreserveColor, Recipe, Scales
from tests.engine.conftest import driven, picture

SHALLOW = replace(
    PYRAMID,
    content_layers={"relu2_2": 1.0},
    style_layers={"relu1_1": 0.6, "relu2_1": 0.4},
)


def transparent_from(column: int, image: Tensor) -> Tensor:
    """Return the image with opacity: opaque to the left of a column, transparent from it on."""
    opacity = torch.ones_like(image[:, :1])
    opacity[..., column:] = 0
    return with_opacity(image, opacity)


def test_opacity_is_split_off_and_put_back() -> None:
    """Three channels have no opacity; with four it is the last one."""
    image, opacity = picture(40, 32), picture(40, 32, 1)[:, :1]
    assert split_opacity(image)[1] is None
    colors, split = split_opacity(with_opacity(image, opacity))
    assert torch.equal(colors, image)
    assert split is not None
    assert torch.equal(split, opacity)


def test_moments_of_what_counts_are_those_of_a_picture_of_only_that() -> None:
    """Weights of zero and one select positions; scaling all weights changes no mean."""
    features = torch.randn(1, 5, 6, 8, dtype=torch.float64)
    weights = torch.zeros(1, 1, 6, 8, dtype=torch.float64)
    weights[..., :3] = 1
    selected, alone = moments(features, weights), moments(features[..., :3])
    assert selected.positions == alone.positions == 18
    torch.testing.assert_close(selected.mean, alone.mean)
    torch.testing.assert_close(selected.gram, alone.gram)
    halved = moments(features, weights / 2)
    torch.testing.assert_close(halved.mean, alone.mean)
    torch.testing.assert_close(halved.covariance(), alone.covariance())


def test_a_position_counts_as_its_pixels_are_opaque() -> None:
    """A position of relu2_1 has the mean opacity of four pixels."""
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., 0, 0] = 1
    alpha[..., 0:2, 2:4] = 0.5
    opacity = Opacity(alpha, ["relu1_1", "relu2_1"])
    (tile,) = tiles(32, 32, None, ["relu2_1"])
    weights = opacity.weights(tile, "relu2_1")
    assert weights.shape == (1, 1, 16, 16)
    assert weights[0, 0, 0, :3].tolist() == pytest.approx([0.25, 0.5, 0], abs=1e-5)
    assert opacity.positions("relu1_1") == pytest.approx(3, abs=1e-2)


def test_all_opaque_is_the_same_as_no_opacity(network: Vgg19) -> None:
    """Loss and gradient agree to rounding, for a style and a photo with four channels."""
    content, style, image = picture(64, 48), picture(48, 64, 1), picture(64, 48, 2)
    ones = torch.ones(1, 1, 48, 64)
    plain = style_targets(network, PYRAMID, [(style, 1.0)])
    masked = style_targets(network, PYRAMID, [(with_opacity(style, ones.mT), 1.0)])
    losses, gradient = Objective(network, PYRAMID, content, plain).evaluate(image)
    again, same = Objective(network, PYRAMID, with_opacity(content, ones), masked).evaluate(image)
    assert again.total == pytest.approx(losses.total, rel=1e-5)
    torch.testing.assert_close(same, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_a_style_is_what_is_opaque_of_it(network: Vgg19) -> None:
    """Transparent pixels outside all receptive fields do not change the targets."""
    style = picture(128, 48)
    other = style.clone()
    other[..., 64 + receptive_margin(SHALLOW.style_layers) :] = 0.9
    first, second = (
        style_targets(network, SHALLOW, [(transparent_from(64, image), 1.0)])
        for image in (style, other)
    )
    opaque = style_targets(network, SHALLOW, [(other, 1.0)])
    for name in SHALLOW.style_layers:
        one, two, whole = first[name], second[name], opaque[name]
        assert isinstance(one, WassersteinTarget)
        assert isinstance(two, WassersteinTarget)
        assert isinstance(whole, WassersteinTarget)
        torch.testing.assert_close(one.mean, two.mean, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(one.mean, whole.mean, rtol=1e-2, atol=1e-3)


def test_nothing_pulls_at_pixels_that_only_transparent_positions_see(network: Vgg19) -> None:
    """Without total variation their gradient is zero, up to the minimum weight of positions."""
    recipe = replace(SHALLOW, tv_loss="none")
    image, style = picture(128, 48, 2), picture(64, 64, 1)
    targets = style_targets(network, recipe, [(style, 1.0)])
    content = transparent_from(64, picture(128, 48))
    _, gradient = Objective(network, recipe, content, targets).evaluate(image)
    layers = {**recipe.content_layers, **recipe.style_layers}
    beyond = 64 + receptive_margin(layers) + 2
    assert float(gradient[..., beyond:].abs().max()) < 1e-4 * float(gradient.abs().max())


def test_the_gradient_is_that_of_the_weighted_losses(network64: Vgg19) -> None:
    """It equals autograd's gradient of a direct implementation of the weighted losses."""
    recipe = replace(SHALLOW, tv_loss="none", pooling="average")
    content, style = picture(48, 40).double(), picture(40, 48, 1).double()
    image = picture(48, 40, 2).double().requires_grad_()
    alpha = picture(48, 40, 3)[:, :1].double()
    targets = style_targets(network64, recipe, [(style, 1.0)])
    opacity = Opacity(alpha, [*recipe.content_layers, *recipe.style_layers])
    (tile,) = tiles(40, 48, None, recipe.content_layers)

    features = layer_features(network64, recipe, image, {**recipe.content_layers,
                                                     **recipe.style_layers})  # fmt: skip
    with torch.no_grad():
        photo = layer_features(network64, recipe, content, recipe.content_layers)
    total = torch.zeros((), dtype=torch.float64)
    for name, weight in recipe.style_layers.items():
        w = opacity.weights(tile, name)
        share = w / w.sum()
        flat, share = features[name].flatten(2)[0], share.flatten()
        mean = (flat * share).sum(dim=1)
        centred = flat - mean[:, None]
        covariance = (centred * share) @ centred.T + 1e-4 * torch.eye(len(flat))
        target = targets[name]
        assert isinstance(target, WassersteinTarget)
        values = torch.linalg.eigvalsh(target.factor.columns.T @ covariance @ target.factor.columns)
        spread = covariance.trace() + target.trace - 2 * values.clamp(min=1e-20).sqrt().sum()
        total = total + weight * ((mean - target.mean).square().mean() + spread / len(flat))
    for name, weight in recipe.content_layers.items():
        w = opacity.weights(tile, name)
        squares = (features[name] - photo[name]).square() * w
        term = squares.sum() / (features[name].shape[1] * w.sum())
        total = total + recipe.content_weight * weight * term
    (expected,) = torch.autograd.grad(total, image)

    objective = Objective(network64, recipe, with_opacity(content, alpha), targets)
    losses, gradient = objective.evaluate(image.detach())
    assert losses.total == pytest.approx(float(total.detach()), rel=1e-6)
    torch.testing.assert_close(
        gradient, expected, rtol=1e-4, atol=1e-7 * float(expected.abs().max())
    )


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_tiles_make_no_difference_to_opacity(network: Vgg19, recipe: Recipe) -> None:
    """Loss and gradient in tiles are those of the whole picture, for every recipe."""
    content, style, image = picture(200, 40), picture(80, 56, 1), picture(200, 40, 2)
    image, tiled = to_space(recipe, image), 64
    alpha = (picture(200, 40, 3)[:, :1] * 2 - 0.5).clamp(0, 1)
    alpha[..., :64] = 0  # one tile counts for nothing at all
    masked = with_opacity(content, alpha)
    targets = style_targets(network, recipe, [(style, 1.0)])
    whole, gradient = Objective(network, recipe, masked, targets).evaluate(image)
    parts, same = Objective(network, recipe, masked, targets, tiled).evaluate(image)
    assert parts.total == pytest.approx(whole.total, rel=1e-4)
    torch.testing.assert_close(same, gradient, rtol=0, atol=2e-3 * float(gradient.abs().max()))


def test_a_picture_that_is_transparent_all_over_still_has_a_finite_loss(network: Vgg19) -> None:
    """This can happen at a coarse scale; all positions then have the same weight."""
    content, style = picture(48, 40), picture(40, 48, 1)
    nothing = with_opacity(content, torch.zeros(1, 1, 40, 48))
    targets = style_targets(network, PYRAMID, [(style, 1.0)])
    losses, gradient = Objective(network, PYRAMID, nothing, targets).evaluate(picture(48, 40, 2))
    usual, _ = Objective(network, PYRAMID, content, targets).evaluate(picture(48, 40, 2))
    assert losses.total == pytest.approx(usual.total, rel=1e-3)
    assert bool(gradient.isfinite().all())


def test_weights_scale_the_content_loss() -> None:
    """With half of all positions, mean and sum are over that half."""
    features, target = torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    weights = torch.zeros(1, 1, 4, 4)
    weights[..., :2] = 1
    assert float(content_loss("mean_squared", features, target, 16, weights)) == 1
    assert float(content_loss("half_sum_squared", features, target, 16, weights)) == 8


def test_statistics_of_colours_are_of_what_is_opaque() -> None:
    """Mean, covariance and histogram ignore transparent pixels."""
    image = picture(64, 48)
    masked = transparent_from(32, image)
    mean, covariance = color_statistics(masked)
    expected_mean, expected_covariance = color_statistics(image[..., :32])
    torch.testing.assert_close(mean, expected_mean)
    torch.testing.assert_close(covariance, expected_covariance)
    matched = match_histogram(transparent_from(32, picture(64, 48, 1)), masked)
    for channel in range(3):
        assert torch.equal(
            matched[0, channel, :, :32].flatten().sort().values,
            image[0, channel, :, :32].flatten().sort().values,
        )
    assert torch.equal(matched[:, :3, :, 32:], picture(64, 48, 1)[..., 32:])


@pytest.mark.parametrize("kind", ["luminance", "histogram", "affine"])
def test_keeping_colours_goes_with_opacity(kind: PreserveColor) -> None:
    """The opaque part is the same as if it were the whole image."""
    result, content = picture(64, 48), picture(64, 48, 1)
    kept = keep_colors(kind, result, transparent_from(32, content))
    alone = keep_colors(kind, result[..., :32], content[..., :32])
    assert kept.shape == (1, 3, 48, 64)
    torch.testing.assert_close(kept[..., :32], alone, rtol=0, atol=1e-6)
    ((style, _),) = recolored_styles(kind, [(transparent_from(32, result), 1.0)], content)
    assert style.shape == (1, 4, 48, 64)
    assert torch.equal(style[:, 3:], transparent_from(32, result)[:, 3:])


@pytest.mark.parametrize("init", ["content", "gray", "noise", "style_colors"])
def test_a_painting_of_a_photo_with_opacity_has_three_channels(network: Vgg19, init: Init) -> None:
    """For every initial image, at every scale, and in the preview, too."""
    recipe = replace(PYRAMID, steps=2, scales=Scales(start_px=32), init=init,
                     preserve_color="affine")  # fmt: skip
    content, style = transparent_from(40, picture(64, 48)), transparent_from(40, picture(60, 60, 1))
    painting = stylize(network, content, [(style, 1.0)], recipe)
    progress = next(painting)
    assert progress.preview(32).shape[1] == 3
    assert driven(painting).image.shape == (1, 3, 48, 64)


def test_what_is_predicted_to_be_needed_counts_opacity(network: Vgg19) -> None:
    """Weighting the largest features takes one more copy of them."""
    content, style = picture(64, 48), picture(48, 48, 1)
    plain = MemoryEstimate.of(network, PYRAMID, content, [(style, 1.0)])
    masked = MemoryEstimate.of(network, PYRAMID, transparent_from(32, content), [(style, 1.0)])
    settings, size = RunSettings(PYRAMID.optimizer), PixelSize(640, 480)
    layers = {**PYRAMID.content_layers, **PYRAMID.style_layers}
    (_, temporaries) = masked._arena_bytes(tiles(480, 640, None, layers))
    assert temporaries == 64 * 4 * 640 * 480
    # It grows by less: without opacity an update, which comes later, needs more than they do.
    assert masked.peak_bytes(settings, size) > plain.peak_bytes(settings, size)

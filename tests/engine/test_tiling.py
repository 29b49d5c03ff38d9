"""Tiles: their geometry, and that losses and gradients are the same with and without them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from styled.engine.objective import (
    MAX_CACHED_ELEMENTS_PER_PIXEL,
    Objective,
    style_targets,
    to_space,
)
from styled.engine.tiling import receptive_margin, stride_of, tiles
from styled.engine.vgg import Vgg19
from styled.recipes import LAYER_NAMES, RECIPES
from tests.engine.conftest import picture


def test_what_the_layers_see() -> None:
    """conv5_1 has a stride of 16 px and a margin of 70 px per side: a receptive field of 156 px."""
    assert (stride_of("relu1_1"), stride_of("pool1"), stride_of("conv5_1")) == (1, 2, 16)
    assert receptive_margin(["conv1_1"]) == 1
    assert receptive_margin(["relu2_1"]) == 1 + 1 + 2
    assert receptive_margin(["relu5_1"]) == receptive_margin(["conv5_1", "relu1_1"]) == 70


def test_a_picture_that_fits_is_one_tile() -> None:
    """Without a tile size, or with a large enough one, there is one tile of the whole image."""
    for edge in (None, 300):
        (tile,) = tiles(211, 300, edge, ["relu5_1"])
        image = torch.rand(1, 3, 211, 300)
        assert tile.window(image).shape == image.shape


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(32, 700),
    width=st.integers(32, 700),
    edge=st.sampled_from([32, 64, 96, 256]),
    layer=st.sampled_from(LAYER_NAMES),
)
def test_cores_cover_every_layer_exactly_once(
    height: int, width: int, edge: int, layer: str
) -> None:
    """The cores of all tiles cover each position of the layer once, and halos are wide enough."""
    stride = stride_of(layer)
    coverage = torch.zeros(height // stride, width // stride)
    for tile in tiles(height, width, edge, [layer]):
        rows, columns = tile.rows, tile.columns
        window = torch.zeros(
            1,
            1,
            (rows.window_stop - rows.window_start) // stride,
            (columns.window_stop - columns.window_start) // stride,
        )
        core = tile.core(window, layer)
        assert core.numel() > 0
        top, left = rows.start // stride, columns.start // stride
        coverage[top : top + core.shape[2], left : left + core.shape[3]] += 1
        assert rows.window_start % stride == columns.window_start % stride == 0
        assert rows.start - rows.window_start >= min(receptive_margin([layer]), rows.start)
        assert rows.window_stop - rows.stop >= min(receptive_margin([layer]), height - rows.stop)
    assert (coverage == 1).all()


def without_ties(width: int, height: int, seed: int) -> Tensor:
    """Return 1x3xHxW colours that differ from pixel to pixel, away from 0 and 1.

    Where two activations in a max pooling window are equal up to rounding, as in flat parts of an
    image, the gradient goes to either of them, and not always to the same one with tiles.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    grain = torch.rand(1, 3, height, width, generator=generator)
    return 0.2 + 0.4 * smooth + 0.2 * grain


SQUARE, WIDE, HIGH = (117, 101), (157, 37), (37, 157)
"""Width and height of images with several tiles of 96 px: four, two and two."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("pyramid", SQUARE, 4),
        ("avgpool", WIDE, 2),
        ("udacity", HIGH, 2),
        ("d2l", WIDE, 2),
        ("five-layer", HIGH, 2),
        ("gatys", WIDE, 2),
    ],
)
def test_tiles_give_the_loss_and_gradient_of_the_whole(
    network: Vgg19, network64: Vgg19, name: str, size: tuple[int, int], count: int
) -> None:
    """For odd sizes and all recipes; in float32 per pixel to 1e-4 of the largest gradient."""
    recipe = RECIPES[name]
    content, style = picture(*size), picture(93, 61, 1)
    image = to_space(recipe, without_ties(*size, 2))
    width, height = size
    assert len(tiles(height, width, 96, recipe.style_layers)) == count
    results = {}
    for each, precision in ((network, torch.float32), (network64, torch.float64)):
        targets = style_targets(each, recipe, [(style.to(precision), 1.0)])  # one tile anyway
        for tile_px in (None, 96):
            objective = Objective(each, recipe, content.to(precision), targets, tile_px)
            results[precision, tile_px] = objective.evaluate(image.to(precision))

    exact, true = results[torch.float64, None]
    tiled, gradient = results[torch.float64, 96]
    assert tiled.total == pytest.approx(exact.total, rel=1e-10)
    assert float((gradient - true).norm()) < 1e-10 * float(true.norm())

    losses, gradient = results[torch.float32, None]
    tiled, tiled_gradient = results[torch.float32, 96]
    for term in ("total", "content", "style", "tv"):
        assert getattr(tiled, term) == pytest.approx(getattr(losses, term), rel=1e-6, abs=1e-12)
    difference = (tiled_gradient - gradient).abs().max()
    assert float(difference) < 1e-4 * float(gradient.abs().max())
    assert float((tiled_gradient - gradient).norm()) < 2e-5 * float(gradient.norm())


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"style_layers": {"conv2_1": 1.0, "relu2_1": 1.0, "pool3": 0.5}}, SQUARE),
        ({"pooling": "average_rescaled"}, WIDE),
        ({"pooling": "l2"}, WIDE),
        ({"style_layers": {"relu2_2": 1.0}, "content_layers": {"relu5_4": 0.1}}, HIGH),
        ({"style_layers": {"pool5": 1.0}}, WIDE),
    ],
    ids=["conv and its relu", "average", "l2", "content deepest", "pool deepest"],
)
def test_tiles_are_exact_for_other_layers_too(
    network64: Vgg19, changes: dict[str, object], size: tuple[int, int]
) -> None:
    """In float64, for other layers and poolings: equal up to rounding."""
    recipe = replace(RECIPES["pyramid"], **changes)  # type: ignore[arg-type]  # parametrised
    content, style = picture(*size).double(), picture(90, 61, 1).double()
    image = 0.1 + 0.7 * picture(*size, 2).double()
    targets = style_targets(network64, recipe, [(style, 1.0)])
    whole, gradient = Objective(network64, recipe, content, targets).evaluate(image)
    tiled, tiled_gradient = Objective(network64, recipe, content, targets, 96).evaluate(image)
    assert tiled.total == pytest.approx(whole.total, rel=1e-8)
    difference = (tiled_gradient - gradient).abs().max()
    assert float(difference) < 1e-7 * float(gradient.abs().max())


def test_content_features_that_are_not_kept_are_the_same(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and gradient are bitwise the same if the photo's features are not cached."""
    recipe = RECIPES["pyramid"]
    content, style, image = picture(150, 40), picture(60, 60, 1), picture(150, 40, 2)
    targets = style_targets(network, recipe, [(style, 1.0)])
    cached = Objective(network, recipe, content, targets, 64)
    monkeypatch.setattr("styled.engine.objective.MAX_CACHED_ELEMENTS_PER_PIXEL", 0)
    uncached = Objective(network, recipe, content, targets, 64)
    assert cached._content_features is not None
    assert uncached._content_features is None
    (losses, gradient), (other_losses, other_gradient) = (
        cached.evaluate(image),
        uncached.evaluate(image),
    )
    assert torch.equal(losses.on_device, other_losses.on_device)
    assert torch.equal(gradient, other_gradient)


def test_which_recipes_keep_their_content_features(network: Vgg19) -> None:
    """At full resolution, cached content features would be larger than a tile's activations."""
    assert MAX_CACHED_ELEMENTS_PER_PIXEL < 64
    for tile_px, expected in ((None, True), (64, False)):
        recipe = replace(RECIPES["five-layer"], content_layers={"relu1_1": 1.0})
        objective = Objective(network, recipe, picture(128, 128), {}, tile_px)
        assert (objective._content_features is not None) is expected

"""The objective of `pyramid` is that of its source, K. Crowson's style-transfer-pytorch.

Each test states a formula of that program (version 0.1, `style_transfer.py`) and compares.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.losses import COVARIANCE_RIDGE, moments, total_variation
from styled.engine.objective import Objective, style_targets
from styled.engine.scales import pixel_size, plan_scales, style_image_size
from styled.engine.vgg import Vgg19, normalize
from styled.engine_api import PixelSize
from styled.recipes import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LAYER_NAMES,
    PYRAMID,
    Init,
    Resample,
    Scales,
)
from tests.engine.conftest import picture


def test_total_variation() -> None:
    """Twice the means of four kinds of differences, padded on all sides, times a weight of 2."""
    image = torch.rand(1, 3, 17, 23)
    x = F.pad(image, (1, 1, 1, 1), mode="replicate")
    d1 = (x[..., 1:-1, 2:] - x[..., 1:-1, 1:-1]).pow(2).mean() / 3
    d2 = (x[..., 2:, 1:-1] - x[..., 1:-1, 1:-1]).pow(2).mean() / 3
    d3 = (x[..., 1:, 1:] - x[..., :-1, :-1]).pow(2).mean() / 12
    d4 = (x[..., 1:, :-1] - x[..., :-1, 1:]).pow(2).mean() / 12
    value, _ = total_variation(PYRAMID.tv_loss, image)
    torch.testing.assert_close(PYRAMID.tv_weight * value, 2.0 * (2 * (d1 + d2 + d3 + d4)))


def test_layers_and_weights() -> None:
    """Numbers 22 for content, times 0.015, and 1, 6, 11, 20, 29 for style, 256:64:16:4:1."""
    # torchvision's `features`: each convolution, ReLU and pooling is one module.
    names = [name for name in LAYER_NAMES if name.startswith(("conv", "relu", "pool"))]
    assert {names[22]: 1.0} == PYRAMID.content_layers
    assert PYRAMID.content_weight == 0.015
    weights = (256, 64, 16, 4, 1)
    expected = {
        names[k]: w / sum(weights) for k, w in zip((1, 6, 11, 20, 29), weights, strict=True)
    }
    assert expected == pytest.approx(PYRAMID.style_layers)
    assert PYRAMID.style_weight == 1.0
    assert (PYRAMID.pooling, PYRAMID.first_padding) == ("max", "replicate")
    assert COVARIANCE_RIDGE == 1e-4


def test_input_is_normalised_and_total_variation_is_not() -> None:
    """ImageNet's mean and deviation, applied within the network; the image is sRGB in [0, 1]."""
    assert (IMAGENET_MEAN, IMAGENET_STD) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (PYRAMID.normalize_input, PYRAMID.space, PYRAMID.clamp) == (True, "srgb", True)


def test_start_and_resampling() -> None:
    """From the photo, resized by Pillow's bicubic filter."""
    expected: tuple[Init, Resample] = ("content", "bicubic")
    assert (PYRAMID.init, PYRAMID.resample) == expected


@pytest.mark.parametrize("end", [128, 192, 512, 1000])
def test_scales(end: int) -> None:
    """end / 2^(i/2), rounded, for as long as that is at least 128; the other edge in proportion.

    That is the default of `scales.factor`. `pyramid` itself grows by 1.6: fewer scales cost less,
    and which sizes come before the last one is no part of the objective.
    """
    long_edges, i = set(), 0
    while round(end / 2 ** (i / 2)) >= 128:
        long_edges.add(round(end / 2 ** (i / 2)))
        i += 1
    plan = plan_scales(Scales(), end, round(end * 2 / 3))
    assert [size.width for size in plan] == sorted(long_edges)
    assert all(abs(size.height - size.width * 2 / 3) <= 0.5 + 1 / 3 for size in plan)


def test_the_style_image_is_never_enlarged() -> None:
    """Its long edge is the scale's, or its own if that is shorter."""
    scale = PixelSize(300, 200)
    assert style_image_size(PYRAMID, scale, PixelSize(400, 800)) == (150, 300)
    assert style_image_size(PYRAMID, scale, PixelSize(100, 90)) == (100, 90)


def square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


def test_objective(network64: Vgg19) -> None:
    """Content, Wasserstein style loss with two styles, and total variation, all in one formula.

    A style's moments are its mean and its second raw moment; both are blended by the weights,
    and only then is the covariance formed. The program approximates roots by twelve iterations;
    here they are exact.
    """
    recipe = replace(PYRAMID, style_layers={"relu1_1": 0.75, "relu2_1": 0.25})
    recipe = replace(recipe, content_layers={"relu2_2": 1.0})
    photo, image = picture(40, 32).double(), picture(40, 32, 1).double()
    styles = [(picture(36, 32, 2).double(), 0.25), (picture(32, 40, 3).double(), 0.75)]

    def features(x: Tensor, layer: str) -> Tensor:
        return network64.features(normalize(x), [layer], first_padding="replicate")[layer]

    def raw_moments(x: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        flat = features(x, layer)[0].flatten(1)
        return flat.mean(dim=1), flat @ flat.T / flat.shape[1]

    content = 0.015 * F.mse_loss(features(image, "relu2_2"), features(photo, "relu2_2"))
    style = torch.zeros((), dtype=torch.float64)
    for layer, weight in recipe.style_layers.items():
        parts = [(raw_moments(x, layer), w) for x, w in styles]
        mean_s = sum((mean * w for (mean, _), w in parts), torch.zeros(()))
        second_s = sum((second * w for (_, second), w in parts), torch.zeros(()))
        ridge = 1e-4 * torch.eye(len(mean_s))
        covariance_s = second_s - torch.outer(mean_s, mean_s) + ridge
        mean, second = raw_moments(image, layer)
        covariance = second - torch.outer(mean, mean) + ridge
        root_s = square_root(covariance_s)
        root = square_root(root_s @ covariance @ root_s)
        difference = torch.diagonal(covariance_s + covariance - 2 * root).mean()
        style = style + weight * ((mean - mean_s).square().mean() + difference)
    tv = 4 * total_variation("nine_point", image)[0]

    losses, _ = Objective(
        network64, recipe, photo, style_targets(network64, recipe, styles)
    ).evaluate(image)
    assert losses.content == pytest.approx(float(content), rel=1e-9)
    assert losses.style == pytest.approx(float(style), rel=1e-7)
    assert losses.tv == pytest.approx(float(tv), rel=1e-9)
    assert losses.total == pytest.approx(float(content + style + tv), rel=1e-7)


def test_moments_are_over_positions() -> None:
    """The second raw moment is F F^T divided by the number of positions."""
    features = torch.rand(1, 4, 3, 5)
    found = moments(features)
    flat = features[0].flatten(1)
    torch.testing.assert_close(found.gram / found.positions, flat @ flat.T / 15)
    assert pixel_size(features) == (5, 3)

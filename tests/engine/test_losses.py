"""Losses against values computed by hand, and against finite differences."""

from __future__ import annotations

import pytest
import torch

from styled.engine import losses
from styled.engine.losses import (
    COVARIANCE_RIDGE,
    MomentsGrad,
    content_grad,
    content_loss,
    moments,
    total_variation,
)
from styled.recipes import ContentLoss, TotalVariationLoss


def test_moments_of_two_channels_and_two_positions() -> None:
    """Features (1, 3) and (2, 6) have means 2 and 4 and sums of products 10, 20, 40."""
    features = torch.tensor([[[[1.0, 3.0]], [[2.0, 6.0]]]])
    found = moments(features)
    torch.testing.assert_close(found.mean, torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(found.gram, torch.tensor([[10.0, 20.0], [20.0, 40.0]]))
    expected = torch.tensor([[1.0, 2.0], [2.0, 4.0]]) + COVARIANCE_RIDGE * torch.eye(2)
    torch.testing.assert_close(found.covariance(), expected)


def test_moments_are_float32_whatever_the_features_are() -> None:
    """Statistics of bfloat16 features are computed in float32."""
    found = moments(torch.ones(1, 2, 3, 3, dtype=torch.bfloat16))
    assert found.gram.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("is_core", [False, True])
@pytest.mark.parametrize("band_numel", [1, 6 * 40 * 4, 1 << 20])
def test_the_gradient_of_moments_is_added_in_bands(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    is_weighted: bool,
    is_core: bool,
    band_numel: int,
) -> None:
    """Any dtype, any number of bands, also to a part of a larger gradient, and nowhere else."""
    monkeypatch.setattr(losses, "_CPU_BAND_NUMEL", band_numel)
    generator = torch.Generator().manual_seed(0)
    gram = torch.randn(6, 6, generator=generator)
    moments_grad = MomentsGrad(torch.randn(6, generator=generator), gram + gram.T)
    window = torch.randn(1, 30, 60, 6, generator=generator).to(dtype).permute(0, 3, 1, 2)
    gradient = torch.randn(1, 30, 60, 6, generator=generator).to(dtype).permute(0, 3, 1, 2)
    before = gradient.clone()
    rows, columns = (slice(3, 29), slice(10, 50)) if is_core else (slice(None), slice(None))
    core = (slice(None), slice(None), rows, columns)
    features = window[core]
    weights = torch.rand(1, 1, *features.shape[2:], generator=generator) if is_weighted else None

    moments_grad.add_feature_grad(features, weights, gradient[core])

    added = torch.einsum("ij,bjhw->bihw", moments_grad.gram.double(), features.double())
    added += moments_grad.mean[:, None, None]
    expected = before.double()
    expected[core] += added if weights is None else added * weights
    error = (gradient.double() - expected).abs().max() / expected.abs().max()
    assert error < (1e-6 if dtype == torch.float32 else 1e-2)
    outside = torch.ones(30, 60, dtype=torch.bool)
    outside[core[2:]] = False
    assert torch.equal(gradient[..., outside], before[..., outside])


def test_content_loss_by_hand() -> None:
    """Differences of 1, 1, 2 and 0 have a mean square of 1.5."""
    target = torch.zeros(1, 1, 2, 2)
    features = torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]])
    torch.testing.assert_close(content_loss("mean_squared", features, target, 4), torch.tensor(1.5))


def test_half_sum_of_squares_by_hand() -> None:
    """The same differences have half a sum of squares of three."""
    features = torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]])
    found = content_loss("half_sum_squared", features, torch.zeros(1, 1, 2, 2), 4)
    torch.testing.assert_close(found, torch.tensor(3.0))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sum_absolute", 1 + 3 + 2 + 4), ("mean_absolute", ((1 + 3) / 2 + (2 + 4) / 2) / 2)],
)
def test_absolute_total_variation_by_hand(kind: TotalVariationLoss, expected: float) -> None:
    """(0 1 / 2 5): to the right 1 and 3, below 2 and 4."""
    image = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    torch.testing.assert_close(total_variation(kind, image)[0], torch.tensor(float(expected)))


def test_no_total_variation_is_zero() -> None:
    """`none` is zero for any image."""
    assert total_variation("none", torch.rand(1, 3, 4, 4))[0] == 0


def test_total_variation_of_one_bright_pixel_by_hand() -> None:
    """One pixel of 1 among zeros is seen twice in each direction.

    That is among nine differences along each axis, and sixteen along each diagonal.
    """
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 1.0
    expected = (2 / 9 + 2 / 9) / 3 + (2 / 16 + 2 / 16) / 12
    torch.testing.assert_close(total_variation("nine_point", image)[0], torch.tensor(expected))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_total_variation_of_a_uniform_picture_is_zero(value: float) -> None:
    """The total variation of a uniform image is zero, including at its borders."""
    assert total_variation("nine_point", torch.full((1, 3, 8, 5), value))[0] == 0


@pytest.mark.parametrize("kind", ["nine_point", "sum_absolute", "mean_absolute"])
def test_total_variation_gradient_equals_finite_differences(kind: TotalVariationLoss) -> None:
    """Value and gradient agree with each other, by central differences in float64."""
    image = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    _, gradient = total_variation(kind, image)
    for index in range(image.numel()):
        step = torch.zeros_like(image)
        step.view(-1)[index] = 1e-7
        change = total_variation(kind, image + step)[0] - total_variation(kind, image - step)[0]
        assert float(gradient.view(-1)[index]) == pytest.approx(float(change) / 2e-7, abs=1e-6)


@pytest.mark.parametrize("kind", ["nine_point", "sum_absolute", "mean_absolute"])
@pytest.mark.parametrize("height", [7, 8, 9])
def test_total_variation_in_bands_is_that_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, kind: TotalVariationLoss, height: int
) -> None:
    """Value and gradient are the same in bands of two rows as in a single band."""
    image = torch.rand(1, 3, height, 5, dtype=torch.float64)
    whole = total_variation(kind, image)
    monkeypatch.setattr("styled.engine.losses._BAND_PIXELS", 10)
    torch.testing.assert_close(total_variation(kind, image), whole)


@pytest.mark.parametrize("kind", ["mean_squared", "half_sum_squared"])
def test_the_content_slope_is_the_gradient_of_the_content_loss(kind: ContentLoss) -> None:
    """The closed form equals the gradient that autograd computes through the loss."""
    features = torch.rand(1, 2, 3, 4, requires_grad=True)
    target = torch.rand(1, 2, 3, 4)
    (expected,) = torch.autograd.grad(content_loss(kind, features, target, 50), features)
    torch.testing.assert_close(content_grad(kind, features.detach(), target, 50), expected)


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    """However features are divided, the sum of the parts' moments is that of the whole."""
    features = torch.rand(1, 4, 5, 7, dtype=torch.float64)
    whole = moments(features)
    parts = moments(features[..., :2]) + moments(features[..., 2:3]) + moments(features[..., 3:])
    assert parts.positions == whole.positions
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.gram, whole.gram)


@pytest.mark.parametrize("kind", ["sum_absolute", "mean_absolute"])
def test_rounding_changes_the_slope_near_kinks_alone(kind: TotalVariationLoss) -> None:
    """Smoothing changes the gradient only where differences are below the Huber delta.

    The value stays exact. At a difference of 0.05 and a delta of 0.2 the gradient is a quarter.
    """
    image = torch.zeros(1, 3, 1, 2, dtype=torch.float64)
    image = torch.cat([image, image], dim=2)
    image[..., 1] = 0.05
    exact, grad = total_variation(kind, image)
    smoothed, smoothed_grad = total_variation(kind, image, tv_smoothing=0.2)
    torch.testing.assert_close(smoothed, exact)
    torch.testing.assert_close(smoothed_grad, grad / 4)
    torch.testing.assert_close(total_variation(kind, image, tv_smoothing=0.04)[1], grad)

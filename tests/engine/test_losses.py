"""Losses against numbers worked out by hand, and against finite differences."""

from __future__ import annotations

import pytest
import torch

from styled.engine.losses import (
    COVARIANCE_RIDGE,
    content_loss,
    moments,
    total_variation,
)
from styled.recipes import TotalVariationLoss


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


def test_content_loss_by_hand() -> None:
    """Differences of 1, 1, 2 and 0 have a mean square of 1.5."""
    target = torch.zeros(1, 1, 2, 2)
    features = torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]])
    torch.testing.assert_close(content_loss("mean_squared", features, target), torch.tensor(1.5))


def test_half_sum_of_squares_by_hand() -> None:
    """The same differences have half a sum of squares of three."""
    features = torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]])
    found = content_loss("half_sum_squared", features, torch.zeros(1, 1, 2, 2))
    torch.testing.assert_close(found, torch.tensor(3.0))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sum_absolute", 1 + 3 + 2 + 4), ("mean_absolute", ((1 + 3) / 2 + (2 + 4) / 2) / 2)],
)
def test_absolute_total_variation_by_hand(kind: TotalVariationLoss, expected: float) -> None:
    """(0 1 / 2 5): to the right 1 and 3, below 2 and 4."""
    image = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    torch.testing.assert_close(total_variation(kind, image), torch.tensor(float(expected)))


def test_no_total_variation_is_zero() -> None:
    """`none` costs nothing, whatever the picture."""
    assert total_variation("none", torch.rand(1, 3, 4, 4)) == 0


def test_total_variation_of_one_bright_pixel_by_hand() -> None:
    """One pixel of 1 among nine zeros: (2 + 2)/3 from the sides and 2 * 2/12 from the corners."""
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 1.0
    # Each of the four directions sees the pixel twice, among nine differences.
    expected = (2 / 9 + 2 / 9) / 3 + (2 / 9 + 2 / 9) / 12
    torch.testing.assert_close(total_variation("nine_point", image), torch.tensor(expected))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_total_variation_of_a_uniform_picture_is_zero(value: float) -> None:
    """A uniform picture has no total variation, borders included."""
    assert total_variation("nine_point", torch.full((1, 3, 8, 5), value)) == 0


def test_total_variation_gradient_equals_finite_differences() -> None:
    """The gradient of the total variation agrees with central differences in float64."""
    image = torch.rand(1, 3, 4, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: total_variation("nine_point", x), (image,))

"""Losses against numbers worked out by hand, and against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from styled.engine.losses import (
    COVARIANCE_RIDGE,
    Moments,
    content_loss,
    moments,
    total_variation,
    wasserstein_loss,
    wasserstein_target,
)


def gaussian(mean: list[float], variances: list[float]) -> Moments:
    """Return moments of a Gaussian with a diagonal covariance, ridge not counted."""
    mu = torch.tensor(mean, dtype=torch.float64)
    spread = torch.diag(torch.tensor(variances, dtype=torch.float64))
    ridge = COVARIANCE_RIDGE * torch.eye(len(mean), dtype=torch.float64)
    return Moments(mu, spread + torch.outer(mu, mu) - ridge)


def test_moments_of_two_channels_and_two_positions() -> None:
    """Features (1, 3) and (2, 6) have means 2 and 4 and second moments 5, 10, 20."""
    features = torch.tensor([[[[1.0, 3.0]], [[2.0, 6.0]]]])
    found = moments(features)
    torch.testing.assert_close(found.mean, torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(found.second, torch.tensor([[5.0, 10.0], [10.0, 20.0]]))
    expected = torch.tensor([[1.0, 2.0], [2.0, 4.0]]) + COVARIANCE_RIDGE * torch.eye(2)
    torch.testing.assert_close(found.covariance(), expected)


def test_moments_are_float32_whatever_the_features_are() -> None:
    """Statistics of bfloat16 features are computed in float32."""
    found = moments(torch.ones(1, 2, 3, 3, dtype=torch.bfloat16))
    assert found.second.dtype == torch.float32


def test_wasserstein_of_diagonal_gaussians_by_hand() -> None:
    """Means (0,0) and (3,4), deviations (1,2) and (4,6): mean(9,16) + mean(3^2, 4^2) = 25."""
    style = wasserstein_target([(gaussian([3.0, 4.0], [16.0, 36.0]), 1.0)])
    loss = wasserstein_loss(gaussian([0.0, 0.0], [1.0, 4.0]), style)
    torch.testing.assert_close(loss, torch.tensor(25.0, dtype=torch.float64))


def test_wasserstein_of_equal_gaussians_is_zero() -> None:
    """A picture that has the style's statistics exactly has no style loss."""
    features = torch.rand(1, 6, 9, 9, dtype=torch.float64)
    found = moments(features)
    assert wasserstein_loss(found, wasserstein_target([(found, 1.0)])).abs() < 1e-12


def test_two_styles_blend_by_their_weights() -> None:
    """The target of two styles weighted 3 to 1 is the weighted mean of their statistics."""
    blended = wasserstein_target([(gaussian([0.0], [1.0]), 3.0), (gaussian([4.0], [5.0]), 1.0)])
    torch.testing.assert_close(blended.mean, torch.tensor([1.0], dtype=torch.float64))
    torch.testing.assert_close(blended.root, torch.tensor([[2.0**0.5]], dtype=torch.float64))


def test_wasserstein_gradient_equals_finite_differences() -> None:
    """The gradient with respect to the features agrees with central differences in float64."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 4, 5, 5)
    style = moments(torch.rand(shape, generator=generator, dtype=torch.float64))
    target = wasserstein_target([(style, 1.0)])
    features = torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()

    def loss(f: Tensor) -> Tensor:
        return wasserstein_loss(moments(f), target)

    assert torch.autograd.gradcheck(loss, (features,), eps=1e-6, atol=1e-6)


def test_wasserstein_with_fewer_positions_than_channels() -> None:
    """A layer with fewer positions than channels has a finite loss and gradient."""
    style = moments(torch.rand(1, 32, 8, 8))
    features = torch.rand(1, 32, 2, 2).requires_grad_()
    loss = wasserstein_loss(moments(features), wasserstein_target([(style, 1.0)]))
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss > 0
    assert gradient.isfinite().all()


def test_content_loss_by_hand() -> None:
    """Differences of 1, 1, 2 and 0 have a mean square of 1.5."""
    target = torch.zeros(1, 1, 2, 2)
    features = torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]])
    torch.testing.assert_close(content_loss(features, target), torch.tensor(1.5))


def test_total_variation_of_one_bright_pixel_by_hand() -> None:
    """One pixel of 1 among nine zeros: (2 + 2)/3 from the sides and 2 * 2/12 from the corners."""
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 1.0
    # Each of the four directions sees the pixel twice, among nine differences.
    expected = (2 / 9 + 2 / 9) / 3 + (2 / 9 + 2 / 9) / 12
    torch.testing.assert_close(total_variation(image), torch.tensor(expected))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_total_variation_of_a_uniform_picture_is_zero(value: float) -> None:
    """A uniform picture has no total variation, borders included."""
    assert total_variation(torch.full((1, 3, 8, 5), value)) == 0


def test_total_variation_gradient_equals_finite_differences() -> None:
    """The gradient of the total variation agrees with central differences in float64."""
    image = torch.rand(1, 3, 4, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(total_variation, (image,))

"""Style losses against values computed by hand, and against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from styled.engine.losses import COVARIANCE_RIDGE, Moments, moments
from styled.engine.style_losses import (
    GramTarget,
    WassersteinTarget,
    gram_loss,
    style_loss,
    style_target,
)
from styled.recipes import StyleLoss


def gaussian(mean: list[float], variances: list[float]) -> Moments:
    """Return moments whose covariance, including the ridge, is diagonal with these variances."""
    mu = torch.tensor(mean, dtype=torch.float64)
    spread = torch.diag(torch.tensor(variances, dtype=torch.float64))
    ridge = COVARIANCE_RIDGE * torch.eye(len(mean), dtype=torch.float64)
    return Moments(mu, spread + torch.outer(mu, mu) - ridge, positions=1)


def test_wasserstein_of_diagonal_gaussians_by_hand() -> None:
    """Means (0,0) and (3,4), deviations (1,2) and (4,6): mean(9,16) + mean(3^2, 4^2) = 25."""
    style = style_target("wasserstein", [(gaussian([3.0, 4.0], [16.0, 36.0]), 1.0)])
    loss = style_loss("wasserstein", gaussian([0.0, 0.0], [1.0, 4.0]), style)
    torch.testing.assert_close(loss, torch.tensor(25.0, dtype=torch.float64))


def test_wasserstein_of_equal_gaussians_is_zero() -> None:
    """The style loss is zero for exactly the style's statistics."""
    features = torch.rand(1, 6, 9, 9, dtype=torch.float64)
    found = moments(features)
    assert (
        style_loss("wasserstein", found, style_target("wasserstein", [(found, 1.0)])).abs() < 1e-12
    )


def test_two_styles_blend_by_their_weights() -> None:
    """The target of two styles weighted 3 to 1 is the weighted mean of their statistics."""
    blended = style_target(
        "wasserstein", [(gaussian([0.0], [1.0]), 3.0), (gaussian([4.0], [5.0]), 1.0)]
    )
    assert isinstance(blended, WassersteinTarget)
    torch.testing.assert_close(blended.mean, torch.tensor([1.0], dtype=torch.float64))
    torch.testing.assert_close(blended.root, torch.tensor([[2.0**0.5]], dtype=torch.float64))


def test_wasserstein_gradient_equals_finite_differences() -> None:
    """The gradient with respect to the features agrees with central differences in float64."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 4, 5, 5)
    style = moments(torch.rand(shape, generator=generator, dtype=torch.float64))
    target = style_target("wasserstein", [(style, 1.0)])
    features = torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()

    def loss(f: Tensor) -> Tensor:
        return style_loss("wasserstein", moments(f), target)

    assert torch.autograd.gradcheck(loss, (features,), eps=1e-6, atol=1e-6)


def test_wasserstein_with_fewer_positions_than_channels() -> None:
    """A layer with fewer positions than channels has a finite loss and gradient."""
    style = moments(torch.rand(1, 32, 8, 8))
    features = torch.rand(1, 32, 2, 2).requires_grad_()
    loss = style_loss("wasserstein", moments(features), style_target("wasserstein", [(style, 1.0)]))
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss > 0
    assert gradient.isfinite().all()


GRAM_KINDS: dict[StyleLoss, float] = {
    # G = (10 20 / 20 40), A = (4 0 / 0 0): squares 36, 400, 400, 1600 have a mean of 609.
    "gram_raw": 609.0,
    # G / (2 x 2) and A / (2 x 1): (2.5 5 / 5 10) against (2 0 / 0 0).
    "gram_by_size": (0.25 + 25 + 25 + 100) / 4,
    "gram_over_style_size": 609.0 / 2,
    "gram_over_result_size": 609.0 / 4,
    # The sum 2436 over 4 x 2^2 x 2^2.
    "gram_gatys": 2436.0 / 64,
}


@pytest.mark.parametrize("kind", GRAM_KINDS)
def test_gram_losses_by_hand(kind: StyleLoss) -> None:
    """Two channels at two positions against two channels at one, scaled in each way."""
    result = moments(torch.tensor([[[[1.0, 3.0]], [[2.0, 6.0]]]]))
    style = moments(torch.tensor([[[[2.0]], [[0.0]]]]))
    target = style_target(kind, [(style, 1.0)])
    torch.testing.assert_close(style_loss(kind, result, target), torch.tensor(GRAM_KINDS[kind]))


@pytest.mark.parametrize("kind", GRAM_KINDS)
def test_gram_gradients_equal_finite_differences(kind: StyleLoss) -> None:
    """The gradient with respect to the features agrees with central differences."""
    style = moments(torch.rand(1, 3, 3, 4, dtype=torch.float64))
    target = style_target(kind, [(style, 1.0)])
    assert isinstance(target, GramTarget)
    features = torch.rand(1, 3, 4, 4, dtype=torch.float64).requires_grad_()

    def loss(f: Tensor) -> Tensor:
        return gram_loss(kind, moments(f), target)

    assert torch.autograd.gradcheck(loss, (features,))

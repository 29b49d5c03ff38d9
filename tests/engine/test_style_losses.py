"""Style losses against values computed by hand, and against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from styled.engine.losses import COVARIANCE_RIDGE, Moments, moments
from styled.engine.style_losses import (
    StyleTarget,
    WassersteinTarget,
    precise_dtype,
    style_target,
    total_style_loss,
)
from styled.recipes import StyleLoss


def style_loss(kind: StyleLoss, result: Moments, target: StyleTarget) -> Tensor:
    """Return the loss of a single layer."""
    return total_style_loss(kind, {"layer": result}, {"layer": target}, {"layer": 1.0})[0]


def check_feature_grad(kind: StyleLoss, features: Tensor, target: StyleTarget) -> None:
    """Compare the gradient with respect to 1xCxhxw features with central differences."""
    found = torch.zeros_like(features)
    _, grads = total_style_loss(
        kind, {"layer": moments(features)}, {"layer": target}, {"layer": 1.0}
    )
    grads["layer"].add_feature_grad(features, None, found)
    for index in range(features.numel()):
        step = torch.zeros_like(features)
        step.view(-1)[index] = 1e-6
        above, below = (style_loss(kind, moments(features + s), target) for s in (step, -step))
        expected = float(above - below) / 2e-6
        assert float(found.view(-1)[index]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


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
    """The target of two styles weighted 3 to 1 has the moments of a mixture of their features.

    The mean is (3 * 0 + 4) / 4 = 1; the second raw moment (3 * (1 + 0^2) + (5 + 4^2)) / 4 = 6, up
    to the ridge, and so the variance 5.
    """
    blended = style_target(
        "wasserstein", [(gaussian([0.0], [1.0]), 3.0), (gaussian([4.0], [5.0]), 1.0)]
    )
    assert isinstance(blended, WassersteinTarget)
    torch.testing.assert_close(blended.mean, torch.tensor([1.0], dtype=torch.float64))
    torch.testing.assert_close(blended.trace, torch.tensor(5.0, dtype=torch.float64))


def test_wasserstein_gradient_equals_finite_differences() -> None:
    """The gradient with respect to the features agrees with central differences in float64."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 4, 5, 5)
    style = moments(torch.rand(shape, generator=generator, dtype=torch.float64))
    features = torch.rand(shape, generator=generator, dtype=torch.float64)
    check_feature_grad("wasserstein", features, style_target("wasserstein", [(style, 1.0)]))


def test_where_float32_does_not_suffice() -> None:
    """For covariances that are singular: their rank is less than the number of positions."""
    cpu = torch.device("cpu")
    for positions, dtype in ((63, torch.float64), (64, torch.float64), (65, None)):
        assert precise_dtype("wasserstein", 64, positions, cpu) == dtype
    assert precise_dtype("gram_gatys", 64, 63, cpu) is None


def test_wasserstein_with_fewer_positions_than_channels() -> None:
    """A layer with fewer positions than channels has a finite loss and gradient."""
    style = moments(torch.rand(1, 32, 8, 8))
    target = style_target("wasserstein", [(style, 1.0)])
    result = {"layer": moments(torch.rand(1, 32, 2, 2), precise_dtype=torch.float64)}
    loss, grads = total_style_loss("wasserstein", result, {"layer": target}, {"layer": 1.0})
    assert loss > 0
    assert grads["layer"].gram.isfinite().all()
    assert grads["layer"].gram.dtype == torch.float32


def test_the_term_is_weighted() -> None:
    """Losses and gradients of the layers are multiplied by their weights."""
    style = style_target("wasserstein", [(gaussian([3.0, 4.0], [16.0, 36.0]), 1.0)])
    results = {name: gaussian([0.0, 0.0], [1.0, 4.0]) for name in "ab"}
    targets = dict.fromkeys("ab", style)
    term, grads = total_style_loss("wasserstein", results, targets, {"a": 1.0, "b": 3.0})
    torch.testing.assert_close(term, torch.tensor(100.0, dtype=torch.float64))
    torch.testing.assert_close(grads["b"].gram, 3 * grads["a"].gram)
    torch.testing.assert_close(grads["b"].mean, 3 * grads["a"].mean)


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
    check_feature_grad(kind, torch.rand(1, 3, 4, 4, dtype=torch.float64), target)

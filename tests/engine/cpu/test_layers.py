"""The CPU kernels of the network's layers against torch's."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.cpu import layers as cpu_layers
from styled.engine.cpu.layers import LayerBuffers
from styled.recipes import Pooling

SIZES = [(1, 1), (2, 3), (5, 4), (9, 200), (130, 31)]


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return normally distributed random numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def nan_buffers(features: Tensor, output: Tensor) -> LayerBuffers:
    """Return buffers for a layer, filled with NaN."""

    def full(like: Tensor) -> Tensor:
        return torch.full_like(like, torch.nan, memory_format=torch.channels_last)

    return LayerBuffers(full(output.detach()), full(features.detach()))


def assert_agree(features: Tensor, actual: Tensor, expected: Tensor, buffers: LayerBuffers) -> None:
    """Assert that two outputs and their gradients w.r.t. the features are equal.

    The actual output and its gradient must be in the buffers, if these are given.
    """
    grad = random(*expected.shape, seed=1)
    (gradient,) = torch.autograd.grad(actual, features, grad)
    (expected_gradient,) = torch.autograd.grad(expected, features, grad)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-13)
    if buffers.output is not None and buffers.grad_input is not None:
        assert actual.data_ptr() == buffers.output.data_ptr()
        assert gradient.data_ptr() == buffers.grad_input.data_ptr()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("use_buffers", [False, True])
def test_a_convolution(
    size: tuple[int, int],
    padding: int,
    relu: bool,
    use_buffers: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In bands, with any padding, with and without buffers."""
    monkeypatch.setattr(cpu_layers, "_BAND_NUMEL", 3000)  # several bands for the larger sizes
    height, width = (edge + 2 * (padding == 0) for edge in size)
    features = random(1, 5, height, width).requires_grad_()
    kernel, bias = random(7, 5, 3, 3, seed=2), random(7, seed=3)
    expected = F.conv2d(features, kernel, bias, padding=padding)
    expected = F.relu(expected) if relu else expected
    buffers = nan_buffers(features, expected) if use_buffers else cpu_layers.NO_BUFFERS
    actual = cpu_layers.convolve(
        features, kernel, bias, padding=padding, relu=relu, buffers=buffers
    )
    assert_agree(features, actual, expected, buffers)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_a_rectifier(use_buffers: bool) -> None:
    """A ReLU that is not fused, as used if the convolution's own output is requested."""
    features = random(1, 5, 9, 8).requires_grad_()
    buffers = nan_buffers(features, features) if use_buffers else cpu_layers.NO_BUFFERS
    assert_agree(features, cpu_layers.rectify(features, buffers), F.relu(features), buffers)


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (8, 7), (50, 21)])
@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("use_buffers", [False, True])
def test_pooling(
    size: tuple[int, int], pooling: Pooling, use_buffers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last row or column of an odd size is not pooled, and its gradient is zero."""
    monkeypatch.setattr(cpu_layers, "_BAND_NUMEL", 300)
    features = random(1, 5, *size).requires_grad_()
    expected = {
        "max": F.max_pool2d(features, 2),
        "average": F.avg_pool2d(features, 2),
        "average_rescaled": 2 * F.avg_pool2d(features, 2),
        # torch's own takes the power and the root of absolute values; the same but for rounding.
        "l2": 0.78 * F.lp_pool2d(features, 2.0, 2),
    }[pooling]
    buffers = nan_buffers(features, expected) if use_buffers else cpu_layers.NO_BUFFERS
    assert_agree(features, cpu_layers.pool(features, pooling, buffers), expected, buffers)


def test_l2_pooling_of_zeros_has_no_gradient() -> None:
    """The root has none at zero; torch's own gives values that are not numbers."""
    features = torch.zeros(1, 3, 4, 4, requires_grad=True)
    pooled = cpu_layers.l2_pool(features)
    torch.autograd.backward(pooled.sum())
    assert features.grad is not None
    assert torch.equal(features.grad, torch.zeros_like(features))
    assert torch.equal(pooled, torch.zeros(1, 3, 2, 2))


def test_the_gradient_of_l2_pooling() -> None:
    """By finite differences, in float64."""
    features = random(1, 3, 5, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(cpu_layers.l2_pool, (features,))


def test_of_equal_maxima_the_first_one_counts() -> None:
    """As in torch, only the first of several equal maxima gets the gradient, as in flat areas."""
    features = random(1, 5, 6, 8).round().clamp(-1, 1).requires_grad_()
    assert_agree(
        features, cpu_layers.pool(features, "max"), F.max_pool2d(features, 2), cpu_layers.NO_BUFFERS
    )

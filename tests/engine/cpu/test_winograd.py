"""Winograd convolution against direct convolution."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.cpu import layers as cpu_layers
from styled.engine.cpu import winograd
from styled.engine.vgg import Vgg19
from styled.engine.vgg_layers import CONVOLUTION_NAMES, convolution_shapes
from tests.engine.conftest import picture, untrained

SIZES = [
    (1, 1),
    (1, 9),
    (2, 3),
    (4, 4),
    (5, 4),
    (8, 11),
    (3, 700),  # one row of tiles is larger than a band
    (700, 3),
    (53, 61),  # several bands, the last one with fewer rows
    (64, 48),
]


def weight_bytes(network: Vgg19) -> int:
    """Return the bytes of all kernels and biases."""
    return sum(x.nbytes for c in network._convolutions.values() for x in c.tensors)


def layer(
    height: int, width: int, precision: torch.dtype, channels: tuple[int, int] = (5, 7)
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, a kernel and a bias of normally distributed random numbers."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    channels_in, channels_out = channels
    features = torch.randn(1, channels_in, height, width, generator=generator, dtype=precision)
    kernel = torch.randn(channels_out, channels_in, 3, 3, generator=generator, dtype=precision)
    bias = torch.randn(channels_out, generator=generator, dtype=precision)
    return features, kernel / (9 * channels_in) ** 0.5, bias


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_in_float64_it_is_the_definition(
    height: int, width: int, layout: torch.memory_format
) -> None:
    """Output and gradient are equal up to rounding, for any shape and memory format."""
    features, kernel, bias = layer(height, width, torch.float64)
    features = features.contiguous(memory_format=layout).requires_grad_()
    expected = F.conv2d(features, kernel, bias, padding=1)
    grad = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, features, grad)

    actual = cpu_layers.winograd_convolve(features, winograd.transform_kernel(kernel), bias)
    (gradient,) = torch.autograd.grad(actual, features, grad)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-13)
    assert actual.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [(64, 128), (128, 128), (512, 512)])
def test_the_error_in_float32_is_some_roundings(channels: tuple[int, int]) -> None:
    """For layers as large as the network's: a few times the error of direct convolution."""
    features, kernel, bias = (x.float() for x in layer(37, 50, torch.float64, channels))
    true = F.conv2d(features.double(), kernel.double(), bias.double(), padding=1)
    direct = F.conv2d(features, kernel, bias, padding=1)
    actual = cpu_layers.winograd_convolve(features, winograd.transform_kernel(kernel), bias)
    error, direct_error = (float((x - true).std() / true.std()) for x in (actual, direct))
    assert error < 1.5e-6
    assert error < 10 * direct_error


def test_values_beyond_the_edge_do_not_matter() -> None:
    """Values that another image left in the scratch buffers have no effect, not even NaN."""
    features, kernel, bias = layer(9, 10, torch.float32)
    transformed = winograd.transform_kernel(kernel)
    expected = cpu_layers.winograd_convolve(features, transformed, bias)
    cpu_layers.winograd_convolve(torch.full((1, 5, 60, 60), torch.nan), transformed, bias)
    assert torch.equal(cpu_layers.winograd_convolve(features, transformed, bias), expected)


def test_threads_do_not_disturb_each_other() -> None:
    """Four threads compute bitwise the same as one."""
    layers = [layer(40 + 3 * i, 50, torch.float32, (64, 128)) for i in range(4)]

    def convolved(tensors: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        features, kernel, bias = tensors
        return cpu_layers.winograd_convolve(features, winograd.transform_kernel(kernel), bias)

    expected = [convolved(tensors) for tensors in layers]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(convolved, layers * 5))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected * 5, strict=True))


def test_which_layers_go_by_tiles() -> None:
    """All convolutions of the network except the two with few channels."""
    faster = {n for n, (o, i) in convolution_shapes().items() if winograd.is_faster_for(i, o)}
    assert set(CONVOLUTION_NAMES) - faster == {"conv1_1", "conv1_2"}


def test_the_network_agrees_with_itself_in_float64(network: Vgg19, network64: Vgg19) -> None:
    """Rounding errors do not accumulate down to the deepest layer."""
    image = picture(101, 83)
    with torch.no_grad():
        actual = network.features(image, CONVOLUTION_NAMES)
        true = network64.features(image.double(), CONVOLUTION_NAMES)
    for name in CONVOLUTION_NAMES:
        error = (actual[name] - true[name]).std() / true[name].std()
        assert float(error) < 5e-6, name


def test_a_network_grows_by_as_much_as_it_says() -> None:
    """Only kernels of layers that are run are transformed, and only once."""
    network = Vgg19(untrained())
    before = weight_bytes(network)
    predicted = network.lazy_weight_bytes(["relu3_1"])
    assert 0 < predicted < network.lazy_weight_bytes(["relu5_1"])
    for _ in range(2):
        network.features(picture(16, 16), ["relu3_1"])
        assert weight_bytes(network) - before == predicted
        assert network.lazy_weight_bytes(["relu3_1"]) == 0
    assert Vgg19(untrained(), dtype=torch.bfloat16).lazy_weight_bytes(["relu5_1"]) == 0

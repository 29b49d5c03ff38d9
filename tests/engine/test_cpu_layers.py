"""The network's layers on a CPU against torch's own."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine import cpu_layers
from styled.engine.cpu_layers import Room
from styled.recipes import Pooling

SIZES = [(1, 1), (2, 3), (5, 4), (9, 200), (130, 31)]


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return normal random numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def room_of(features: Tensor, output: Tensor) -> Room:
    """Return memory for a layer, full of what is not a number."""

    def full(like: Tensor) -> Tensor:
        return torch.full_like(like, torch.nan, memory_format=torch.channels_last)

    return Room(full(output.detach()), full(features.detach()))


def agree(features: Tensor, found: Tensor, expected: Tensor, room: Room) -> None:
    """Assert that two outputs of features are equal, and their gradients, and where they lie."""
    slope = random(*expected.shape, seed=1)
    (gradient,) = torch.autograd.grad(found, features, slope)
    (expected_gradient,) = torch.autograd.grad(expected, features, slope)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-13)
    if room.output is not None and room.slope is not None:
        assert found.data_ptr() == room.output.data_ptr()
        assert gradient.data_ptr() == room.slope.data_ptr()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("has_room", [False, True])
def test_a_convolution(
    size: tuple[int, int],
    padding: int,
    rectified: bool,
    has_room: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of some rows after the other, with any padding, in memory of its own or not."""
    monkeypatch.setattr(cpu_layers, "_BAND_NUMBERS", 3000)  # several bands of the larger ones
    height, width = (edge + 2 * (padding == 0) for edge in size)
    features = random(1, 5, height, width).requires_grad_()
    kernel, bias = random(7, 5, 3, 3, seed=2), random(7, seed=3)
    expected = F.conv2d(features, kernel, bias, padding=padding)
    expected = F.relu(expected) if rectified else expected
    room = room_of(features, expected) if has_room else cpu_layers.NO_ROOM
    found = cpu_layers.convolve(
        features, kernel, bias, padding=padding, rectified=rectified, room=room
    )
    agree(features, found, expected, room)


@pytest.mark.parametrize("has_room", [False, True])
def test_a_rectifier(has_room: bool) -> None:
    """Beside the convolution, where somebody asks for that's own output."""
    features = random(1, 5, 9, 8).requires_grad_()
    room = room_of(features, features) if has_room else cpu_layers.NO_ROOM
    agree(features, cpu_layers.rectify(features, room), F.relu(features), room)


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (8, 7), (50, 21)])
@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("has_room", [False, True])
def test_pooling(
    size: tuple[int, int], pooling: Pooling, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row or column that is left over is seen by nobody, and has no slope."""
    monkeypatch.setattr(cpu_layers, "_BAND_NUMBERS", 300)
    features = random(1, 5, *size).requires_grad_()
    expected = F.max_pool2d(features, 2) if pooling == "max" else F.avg_pool2d(features, 2)
    expected = expected * 2 if pooling == "average_rescaled" else expected
    room = room_of(features, expected) if has_room else cpu_layers.NO_ROOM
    agree(features, cpu_layers.pool(features, pooling, room), expected, room)


def test_of_equal_maxima_the_first_one_counts() -> None:
    """As in torch: where a picture is all of one colour, a slope is not counted four times."""
    features = random(1, 5, 6, 8).round().clamp(-1, 1).requires_grad_()
    agree(features, cpu_layers.pool(features, "max"), F.max_pool2d(features, 2), cpu_layers.NO_ROOM)

"""Selection of the precision of convolutions; statistics and losses are always float32 or wider."""

from __future__ import annotations

import time
from typing import Literal

import torch

from styled.engine.objective import Objective, style_targets
from styled.engine.vgg import Vgg19
from styled.engine.vgg_layers import convolution_shapes
from styled.recipes import PYRAMID

Precision = Literal["auto", "float32", "bfloat16"]

MAX_BFLOAT16_TIME_RATIO = 0.75
"""`auto` uses bfloat16 where a whole step takes at most this fraction of its time in float32."""


def convolution_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype of convolutions.

    `auto` measures: some devices compute several times faster in bfloat16, others only emulate
    it; and on CPUs, Winograd's algorithm makes float32 faster than a single convolution tells.
    """
    if precision == "auto":
        is_faster = bfloat16_time_ratio(device) <= MAX_BFLOAT16_TIME_RATIO
        return torch.bfloat16 if is_faster else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def bfloat16_time_ratio(device: torch.device) -> float:
    """Measure the time of a step of the default recipe in bfloat16, relative to float32.

    It includes what is never in bfloat16, such as matrix roots.
    """
    try:
        # Emulation may take a hundred times as long: a single small convolution is enough to
        # detect it.
        bfloat16, float32 = (
            min(_convolution_seconds(device, dtype) for _ in range(_CONVOLUTION_TRIALS))
            for dtype in (torch.bfloat16, torch.float32)
        )
        if bfloat16 / float32 > _EMULATED_RATIO:
            return bfloat16 / float32
        edge_px = _STEP_EDGE_PX.get(device.type, 192)
        return _step_seconds(device, torch.bfloat16, edge_px) / _step_seconds(
            device, torch.float32, edge_px
        )
    except (RuntimeError, NotImplementedError):
        return float("inf")  # not supported on this device


_EMULATED_RATIO = 4.0
_CONVOLUTION_TRIALS, _STEP_TRIALS = 6, 3
"""The first ones include code that is loaded on demand: in a new process, two convolutions in
bfloat16 have taken 60 and 40 ms, all further ones 0.4 ms."""

_CHANNELS, _CONVOLUTION_EDGE_PX = 128, 16
_STEP_EDGE_PX = {"cpu": 192, "cuda": 512, "mps": 256}


def _step_seconds(device: torch.device, dtype: torch.dtype, edge_px: int) -> float:
    """Return the time of an evaluation of the default recipe's objective at `edge_px` squared."""
    generator = torch.Generator().manual_seed(0)
    convolutions = {
        name: (
            torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5,
            torch.zeros(outputs),
        )
        for name, (outputs, inputs) in convolution_shapes().items()
    }
    network = Vgg19(convolutions, device, dtype)
    image = torch.rand(1, 3, edge_px, edge_px, generator=generator).to(device)
    targets = style_targets(network, PYRAMID, [(image.flip(3), 1.0)])
    objective = Objective(network, PYRAMID, image, targets)
    seconds = []
    for _ in range(_STEP_TRIALS):
        _synchronize(device)
        start = time.perf_counter()
        objective.evaluate(image)
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _convolution_seconds(device: torch.device, dtype: torch.dtype) -> float:
    edge_px = _CONVOLUTION_EDGE_PX
    features = torch.ones(1, _CHANNELS, edge_px, edge_px, device=device, dtype=dtype)
    kernel = torch.ones(_CHANNELS, _CHANNELS, 3, 3, device=device, dtype=dtype)
    features.requires_grad_()
    _synchronize(device)
    start = time.perf_counter()
    result = torch.nn.functional.conv2d(features, kernel, padding=1)
    torch.autograd.grad(result.sum(), features)
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

"""Time of a step of `pyramid` relative to the machine's peak rate.

The peak rate is that of a large matrix product in the same precision, by the faster library (see
`styled.engine.products`), because the convolutions of the needed layers, forward and backward, are
equivalent to matrix products. Three things are timed
in turn: the product; a bare loop, which is only the network's forward and backward pass; and a
step, which is loss, gradient and update. The time of a step beyond the bare loop is that of
statistics, matrix roots, total variation and the optimiser.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from styled.engine.memory import configure_allocator
from styled.engine.objective import Objective, layer_features, style_targets
from styled.engine.optimizers import make_optimizer
from styled.engine.products import times_transposed
from styled.engine.scale_run import valid_colors
from styled.engine.vgg import Vgg19
from styled.engine.vgg_layers import block_of, convolution_shapes, needed_slice
from styled.engine.weights import untrained
from styled.recipes import PYRAMID
from tests.benchmarks.pictures import pairs

PRODUCT_EDGE = {"cpu": 2048, "cuda": 8192}
ROUNDS = 15
LAYERS = {**PYRAMID.content_layers, **PYRAMID.style_layers}


def operations(height: int, width: int) -> float:
    """Return the FLOPs of the needed layers, forward and backward to the image."""
    total = 0
    for name in needed_slice(LAYERS):
        if name.startswith("conv"):
            outputs, inputs = convolution_shapes()[name]
            stride = 2 ** (block_of(name) - 1)
            total += 2 * 9 * outputs * inputs * (height // stride) * (width // stride)
    return 2.0 * total


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print rates and shares of the peak rate for both precisions, medians of `ROUNDS`."""
    print(f"a step against a matrix product; torch {torch.__version__}, {device}, "
          f"{torch.get_num_threads()} threads, medians of {ROUNDS}")  # fmt: skip
    print(f"{'precision':<10}{'size':<12}{'product':>13}{'bare loop':>11}{'share':>7}"
          f"{'step':>10}{'share':>7}{'beyond':>8}")  # fmt: skip
    for dtype in (torch.float32, torch.bfloat16):
        network = Vgg19(untrained(), device, dtype)
        configure_allocator(network.backend.mmap_threshold)
        for size in sizes:
            pair = next(iter(pairs(size, paintings)))
            photo, painting = pair.photo.to(device), pair.painting.to(device)
            _row(network, photo, painting, device)


def _row(network: Vgg19, photo: torch.Tensor, painting: torch.Tensor, device: torch.device) -> None:
    edge = PRODUCT_EDGE.get(device.type, 2048)
    factor = torch.randn(edge, edge, device=device, dtype=network.dtype)
    targets = style_targets(network, PYRAMID, [(painting, 1.0)])
    objective = Objective(network, PYRAMID, photo, targets)
    optimizer = make_optimizer(PYRAMID.optimizer, valid_colors(PYRAMID, photo.device))
    image = photo.clone()
    arena = network.backend.arena(LAYERS, [(photo.shape[2], photo.shape[3])])

    def product() -> None:
        times_transposed(factor, factor)  # only its time matters

    def bare() -> None:
        pixels = image.detach().requires_grad_()
        features = layer_features(network, PYRAMID, pixels, LAYERS, arena)
        torch.autograd.grad(list(features.values()), pixels, list(features.values()))

    def step() -> None:
        losses, gradient = objective.evaluate(image)
        optimizer.update(image, gradient, losses.on_device[0])

    seconds: dict[Callable[[], None], list[float]] = {product: [], bare: [], step: []}
    for round_index in range(ROUNDS + 2):
        for function, times in seconds.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_index >= 2:  # the first ones include code loaded on demand
                times.append(time.perf_counter() - start)
    height, width = photo.shape[-2:]
    product_seconds, bare_seconds, step_seconds = (
        statistics.median(times) for times in seconds.values()
    )
    rate, needed = 2.0 * edge**3 / product_seconds, operations(height, width)
    print(f"{str(network.dtype).removeprefix('torch.'):<10}{f'{width} x {height}':<12}"
          f"{rate / 1e9:>8.0f} GF/s{bare_seconds:>9.3f} s{needed / bare_seconds / rate:>7.2f}"
          f"{step_seconds:>8.3f} s{needed / step_seconds / rate:>7.2f}"
          f"{1 - bare_seconds / step_seconds:>8.0%}", flush=True)  # fmt: skip

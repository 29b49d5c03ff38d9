"""How near a step of `pyramid` comes to the limit of the machine.

The limit is the rate of a large matrix product in the same precision, which is all that the
convolutions of the needed slice are, there and back to the image. Three things are timed in turn:
the product; a bare loop, which is the network alone, there and back; and a step, which is loss,
gradient and update. What a step takes beyond the bare loop goes into statistics, matrix roots,
total variation and the optimiser.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from styled.engine.memory import EVERY_BLOCK, SMALL_BLOCKS, keep_freed_memory
from styled.engine.objective import Objective, layer_features, style_targets, workplace_for
from styled.engine.optimizers import make_optimizer
from styled.engine.stage import valid_colors
from styled.engine.tiling import tiles
from styled.engine.vgg import Vgg19, block_of, convolution_shapes, needed_slice
from styled.engine.weights import untrained
from styled.recipes import PYRAMID
from tests.benchmarks.pictures import pairs

PRODUCT_EDGE = {"cpu": 2048, "cuda": 8192}
ROUNDS = 15
LAYERS = {**PYRAMID.content_layers, **PYRAMID.style_layers}


def operations(height: int, width: int) -> float:
    """Return the floating-point operations of the needed slice, there and back to the image."""
    total = 0
    for name in needed_slice(LAYERS):
        if name.startswith("conv"):
            outputs, inputs = convolution_shapes()[name]
            stride = 2 ** (block_of(name) - 1)
            total += 2 * 9 * outputs * inputs * (height // stride) * (width // stride)
    return 2.0 * total


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print rates and shares; both precisions, medians of turns taken one after the other."""
    print(f"a step against a matrix product; torch {torch.__version__}, {device}, "
          f"{torch.get_num_threads()} threads, medians of {ROUNDS}")  # fmt: skip
    print(f"{'precision':<10}{'size':<12}{'product':>13}{'bare loop':>11}{'share':>7}"
          f"{'step':>10}{'share':>7}{'beyond':>8}")  # fmt: skip
    for dtype in (torch.float32, torch.bfloat16):
        network = Vgg19(untrained(), device, dtype)
        keep_freed_memory(SMALL_BLOCKS if network.has_own_layers else EVERY_BLOCK)
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
    workplace = workplace_for(network, LAYERS, tiles(photo.shape[2], photo.shape[3], None, LAYERS))

    def product() -> None:
        factor @ factor  # its time is the point

    def bare() -> None:
        pixels = image.detach().requires_grad_()
        features = layer_features(network, PYRAMID, pixels, LAYERS, workplace)
        torch.autograd.grad(list(features.values()), pixels, list(features.values()))

    def step() -> None:
        losses, gradient = objective.evaluate(image)
        optimizer.update(image, gradient, losses.on_device[0])

    seconds: dict[Callable[[], None], list[float]] = {product: [], bare: [], step: []}
    for turn in range(ROUNDS + 2):
        for work, found in seconds.items():
            begun = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= 2:  # the first ones pay for what is loaded on demand
                found.append(time.perf_counter() - begun)
    height, width = photo.shape[-2:]
    of_product, of_bare, of_step = (statistics.median(found) for found in seconds.values())
    rate, needed = 2.0 * edge**3 / of_product, operations(height, width)
    print(f"{str(network.dtype).removeprefix('torch.'):<10}{f'{width} x {height}':<12}"
          f"{rate / 1e9:>8.0f} GF/s{of_bare:>9.3f} s{needed / of_bare / rate:>7.2f}"
          f"{of_step:>8.3f} s{needed / of_step / rate:>7.2f}{1 - of_bare / of_step:>8.0%}",
          flush=True)  # fmt: skip

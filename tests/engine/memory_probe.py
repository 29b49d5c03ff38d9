"""Measures the memory of painting, in a process of its own; see `test_memory_estimate`.

`python -m tests.engine.memory_probe RECIPE TILE HISTORY STEPS WxH ...` prints a line of JSON: for
each size the estimated and the measured growth of the process, in bytes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import torch

from styled.engine.guard import RunSettings
from styled.engine.memory import (
    MMAP_THRESHOLD_WITH_ARENA,
    configure_allocator,
    empty_cache,
    peak_bytes,
    reset_peak,
    used_bytes,
)
from styled.engine.memory_estimate import MemoryEstimate
from styled.engine.objective import Objective, style_targets, to_space
from styled.engine.optimizers import make_optimizer
from styled.engine.scale_run import valid_colors
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.engine_api import PixelSize
from styled.recipes import RECIPES, Recipe
from tests.engine.conftest import picture


def measured(
    network: Vgg19, recipe: Recipe, settings: RunSettings, size: PixelSize
) -> tuple[int, int]:
    """Return the estimated and the measured bytes of one scale."""
    device = network.device
    empty_cache(device)
    before = used_bytes(device)
    reset_peak(device)
    content, style = (picture(*size, seed).to(device) for seed in (0, 1))
    predicted = MemoryEstimate.of(network, recipe, content, [(style, 1.0)]).peak_bytes(
        settings, size
    )
    targets = style_targets(network, recipe, [(style, 1.0)], settings.tile_px)
    objective = Objective(network, recipe, content.clone(), targets, settings.tile_px)
    image = to_space(recipe, content.clone())
    best = image.clone()
    optimizer = make_optimizer(settings.optimizer, valid_colors(recipe, device))
    for _ in range(recipe.steps):
        losses, gradient = objective.evaluate(image)
        best.copy_(image)
        optimizer.update(image, gradient, losses.total)
    return predicted, peak_bytes(device) - before


def main(name: str, tile: str, history: str, steps: str, *sizes: str) -> None:
    """Measure each size and print the results."""
    configure_allocator(MMAP_THRESHOLD_WITH_ARENA)  # as in `stylize` on a CPU
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = Vgg19(untrained(), device)
    recipe = replace(RECIPES[name], steps=int(steps))
    optimizer = replace(recipe.optimizer, history=int(history))
    settings = RunSettings(optimizer, tile_px=int(tile) or None)
    measured(
        network, recipe, settings, PixelSize(64, 64)
    )  # load everything that is loaded on demand
    results = []
    for size in sizes:
        width, height = map(int, size.split("x"))
        results.append(measured(network, recipe, settings, PixelSize(width, height)))
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

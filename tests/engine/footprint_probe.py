"""Measures what pictures really take, in a process of its own; see `test_footprint`.

`python -m tests.engine.footprint_probe RECIPE TILE HISTORY STEPS WxH ...` prints a line of
JSON: for each size the predicted and the measured growth of the process, in bytes.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import replace

import torch

from styled.engine.footprint import Footprint
from styled.engine.guard import Settings
from styled.engine.ladder import Pixels
from styled.engine.memory import (
    SMALL_BLOCKS,
    give_back,
    keep_freed_memory,
    peak_bytes,
    reset_peak,
    used_bytes,
)
from styled.engine.objective import Objective, style_targets, to_space
from styled.engine.optimizers import make_optimizer
from styled.engine.stage import valid_colors
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import RECIPES, Recipe
from tests.engine.conftest import picture

REPEATS = 2


def measured(network: Vgg19, recipe: Recipe, settings: Settings, size: Pixels) -> tuple[int, int]:
    """Return what was predicted for one scale and what it took."""
    device = network.device
    give_back(device)
    before = used_bytes(device)
    reset_peak(device)
    content, style = (picture(*size, seed).to(device) for seed in (0, 1))
    predicted = Footprint.of(network, recipe, content, [(style, 1.0)]).peak_bytes(settings, size)
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
    """Measure each size a few times, and print the means."""
    keep_freed_memory(SMALL_BLOCKS)  # as `stylize` does where there is a workplace
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = Vgg19(untrained(), device)
    recipe = replace(RECIPES[name], steps=int(steps))
    optimizer = replace(recipe.optimizer, history=int(history))
    settings = Settings(optimizer, tile_px=int(tile) or None)
    measured(network, recipe, settings, (64, 64))  # what is loaded on demand is loaded now
    found = []
    for size in sizes:
        width, height = map(int, size.split("x"))
        runs = [measured(network, recipe, settings, (width, height)) for _ in range(REPEATS)]
        found.append((runs[0][0], statistics.mean(took for _, took in runs)))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Time saved by bfloat16, and its effect on the objective.

Both precisions take the same number of steps from the same photo with the optimiser of `pyramid`;
the objective of their results is then evaluated in float32. The baseline is float32.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from styled.engine.memory import configure_allocator
from styled.engine.objective import Objective, style_targets
from styled.engine.optimizers import make_optimizer
from styled.engine.scale_run import valid_colors
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import PYRAMID
from tests.benchmarks.pictures import pairs

STEPS = 40


def lowest(objective: Objective, start: Tensor) -> tuple[Tensor, float]:
    """Return the best image after `STEPS` steps, and the median seconds of a step."""
    image = start.clone()
    updates = make_optimizer(PYRAMID.optimizer, valid_colors(PYRAMID, start.device))
    best, best_total, seconds = image.clone(), float("inf"), []
    for _ in range(STEPS):
        started_at = time.perf_counter()
        losses, gradient = objective.evaluate(image)
        if losses.total < best_total:
            best, best_total = image.clone(), losses.total
        updates.update(image, gradient, losses.total)
        seconds.append(time.perf_counter() - started_at)
    return best, statistics.median(seconds)


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a table of seconds and totals in both precisions, and their ratios."""
    configure_allocator()
    networks = {d: Vgg19(untrained(), device, d) for d in (torch.float32, torch.bfloat16)}
    print(f"bfloat16 over float32, {STEPS} steps of L-BFGS; torch {torch.__version__}, "
          f"{device}, untrained network")  # fmt: skip
    print(f"{'pair':<16}{'s/step f32':>12}{'s/step bf16':>12}{'ratio':>8}"
          f"{'total f32':>12}{'total bf16':>12}{'ratio':>8}")  # fmt: skip
    for size in sizes:
        for pair in pairs(size, paintings):
            photo, painting = pair.photo.to(device), pair.painting.to(device)
            objectives = {}
            for dtype, network in networks.items():
                targets = style_targets(network, PYRAMID, [(painting, 1.0)])
                objectives[dtype] = Objective(network, PYRAMID, photo, targets)
                objectives[dtype].evaluate(photo)  # the first evaluation is slower
            reference = objectives[torch.float32]
            totals, seconds = [], []
            for objective in objectives.values():
                image, median = lowest(objective, photo)
                totals.append(reference.evaluate(image)[0].total)
                seconds.append(median)
            print(f"{pair.name:<16}{seconds[0]:>12.3f}{seconds[1]:>12.3f}"
                  f"{seconds[1] / seconds[0]:>8.3f}{totals[0]:>12.6f}{totals[1]:>12.6f}"
                  f"{totals[1] / totals[0]:>8.3f}", flush=True)  # fmt: skip

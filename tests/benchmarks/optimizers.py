"""The lowest objective of `pyramid` that each optimiser reaches in equal time.

Each contender minimises the same objective, at one scale, for as long as L-BFGS needs for its
steps; the baseline is Adam with a learning rate of 0.02 and betas of 0.9 and 0.99, as in the best
public code. Contenders run one after the other, and the time includes their evaluations.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from styled.engine.memory import configure_allocator
from styled.engine.objective import Objective, style_targets
from styled.engine.optimizers import make_optimizer
from styled.engine.scale_run import valid_colors
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import PYRAMID, OptimizerSettings
from tests.benchmarks.pictures import pairs

STEPS = 40

BASELINE = "adam 0.02"
CONTENDERS = {
    BASELINE: OptimizerSettings(name="adam", learning_rate=0.02, betas=(0.9, 0.99)),
    "adam 0.05": OptimizerSettings(name="adam", learning_rate=0.05, betas=(0.9, 0.99)),
    "lbfgs 5": replace(PYRAMID.optimizer, history=5),
    "lbfgs 10": replace(PYRAMID.optimizer, history=10),
    "lbfgs 20": replace(PYRAMID.optimizer, history=20),
    "unguarded 20": OptimizerSettings(history=20),  # without a trust radius
}


def lowest(
    objective: Objective, start: Tensor, optimizer: OptimizerSettings, seconds: float
) -> float:
    """Return the lowest total reached within `seconds`, or within `STEPS` steps if it is 0."""
    image, updates = start.clone(), make_optimizer(optimizer, valid_colors(PYRAMID, start.device))
    started_at, best, steps = time.perf_counter(), float("inf"), 0
    while time.perf_counter() - started_at < seconds if seconds else steps < STEPS:
        losses, gradient = objective.evaluate(image)
        best = min(best, losses.total)
        updates.update(image, gradient, losses.total)
        steps += 1
    return best


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a table of the lowest totals, and the medians of their ratios to the baseline."""
    configure_allocator()
    network = Vgg19(untrained(), device)
    print(f"lowest objective in the time of {STEPS} steps of L-BFGS; torch {torch.__version__}, "
          f"{device}, untrained network")  # fmt: skip
    print(f"{'pair':<16}{'seconds':>9}" + "".join(f"{name:>14}" for name in CONTENDERS))
    ratios: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for size in sizes:
        for pair in pairs(size, paintings):
            photo, painting = pair.photo.to(device), pair.painting.to(device)
            targets = style_targets(network, PYRAMID, [(painting, 1.0)])
            objective = Objective(network, replace(PYRAMID), photo, targets)
            objective.evaluate(photo)  # the first evaluation is slower
            started_at = time.perf_counter()
            lowest(objective, photo, CONTENDERS["lbfgs 20"], 0)
            seconds = time.perf_counter() - started_at
            totals = {n: lowest(objective, photo, o, seconds) for n, o in CONTENDERS.items()}
            for name, total in totals.items():
                ratios[name].append(total / totals[BASELINE])
            print(f"{pair.name:<16}{seconds:>9.1f}"
                  + "".join(f"{t:>14.6f}" for t in totals.values()), flush=True)  # fmt: skip
    medians = "".join(f"{statistics.median(r):>14.3f}" for r in ratios.values())
    print(f"{'ratio (median)':<25}{medians}")

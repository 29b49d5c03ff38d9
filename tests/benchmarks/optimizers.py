"""Which optimiser brings the objective of `pyramid` lowest in the same time.

Each contender works on the same objective, at one scale, for as long as L-BFGS takes for
its steps; the baseline is Adam at a rate of 0.02 with betas of 0.9 and 0.99, as the best
public code has it. Contenders run in turn, and each time counts its own evaluations.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from styled.engine.memory import keep_freed_memory
from styled.engine.objective import Objective, style_targets
from styled.engine.optimizers import make_optimizer
from styled.engine.stage import valid_colors
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import PYRAMID, Optimizer
from tests.benchmarks.pictures import pairs

STEPS = 40

BASELINE = "adam 0.02"
CONTENDERS = {
    BASELINE: Optimizer(name="adam", learning_rate=0.02, betas=(0.9, 0.99)),
    "adam 0.05": Optimizer(name="adam", learning_rate=0.05, betas=(0.9, 0.99)),
    "lbfgs 5": replace(PYRAMID.optimizer, history=5),
    "lbfgs 10": replace(PYRAMID.optimizer, history=10),
    "lbfgs 20": replace(PYRAMID.optimizer, history=20),
    "unguarded 20": Optimizer(history=20),  # without a reach
}


def lowest(objective: Objective, start: Tensor, optimizer: Optimizer, seconds: float) -> float:
    """Return the lowest total that is reached in so many seconds (or `STEPS`, if 0)."""
    image, updates = start.clone(), make_optimizer(optimizer, valid_colors(PYRAMID, start.device))
    begun, best, steps = time.perf_counter(), float("inf"), 0
    while time.perf_counter() - begun < seconds if seconds else steps < STEPS:
        losses, gradient = objective.evaluate(image)
        best = min(best, losses.total)
        updates.update(image, gradient, losses.total)
        steps += 1
    return best


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a table of the lowest totals, and how they compare with the baseline's."""
    keep_freed_memory()
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
            objective.evaluate(photo)  # the first evaluation is slower than all others
            begun = time.perf_counter()
            lowest(objective, photo, CONTENDERS["lbfgs 20"], 0)
            seconds = time.perf_counter() - begun
            found = {n: lowest(objective, photo, o, seconds) for n, o in CONTENDERS.items()}
            for name, total in found.items():
                ratios[name].append(total / found[BASELINE])
            print(f"{pair.name:<16}{seconds:>9.1f}"
                  + "".join(f"{total:>14.6f}" for total in found.values()), flush=True)  # fmt: skip
    medians = "".join(f"{statistics.median(r):>14.3f}" for r in ratios.values())
    print(f"{'ratio (median)':<25}{medians}")

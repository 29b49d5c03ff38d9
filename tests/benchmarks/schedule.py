"""Effect of `steps`, `min_improvement` and `frequency_preconditioner` on `pyramid`.

Each contender paints the same picture from coarse to fine. The baseline takes all 50 steps
at each scale.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from styled.engine.memory import configure_allocator
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import PYRAMID, Recipe
from tests.benchmarks.pictures import Pair, pairs

BASELINE = "50 steps"
NOT_PRECONDITIONED = replace(
    PYRAMID, optimizer=replace(PYRAMID.optimizer, frequency_preconditioner=False)
)
CONTENDERS = {
    BASELINE: replace(PYRAMID, steps=50, min_improvement=0.0),
    "gain 1 %": replace(PYRAMID, steps=50, min_improvement=0.01),
    "gain 2 %": replace(PYRAMID, steps=50, min_improvement=0.02),
    "gain 3 %": replace(PYRAMID, steps=50, min_improvement=0.03),
    "25 steps": replace(PYRAMID, steps=25, min_improvement=0.0),
    "not by frequency": replace(NOT_PRECONDITIONED, steps=50, min_improvement=0.0),
    "that, gain 1 %": replace(NOT_PRECONDITIONED, steps=50, min_improvement=0.01),
    "that, gain 3 %": replace(NOT_PRECONDITIONED, steps=50, min_improvement=0.03),
}


def painted(network: Vgg19, pair: Pair, recipe: Recipe) -> tuple[float, float]:
    """Return the lowest total at the last scale, and the seconds for all scales."""
    start = time.perf_counter()
    lowest: dict[int, float] = {}
    for progress in stylize(network, pair.photo, [(pair.painting, 1.0)], recipe):
        found = lowest.get(progress.scale, float("inf"))
        lowest[progress.scale] = min(found, progress.losses.total)
    return lowest[max(lowest)], time.perf_counter() - start


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print totals and seconds, and their ratios to the baseline's."""
    configure_allocator()
    network = Vgg19(untrained(), device)
    print(f"total, seconds: the same picture by different schedules; torch {torch.__version__}, "
          f"{device}, untrained network")  # fmt: skip
    print(f"{'pair':<16}" + "".join(f"{name:>19}" for name in CONTENDERS))
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for size in sizes:
        for pair in pairs(size, paintings):
            found = {n: painted(network, pair, r) for n, r in CONTENDERS.items()}
            base_total, base_seconds = found[BASELINE]
            for name, (total, seconds) in found.items():
                ratios[name].append((total / base_total, seconds / base_seconds))
            cells = "".join(f"{t:>12.6f}{s:>6.1f}s" for t, s in found.values())
            print(f"{pair.name:<16}{cells}", flush=True)
    print(f"{'ratio (median)':<16}" + "".join(
        f"{statistics.median(t for t, _ in r):>12.3f}{statistics.median(s for _, s in r):>7.2f}"
        for r in ratios.values()))  # fmt: skip

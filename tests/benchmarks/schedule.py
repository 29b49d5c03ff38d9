"""Effect of `steps`, `min_improvement` and `frequency_preconditioner` on `pyramid`.

Each contender paints the same picture from coarse to fine, on the untrained network and on one with
the ranges of a trained one. The baseline takes all steps of the default at each scale.
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
from styled.recipes import PYRAMID, Recipe, Scales
from tests.benchmarks.pictures import Pair, pairs
from tests.trained_ranges import with_trained_ranges

BASELINE = "all steps"
ALL_STEPS = replace(PYRAMID, min_improvement=0.0, scales=Scales())
CONTENDERS = {
    BASELINE: ALL_STEPS,
    "default": PYRAMID,
    "15 coarse": replace(ALL_STEPS, scales=Scales(steps=15)),
    "left 1 %": replace(PYRAMID, min_improvement=0.01),
    "left 3 %": replace(PYRAMID, min_improvement=0.03),
    "not by frequency": replace(
        PYRAMID, optimizer=replace(PYRAMID.optimizer, frequency_preconditioner=False)
    ),
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
    """Print totals and seconds, and their ratios to the baseline's, for both networks."""
    configure_allocator()
    print(f"total, seconds: the same picture by different schedules; torch {torch.__version__}, "
          f"{device}")  # fmt: skip
    print(f"{'network, pair':<28}" + "".join(f"{name:>19}" for name in CONTENDERS))
    networks = {"untrained": untrained(), "trained ranges": with_trained_ranges(untrained())}
    for network_name, convolutions in networks.items():
        network = Vgg19(convolutions, device)
        ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
        for size in sizes:
            for pair in pairs(size, paintings):
                found = {n: painted(network, pair, r) for n, r in CONTENDERS.items()}
                base_total, base_seconds = found[BASELINE]
                for name, (total, seconds) in found.items():
                    ratios[name].append((total / base_total, seconds / base_seconds))
                cells = "".join(f"{t:>12.6f}{s:>6.1f}s" for t, s in found.values())
                print(f"{f'{network_name}, {pair.name}':<28}{cells}", flush=True)
        print(f"{f'{network_name}, ratio':<28}" + "".join(
            f"{statistics.median(t for t, _ in r):>12.3f}{statistics.median(s for _, s in r):>7.2f}"
            for r in ratios.values()))  # fmt: skip

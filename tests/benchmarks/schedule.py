"""Effect of the choices in `pyramid`'s optimisation on its objective, on two networks.

Each contender paints the same pictures from coarse to fine, on the untrained network and on one
with the ranges of a trained one. All but one take all steps of the default; the baseline changes
nothing else. Printed is the lowest objective at the last scale, and the cost of all scales in
steps at the full size, which does not depend on the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch

from styled.engine import matrix_root
from styled.engine.memory import configure_allocator
from styled.engine.stylize import stylize
from styled.engine.vgg import Convolutions, Vgg19
from styled.engine.weights import untrained
from styled.recipes import PYRAMID, Recipe, Scales
from tests.benchmarks.pictures import Pair, pairs
from tests.trained_ranges import with_trained_ranges

ALL_STEPS = replace(PYRAMID, min_improvement=0.0)


def _optimizer(**changes: float | bool) -> Recipe:
    return replace(ALL_STEPS, optimizer=replace(PYRAMID.optimizer, **changes))  # type: ignore[arg-type]


def _scales(**changes: float) -> Recipe:
    assert PYRAMID.scales is not None
    return replace(ALL_STEPS, scales=replace(PYRAMID.scales, **changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Contender:
    """A way to paint; all but the recipe are those of a CPU in float32 by default."""

    recipe: Recipe
    dtype: torch.dtype = torch.float32
    uses_polar_factor: bool = False


BASELINE = "all steps"
CONTENDERS = {
    BASELINE: Contender(ALL_STEPS),
    "as it ends": Contender(PYRAMID),
    "end at 1 %": Contender(replace(PYRAMID, min_improvement=0.01)),
    "end at 2 %": Contender(replace(PYRAMID, min_improvement=0.02)),
    "radius 0.05": Contender(_optimizer(trust_radius=0.05)),
    "radius 0.2": Contender(_optimizer(trust_radius=0.2)),
    "history 3": Contender(_optimizer(history=3)),
    "history 10": Contender(_optimizer(history=10)),
    "history 20": Contender(_optimizer(history=20)),
    "no bands": Contender(_optimizer(frequency_preconditioner=False)),
    "not carried": Contender(_optimizer(carry_curvature=False)),
    "bfloat16": Contender(ALL_STEPS, dtype=torch.bfloat16),
    "polar factors": Contender(ALL_STEPS, uses_polar_factor=True),
    "10 coarse steps": Contender(_scales(steps=10)),
    "50 coarse steps": Contender(_scales(steps=50)),
    "factor 1.41": Contender(_scales(factor=2**0.5)),
    "factor 2": Contender(_scales(factor=2.0)),
    "one scale": Contender(replace(ALL_STEPS, scales=Scales(start_px=10_000))),
}


def painted(convolutions: Convolutions, pair: Pair, contender: Contender) -> tuple[float, float]:
    """Return the lowest total at the last scale, and the cost in steps at that scale."""
    network = Vgg19(convolutions, pair.photo.device, contender.dtype)
    roots = (
        mock.patch.object(matrix_root, "uses_polar_factor", return_value=True)
        if contender.uses_polar_factor
        else nullcontext()
    )
    lowest, cost = float("inf"), 0.0
    with roots:
        for progress in stylize(network, pair.photo, [(pair.painting, 1.0)], contender.recipe):
            width, height = progress.plan[progress.scale - 1]
            cost += width * height / pair.photo[0, 0].numel()
            if progress.scale == progress.scales:
                lowest = min(lowest, progress.losses.total)
    return lowest, cost


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print totals relative to the baseline's, and costs, for both networks."""
    configure_allocator()
    print(f"lowest total / the baseline's, and cost in steps at full size; torch "
          f"{torch.__version__}, {device}")  # fmt: skip
    networks = {"untrained": untrained(), "trained ranges": with_trained_ranges(untrained())}
    for name, convolutions in networks.items():
        ratios: dict[str, list[tuple[float, float]]] = {contender: [] for contender in CONTENDERS}
        for size in sizes:
            for pair in pairs(size, paintings):
                base, _ = painted(convolutions, pair, CONTENDERS[BASELINE])
                print(f"{name}, {pair.name}: {base:.6f}", flush=True)
                for contender, settings in CONTENDERS.items():
                    total, cost = painted(convolutions, pair, settings)
                    ratios[contender].append((total / base, cost))
                    print(f"    {contender:<18}{total / base:>8.4f}{cost:>8.1f}", flush=True)
        print(f"{name}, median")
        for contender, found in ratios.items():
            total, cost = (statistics.median(values) for values in zip(*found, strict=True))
            print(f"    {contender:<18}{total:>8.4f}{cost:>8.1f}", flush=True)

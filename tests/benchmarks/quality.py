"""How much sooner a better optimiser brings a recipe's objective to where its own leaves it.

For each published recipe the baseline is its own procedure, to its last step; the value to reach
is the lowest that it has seen. Contenders are what a user can ask for: `optimizer.name=lbfgs`
alone, and with it a start at 48 pixels (`scales`; 30 steps at each size but the last). For
`pyramid` the baseline is the plain loop of `plain_loop`. Both sides run in turn on the same
machine, and the seconds of either are its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from styled.config.merging import resolve_recipe
from styled.config.overrides import RecipeOverrides
from styled.engine.memory import keep_freed_memory
from styled.engine.objective import Objective, style_targets
from styled.engine.scales import resize, style_picture_size
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from tests.benchmarks import plain_loop
from tests.benchmarks.pictures import Pair, pairs

CONTENDERS = {
    "lbfgs": RecipeOverrides.model_validate({"optimizer": {"name": "lbfgs"}}),
    "coarse to fine": RecipeOverrides.model_validate(
        {
            # The last two are what the name brings, but to a recipe that has that name itself.
            "optimizer": {"name": "lbfgs", "by_frequency": True, "reach": 0.22},
            "scales": {"start_px": 48, "factor": 1.25, "steps": 30},
        }
    ),
}


def _totals(network: Vgg19, recipe: Recipe, pair: Pair) -> Iterator[tuple[float, float]]:
    """Yield seconds so far, and the objective at full size, after each step there."""
    begun = time.perf_counter()
    for progress in stylize(network, pair.photo, [(pair.painting, 1.0)], recipe):
        if progress.scale == progress.scales:
            yield time.perf_counter() - begun, progress.losses.total


def _seconds_to(
    network: Vgg19, recipe: Recipe, pair: Pair, target: float, patience: float
) -> tuple[float | None, float]:
    """Return after how many seconds the target was reached (None: never), and the lowest total."""
    lowest = float("inf")
    for seconds, total in _totals(network, recipe, pair):
        lowest = min(lowest, total)
        if total <= target:
            return seconds, lowest
        if seconds > patience:
            break
    return None, lowest


def _print(recipe: str, pair: Pair, who: str, *, seconds: float | None, base: float, total: float,
           target: float) -> None:  # fmt: skip
    sooner = "never" if seconds is None else f"{base / seconds:.1f} x"
    shown = "" if seconds is None else f"{seconds:.1f}"
    print(f"{recipe:<12}{pair.name:<16}{who:<16}{shown:>10}{sooner:>10}{total:>14.6g}"
          f"{total / target:>9.4f}", flush=True)  # fmt: skip


def _published(network: Vgg19, recipe: Recipe, pair: Pair) -> None:
    trajectory = list(_totals(network, recipe, pair))
    base, target = trajectory[-1][0], min(total for _, total in trajectory)
    _print(recipe.name, pair, "its own", seconds=base, base=base, total=target, target=target)
    for who, overrides in CONTENDERS.items():
        contender = resolve_recipe(recipe.name, overrides)
        if contender == recipe:
            continue
        seconds, lowest = _seconds_to(network, contender, pair, target, base)
        _print(recipe.name, pair, who, seconds=seconds, base=base, total=lowest, target=target)


def _pyramid(network: Vgg19, recipe: Recipe, pair: Pair) -> None:
    begun = time.perf_counter()
    (_, image) = deque(plain_loop.paint(network, pair.photo, pair.painting), maxlen=1).pop()
    base = time.perf_counter() - begun
    height, width = pair.photo.shape[-2:]
    of_style = style_picture_size(recipe, (width, height), (pair.painting.shape[3],
                                                            pair.painting.shape[2]))  # fmt: skip
    targets = style_targets(network, recipe, [(resize(pair.painting, *of_style), 1.0)])
    target = Objective(network, recipe, pair.photo, targets).evaluate(image)[0].total
    _print(recipe.name, pair, "plain loop", seconds=base, base=base, total=target, target=target)
    seconds, lowest = _seconds_to(network, recipe, pair, target, base)
    _print(recipe.name, pair, "pyramid", seconds=seconds, base=base, total=lowest, target=target)


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a table: seconds to the baseline's value, how many times sooner, lowest totals."""
    keep_freed_memory()
    network = Vgg19(untrained(), device)
    print(f"time to the value that a recipe's own procedure ends with; torch {torch.__version__}, "
          f"{device}, untrained network")  # fmt: skip
    print(f"{'recipe':<12}{'pair':<16}{'by':<16}{'seconds':>10}{'sooner':>10}{'lowest':>14}"
          f"{'ratio':>9}")  # fmt: skip
    for size in sizes:
        for pair in islice(pairs(size, paintings), 1, 2):
            placed = Pair(pair.name, pair.photo.to(device), pair.painting.to(device))
            for name, recipe in RECIPES.items():
                (_pyramid if name == DEFAULT_RECIPE else _published)(network, recipe, placed)

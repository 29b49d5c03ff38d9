"""How much faster other optimisers reach the objective that a recipe's own optimiser reaches.

For each published recipe the baseline is its own procedure, to its last step; the target is the
lowest value that it has reached. Contenders are settings that a user can choose:
`optimizer.name=lbfgs` alone, and together with a start at 64 pixels (`scales`; 20 steps at each
size but the last). For `pyramid` the baseline is the loop of `plain_loop`, on the untrained network
and on one with the ranges of a trained one. Baseline and contenders
run one after the other on the same machine, and each is timed on its own. This is done for three
photos, because the speed-up differs by a factor of two between photos.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import torch

from styled.config.merging import resolve_recipe
from styled.config.overrides import RecipeOverrides
from styled.engine.memory import configure_allocator
from styled.engine.objective import Objective, style_targets
from styled.engine.scales import pixel_size, resize, style_image_size
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.engine_api import PixelSize
from styled.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from tests.benchmarks import plain_loop
from tests.benchmarks.pictures import Pair, pairs
from tests.trained_ranges import with_trained_ranges

CONTENDERS = {
    "lbfgs": RecipeOverrides.model_validate({"optimizer": {"name": "lbfgs"}}),
    "coarse to fine": RecipeOverrides.model_validate(
        {
            # The last two are defaults of the name, except for recipes that use it already.
            "optimizer": {"name": "lbfgs", "frequency_preconditioner": True, "trust_radius": 0.15},
            "scales": {"start_px": 64, "factor": 1.3, "steps": 20},
        }
    ),
}


@dataclass(frozen=True)
class Row:
    """The result of the baseline or of a contender for one photo.

    Attributes:
        who: The name of the baseline or contender.
        seconds: Time to the target; None: it was not reached in the baseline's time.
        base: The baseline's seconds.
        total: The lowest objective reached.
        target: The baseline's lowest objective.
    """

    who: str
    seconds: float | None
    base: float
    total: float
    target: float

    @property
    def speedup(self) -> float:
        """The speed-up over the baseline; 0: the target was not reached."""
        return self.base / self.seconds if self.seconds else 0.0


def _totals(network: Vgg19, recipe: Recipe, pair: Pair) -> Iterator[tuple[float, float]]:
    """After each step at full size yield the seconds so far and the objective."""
    start = time.perf_counter()
    for progress in stylize(network, pair.photo, [(pair.painting, 1.0)], recipe):
        if progress.scale == progress.scales:
            yield time.perf_counter() - start, progress.losses.total


def _seconds_to(
    network: Vgg19, recipe: Recipe, pair: Pair, target: float, max_seconds: float
) -> tuple[float | None, float]:
    """Return the seconds to the target, None if it is not reached, and the lowest total."""
    lowest = float("inf")
    for seconds, total in _totals(network, recipe, pair):
        lowest = min(lowest, total)
        if total <= target:
            return seconds, lowest
        if seconds > max_seconds:
            break
    return None, lowest


def _published(network: Vgg19, recipe: Recipe, pair: Pair) -> Iterator[Row]:
    trajectory = list(_totals(network, recipe, pair))
    base, target = trajectory[-1][0], min(total for _, total in trajectory)
    yield Row("its own", base, base, target, target)
    for who, overrides in CONTENDERS.items():
        contender = resolve_recipe(recipe.name, overrides)
        if contender == recipe:
            continue
        seconds, lowest = _seconds_to(network, contender, pair, target, base)
        yield Row(who, seconds, base, lowest, target)


def _pyramid(network: Vgg19, recipe: Recipe, pair: Pair) -> Iterator[Row]:
    start = time.perf_counter()
    (_, image) = deque(plain_loop.paint(network, pair.photo, pair.painting), maxlen=1).pop()
    base = time.perf_counter() - start
    height, width = pair.photo.shape[-2:]
    style_size = style_image_size(recipe, PixelSize(width, height), pixel_size(pair.painting))
    targets = style_targets(network, recipe, [(resize(pair.painting, *style_size), 1.0)])
    target = Objective(network, recipe, pair.photo, targets).evaluate(image)[0].total
    yield Row("plain loop", base, base, target, target)
    seconds, lowest = _seconds_to(network, recipe, pair, target, base)
    yield Row("pyramid", seconds, base, lowest, target)


def compare(network: Vgg19, recipe: Recipe, photos: Sequence[Pair]) -> None:
    """Print a recipe's rows for each photo, and then the median speed-ups."""
    speedups: dict[str, list[float]] = {}
    for pair in photos:
        rows = _pyramid if recipe.name == DEFAULT_RECIPE else _published
        for row in rows(network, recipe, pair):
            _print(recipe.name, pair.name, row)
            speedups.setdefault(row.who, []).append(row.speedup)
    for who, times in list(speedups.items())[1:]:
        print(f"{recipe.name:<12}{'median':<16}{who:<26}{median(times):>8.1f} x", flush=True)


def _print(recipe: str, pair: str, row: Row) -> None:
    seconds = "never" if row.seconds is None else f"{row.seconds:.1f}"
    print(f"{recipe:<12}{pair:<16}{row.who:<16}{seconds:>10}{row.speedup:>8.1f} x"
          f"{row.total:>14.6g}{row.total / row.target:>9.4f}", flush=True)  # fmt: skip


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a table: seconds to the target, speed-up, lowest totals."""
    configure_allocator()
    network = Vgg19(untrained(), device)
    other_network = Vgg19(with_trained_ranges(untrained()), device)
    print(f"time to the value that a recipe's own procedure ends with; torch {torch.__version__}, "
          f"{device}, untrained network; {DEFAULT_RECIPE} also with trained ranges")  # fmt: skip
    print(f"{'recipe':<12}{'photo':<16}{'by':<16}{'seconds':>10}{'speed-up':>10}{'lowest':>14}"
          f"{'ratio':>9}")  # fmt: skip
    for size in sizes:
        photos = [
            Pair(pair.name, pair.photo.to(device), pair.painting.to(device))
            for pair in islice(pairs(size, paintings), 3)
        ]
        for recipe in RECIPES.values():
            compare(network, recipe, photos)
        compare(other_network, RECIPES[DEFAULT_RECIPE], photos)

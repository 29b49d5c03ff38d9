"""How much sooner a better optimiser brings a recipe's objective to where its own leaves it.

For each published recipe the baseline is its own procedure, to its last step; the value to reach
is the lowest that it has seen. Contenders are what a user can ask for: `optimizer.name=lbfgs`
alone, and with it a start at 64 pixels (`scales`; 20 steps at each size but the last). For
`pyramid` the baseline is the plain loop of `plain_loop`. Both sides run in turn on the same
machine, and the seconds of either are its own. That for three photos: from one to another, how
much sooner it is differs by a factor of two.
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
            "optimizer": {"name": "lbfgs", "by_frequency": True, "reach": 0.15},
            "scales": {"start_px": 64, "factor": 1.3, "steps": 20},
        }
    ),
}


@dataclass(frozen=True)
class Row:
    """What somebody needed for one photo.

    Attributes:
        who: `its own`, or a contender.
        seconds: To the target; None: it was not reached in the baseline's time.
        base: Seconds that the baseline took.
        total: The lowest objective that was seen.
        target: That of the baseline.
    """

    who: str
    seconds: float | None
    base: float
    total: float
    target: float

    @property
    def sooner(self) -> float:
        """How many times sooner than the baseline; 0: never."""
        return self.base / self.seconds if self.seconds else 0.0


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
    begun = time.perf_counter()
    (_, image) = deque(plain_loop.paint(network, pair.photo, pair.painting), maxlen=1).pop()
    base = time.perf_counter() - begun
    height, width = pair.photo.shape[-2:]
    of_style = style_picture_size(recipe, (width, height), (pair.painting.shape[3],
                                                            pair.painting.shape[2]))  # fmt: skip
    targets = style_targets(network, recipe, [(resize(pair.painting, *of_style), 1.0)])
    target = Objective(network, recipe, pair.photo, targets).evaluate(image)[0].total
    yield Row("plain loop", base, base, target, target)
    seconds, lowest = _seconds_to(network, recipe, pair, target, base)
    yield Row("pyramid", seconds, base, lowest, target)


def compare(network: Vgg19, recipe: Recipe, photos: Sequence[Pair]) -> None:
    """Print a recipe's rows for each photo, and then how many times sooner in the median."""
    sooner: dict[str, list[float]] = {}
    for pair in photos:
        rows = _pyramid if recipe.name == DEFAULT_RECIPE else _published
        for row in rows(network, recipe, pair):
            _print(recipe.name, pair.name, row)
            sooner.setdefault(row.who, []).append(row.sooner)
    for who, times in list(sooner.items())[1:]:
        print(f"{recipe.name:<12}{'median':<16}{who:<26}{median(times):>8.1f} x", flush=True)


def _print(recipe: str, pair: str, row: Row) -> None:
    seconds = "never" if row.seconds is None else f"{row.seconds:.1f}"
    print(f"{recipe:<12}{pair:<16}{row.who:<16}{seconds:>10}{row.sooner:>8.1f} x"
          f"{row.total:>14.6g}{row.total / row.target:>9.4f}", flush=True)  # fmt: skip


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a table: seconds to the baseline's value, how many times sooner, lowest totals."""
    keep_freed_memory()
    network = Vgg19(untrained(), device)
    print(f"time to the value that a recipe's own procedure ends with; torch {torch.__version__}, "
          f"{device}, untrained network")  # fmt: skip
    print(f"{'recipe':<12}{'photo':<16}{'by':<16}{'seconds':>10}{'sooner':>10}{'lowest':>14}"
          f"{'ratio':>9}")  # fmt: skip
    for size in sizes:
        photos = [
            Pair(pair.name, pair.photo.to(device), pair.painting.to(device))
            for pair in islice(pairs(size, paintings), 3)
        ]
        for recipe in RECIPES.values():
            compare(network, recipe, photos)

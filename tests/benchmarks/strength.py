"""How far a painting departs from its photo at each strength, by recipe.

For three photos and two paintings: the content and the style term of the recipe as it is, of the
results at five strengths, as ratios to those at strength 50, and the difference from the photo. The
published recipes take fewer steps. The last column says whether content never falls and style never
rises with the strength, within `TOLERANCE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from styled.engine.memory import configure_allocator
from styled.engine.objective import Objective, style_targets, to_space
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import PYRAMID, RECIPES, Recipe
from tests.benchmarks.pictures import pairs

STRENGTHS = (0, 25, 50, 75, 100)
MAX_STEPS = {"gatys": 500}
"""Of the published recipes; 100 for the others. `gatys` has to lose its noise first."""

MIN_LONG_EDGE_PX = {"d2l": 300}
"""Far below its own 450 x 300 px, its total variation raises the style term above the photo's."""

PHOTOS = 3
"""Of those of `pairs`: the real ones."""

TOLERANCE = 0.01
"""Relative: recipes whose style term outweighs content by far give almost the same above 50."""


@dataclass(frozen=True)
class Terms:
    """The unweighted terms of a result, and its RMS difference from the photo."""

    content: float
    style: float
    difference: float


def measure(
    network: Vgg19, photo: Tensor, style: Tensor, recipe: Recipe, strengths: Sequence[float]
) -> list[Terms]:
    """Paint a photo at each strength."""
    targets = style_targets(network, recipe, [(style, 1.0)])
    objective = Objective(network, recipe, photo, targets)
    results = []
    for strength in strengths:
        run = stylize(network, photo, [(style, 1.0)], replace(recipe, strength=strength))
        while True:
            try:
                next(run)
            except StopIteration as end:
                image: Tensor = end.value.image
                break
        losses, _ = objective.evaluate(to_space(recipe, image.to(photo)))
        results.append(
            Terms(
                losses.content / recipe.content_weight,
                losses.style / recipe.style_weight,
                float((image.to(photo) - photo).square().mean().sqrt()),
            )
        )
    return results


def is_monotone(results: Sequence[Terms], tolerance: float = TOLERANCE) -> bool:
    """Return whether content never falls and style never rises by more than the tolerance."""
    return all(
        after.content >= before.content * (1 - tolerance)
        and after.style <= before.style * (1 + tolerance)
        for before, after in pairwise(results)
    )


def shortened(recipe: Recipe) -> Recipe:
    """Return a recipe for small pictures; a published one with at most `MAX_STEPS` steps.

    A learning rate that decays does so within these steps.
    """
    recipe = replace(recipe, style_size="scaled")
    if recipe.name == PYRAMID.name:
        return recipe
    steps = min(recipe.steps, MAX_STEPS.get(recipe.name, 100))
    decay_every = recipe.optimizer.decay_every * steps // recipe.steps
    return replace(
        recipe, steps=steps, optimizer=replace(recipe.optimizer, decay_every=decay_every)
    )


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print one table for each size."""
    configure_allocator()
    network = Vgg19(untrained(), device)
    for asked in sizes:
        print(f"\nstrength, untrained network, {device}")
        print("recipe      long edge  strength   content   style  difference  monotone")
        for name, recipe in RECIPES.items():
            size = max(asked, MIN_LONG_EDGE_PX.get(name, 0))
            each = [[path] for path in paintings] or [[]]
            chosen = [pair for one in each for pair in list(pairs(size, one))[:PHOTOS]]
            rows = [
                measure(network, pair.photo.to(device), pair.painting.to(device), shortened(recipe),
                        STRENGTHS)
                for pair in chosen
            ]  # fmt: skip
            count = sum(map(is_monotone, rows))
            middle = STRENGTHS.index(50)
            for index, strength in enumerate(STRENGTHS):
                content = median(r[index].content / r[middle].content for r in rows)
                style_ratio = median(r[index].style / r[middle].style for r in rows)
                difference = median(r[index].difference for r in rows)
                monotone = f"{count} of {len(rows)}" if index == 0 else ""
                print(
                    f"{name:10}  {size:9}  {strength:8}  {content:8.3f}  {style_ratio:8.3f}"
                    f"  {difference:8.4f}  {monotone}",
                    flush=True,
                )

"""What a step asks of a GPU: kernels, matrix products and their FLOPs, before the backward pass.

Counted on fake CUDA tensors, so that no GPU is needed and nothing is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from styled.engine.stylize import stylize
from styled.recipes import RECIPES, Recipe
from tests.fake_cuda import Recorded, fake_cuda, fake_network

STEPS = 7


def recorded_step(recipe: Recipe, size: int) -> Recorded:
    """Return what a step in the middle of a scale asks for, at `size` x two thirds of it."""
    recipe = replace(recipe, steps=STEPS, scales=None, min_improvement=0.0)
    with fake_cuda() as recorder:
        photo, painting = torch.rand(1, 3, size * 2 // 3, size), torch.rand(1, 3, size, size)
        running = stylize(fake_network(), photo, [(painting, 1.0)], recipe)
        for _ in range(STEPS - 2):
            recorder.recorded = Recorded()
            next(running)
        return recorder.recorded


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a row for each recipe and size; device and paintings are not used."""
    print(f"kernels of a step before the backward pass; torch {torch.__version__}, fake CUDA")
    print(f"{'recipe':<12}{'size':>6}{'kernels':>9}{'products':>10}{'float32':>14}{'float64':>14}")
    for size in sizes:
        for recipe in RECIPES.values():
            step = recorded_step(recipe, size)
            flops = (
                f"{step.flops[dtype] / 1e9:.1f} GF" for dtype in (torch.float32, torch.float64)
            )
            print(f"{recipe.name:<12}{size:>6}{step.launches:>9}{sum(step.products.values()):>10}"
                  + "".join(f"{text:>14}" for text in flops), flush=True)  # fmt: skip

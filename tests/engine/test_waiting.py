"""A GPU is never waited for within a step: seen on a CPU by what a step asks of its tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from styled.engine import matrix_root, stage
from styled.engine.guard import Settings
from styled.engine.objective import Objective, style_targets
from styled.engine.stage import Stage
from styled.engine.vgg import Vgg19
from styled.recipes import PYRAMID, RECIPES, Optimizer, Recipe
from tests.engine.conftest import SHALLOW

OPTIMIZERS = [
    PYRAMID.optimizer,
    replace(PYRAMID.optimizer, by_frequency=True),
    Optimizer(name="adam"),
]


class Questions(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Notes everything that brings a number from tensors to Python."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.asked: list[str] = []

    def __torch_dispatch__(  # torch's
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if "_local_scalar_dense" in str(func) or "is_nonzero" in str(func):
            self.asked.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("recipe", "optimizer"),
    [
        *((recipe, OPTIMIZERS[i % 3]) for i, recipe in enumerate(RECIPES.values())),
        *((SHALLOW, optimizer) for optimizer in OPTIMIZERS),
    ],
)
def test_no_step_but_a_few_asks_for_a_number(
    monkeypatch: pytest.MonkeyPatch, network: Vgg19, recipe: Recipe, optimizer: Optimizer
) -> None:
    """Evaluation, update, guard and choice of the best, by the way that a GPU takes."""
    monkeypatch.setattr(matrix_root, "uses_products", lambda device: True)
    photo, painting = torch.rand(1, 3, 48, 64), torch.rand(1, 3, 48, 48)
    targets = style_targets(network, recipe, [(painting, 1.0)])

    def objective(network: Vgg19, tile_px: int | None) -> Objective:
        return Objective(network, recipe, photo, targets, tile_px)

    work = Stage(photo, recipe, Settings(optimizer), network, objective)
    for _ in range(2):  # until there are curvature pairs
        work.advance()
    monkeypatch.setattr(stage.Stage, "_reads_losses", lambda self: False)
    with Questions() as questions:
        # On a CPU torch does this without a word.
        monkeypatch.setattr(torch.Tensor, "tolist", lambda self: questions.asked.append("tolist"))
        losses = work.advance()
        assert questions.asked == []
        assert float(losses.on_device[0]) > 0
        assert questions.asked  # or the way of asking has changed, and nothing was seen


def test_losses_are_read_every_few_steps(network: Vgg19) -> None:
    """On a CPU at each step; elsewhere at every fifth, and at the last."""
    photo = torch.rand(1, 3, 32, 32)
    work = Stage(photo, PYRAMID, Settings(PYRAMID.optimizer), network, lambda *_: None)  # type: ignore[arg-type]  # never called
    assert all(work._reads_losses() for work.steps_done in range(50))
    work._image = torch.empty(1, 3, 32, 32, device="meta")
    read = [step for step in range(50) if _at(work, step)._reads_losses()]
    assert read == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 49]


def _at(work: Stage, step: int) -> Stage:
    work.steps_done = step
    return work

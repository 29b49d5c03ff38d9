"""Steps do not wait for a GPU: checked on a CPU by the tensor values that Python reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from styled.engine import matrix_root, scale_run
from styled.engine.guard import RunSettings
from styled.engine.objective import Objective, style_targets
from styled.engine.scale_run import ScaleRun
from styled.engine.vgg import Vgg19
from styled.recipes import PYRAMID, RECIPES, OptimizerSettings, Recipe
from tests.engine.conftest import SHALLOW

OPTIMIZERS = [
    PYRAMID.optimizer,
    replace(PYRAMID.optimizer, frequency_preconditioner=True),
    OptimizerSettings(name="adam"),
]


class RecordReads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Records operations that copy a value from a tensor to Python."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.reads: list[str] = []

    def __torch_dispatch__(  # torch's
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if "_local_scalar_dense" in str(func) or "is_nonzero" in str(func):
            self.reads.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("recipe", "optimizer"),
    [
        *((recipe, OPTIMIZERS[i % 3]) for i, recipe in enumerate(RECIPES.values())),
        *((SHALLOW, optimizer) for optimizer in OPTIMIZERS),
    ],
)
def test_no_step_but_a_few_asks_for_a_number(
    monkeypatch: pytest.MonkeyPatch, network: Vgg19, recipe: Recipe, optimizer: OptimizerSettings
) -> None:
    """Evaluation, update, guard and best image read no values, on the code path for GPUs."""
    monkeypatch.setattr(matrix_root, "uses_polar_factor", lambda device: True)
    photo, painting = torch.rand(1, 3, 48, 64), torch.rand(1, 3, 48, 48)
    targets = style_targets(network, recipe, [(painting, 1.0)])

    def objective(network: Vgg19, tile_px: int | None) -> Objective:
        return Objective(network, recipe, photo, targets, tile_px)

    run = ScaleRun(photo, recipe, RunSettings(optimizer), network, objective)
    for _ in range(2):  # until there are curvature pairs
        run.advance()
    monkeypatch.setattr(scale_run.ScaleRun, "_reads_values", lambda self: False)
    with RecordReads() as recorder:
        # On a CPU `tolist` is not dispatched.
        monkeypatch.setattr(torch.Tensor, "tolist", lambda self: recorder.reads.append("tolist"))
        losses = run.advance()
        assert recorder.reads == []
        assert float(losses.on_device[0]) > 0
        assert recorder.reads  # otherwise the recording does not work


def test_losses_are_read_every_few_steps(network: Vgg19) -> None:
    """On a CPU losses are read at each step; elsewhere at the first, every fifth and the last."""
    photo = torch.rand(1, 3, 32, 32)
    run = ScaleRun(photo, PYRAMID, RunSettings(PYRAMID.optimizer), network, lambda *_: None)  # type: ignore[arg-type]  # never called
    assert all(run._reads_values() for run.steps_done in range(50))
    run._image = torch.empty(1, 3, 32, 32, device="meta")
    read = [step + 1 for step in range(50) if _at(run, step)._reads_values()]
    assert read == [1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50]


def _at(run: ScaleRun, step: int) -> ScaleRun:
    run.steps_done = step
    return run

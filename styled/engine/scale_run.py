"""The optimisation at one scale: image, optimiser state, best image and rollback."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.degradation import Degradation
from styled.engine.checkpoint import Checkpoint
from styled.engine.convergence import CHECK_EVERY_STEPS, Convergence
from styled.engine.guard import RunSettings, is_good, safer
from styled.engine.objective import Losses, Objective, from_space, to_space
from styled.engine.optimizers import Box, Optimizer, make_optimizer
from styled.engine.scales import resize
from styled.engine.vgg import Vgg19
from styled.recipes import OptimizerSettings, Recipe

MakeObjective = Callable[[Vgg19, int | None], Objective]
"""Builds the objective of a scale from the network in use and the tile size, None: no tiles."""

SMOOTHING_DECAY, MIN_SMOOTHING = 0.97, 0.01
"""Factor on the TV smoothing per step, and its lower bound as a share of the initial value."""


def valid_colors(recipe: Recipe, device: torch.device) -> Box | None:
    """Return the valid colours in the recipe's space; None if the recipe does not clamp."""
    if not recipe.clamp:
        return None
    black = torch.zeros(1, 3, 1, 1, device=device)
    return Box(to_space(recipe, black), to_space(recipe, torch.ones_like(black)))


class ScaleRun:
    """The state of the optimisation at one scale."""

    def __init__(
        self,
        image: Tensor,
        recipe: Recipe,
        settings: RunSettings,
        network: Vgg19,
        make_objective: MakeObjective,
        optimizer: Optimizer | None = None,
    ) -> None:
        """Start from `image`, 1x3xHxW in the recipe's space."""
        self._recipe = recipe
        self._network = network
        self._make_objective = make_objective
        self.settings = settings
        self._objective: Objective | None = None  # made at the first step that needs it
        self._box = valid_colors(recipe, image.device)
        self._optimizer = optimizer or make_optimizer(settings.optimizer, self._box)
        self.updating = False  # whether an update of the image is in progress
        self._image = image.clone()
        self._best = image.clone()
        self._best_total = torch.full((), math.inf, device=image.device)
        self._first_total = math.inf
        self._convergence = Convergence(recipe.min_improvement)
        self._losses_read = Losses.of(math.nan, math.nan, math.nan, math.nan)
        self.steps_done = 0
        self.finished = False

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        recipe: Recipe,
        settings: RunSettings,
        network: Vgg19,
        make_objective: MakeObjective,
    ) -> ScaleRun:
        """Restore the run exactly as it was when the checkpoint was taken."""
        run = cls(checkpoint.image, recipe, settings, network, make_objective)
        run._best = checkpoint.best
        run._best_total = checkpoint.image.new_tensor(checkpoint.best_total)
        run._first_total = checkpoint.first_total
        run._convergence = Convergence.restored(recipe.min_improvement, checkpoint.convergence)
        run._optimizer.load(checkpoint.optimizer)
        run.steps_done = checkpoint.step
        run.finished = checkpoint.finished
        return run

    def next_scale(
        self,
        width: int,
        height: int,
        recipe: Recipe,
        settings: RunSettings,
        make_objective: MakeObjective,
        detail: Tensor | None = None,
    ) -> ScaleRun:
        """Return the run of the next scale, which starts from this one's result.

        `detail`, 1x3xHxW in sRGB, is added to it: what enlarging can't bring back.
        """
        image = resize(from_space(self._recipe, self.result()).clamp(0, 1), width, height)
        if detail is not None:
            image = (image + detail).clamp(0, 1)
        return ScaleRun(
            to_space(recipe, image),
            recipe,
            settings,
            self._network,
            make_objective,
            self._optimizer.for_scale(width, height, settings.optimizer),
        )

    def advance(self) -> Losses:
        """Take one step, or roll back to the best image if the loss is bad.

        Returns:
            The losses of the image before the step; on a GPU those that were read last, of an
            image up to four steps earlier.

        Raises:
            EngineFailure: the loss is bad and no safer settings are left.
        """
        if self._objective is None:
            self._objective = self._make_objective(self._current_network(), self.settings.tile_px)
        losses, gradient = self._objective.evaluate(self._image, self._tv_smoothing())
        total = losses.on_device[0]
        is_best = total < self._best_total
        self._best_total = torch.where(is_best, total, self._best_total)
        best_total = None
        if self._reads_values():
            # One transfer for all values: each one waits for the device.
            values = torch.cat([losses.on_device, self._best_total[None]]).cpu()
            self._losses_read, best_total = Losses(values[:4]), float(values[4])
            if self.steps_done == 0:
                self._first_total = max(self._losses_read.total, self._gray_total())
            if not is_good(self._losses_read.total, self._first_total):
                self.steps_done += 1
                self._roll_back(self._losses_read.total)
                return self._losses_read
        torch.where(is_best, self._image, self._best, out=self._best)
        self.updating = True
        self._optimizer.update(self._image, gradient, total)
        self.updating = False
        self.steps_done += 1
        self.finished = self.steps_done >= self._recipe.steps
        if best_total is not None and self._convergence.note(self.steps_done, best_total):
            self.finished = True
        return self._losses_read

    def _gray_total(self) -> float:
        """Return the loss of uniform grey if the recipe's strength is below 50, otherwise zero.

        Then the initial image is the photo, whose loss is near zero: any step would look divergent.
        """
        if self._recipe.strength >= 50:
            return 0.0
        assert self._objective is not None, "it was just evaluated"
        gray = to_space(self._recipe, torch.full_like(self._image, 0.5))
        losses, _ = self._objective.evaluate(gray)
        return losses.total

    def reduce_memory(self, settings: RunSettings) -> None:
        """Continue with settings that take less memory, after an allocation has failed.

        The optimiser keeps its state, unless an update was interrupted or the optimiser's
        settings have changed.
        """
        self.drop_objective()
        if self.updating or settings.optimizer != self.settings.optimizer:
            self._optimizer = make_optimizer(settings.optimizer, self._box)
            self.updating = False
        self.settings = settings

    def drop_objective(self) -> None:
        """Free the objective; the next step builds it again."""
        self._objective = None

    def keep_result_only(self) -> None:
        """Free everything except the result; the run takes no further steps."""
        self.drop_objective()
        self._image = self.result()
        self._optimizer = make_optimizer(self.settings.optimizer, self._box)

    def _reads_values(self) -> bool:
        """Return whether the host reads values of the next step, which waits for the device.

        On a CPU it always does, at no cost. On other devices a bad step is detected a few steps
        late; it never becomes the best image.
        """
        if self._image.device.type == "cpu":
            return True
        step, recipe = self.steps_done + 1, self._recipe
        return (
            step in (1, recipe.steps)
            or step % CHECK_EVERY_STEPS == 0
            or step % recipe.trace_every == 0
        )

    def _tv_smoothing(self) -> float:
        """Return the TV smoothing of the next step, see `total_variation`."""
        optimizer = self.settings.optimizer
        if optimizer.name != "lbfgs" or not optimizer.tv_smoothing:
            return 0.0
        return optimizer.tv_smoothing * max(SMOOTHING_DECAY**self.steps_done, MIN_SMOOTHING)

    def _roll_back(self, total: float) -> None:
        network = self._current_network()
        self.settings = safer(
            self.settings, total, reduced_precision=network.dtype != torch.float32
        )
        if self._current_network() is not network:
            self.drop_objective()
        self._optimizer = make_optimizer(self.settings.optimizer, self._box)
        self._image.copy_(self._best)
        if not math.isfinite(self._first_total):
            self.steps_done = 0  # the first step has not succeeded yet
        self.finished = self.steps_done >= self._recipe.steps

    @property
    def expected_steps(self) -> float | None:
        """After how many steps this scale is expected to converge; None: not known yet."""
        return self._convergence.expected_steps

    def _current_network(self) -> Vgg19:
        return self._network.in_float32() if self.settings.float32 else self._network

    def result(self) -> Tensor:
        """Return the result of this scale so far, in the recipe's space."""
        if self._recipe.keep == "best":
            # Without a line search a step may overshoot, so the last image may not be the best.
            return self._best
        return self._optimizer.result(self._image)

    def thumbnail(self, long_edge_px: int) -> Tensor:
        """Return the current image in the recipe's space, shrunk to at most `long_edge_px`."""
        height, width = self._image.shape[-2:]
        factor = min(1.0, long_edge_px / max(height, width))
        size = max(1, round(height * factor)), max(1, round(width * factor))
        return F.interpolate(self._image, size, mode="area")

    def snapshot(self, scale: int, trace: list[Any], environment: Mapping[str, Any]) -> Checkpoint:
        """Return a checkpoint from which this run can be resumed."""
        return Checkpoint(
            scale=scale,
            step=self.steps_done,
            finished=self.finished,
            image=self._image,
            best=self._best,
            best_total=float(self._best_total),
            first_total=self._first_total,
            convergence=self._convergence.state(),
            optimizer=self._optimizer.state(),
            run_settings=_as_plain(self.settings),
            trace=trace,
            environment=environment,
        )


def _as_plain(settings: RunSettings) -> dict[str, Any]:
    return asdict(settings)


def restored_settings(plain: Mapping[str, Any]) -> RunSettings:
    """Return the settings stored in a checkpoint, see `Checkpoint.run_settings`."""
    optimizer = OptimizerSettings(
        **{**plain["optimizer"], "betas": tuple(plain["optimizer"]["betas"])}
    )
    degraded = tuple(Degradation(**entry) for entry in plain["degraded"])
    return RunSettings(
        **{**plain, "optimizer": optimizer, "degraded": degraded},
    )

"""One scale of the optimisation: its image, its optimiser, and its way back."""

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
from styled.engine.guard import Settings, is_good, safer
from styled.engine.objective import Losses, Objective, from_space, to_space
from styled.engine.optimizers import Box, Optimizer, make_optimizer
from styled.engine.scales import resize
from styled.engine.vgg import Vgg19
from styled.recipes import Optimizer as OptimizerRecipe
from styled.recipes import Recipe

MakeObjective = Callable[[Vgg19, int | None], Objective]
"""Makes the objective of a scale: for a network in some precision, and tiles of some size."""

MILESTONE_STEPS = 10
"""Over how many steps an improvement is measured."""

READ_EVERY_STEPS = 5
"""How often the losses are read where the host would have to wait for the device."""

ROUNDING_KEPT, LEAST_ROUNDING = 0.97, 0.01
"""How much of the rounding of kinks is left after a step, and at the least."""


def valid_colors(recipe: Recipe, device: torch.device) -> Box | None:
    """Return what the recipe keeps its pixels within, in its space; None: nothing."""
    if not recipe.clamp:
        return None
    black = torch.zeros(1, 3, 1, 1, device=device)
    return Box(to_space(recipe, black), to_space(recipe, torch.ones_like(black)))


class Stage:
    """The state of the optimisation at one scale."""

    def __init__(
        self,
        image: Tensor,
        recipe: Recipe,
        settings: Settings,
        network: Vgg19,
        make_objective: MakeObjective,
        optimizer: Optimizer | None = None,
    ) -> None:
        """Begin at `image`, 1x3xHxW in the recipe's space."""
        self._recipe = recipe
        self._network = network
        self._make_objective = make_objective
        self.settings = settings
        self._objective: Objective | None = None  # made at the first step that needs it
        self._box = valid_colors(recipe, image.device)
        self._optimizer = optimizer or make_optimizer(settings.optimizer, self._box)
        self.updating = False  # whether an update of the image has begun and not ended
        self._image = image.clone()
        self._best = image.clone()
        self._best_total = image.new_tensor(math.inf)
        self._first_total = math.inf
        self._milestone = math.inf
        self.steps_done = 0
        self.finished = False

    @classmethod
    def resumed(
        cls,
        checkpoint: Checkpoint,
        recipe: Recipe,
        settings: Settings,
        network: Vgg19,
        make_objective: MakeObjective,
    ) -> Stage:
        """Go on exactly where a checkpoint was taken."""
        stage = cls(checkpoint.image, recipe, settings, network, make_objective)
        stage._best = checkpoint.best
        stage._best_total = checkpoint.image.new_tensor(checkpoint.best_total)
        stage._first_total = checkpoint.first_total
        stage._milestone = checkpoint.milestone
        stage._optimizer.load(checkpoint.optimizer)
        stage.steps_done = checkpoint.step
        stage.finished = checkpoint.finished
        return stage

    def enlarged(
        self,
        width: int,
        height: int,
        recipe: Recipe,
        settings: Settings,
        make_objective: MakeObjective,
    ) -> Stage:
        """Return the next scale, which begins with this one's result."""
        image = resize(from_space(self._recipe, self.result()).clamp(0, 1), width, height)
        return Stage(
            to_space(recipe, image),
            recipe,
            settings,
            self._network,
            make_objective,
            self._optimizer.at_size(width, height, settings.optimizer),
        )

    def advance(self) -> Losses:
        """Take one step, or roll back from a bad one; return the losses before it.

        Raises:
            EngineFailure: nothing safer is left to try.
        """
        if self._objective is None:
            self._objective = self._make_objective(self._present_network(), self.settings.tile_px)
        losses, gradient = self._objective.evaluate(self._image, self._rounding())
        if self.steps_done == 0:
            self._first_total = losses.total
        if not self._reads_losses() or is_good(losses.total, self._first_total):
            total = losses.on_device[0]
            is_best = total < self._best_total
            self._best_total = torch.where(is_best, total, self._best_total)
            torch.where(is_best, self._image, self._best, out=self._best)
            self.updating = True
            self._optimizer.update(self._image, gradient, total)
            self.updating = False
            self.steps_done += 1
            self.finished = self.steps_done >= self._recipe.steps or self._has_converged()
        else:
            self.steps_done += 1
            self._roll_back(losses.total)
        return losses

    def relieve(self, settings: Settings) -> None:
        """Go on with settings that take less memory, after an allocation has failed.

        The optimiser stays as it is, unless it was in the middle of an update or is to
        remember less.
        """
        self.release()
        if self.updating or settings.optimizer != self.settings.optimizer:
            self._optimizer = make_optimizer(settings.optimizer, self._box)
            self.updating = False
        self.settings = settings

    def release(self) -> None:
        """Let go of all that the next step would compute again."""
        self._objective = None

    def settle(self) -> None:
        """Keep the result, and let go of the way to it: the next scale has begun."""
        self.release()
        self._image = self.result()
        self._optimizer = make_optimizer(self.settings.optimizer, self._box)

    def _reads_losses(self) -> bool:
        """Tell whether the host looks at the losses of this step, and waits for them.

        On a CPU it does always, which costs nothing. Elsewhere a bad step is found out a few
        steps later; the best image is never a bad one.
        """
        is_last = self.steps_done + 1 >= self._recipe.steps
        every = 1 if self._image.device.type == "cpu" else READ_EVERY_STEPS
        return is_last or self.steps_done % every == 0

    def _rounding(self) -> float:
        """Return over how much kinks are rounded off in the next step."""
        optimizer = self.settings.optimizer
        if optimizer.name != "lbfgs" or not optimizer.rounding:
            return 0.0
        return optimizer.rounding * max(ROUNDING_KEPT**self.steps_done, LEAST_ROUNDING)

    def _roll_back(self, total: float) -> None:
        network = self._present_network()
        self.settings = safer(
            self.settings, total, reduced_precision=network.dtype != torch.float32
        )
        if self._present_network() is not network:
            self.release()
        self._optimizer = make_optimizer(self.settings.optimizer, self._box)
        self._image.copy_(self._best)
        if not math.isfinite(self._first_total):
            self.steps_done = 0  # there has been no first step yet
        self.finished = self.steps_done >= self._recipe.steps

    def _has_converged(self) -> bool:
        if not self._recipe.min_improvement or self.steps_done % MILESTONE_STEPS:
            return False
        best_total = float(self._best_total)
        gained = (self._milestone - best_total) / max(abs(best_total), 1e-12)
        self._milestone = best_total
        return gained < self._recipe.min_improvement

    def _present_network(self) -> Vgg19:
        return self._network.in_float32() if self.settings.float32 else self._network

    def result(self) -> Tensor:
        """Return the image that this scale has come to, in the recipe's space."""
        if self._recipe.keep == "best":
            # Without a line search a step may overshoot: the last image need not be the best.
            return self._best
        return self._optimizer.result(self._image)

    def thumbnail(self, long_edge_px: int) -> Tensor:
        """Return the present image, in the recipe's space, with edges of at most so many pixels."""
        height, width = self._image.shape[-2:]
        factor = min(1.0, long_edge_px / max(height, width))
        size = max(1, round(height * factor)), max(1, round(width * factor))
        return F.interpolate(self._image, size, mode="area")

    def snapshot(self, scale: int, trace: list[Any], environment: Mapping[str, Any]) -> Checkpoint:
        """Return everything that is needed to go on from here."""
        return Checkpoint(
            scale=scale,
            step=self.steps_done,
            finished=self.finished,
            image=self._image,
            best=self._best,
            best_total=float(self._best_total),
            first_total=self._first_total,
            milestone=self._milestone,
            optimizer=self._optimizer.state(),
            settings=_as_plain(self.settings),
            trace=trace,
            environment=environment,
        )


def _as_plain(settings: Settings) -> dict[str, Any]:
    return asdict(settings)


def restored_settings(plain: Mapping[str, Any]) -> Settings:
    """Return the settings that a checkpoint remembers."""
    optimizer = OptimizerRecipe(
        **{**plain["optimizer"], "betas": tuple(plain["optimizer"]["betas"])}
    )
    degraded = tuple(Degradation(**known) for known in plain["degraded"])
    return Settings(
        **{**plain, "optimizer": optimizer, "degraded": degraded},
    )

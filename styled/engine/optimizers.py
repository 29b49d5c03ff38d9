"""First-order and quasi-Newton updates of an image inside the box of valid colours.

One call of `update` is one step: it takes the gradient at the present image and moves
the image in place. Nothing here evaluates the objective, so a step costs exactly one
evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from styled.recipes import Optimizer as OptimizerRecipe

State = dict[str, Any]
"""Tensors, numbers and lists of them, as torch.save with weights_only reads them back."""


class Optimizer(Protocol):
    """Moves an image downhill, one gradient at a time."""

    def update(self, image: Tensor, gradient: Tensor) -> None:
        """Move `image` (1x3xHxW) in place, given the gradient at it."""

    def state(self) -> State:
        """Return all that is needed to go on exactly from here."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` has returned."""


def make_optimizer(recipe: OptimizerRecipe) -> Optimizer:
    """Return a fresh optimiser as the recipe describes it."""
    if recipe.name == "lbfgs":
        return Lbfgs(recipe.learning_rate, recipe.history)
    return Adam(recipe.learning_rate, recipe.betas)


class Lbfgs:
    """L-BFGS without a line search: Nocedal and Wright, "Numerical Optimization", algorithm 7.4.

    It departs from the book in its handling of the box [0, 1]. Pixels that sit on a bound
    and would be pushed beyond it are left out of the direction; the others move, and are
    clamped. Curvature pairs are the differences of what was really visited, after
    clamping, so that they stay true to the function.
    """

    def __init__(self, learning_rate: float = 1.0, history: int = 20) -> None:
        """Take steps of `learning_rate` times the quasi-Newton step, from `history` pairs."""
        self._learning_rate = learning_rate
        self._pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=history)
        self._previous: tuple[Tensor, Tensor] | None = None

    def update(self, image: Tensor, gradient: Tensor) -> None:
        """Move `image` (1x3xHxW in [0, 1]) in place, given the gradient at it."""
        if self._previous is not None:
            self._remember(image - self._previous[0], gradient - self._previous[1])
        self._previous = image.clone(), gradient.clone()

        free = ~(((image <= 0) & (gradient > 0)) | ((image >= 1) & (gradient < 0)))
        downhill = torch.where(free, -gradient, torch.zeros_like(gradient))
        direction = self._newton_step(downhill)
        direction = torch.where(free, direction, torch.zeros_like(direction))
        if not self._pairs or _dot(direction, gradient) >= 0:
            self._pairs.clear()
            direction = downhill * min(1.0, 1.0 / max(float(downhill.abs().sum()), 1e-12))
        image.add_(direction, alpha=self._learning_rate).clamp_(0, 1)

    def _remember(self, moved: Tensor, bent: Tensor) -> None:
        curvature = _dot(moved, bent)
        # A pair without clearly positive curvature would make the model indefinite.
        if curvature > 1e-10 * _dot(bent, bent):
            self._pairs.append((moved, bent, 1.0 / curvature))

    def _newton_step(self, downhill: Tensor) -> Tensor:
        if not self._pairs:
            return downhill
        direction = downhill.clone()
        projections = []
        for moved, bent, inverse_curvature in reversed(self._pairs):
            projection = inverse_curvature * _dot(moved, direction)
            direction.sub_(bent, alpha=projection)
            projections.append(projection)
        _, bent, inverse_curvature = self._pairs[-1]
        direction.div_(inverse_curvature * _dot(bent, bent))
        for (moved, bent, inverse_curvature), projection in zip(
            self._pairs, reversed(projections), strict=True
        ):
            direction.add_(moved, alpha=projection - inverse_curvature * _dot(bent, direction))
        return direction

    def state(self) -> State:
        """Return the curvature pairs and the last point."""
        return {
            "pairs": [list(pair) for pair in self._pairs],
            "previous": None if self._previous is None else list(self._previous),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` has returned."""
        self._pairs.clear()
        self._pairs.extend((moved, bent, rho) for moved, bent, rho in state["pairs"])
        previous = state["previous"]
        self._previous = None if previous is None else (previous[0], previous[1])


class Adam:
    """Adam (Kingma and Ba, 2015), algorithm 1, with every pixel clamped to [0, 1]."""

    def __init__(self, learning_rate: float, betas: tuple[float, float]) -> None:
        """Take steps of about `learning_rate` for each pixel."""
        self._learning_rate = learning_rate
        self._betas = betas
        self._steps = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def update(self, image: Tensor, gradient: Tensor) -> None:
        """Move `image` (1x3xHxW in [0, 1]) in place, given the gradient at it."""
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(image), torch.zeros_like(image)
        decay_first, decay_second = self._betas
        self._steps += 1
        self._first.lerp_(gradient, 1 - decay_first)
        self._second.mul_(decay_second).addcmul_(gradient, gradient, value=1 - decay_second)
        spread = (self._second / (1 - decay_second**self._steps)).sqrt_().add_(1e-8)
        rate = self._learning_rate / (1 - decay_first**self._steps)
        image.addcdiv_(self._first, spread, value=-rate).clamp_(0, 1)

    def state(self) -> State:
        """Return both moments and the number of steps."""
        return {"steps": self._steps, "first": self._first, "second": self._second}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` has returned."""
        self._steps, self._first, self._second = state["steps"], state["first"], state["second"]


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))

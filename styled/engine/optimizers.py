"""First-order and quasi-Newton updates of an image, with or without a box of valid colours.

One call of `update` is one step: it takes value and gradient at the present image and
moves the image in place. Nothing here evaluates the objective, so a step costs exactly one
evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.spectrum import band_energies, with_gains
from styled.recipes import Optimizer as OptimizerRecipe

BLIND_REACH = 0.05
"""The most that a pixel moves without knowledge of the curvature, where no reach is set."""

BLIND_SHARE = 0.2
"""The most that a pixel moves in the first step, as a share of the reach, where one is set."""

GAINS_APART = 1000.0
"""The most that one band is stretched beyond, or less than, the median of all.

Bands of a photo of 96 px lay within 50 of it. In one without any curvature, where the slope stays
the same, rounding alone would tell how far to go.
"""

REGAINED = 0.5
"""How much of a halving a good step makes up for, after one that had to be taken back.

If all of it is made up for at once, every other step of a start from noise leads uphill.
"""

State = dict[str, Any]
"""Tensors, numbers and lists of them, as torch.save with weights_only reads them back."""


@dataclass(frozen=True, slots=True)
class Box:
    """Within which the image is kept: scalars, or 1x3x1x1 where channels differ."""

    least: Tensor
    largest: Tensor


class Optimizer(Protocol):
    """Moves an image downhill, one gradient at a time."""

    def update(self, image: Tensor, gradient: Tensor, total: float | Tensor) -> None:
        """Take one step.

        Args:
            image: 1x3xHxW, moved in place.
            gradient: At the image; it is kept, so it must not be changed afterwards.
            total: The objective's value there, as a number or a scalar on the image's device.
        """

    def result(self, image: Tensor) -> Tensor:
        """Return what the optimiser holds to be the answer when it stands at `image`."""

    def at_size(self, width: int, height: int, recipe: OptimizerRecipe) -> Optimizer:
        """Return one for the next scale, as `recipe` has it, with what can be carried over."""

    def state(self) -> State:
        """Return all that is needed to go on exactly from here."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` has returned."""


def make_optimizer(recipe: OptimizerRecipe, box: Box | None = None) -> Optimizer:
    """Return a fresh optimiser; with a box it keeps the image within that."""
    return Lbfgs(recipe, box) if recipe.name == "lbfgs" else Adam(recipe, box)


@dataclass(frozen=True, slots=True)
class _Visited:
    """A point that a step was taken from, with the total there, a scalar."""

    image: Tensor
    gradient: Tensor
    total: Tensor


@dataclass(frozen=True, slots=True)
class _Pair:
    """What one step has taught of the curvature.

    Attributes:
        moved: How the image was moved, 1x3xHxW.
        bent: How the gradient changed.
        inverse_curvature: 1 / (moved . bent), a scalar; 0: the pair is of no use.
        energies: Of `moved` and `bent` in each band, 2x3xK; None: frequencies are not told apart.
    """

    moved: Tensor
    bent: Tensor
    inverse_curvature: Tensor
    energies: Tensor | None


class Lbfgs:
    """L-BFGS without a line search: Nocedal and Wright, "Numerical Optimization", algorithm 7.4.

    It departs from the book in its handling of the box. Pixels that sit on a bound
    and would be pushed beyond it are left out of the direction; the others move, and are
    clamped. Curvature pairs hold the moves that were really made, after clamping, so that
    they stay true to the function.

    Where the recipe sets a `reach`, three safeguards stand in for the line search, at no
    evaluation of their own: the first step is large enough to tell curvature from rounding,
    none goes farther than the reach, and one that has led uphill is taken back. What it has
    taught of the curvature is kept, so that it is not wasted either.

    Where the recipe says `by_frequency`, what the pairs do not tell is not taken to be the same
    curvature for all directions, but one for each band of frequencies in each color (`spectrum`),
    as the same pairs show it. The curvature of a style's statistics, and more so that of a total
    variation, differs between coarse and fine by orders of magnitude.

    All decisions are taken where the image is, by choosing between results: a GPU that had to
    ask would wait for the answer at each of some thirty products in a step.
    """

    def __init__(self, recipe: OptimizerRecipe, box: Box | None = None) -> None:
        """Take steps of the learning rate times the quasi-Newton step."""
        self._recipe = recipe
        self._box = box
        self._steps = 0
        self._pairs: deque[_Pair] = deque(maxlen=recipe.history)
        # Scalars, made with the first step:
        self._stretch: Tensor | None = None  # of the last pair; 0: no pair is of use
        self._blind_steps: Tensor | None = None  # in a row, without any pair of use
        self._halvings: Tensor | None = None  # of the next step, after some that led uphill
        self._last: _Visited | None = None

    def update(self, image: Tensor, gradient: Tensor, total: float | Tensor) -> None:
        """Take one step; see `Optimizer`."""
        if self._stretch is None or self._blind_steps is None or self._halvings is None:
            nothing = image.new_zeros(())
            self._stretch, self._blind_steps, self._halvings = nothing, nothing, nothing
        total = torch.as_tensor(total, dtype=image.dtype, device=image.device)
        uphill = torch.zeros_like(total, dtype=torch.bool)
        if self._last is not None:
            self._remember(image - self._last.image, gradient - self._last.gradient)
            if self._recipe.reach:
                uphill = total > self._last.total
                made_up = (self._halvings - REGAINED).clamp(min=0.0)
                self._halvings = torch.where(uphill, self._halvings + 1, made_up)
                total = torch.where(uphill, self._last.total, total)
                gradient = torch.where(uphill, self._last.gradient, gradient)
                image.copy_(torch.where(uphill, self._last.image, image))
        move = self._direction(image, gradient, again=uphill)
        move.mul_(_rate(self._recipe, self._steps) * torch.pow(0.5, self._halvings))
        if self._recipe.reach:
            length = torch.linalg.vector_norm(move) / move.numel() ** 0.5
            move.mul_((self._recipe.reach / length.clamp(min=1e-12)).clamp(max=1.0))
        self._last = _Visited(image.clone(), gradient, total)
        image.add_(move)
        if self._box is not None:
            image.clamp_(self._box.least, self._box.largest)
        self._steps += 1

    def _direction(self, image: Tensor, gradient: Tensor, again: Tensor) -> Tensor:
        """Return where to go; `again` tells whether the last step from here was taken back."""
        assert self._stretch is not None
        assert self._blind_steps is not None
        downhill = self._without_blocked(image, gradient, -gradient)
        direction = self._without_blocked(image, gradient, self._newton_step(downhill))
        knows = self._stretch > 0
        leads_down = knows & (_dot(direction, gradient) < 0)
        # A model that leads uphill is worth nothing, and is begun anew.
        self._blind_steps = torch.where(knows & ~leads_down, 0.0, self._blind_steps)
        self._stretch = torch.where(leads_down, self._stretch, 0.0)
        for pair in self._pairs:
            pair.inverse_curvature.mul_(leads_down)
        blind = downhill.mul_(self._blind_reach(downhill))
        self._blind_steps = self._blind_steps + (~leads_down & ~again)
        return torch.where(leads_down, direction, blind)

    def _blind_reach(self, downhill: Tensor) -> Tensor:
        """Return how far to go downhill where nothing is known of the curvature.

        Where the ground falls ever more steeply, as it does around a uniform grey, the first
        step tells nothing of a minimum: each further one goes twice as far, until one does.
        Without a reach the first is of a size that can't hurt, 1 / sum|g|.
        """
        assert self._blind_steps is not None
        steepest = downhill.abs().amax().clamp(min=1e-12)
        growth = torch.pow(2.0, self._blind_steps)
        if self._recipe.reach:
            return (BLIND_SHARE * growth).clamp(max=1.0) * self._recipe.reach / steepest
        first = (1.0 / downhill.abs().sum().clamp(min=1e-12)).clamp(max=1.0)
        return torch.maximum(first, torch.minimum(first * growth, BLIND_REACH / steepest))

    def _without_blocked(self, image: Tensor, gradient: Tensor, direction: Tensor) -> Tensor:
        if self._box is None:
            return direction
        would_sink = (image <= self._box.least) & (gradient > 0)
        would_rise = (image >= self._box.largest) & (gradient < 0)
        blocked = would_sink | would_rise
        return direction.masked_fill(blocked, 0.0)

    def _remember(self, moved: Tensor, bent: Tensor) -> None:
        assert self._stretch is not None
        assert self._blind_steps is not None
        curvature, bent_squared = _dot(moved, bent), _dot(bent, bent)
        # A pair without clearly positive curvature would make the model indefinite.
        is_of_use = curvature > 1e-10 * bent_squared
        energies = None
        if self._recipe.by_frequency:
            energies = torch.stack([band_energies(moved), band_energies(bent)])
        inverse_curvature = torch.where(is_of_use, 1.0 / curvature, 0.0)
        self._pairs.append(_Pair(moved, bent, inverse_curvature, energies))
        self._stretch = torch.where(is_of_use, curvature / bent_squared, self._stretch)
        self._blind_steps = torch.where(is_of_use, 0.0, self._blind_steps)

    def _newton_step(self, downhill: Tensor) -> Tensor:
        assert self._stretch is not None
        direction = downhill.clone()
        projections = []
        for pair in reversed(self._pairs):
            projection = pair.inverse_curvature * _dot(pair.moved, direction)
            direction.addcmul_(pair.bent, projection, value=-1)
            projections.append(projection)
        direction = self._stretched(direction)
        for pair, projection in zip(self._pairs, reversed(projections), strict=True):
            rest = projection - pair.inverse_curvature * _dot(pair.bent, direction)
            direction.addcmul_(pair.moved, rest)
        return direction

    def _stretched(self, direction: Tensor) -> Tensor:
        """Return the step that a model without pairs would take for this slope.

        Barzilai and Borwein (1988) give two lengths for it, moved^2 / (moved . bent) and
        (moved . bent) / bent^2, the second of which is the book's. Within one band, where
        moved . bent may be negative, so may be either; their geometric mean is not.
        """
        assert self._stretch is not None
        gains = latest = None
        for pair in self._pairs:
            if pair.energies is None:
                continue
            # Each pair counts the same, however far it went.
            shares = pair.energies * pair.inverse_curvature
            gains = shares if gains is None else gains + shares
            is_of_use = pair.inverse_curvature > 0
            latest = shares if latest is None else torch.where(is_of_use, shares, latest)
        if gains is None or latest is None:
            return direction.mul_(self._stretch)
        moved, bent = gains.clamp(min=torch.finfo(gains.dtype).tiny).sqrt()
        gains = moved / bent
        gains = gains.clamp(gains.median() / GAINS_APART, gains.median() * GAINS_APART)
        # How large all are together is for the latest pair to say, as it is without bands.
        overall = (latest[0] / gains).sum() / (latest[1] * gains).sum()
        return with_gains(direction, gains * overall.sqrt())

    def result(self, image: Tensor) -> Tensor:
        """Return the image itself."""
        return image

    def at_size(self, width: int, height: int, recipe: OptimizerRecipe) -> Lbfgs:
        """Return a fresh one: curvature at one scale says little of the next."""
        return Lbfgs(recipe, self._box)

    def state(self) -> State:
        """Return the curvature pairs and the point of the last step."""
        last = self._last
        return {
            "steps": self._steps,
            "scalars": [self._stretch, self._blind_steps, self._halvings],
            # Copied: the next step may change the number, and a checkpoint is written later.
            "pairs": [
                [p.moved, p.bent, p.inverse_curvature.clone(), p.energies] for p in self._pairs
            ],
            "last": None if last is None else [last.image, last.gradient, last.total],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` has returned."""
        self._steps = state["steps"]
        self._stretch, self._blind_steps, self._halvings = state["scalars"]
        self._pairs.clear()
        self._pairs.extend(_Pair(*pair) for pair in state["pairs"])
        last = state["last"]
        self._last = None if last is None else _Visited(*last)


class Adam:
    """Adam: Kingma and Ba (2015), algorithm 1.

    It can average its iterates, which takes the jitter of a constant rate out of the
    result, and carry its moments from scale to scale, which spares it to find the right
    step lengths again; both after K. Crowson's style-transfer-pytorch.
    """

    def __init__(self, recipe: OptimizerRecipe, box: Box | None = None) -> None:
        """Take steps of about the learning rate for each pixel."""
        self._recipe = recipe
        self._box = box
        self._schedule_steps = 0
        self._steps = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._average: Tensor | None = None
        self._averaged = 0

    def update(self, image: Tensor, gradient: Tensor, total: float | Tensor) -> None:
        """Take one step; see `Optimizer`. The total is of no use to Adam."""
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(image), torch.zeros_like(image)
        decay_first, decay_second = self._recipe.betas
        self._steps += 1
        self._first.lerp_(gradient, 1 - decay_first)
        self._second.mul_(decay_second).addcmul_(gradient, gradient, value=1 - decay_second)
        spread = (self._second / (1 - decay_second**self._steps)).sqrt_().add_(1e-8)
        rate = _rate(self._recipe, self._schedule_steps) / (1 - decay_first**self._steps)
        image.addcdiv_(self._first, spread, value=-rate)
        if self._box is not None:
            image.clamp_(self._box.least, self._box.largest)
        self._schedule_steps += 1
        if self._recipe.average:
            if self._average is None:
                self._average = torch.zeros_like(image)
            self._average.lerp_(image, 1 - self._recipe.average)
            self._averaged += 1

    def result(self, image: Tensor) -> Tensor:
        """Return the average over iterates if there is one, corrected for its start at zero."""
        if self._average is None:
            return image
        return self._average / (1 - self._recipe.average**self._averaged)

    def at_size(self, width: int, height: int, recipe: OptimizerRecipe) -> Adam:
        """Return one whose moments are this one's, enlarged; the average starts anew."""
        other = Adam(recipe, self._box)
        if self._first is not None and self._second is not None:
            other._steps = self._steps
            other._first = F.interpolate(self._first, (height, width), mode="bicubic")
            # Linearly, because a second moment may not become negative.
            other._second = F.interpolate(self._second, (height, width), mode="bilinear")
        return other

    def state(self) -> State:
        """Return the moments, the average and the counts of steps."""
        return {
            "schedule_steps": self._schedule_steps,
            "steps": self._steps,
            "first": self._first,
            "second": self._second,
            "average": self._average,
            "averaged": self._averaged,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` has returned."""
        self._schedule_steps, self._steps = state["schedule_steps"], state["steps"]
        self._first, self._second = state["first"], state["second"]
        self._average, self._averaged = state["average"], state["averaged"]


def _rate(recipe: OptimizerRecipe, steps: int) -> float:
    """Return the learning rate after so many steps at this scale."""
    if not recipe.decay_every:
        return recipe.learning_rate
    drops = steps // recipe.decay_every
    return recipe.learning_rate * float(recipe.decay**drops)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())

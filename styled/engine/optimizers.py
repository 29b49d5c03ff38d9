"""Adam and L-BFGS updates of an image, optionally with box constraints for valid colours.

One call of `update` is one step: it takes the value and the gradient at the current image and
updates the image in place. The optimisers never evaluate the objective themselves, so a step
costs exactly one evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.curvature_pairs import CurvaturePairs, Iterate, State
from styled.recipes import OptimizerSettings

STEEPEST_DESCENT_LENGTH = 0.05
"""Without a trust radius: largest change of a pixel in a step without curvature information."""

STEEPEST_DESCENT_SHARE = 0.2
"""With a trust radius: largest change of a pixel in the first step, as a fraction of it."""

PRIOR_STEP_SHARE = 0.5
"""The first step at a scale, as a share of the Newton step by the coarser scale's curvature.

An enlarged image is far from the minimum, where the curvature is larger: a full step leads uphill.
"""

BACKTRACKS_UNDONE = 0.5
"""Backtracks undone per accepted step; each backtrack halves the step length.

At 1.0 every second step from a noise start goes uphill.
"""


@dataclass(frozen=True, slots=True)
class Box:
    """The bounds of the image's values: scalars, or 1x3x1x1 where channels differ."""

    low: Tensor
    high: Tensor


class Optimizer(Protocol):
    """Updates an image from its loss and gradient, one step at a time."""

    def update(self, image: Tensor, gradient: Tensor, total: float | Tensor) -> None:
        """Take one step.

        Args:
            image: 1x3xHxW, updated in place.
            gradient: At the image. The optimiser keeps it, so it must not be changed afterwards.
            total: The objective's value there, as a number or a scalar on the image's device.
        """

    def result(self, image: Tensor) -> Tensor:
        """Return the optimiser's result if its current iterate is `image`."""

    def for_scale(self, width: int, height: int, settings: OptimizerSettings) -> Optimizer:
        """Return an optimiser with `settings` for the next scale, width x height px.

        State that remains useful there is carried over.
        """

    def state(self) -> State:
        """Return the complete state: loading it continues with exactly the same steps."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by `state`."""


def make_optimizer(settings: OptimizerSettings, box: Box | None = None) -> Optimizer:
    """Return a new optimiser; with a box it keeps the image within these bounds."""
    return Lbfgs(settings, box) if settings.name == "lbfgs" else Adam(settings, box)


@dataclass(slots=True)
class _StepLength:
    """How long the next steps of L-BFGS are; both are scalars on the image's device.

    Attributes:
        steepest_descent_steps: Consecutive steps without a usable pair.
        backtracks: The next step is multiplied by 0.5 to this power.
    """

    steepest_descent_steps: Tensor
    backtracks: Tensor


class Lbfgs:
    """L-BFGS without a line search: Nocedal and Wright, "Numerical Optimization", algorithm 7.4.

    It differs from the book in the box constraints. Pixels that are on a bound and would be
    pushed beyond it are removed from the direction; all others are updated, then clamped.
    A pair's s is the actual change of the image, after clamping, so that pairs describe the
    true function.

    With a `trust_radius`, three safeguards replace the line search, without additional
    evaluations: the first step is large enough that the change of the gradient exceeds
    rounding errors, no step is longer than the trust radius (root mean square), and a step
    that raised the loss is undone. The curvature pair of an undone step is kept, so that its
    evaluation is not wasted.

    With `frequency_preconditioner`, the initial inverse Hessian H0 is not a multiple of the
    identity. It has one factor per frequency band and opponent colour (see `frequency_bands`),
    estimated from the same pairs. The curvature of the style loss, and even more that of the
    total variation, differs between coarse and fine structures by orders of magnitude. From
    scale to scale it hardly changes, in relation to the size of a pixel: with `carry_curvature`,
    these factors are the start of the next scale.

    All decisions are made on the image's device with `torch.where`. On a GPU, branching on the
    host would wait for the device at each of them.
    """

    def __init__(
        self, settings: OptimizerSettings, box: Box | None = None, prior: Tensor | None = None
    ) -> None:
        """Create an optimiser whose steps are the learning rate times the quasi-Newton step.

        `prior`: see `CurvaturePairs`.
        """
        self._settings = settings
        self._box = box
        self._prior = prior
        self._steps = 0
        self._last: Iterate | None = None
        # On the image's device, made in the first step:
        self._pairs: CurvaturePairs | None = None
        self._length: _StepLength | None = None

    def update(self, image: Tensor, gradient: Tensor, total: float | Tensor) -> None:
        """Take one step; see `Optimizer`."""
        settings = self._settings
        pairs, length = self._started(image)
        here = Iterate(
            image, gradient, torch.as_tensor(total, dtype=image.dtype, device=image.device)
        )
        uphill = torch.zeros_like(here.total, dtype=torch.bool)
        if self._last is not None:
            is_usable = pairs.add(here, self._last)
            length.steepest_descent_steps = torch.where(
                is_usable, 0.0, length.steepest_descent_steps
            )
            if settings.trust_radius:
                last = self._last
                uphill = here.total > last.total
                fewer = (length.backtracks - BACKTRACKS_UNDONE).clamp(min=0.0)
                length.backtracks = torch.where(uphill, length.backtracks + 1, fewer)
                image.copy_(torch.where(uphill, last.image, image))
                gradient = torch.where(uphill, last.gradient, gradient)
                here = Iterate(image, gradient, torch.where(uphill, last.total, here.total))
        step = self._direction(pairs, length, here, undone=uphill)
        step.mul_(_rate(settings, self._steps) * torch.pow(0.5, length.backtracks))
        if settings.trust_radius:
            rms = torch.linalg.vector_norm(step) / step.numel() ** 0.5
            step.mul_((settings.trust_radius / rms.clamp(min=1e-12)).clamp(max=1.0))
        self._last = Iterate(image.clone(), here.gradient, here.total)
        image.add_(step)
        if self._box is not None:
            image.clamp_(self._box.low, self._box.high)
        self._steps += 1

    def _started(self, image: Tensor) -> tuple[CurvaturePairs, _StepLength]:
        """Return the state on the image's device, new in the first step."""
        if self._pairs is None or self._length is None:
            settings, zero = self._settings, image.new_zeros(())
            self._pairs = CurvaturePairs(
                image,
                settings.history,
                by_frequency=settings.frequency_preconditioner,
                prior=self._prior,
            )
            self._length = _StepLength(zero, zero)
        return self._pairs, self._length

    def _direction(
        self, pairs: CurvaturePairs, length: _StepLength, here: Iterate, undone: Tensor
    ) -> Tensor:
        """Return the search direction, scaled to a full step.

        That is the quasi-Newton step; or, without a usable pair, a multiple of the negative
        gradient.

        Args:
            pairs: Made unusable if the quasi-Newton step is not a descent direction.
            length: Updated.
            here: The current iterate.
            undone: Whether the previous step, from the same image, was undone; a boolean scalar.
        """
        blocked = self._blocked(here)
        negative_grad = _zero_where(blocked, -here.gradient)
        direction = _zero_where(blocked, pairs.newton_step(negative_grad))
        if self._steps == 0:
            direction = direction * PRIOR_STEP_SHARE
        has_pairs = pairs.gamma > 0
        is_descent = has_pairs & (_dot(direction, here.gradient) < 0)
        # If the quasi-Newton step is not a descent direction, discard all pairs and start over.
        pairs.discard_unless(is_descent)
        steps = torch.where(has_pairs & ~is_descent, 0.0, length.steepest_descent_steps)
        steepest_descent = negative_grad.mul_(self._steepest_descent_length(negative_grad, steps))
        length.steepest_descent_steps = steps + (~is_descent & ~undone)
        return torch.where(is_descent, direction, steepest_descent)

    def _steepest_descent_length(self, negative_grad: Tensor, steps: Tensor) -> Tensor:
        """Return the factor of the negative gradient for a step without a usable pair, a scalar.

        It doubles with each such step: in a concave region, such as around uniform grey, every
        pair is rejected. Without a trust radius it starts at min(1, 1 / sum|g|), which is small
        enough to be safe.
        """
        max_grad = negative_grad.abs().amax().clamp(min=1e-12)
        growth_factor = torch.pow(2.0, steps)
        if self._settings.trust_radius:
            return (
                (STEEPEST_DESCENT_SHARE * growth_factor).clamp(max=1.0)
                * self._settings.trust_radius
                / max_grad
            )
        first = (1.0 / negative_grad.abs().sum().clamp(min=1e-12)).clamp(max=1.0)
        return torch.maximum(
            first, torch.minimum(first * growth_factor, STEEPEST_DESCENT_LENGTH / max_grad)
        )

    def _blocked(self, here: Iterate) -> Tensor | None:
        """Return where -gradient would push a pixel out of the box; None: there is no box."""
        if self._box is None:
            return None
        below_low = (here.image <= self._box.low) & (here.gradient > 0)
        above_high = (here.image >= self._box.high) & (here.gradient < 0)
        return below_low | above_high

    def result(self, image: Tensor) -> Tensor:
        """Return the image itself."""
        return image

    def for_scale(self, width: int, height: int, settings: OptimizerSettings) -> Lbfgs:
        """Return a new optimiser that starts from the curvature of the frequency bands.

        It starts from nothing without `carry_curvature`, and without a trust radius: a step that is
        too long would not be undone.
        """
        prior = None if self._pairs is None else self._pairs.mean_energies()
        is_carried = settings.carry_curvature and settings.trust_radius
        if prior is None or self._last is None or not is_carried:
            return Lbfgs(settings, self._box)
        # Losses are means over pixels. With k times as many, a change s of the same structures has
        # k times the energy, and the gradient's y, which is 1/k of it in each pixel, 1/k.
        more = width * height / self._last.image[0, 0].numel()
        return Lbfgs(settings, self._box, torch.stack([prior[0] * more, prior[1] / more]))

    def state(self) -> State:
        """Return the curvature pairs, the step lengths and the last iterate."""
        last, length = self._last, self._length
        return {
            "steps": self._steps,
            "prior": self._prior,
            "pairs": None if self._pairs is None else self._pairs.state(),
            "length": (
                None if length is None else [length.steepest_descent_steps, length.backtracks]
            ),
            "last": None if last is None else [last.image, last.gradient, last.total],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self._steps, self._prior = state["steps"], state["prior"]
        if state["last"] is None:
            return
        self._last = Iterate(*state["last"])
        pairs, self._length = self._started(self._last.image)[0], _StepLength(*state["length"])
        pairs.load(state["pairs"])


class Adam:
    """Adam: Kingma and Ba (2015), algorithm 1.

    Optionally the result is an exponential moving average of the iterates, which removes the
    jitter of a constant learning rate. The moments are carried over to the next scale, so that
    step lengths do not have to adapt again. Both follow K. Crowson's style-transfer-pytorch.
    """

    def __init__(self, settings: OptimizerSettings, box: Box | None = None) -> None:
        """Create an optimiser whose steps change each pixel by about the learning rate."""
        self._settings = settings
        self._box = box
        self._schedule_steps = 0
        self._steps = 0
        self._exp_avg: Tensor | None = None
        self._exp_avg_sq: Tensor | None = None
        self._average: Tensor | None = None
        self._averaged_steps = 0

    def update(self, image: Tensor, gradient: Tensor, total: float | Tensor) -> None:
        """Take one step; see `Optimizer`. Adam ignores `total`."""
        if self._exp_avg is None or self._exp_avg_sq is None:
            self._exp_avg, self._exp_avg_sq = torch.zeros_like(image), torch.zeros_like(image)
        decay_first, decay_second = self._settings.betas
        self._steps += 1
        self._exp_avg.lerp_(gradient, 1 - decay_first)
        self._exp_avg_sq.mul_(decay_second).addcmul_(gradient, gradient, value=1 - decay_second)
        denominator = (self._exp_avg_sq / (1 - decay_second**self._steps)).sqrt_().add_(1e-8)
        rate = _rate(self._settings, self._schedule_steps) / (1 - decay_first**self._steps)
        image.addcdiv_(self._exp_avg, denominator, value=-rate)
        if self._box is not None:
            image.clamp_(self._box.low, self._box.high)
        self._schedule_steps += 1
        if self._settings.average:
            if self._average is None:
                self._average = torch.zeros_like(image)
            self._average.lerp_(image, 1 - self._settings.average)
            self._averaged_steps += 1

    def result(self, image: Tensor) -> Tensor:
        """Return the average of the iterates, with bias correction; without one, `image`."""
        if self._average is None:
            return image
        return self._average / (1 - self._settings.average**self._averaged_steps)

    def for_scale(self, width: int, height: int, settings: OptimizerSettings) -> Adam:
        """Return an optimiser with this one's moments, resampled; the average is reset."""
        other = Adam(settings, self._box)
        if self._exp_avg is not None and self._exp_avg_sq is not None:
            other._steps = self._steps
            other._exp_avg = F.interpolate(self._exp_avg, (height, width), mode="bicubic")
            # Bilinear has no overshoot: a second moment must not become negative.
            other._exp_avg_sq = F.interpolate(self._exp_avg_sq, (height, width), mode="bilinear")
        return other

    def state(self) -> State:
        """Return the moments, the average and the step counts."""
        return {
            "schedule_steps": self._schedule_steps,
            "steps": self._steps,
            "first": self._exp_avg,
            "second": self._exp_avg_sq,
            "average": self._average,
            "averaged": self._averaged_steps,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self._schedule_steps, self._steps = state["schedule_steps"], state["steps"]
        self._exp_avg, self._exp_avg_sq = state["first"], state["second"]
        self._average, self._averaged_steps = state["average"], state["averaged"]


def _rate(settings: OptimizerSettings, steps: int) -> float:
    """Return the learning rate after `steps` steps at the current scale."""
    if not settings.decay_every:
        return settings.learning_rate
    drops = steps // settings.decay_every
    return settings.learning_rate * float(settings.decay**drops)


def _zero_where(blocked: Tensor | None, direction: Tensor) -> Tensor:
    return direction if blocked is None else direction.masked_fill(blocked, 0.0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())

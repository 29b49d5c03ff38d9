"""Adam and L-BFGS updates of an image, optionally with box constraints for valid colours.

One call of `update` is one step: it takes the value and the gradient at the current image and
updates the image in place. The optimisers never evaluate the objective themselves, so a step
costs exactly one evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.frequency_bands import band_energies, with_gains
from styled.recipes import OptimizerSettings

STEEPEST_DESCENT_LENGTH = 0.05
"""Without a trust radius: largest change of a pixel in a step without curvature information."""

STEEPEST_DESCENT_SHARE = 0.2
"""With a trust radius: largest change of a pixel in the first step, as a fraction of it."""

MAX_GAIN_RATIO = 1000.0
"""Largest ratio between a band's gain and the median gain of all bands, in either direction.

With a photo of 96 px the ratios stayed below 50. In a band without curvature, where the gradient
is constant, the gain would be determined by rounding errors alone.
"""

BACKTRACKS_UNDONE = 0.5
"""Backtracks undone per accepted step; each backtrack halves the step length.

At 1.0 every second step from a noise start goes uphill.
"""

State = dict[str, Any]
"""Tensors, numbers and lists of them, which torch.load can read with weights_only=True."""


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


@dataclass(frozen=True, slots=True)
class _Iterate:
    """The image before a step, with the gradient and the total loss (a scalar) there."""

    image: Tensor
    gradient: Tensor
    total: Tensor


@dataclass(frozen=True, slots=True)
class _Pair:
    """A curvature pair of one step.

    Attributes:
        s: The change of the image, 1x3xHxW.
        y: The change of the gradient, 1x3xHxW.
        inverse_curvature: rho = 1 / (s . y), a scalar; 0: the pair is ignored.
        energies: The energies of `s` and of `y` in each of K frequency bands, 2x3xK; None:
            without the frequency preconditioner.
    """

    s: Tensor
    y: Tensor
    inverse_curvature: Tensor
    energies: Tensor | None


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
    total variation, differs between coarse and fine structures by orders of magnitude.

    All decisions are made on the image's device with `torch.where`. On a GPU, branching on the
    host would synchronise at each of about thirty dot products per step.
    """

    def __init__(self, settings: OptimizerSettings, box: Box | None = None) -> None:
        """Create an optimiser whose steps are the learning rate times the quasi-Newton step."""
        self._settings = settings
        self._box = box
        self._steps = 0
        self._pairs: deque[_Pair] = deque(maxlen=settings.history)
        # Scalars on the image's device, created in the first step:
        self._gamma: Tensor | None = None  # (s . y) / (y . y) of the last pair; 0: no usable pair
        self._steepest_descent_steps: Tensor | None = None  # consecutive, without a usable pair
        self._backtracks: Tensor | None = None  # the next step is multiplied by 0.5 to this power
        self._last: _Iterate | None = None

    def update(self, image: Tensor, gradient: Tensor, total: float | Tensor) -> None:
        """Take one step; see `Optimizer`."""
        if self._gamma is None or self._steepest_descent_steps is None or self._backtracks is None:
            zero = image.new_zeros(())
            self._gamma, self._steepest_descent_steps, self._backtracks = zero, zero, zero
        total = torch.as_tensor(total, dtype=image.dtype, device=image.device)
        uphill = torch.zeros_like(total, dtype=torch.bool)
        if self._last is not None:
            self._add_pair(image - self._last.image, gradient - self._last.gradient)
            if self._settings.trust_radius:
                uphill = total > self._last.total
                fewer = (self._backtracks - BACKTRACKS_UNDONE).clamp(min=0.0)
                self._backtracks = torch.where(uphill, self._backtracks + 1, fewer)
                total = torch.where(uphill, self._last.total, total)
                gradient = torch.where(uphill, self._last.gradient, gradient)
                image.copy_(torch.where(uphill, self._last.image, image))
        step = self._direction(image, gradient, undone=uphill)
        step.mul_(_rate(self._settings, self._steps) * torch.pow(0.5, self._backtracks))
        if self._settings.trust_radius:
            rms = torch.linalg.vector_norm(step) / step.numel() ** 0.5
            step.mul_((self._settings.trust_radius / rms.clamp(min=1e-12)).clamp(max=1.0))
        self._last = _Iterate(image.clone(), gradient, total)
        image.add_(step)
        if self._box is not None:
            image.clamp_(self._box.low, self._box.high)
        self._steps += 1

    def _direction(self, image: Tensor, gradient: Tensor, undone: Tensor) -> Tensor:
        """Return the search direction, scaled to a full step.

        That is the quasi-Newton step; or, without a usable pair, a multiple of the negative
        gradient.

        Args:
            image: 1x3xHxW, the current iterate.
            gradient: At the image.
            undone: Whether the previous step, from the same image, was undone; a boolean scalar.
        """
        assert self._gamma is not None
        assert self._steepest_descent_steps is not None
        negative_grad = self._zero_blocked(image, gradient, -gradient)
        direction = self._zero_blocked(image, gradient, self._newton_step(negative_grad))
        has_pairs = self._gamma > 0
        is_descent = has_pairs & (_dot(direction, gradient) < 0)
        # If the quasi-Newton step is not a descent direction, discard all pairs and start over.
        self._steepest_descent_steps = torch.where(
            has_pairs & ~is_descent, 0.0, self._steepest_descent_steps
        )
        self._gamma = torch.where(is_descent, self._gamma, 0.0)
        for pair in self._pairs:
            pair.inverse_curvature.mul_(is_descent)
        steepest_descent = negative_grad.mul_(self._steepest_descent_length(negative_grad))
        self._steepest_descent_steps = self._steepest_descent_steps + (~is_descent & ~undone)
        return torch.where(is_descent, direction, steepest_descent)

    def _steepest_descent_length(self, negative_grad: Tensor) -> Tensor:
        """Return the factor of the negative gradient for a step without a usable pair, a scalar.

        It doubles with each such step: in a concave region, such as around uniform grey, every
        pair is rejected. Without a trust radius it starts at min(1, 1 / sum|g|), which is small
        enough to be safe.
        """
        assert self._steepest_descent_steps is not None
        max_grad = negative_grad.abs().amax().clamp(min=1e-12)
        growth_factor = torch.pow(2.0, self._steepest_descent_steps)
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

    def _zero_blocked(self, image: Tensor, gradient: Tensor, direction: Tensor) -> Tensor:
        """Return the direction with zeros for pixels that -gradient would push out of the box."""
        if self._box is None:
            return direction
        below_low = (image <= self._box.low) & (gradient > 0)
        above_high = (image >= self._box.high) & (gradient < 0)
        blocked = below_low | above_high
        return direction.masked_fill(blocked, 0.0)

    def _add_pair(self, s: Tensor, y: Tensor) -> None:
        assert self._gamma is not None
        assert self._steepest_descent_steps is not None
        curvature, y_squared = _dot(s, y), _dot(y, y)
        # A pair without clearly positive curvature would make the approximation indefinite.
        is_usable = curvature > 1e-10 * y_squared
        energies = None
        if self._settings.frequency_preconditioner:
            energies = torch.stack([band_energies(s), band_energies(y)])
        inverse_curvature = torch.where(is_usable, 1.0 / curvature, 0.0)
        self._pairs.append(_Pair(s, y, inverse_curvature, energies))
        self._gamma = torch.where(is_usable, curvature / y_squared, self._gamma)
        self._steepest_descent_steps = torch.where(is_usable, 0.0, self._steepest_descent_steps)

    def _newton_step(self, negative_grad: Tensor) -> Tensor:
        """Return H times the negative gradient: the two-loop recursion, algorithm 7.4."""
        assert self._gamma is not None
        direction = negative_grad.clone()
        alphas = []
        for pair in reversed(self._pairs):
            alpha = pair.inverse_curvature * _dot(pair.s, direction)
            direction.addcmul_(pair.y, alpha, value=-1)
            alphas.append(alpha)
        direction = self._apply_h0(direction)
        for pair, alpha in zip(self._pairs, reversed(alphas), strict=True):
            alpha_minus_beta = alpha - pair.inverse_curvature * _dot(pair.y, direction)
            direction.addcmul_(pair.s, alpha_minus_beta)
        return direction

    def _apply_h0(self, direction: Tensor) -> Tensor:
        """Multiply by the initial inverse Hessian H0, possibly in place; return the result.

        Without the frequency preconditioner, H0 is gamma times the identity.

        With it, each band has its own gamma. Barzilai and Borwein (1988) give two estimates,
        (s . s) / (s . y) and (s . y) / (y . y); the book uses the second. Within one band s . y
        may be negative, and so may both estimates. Their geometric mean |s| / |y| is positive.
        """
        assert self._gamma is not None
        energy_sums = latest = None
        for pair in self._pairs:
            if pair.energies is None:
                continue
            # Normalised by s . y, so that every pair has the same weight whatever its step length.
            energies = pair.energies * pair.inverse_curvature
            energy_sums = energies if energy_sums is None else energy_sums + energies
            is_usable = pair.inverse_curvature > 0
            latest = energies if latest is None else torch.where(is_usable, energies, latest)
        if energy_sums is None or latest is None:
            return direction.mul_(self._gamma)
        s_norm, y_norm = energy_sums.clamp(min=torch.finfo(energy_sums.dtype).tiny).sqrt()
        gains = s_norm / y_norm
        gains = gains.clamp(gains.median() / MAX_GAIN_RATIO, gains.median() * MAX_GAIN_RATIO)
        # The common factor of all bands comes from the latest usable pair, as gamma does.
        common_squared = (latest[0] / gains).sum() / (latest[1] * gains).sum()
        return with_gains(direction, gains * common_squared.sqrt())

    def result(self, image: Tensor) -> Tensor:
        """Return the image itself."""
        return image

    def for_scale(self, width: int, height: int, settings: OptimizerSettings) -> Lbfgs:
        """Return a new optimiser without pairs: the curvature differs between scales."""
        return Lbfgs(settings, self._box)

    def state(self) -> State:
        """Return the curvature pairs, the scalars and the last iterate."""
        last = self._last
        return {
            "steps": self._steps,
            "scalars": [self._gamma, self._steepest_descent_steps, self._backtracks],
            # Cloned: the next step may change it in place before the checkpoint is written.
            "pairs": [[p.s, p.y, p.inverse_curvature.clone(), p.energies] for p in self._pairs],
            "last": None if last is None else [last.image, last.gradient, last.total],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self._steps = state["steps"]
        self._gamma, self._steepest_descent_steps, self._backtracks = state["scalars"]
        self._pairs.clear()
        self._pairs.extend(_Pair(*pair) for pair in state["pairs"])
        last = state["last"]
        self._last = None if last is None else _Iterate(*last)


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


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())

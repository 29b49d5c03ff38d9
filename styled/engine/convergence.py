"""Judges how much further steps would lower the loss, from how much the last ones did.

The gain of an interval of steps decays about like a power of the number of steps, k^-p. With p from
the last two intervals, all further intervals together gain k / (p - 1) times as much per step as
the last one. A rule that looks at the last gain alone ends too early where the loss decays slowly:
with the ranges of a trained network, a gain of 2 % in ten steps is followed by 5 % more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, log
from statistics import median
from typing import Any

CHECK_EVERY_STEPS = 5
"""Length of an interval; also how often a GPU's losses are read."""

FIRST_CHECK_STEP = 15
"""The first steps find the lengths of the following ones, and tell nothing about them."""


MAX_EXTRAPOLATION = 2.5
"""An end beyond this multiple of the steps so far is predicted as never."""

_SMALLEST_EXPONENT = 1.05
"""With an exponent of one or less the sum of all further gains is infinite."""


@dataclass(slots=True)
class Convergence:
    """The history of one scale's lowest loss.

    Attributes:
        min_improvement: The scale has converged once further steps are expected to lower the loss
            by less than this share; 0: never.
    """

    min_improvement: float
    _lowest: list[float] = field(default_factory=list)  # at the last three checks
    _predictions: list[float] = field(default_factory=list)  # of the step of convergence

    def note(self, step: int, lowest: float) -> bool:
        """Record the lowest loss after a step; return whether the scale has converged.

        Steps count from one. All but the first and every fifth one are ignored.
        """
        if not self.min_improvement or (step > 1 and step % CHECK_EVERY_STEPS):
            return False
        self._lowest = [*self._lowest[-2:], lowest]
        if step < FIRST_CHECK_STEP:
            return False
        before, previous, last = self._lowest
        scale = max(abs(last), 1e-12)
        gain, earlier_gain = (previous - last) / scale, (before - previous) / scale
        exponent = _exponent(step, gain, earlier_gain)
        remaining = _sum_of_gains(step, gain, exponent)
        self._predictions.append(self._end(step, remaining, exponent))
        return remaining < self.min_improvement

    def _end(self, step: int, remaining: float, exponent: float) -> float:
        """Return the check at which what remains will be less than the limit."""
        if remaining < self.min_improvement:
            return step
        if exponent <= 1:
            return inf
        # The remainder falls like k^(1 - p). Beyond `MAX_EXTRAPOLATION` times the steps so far this
        # is too unreliable; a large remainder also decays more slowly than the fit says.
        growth: float = (remaining / self.min_improvement) ** (1 / (exponent - 1))
        if growth > MAX_EXTRAPOLATION:
            return inf
        return max(
            step + CHECK_EVERY_STEPS, CHECK_EVERY_STEPS * round(step * growth / CHECK_EVERY_STEPS)
        )

    @property
    def expected_steps(self) -> float | None:
        """After how many steps the scale is expected to converge; None: not known yet.

        The median of all predictions so far: a single one may be off by a factor of ten.
        """
        return median(self._predictions) if self._predictions else None

    def state(self) -> dict[str, Any]:
        """Return the state, which `restored` takes."""
        return {
            "lowest": [*self._lowest],
            "predictions": [*self._predictions],
        }

    @classmethod
    def restored(cls, min_improvement: float, state: Mapping[str, Any]) -> Convergence:
        """Return the object that `state` was taken of."""
        return cls(
            min_improvement,
            [*state["lowest"]],
            [*state["predictions"]],
        )


def _exponent(step: int, gain: float, earlier_gain: float) -> float:
    """Return p from the gains of the last two intervals; 1: they do not decay fast enough."""
    if gain <= 0:
        return inf
    middle = step - CHECK_EVERY_STEPS / 2
    exponent = log(max(earlier_gain / gain, 1.0)) / log(middle / (middle - CHECK_EVERY_STEPS))
    return exponent if exponent >= _SMALLEST_EXPONENT else 1.0


def _sum_of_gains(step: int, gain: float, exponent: float) -> float:
    """Return the sum of all further gains, if the last interval's was `gain`."""
    if gain <= 0:
        return 0.0
    return inf if exponent <= 1 else gain * step / (CHECK_EVERY_STEPS * (exponent - 1))

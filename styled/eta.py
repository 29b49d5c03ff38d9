"""Estimates the remaining time of a painting from the durations of its steps so far.

Two quantities are not known beforehand:

- The time of a step, which grows with the number of pixels, but less than proportionally: small
  scales are limited by Python and kernel launches.
- The number of steps: a scale ends early once its loss has converged. The engine predicts when,
  from its 15th step on. Until then, the median of what it predicted at the scales before holds.

Step times are estimated from finished scales. The estimates of one painting are the initial values
for the next one with the same `EtaKey`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import log2, prod
from statistics import median_high
from typing import NamedTuple

from styled.engine_api import PixelSize, Progress
from styled.recipes import Recipe

MIN_STEPS_FOR_FIT = 6
"""A scale must have at least this many steps to be used for fitting step time against size."""

UNTRAINED_STEPS = 25.0
"""After how many steps a scale of the untrained network is assumed to converge, until the first
job's engine predicts it. With trained weights the last scale usually goes on to its limit."""

FIRST_JOB_FIXED_PIXELS = 20_000.0
"""The fixed part of a step's time that is assumed until two scales have been measured: that of
`pyramid` on two CPU cores, where matrix roots take as long at every size."""

OVERDUE_STEPS = 2.5
"""Steps that are left where a scale has gone on for longer than expected: it may end at the next
check of its convergence."""


@dataclass(slots=True)
class _Scale:
    """Measurements of one scale.

    Attributes:
        first_seconds: Duration of its first step, which also computes the targets.
        step_seconds: Median duration of its latest steps; None before it is known.
        finished: Whether it has ended.
    """

    pixels: int
    first_seconds: float
    step_seconds: float | None = None
    steps: int = 0
    finished: bool = False


@dataclass(frozen=True, slots=True)
class EtaHistory:
    """Estimates from earlier paintings.

    Attributes:
        expected_steps: After how many steps a scale converges; None: unknown, or never.
        fixed_pixels: The part of a step's time that does not depend on its size, in pixels that
            take as long.
        seconds_per_pixel: Of one step at the last scale; None: unknown.
    """

    expected_steps: float | None = None
    fixed_pixels: float = 0.0
    seconds_per_pixel: float | None = None

    @classmethod
    def of(cls, recipe: Recipe, weights_source: str) -> EtaHistory:
        """Return the initial estimates for a recipe that has not been painted yet."""
        converges = recipe.min_improvement and weights_source == "untrained"
        return cls(
            expected_steps=UNTRAINED_STEPS if converges else None,
            fixed_pixels=FIRST_JOB_FIXED_PIXELS,
        )


class EtaKey(NamedTuple):
    """Groups paintings that take about the same time.

    Attributes:
        recipe: The recipe's name.
        device: The device's model.
        size: Twice the binary logarithm of the result's number of pixels, rounded.
    """

    recipe: str
    device: str
    size: int

    @classmethod
    def of(cls, recipe: Recipe, device: str, size: PixelSize) -> EtaKey:
        """Return the key of a painting at that size."""
        return cls(recipe.name, device, round(2 * log2(prod(size))))


class EtaHistories:
    """The latest `EtaHistory` of each key."""

    def __init__(self) -> None:
        """Start empty."""
        self._known: dict[EtaKey, EtaHistory] = {}

    def find(self, recipe: Recipe, key: EtaKey, weights_source: str) -> EtaHistory:
        """Return the history of a key, or of the nearest size with that recipe and device.

        Without any it is `EtaHistory.of`.
        """
        candidates = [known for known in self._known if known[:2] == key[:2]]
        if not candidates:
            return EtaHistory.of(recipe, weights_source)
        return self._known[min(candidates, key=lambda known: abs(known.size - key.size))]

    def learn(self, key: EtaKey, history: EtaHistory) -> None:
        """Store the history of a finished painting."""
        self._known[key] = history


@dataclass(slots=True)
class EtaEstimator:
    """Estimates the remaining time of one painting."""

    history: EtaHistory = field(default_factory=EtaHistory)
    _expected_steps: dict[int, float] = field(default_factory=dict)  # of each scale
    _scales: dict[int, _Scale] = field(default_factory=dict)
    _last: Progress | None = None

    def note(self, progress: Progress) -> None:
        """Record the progress after a step."""
        pixels = prod(progress.size)
        scale = self._scales.get(progress.scale)
        if scale is None or scale.pixels != pixels:  # a memory shortage may have made it smaller
            scale = self._scales[progress.scale] = _Scale(pixels, progress.first_step_seconds)
        scale.step_seconds = progress.step_seconds
        scale.steps = progress.step
        scale.finished = progress.finished
        if progress.expected_steps is not None:
            self._expected_steps[progress.scale] = progress.expected_steps
        self._last = progress

    def seconds_left(self) -> float | None:
        """Return the estimated remaining time; None while there is no basis for an estimate."""
        last = self._last
        per_pixel = self._seconds_per_pixel()
        if last is None or per_pixel is None:
            return None
        fixed = self._fixed_pixels()
        seconds = 0.0
        if not last.finished:
            limit_left = last.steps - last.step
            steps_left = self._expected(last.scale, last.steps) - last.step
            steps_left = max(steps_left, min(OVERDUE_STEPS, limit_left))
            seconds = steps_left * per_pixel * (prod(last.size) + fixed)
        for scale in range(last.scale, last.scales):
            size, limit = last.plan[scale], last.budget[scale]
            steps = self._expected(scale + 1, limit) - 1 + self._first_step_cost()
            seconds += per_pixel * (prod(size) + fixed) * steps
        return seconds

    def learnt(self) -> EtaHistory:
        """Return the estimates of this painting, for the next one."""
        if not any(scale.finished for scale in self._scales.values()):
            return self.history
        return replace(
            self.history,
            expected_steps=self._expected_at(max(self._scales)),
            fixed_pixels=self._fixed_pixels(),
            seconds_per_pixel=self._seconds_per_pixel(),
        )

    def _measured(self) -> list[_Scale]:
        return [scale for scale in self._scales.values() if scale.step_seconds is not None]

    def _seconds_per_pixel(self) -> float | None:
        measured = self._measured()
        known = self.history.seconds_per_pixel
        # A single small scale tells less about the largest one than an earlier painting does.
        if not measured or (known is not None and self._is_only_one_of_several()):
            return known
        latest = measured[-1]
        return (latest.step_seconds or 0.0) / (latest.pixels + self._fixed_pixels())

    def _is_only_one_of_several(self) -> bool:
        """Return whether a single scale has been measured, of a painting that has more."""
        return self._last is not None and len(self._measured()) == 1 < self._last.scales

    def _first_step_cost(self) -> float:
        """Return the duration of a scale's first step, in units of its later steps."""
        measured = self._measured()
        if not measured or not measured[-1].step_seconds:
            return 1.0
        return measured[-1].first_seconds / measured[-1].step_seconds

    def _expected(self, scale: int, limit: int) -> float:
        """Return how many steps a scale with this limit is expected to take."""
        known = self._expected_at(scale)
        return limit if known is None else min(known, limit)

    def _expected_at(self, scale: int) -> float | None:
        """Return after how many steps a scale is expected to converge; None: unknown, or never."""
        if not self._expected_steps:
            return self.history.expected_steps
        others = median_high(self._expected_steps.values())
        return self._expected_steps.get(scale, others)

    def _fixed_pixels(self) -> float:
        """Return the fixed cost of a step in pixels, from the two largest scales measured."""
        measured = sorted(
            (scale for scale in self._measured() if scale.steps >= MIN_STEPS_FOR_FIT),
            key=lambda scale: scale.pixels,
        )
        return _zero_crossing(measured[-2:]) if len(measured) > 1 else self.history.fixed_pixels


def _zero_crossing(scales: Sequence[_Scale]) -> float:
    """Return the fixed cost of a step in pixels: where the line through two scales is zero seconds.

    The line is step time over pixels; it reaches zero at minus this many pixels.
    """
    (small, small_seconds), (large, large_seconds) = (
        (scale.pixels, scale.step_seconds or 0.0) for scale in scales
    )
    slope = (large_seconds - small_seconds) / max(large - small, 1)
    if slope <= 0:
        return float(large)  # noise: the time does not seem to depend on the size at all
    # Limited, since a slope close to zero may be noise as well.
    return min(max(0.0, small_seconds / slope - small), 10.0 * large)

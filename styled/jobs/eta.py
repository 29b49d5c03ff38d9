"""How long a painting will still take, from how long its steps have taken so far.

Two things are not known beforehand. A step's time grows with its pixels, but not quite in
proportion: small scales wait for Python and for the launching of kernels. And scales end
early once they gain too little. Both are learnt from the scales that are done, and what one
painting has taught is where the next one of its kind begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import log2, prod
from typing import NamedTuple

from styled.engine_api import PixelSize, Progress
from styled.recipes import Recipe

FEWEST_STEPS = 5
"""So many steps of a scale tell how much size matters, at the least."""

EARLY_SHARE = 0.5
"""Of the steps of `pyramid`'s scales, what three photographs took on the average."""


@dataclass(slots=True)
class _Scale:
    """What has been seen of one scale.

    Attributes:
        first_seconds: How long its first step took, which computes targets too.
        step_seconds: How long its latest steps took; None before there are any.
        share: Of the steps that it may take, those that it took; None while it goes on.
    """

    pixels: int
    first_seconds: float
    step_seconds: float | None = None
    steps: int = 0
    share: float | None = None


@dataclass(frozen=True, slots=True)
class EtaHistory:
    """What earlier paintings have taught.

    Attributes:
        share: Of the steps that a scale may take, those that it takes; None: nobody knows.
        fixed_pixels: How many pixels take as long as what a step costs regardless of its size.
        seconds_per_pixel: Of one step at the last scale; None: nobody knows.
    """

    share: float | None = None
    fixed_pixels: float = 0.0
    seconds_per_pixel: float | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> EtaHistory:
        """Return what is to be expected of a recipe that has never been painted here."""
        return cls(share=EARLY_SHARE if recipe.min_improvement else None)


class Kind(NamedTuple):
    """What paintings have in common that take about as long.

    Attributes:
        size: Twice the binary logarithm of the result's pixels, rounded.
    """

    recipe: str
    device: str
    size: int

    @classmethod
    def of(cls, recipe: Recipe, device: str, size: PixelSize) -> Kind:
        """Return the kind of a painting of that size."""
        return cls(recipe.name, device, round(2 * log2(prod(size))))


class EtaHistories:
    """What is known of each kind of painting."""

    def __init__(self) -> None:
        """Know nothing."""
        self._known: dict[Kind, EtaHistory] = {}

    def find(self, recipe: Recipe, kind: Kind) -> EtaHistory:
        """Return what is known of a kind, or of the nearest size of that recipe and device."""
        same = [known for known in self._known if known[:2] == kind[:2]]
        if not same:
            return EtaHistory.of(recipe)
        return self._known[min(same, key=lambda known: abs(known.size - kind.size))]

    def learn(self, kind: Kind, history: EtaHistory) -> None:
        """Remember what a painting has taught."""
        self._known[kind] = history


@dataclass(slots=True)
class EtaEstimator:
    """Watches one painting."""

    history: EtaHistory = field(default_factory=EtaHistory)
    _scales: dict[int, _Scale] = field(default_factory=dict)
    _last: Progress | None = None

    def note(self, progress: Progress) -> None:
        """Take in where it stands."""
        pixels = prod(progress.size)
        seen = self._scales.get(progress.scale)
        if seen is None or seen.pixels != pixels:  # memory may have made it smaller
            seen = self._scales[progress.scale] = _Scale(pixels, progress.first_step_seconds)
        seen.step_seconds = progress.step_seconds
        seen.steps = progress.step
        if progress.finished:
            seen.share = progress.step / progress.steps
        self._last = progress

    def seconds_left(self) -> float | None:
        """Return how long it will still take, None as long as nothing can be said."""
        now = self._last
        per_pixel = self._seconds_per_pixel()
        if now is None or per_pixel is None:
            return None
        fixed, share = self._fixed_pixels(), self._share()
        expected = share * now.steps
        left = 0.0
        if not now.finished:
            # A scale that goes on for longer than expected may end at any step.
            more = expected - now.step if now.step < expected else (now.steps - now.step) / 2
            left = more * per_pixel * (prod(now.size) + fixed)
        rest = zip(now.plan[now.scale :], now.budget[now.scale :], strict=True)
        for size, steps in rest:
            left += per_pixel * (prod(size) + fixed) * (share * steps - 1 + self._first_steps())
        return left

    def learnt(self) -> EtaHistory:
        """Return what this painting has taught, for the next one."""
        if not any(seen.share is not None for seen in self._scales.values()):
            return self.history
        return replace(
            self.history,
            share=self._share(),
            fixed_pixels=self._fixed_pixels(),
            seconds_per_pixel=self._seconds_per_pixel(),
        )

    def _measured(self) -> list[_Scale]:
        return [seen for seen in self._scales.values() if seen.step_seconds is not None]

    def _seconds_per_pixel(self) -> float | None:
        measured = self._measured()
        if not measured:
            return self.history.seconds_per_pixel
        latest = measured[-1]
        return (latest.step_seconds or 0.0) / (latest.pixels + self._fixed_pixels())

    def _first_steps(self) -> float:
        """Return how many usual steps a scale's first one takes as long as."""
        measured = self._measured()
        if not measured or not measured[-1].step_seconds:
            return 1.0
        return measured[-1].first_seconds / measured[-1].step_seconds

    def _share(self) -> float:
        # The later scales say more: they are larger, and more alike.
        share = self.history.share
        for _, seen in sorted(self._scales.items()):
            if seen.share is not None:
                share = seen.share if share is None else (share + seen.share) / 2
        return 1.0 if share is None else share

    def _fixed_pixels(self) -> float:
        """Return where the line through the two largest scales seen meets zero seconds."""
        measured = sorted(
            (seen for seen in self._measured() if seen.steps > FEWEST_STEPS),
            key=lambda seen: seen.pixels,
        )
        return _meets_zero(measured[-2:]) if len(measured) > 1 else self.history.fixed_pixels


def _meets_zero(scales: Sequence[_Scale]) -> float:
    (small, small_seconds), (large, large_seconds) = (
        (scale.pixels, scale.step_seconds or 0.0) for scale in scales
    )
    slope = (large_seconds - small_seconds) / max(large - small, 1)
    if slope <= 0:
        return float(large)  # noise: a step there seems to cost nothing but its start
    # Limited, since a slope that is nearly none may be noise as well.
    return min(max(0.0, small_seconds / slope - small), 10.0 * large)

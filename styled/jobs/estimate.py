"""How long a painting will still take, from how long its steps have taken so far.

Two things are not known beforehand. A step's time grows with its pixels, but not quite in
proportion: small scales wait for Python and for the launching of kernels. And scales end
early once they gain too little. Both are learnt from the scales that are done, and what one
painting has taught is where the next one begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from styled.engine.progress import Progress
from styled.recipes import Recipe

Pixels = int

LATEST_STEPS, FEWEST_STEPS = 15, 5
"""So many steps tell how fast it goes just now, and so many at the least how size matters."""

EARLY_SHARE = 0.5
"""Of the steps of `pyramid`'s scales, what three photographs took on the average."""


@dataclass(slots=True)
class _Scale:
    """What has been seen of one scale.

    Attributes:
        latest: Seconds that its latest steps took, without the first one, which computes
            targets too.
        first: Seconds that the first step took.
        share: Of the steps that it may take, those that it took; None while it goes on.
    """

    pixels: Pixels
    first: float
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST_STEPS))
    share: float | None = None

    @property
    def per_step(self) -> float:
        # The median: others may have kept the machine busy for a while.
        return median(self.latest)


@dataclass(frozen=True, slots=True)
class Experience:
    """What earlier paintings have taught.

    Attributes:
        share: Of the steps that a scale may take, those that it takes; None: nobody knows.
        fixed_pixels: How many pixels take as long as what a step costs regardless of its size.
    """

    share: float | None = None
    fixed_pixels: float = 0.0

    @classmethod
    def of(cls, recipe: Recipe) -> Experience:
        """Return what is to be expected of a recipe that has never been painted here."""
        return cls(share=EARLY_SHARE if recipe.min_improvement else None)


@dataclass(slots=True)
class Estimate:
    """Watches one painting."""

    experience: Experience = field(default_factory=Experience)
    _scales: dict[int, _Scale] = field(default_factory=dict)
    _last: Progress | None = None

    def note(self, progress: Progress, seconds: float) -> None:
        """Take in a step that took so many seconds."""
        width, height = progress.width, progress.height
        seen = self._scales.get(progress.scale)
        if seen is None or seen.pixels != width * height:  # memory may have made it smaller
            seen = self._scales[progress.scale] = _Scale(width * height, first=seconds)
        else:
            seen.latest.append(seconds)
        if progress.finished:
            seen.share = progress.step / progress.steps
        self._last = progress

    def step_seconds(self) -> float | None:
        """Return how long a step takes at the present scale, None before it is known."""
        here = None if self._last is None else self._scales[self._last.scale]
        return here.per_step if here is not None and here.latest else None

    def seconds_left(self) -> float | None:
        """Return how long it will still take, None as long as nothing can be said."""
        now = self._last
        measured = [seen for seen in self._scales.values() if seen.latest]
        if now is None or not measured:
            return None
        latest = measured[-1]
        fixed = self._fixed_pixels()
        per_pixel = latest.per_step / (latest.pixels + fixed)
        share = self._share()
        expected = share * now.steps
        left = 0.0
        if not now.finished:
            # A scale that goes on for longer than expected may end at any step.
            more = expected - now.step if now.step < expected else (now.steps - now.step) / 2
            left = more * per_pixel * (now.width * now.height + fixed)
        first_steps = latest.first / latest.per_step if latest.per_step else 1.0
        for scale, (width, height) in enumerate(now.plan[now.scale :], start=now.scale + 1):
            expected = share * now.steps_at(scale)
            left += per_pixel * (width * height + fixed) * (expected - 1 + first_steps)
        return left

    def learnt(self) -> Experience:
        """Return what this painting has taught, for the next one."""
        if not any(seen.share is not None for seen in self._scales.values()):
            return self.experience
        return replace(self.experience, share=self._share(), fixed_pixels=self._fixed_pixels())

    def _share(self) -> float:
        # The later scales say more: they are larger, and more alike.
        share = self.experience.share
        for _, seen in sorted(self._scales.items()):
            if seen.share is not None:
                share = seen.share if share is None else (share + seen.share) / 2
        return 1.0 if share is None else share

    def _fixed_pixels(self) -> float:
        """Return where the line through the two largest scales seen meets zero seconds."""
        measured = sorted(
            (seen for seen in self._scales.values() if len(seen.latest) >= FEWEST_STEPS),
            key=lambda s: s.pixels,
        )
        return _meets_zero(measured[-2:]) if len(measured) > 1 else self.experience.fixed_pixels


def _meets_zero(scales: Sequence[_Scale]) -> float:
    small, large = scales
    slope = (large.per_step - small.per_step) / max(large.pixels - small.pixels, 1)
    if slope <= 0:
        return float(large.pixels)  # noise: a step there seems to cost nothing but its start
    # Limited, since a slope that is nearly none may be noise as well.
    return min(max(0.0, small.per_step / slope - small.pixels), 10.0 * large.pixels)

"""What a painting tells of itself: after every step, and at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from styled.degradation import Degradation
from styled.engine.checkpoint import Checkpoint
from styled.engine.objective import Losses
from styled.engine_api import TraceRow


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a picture stands after one step.

    Attributes:
        plan: Width and height of each scale in pixels, from coarse to fine.
        scale: The present scale, counted from one.
        step: Steps done at this scale, of `steps` at most.
        finished: Whether this was the last step at this scale.
        losses: Of the image that this step started from.
        checkpoint: Takes a snapshot to resume from; call it before going on, if at all.
        preview: Returns the picture as it is now, 1x3xhxw float32 on the CPU, sRGB in [0, 1],
            with at most so many pixels along an edge; call it before going on, if at all.
        budget: How many steps each scale of the plan may take; empty: `steps` each.
        degraded: What had to be given up so far.
    """

    plan: tuple[tuple[int, int], ...]
    scale: int
    step: int
    steps: int
    finished: bool
    losses: Losses
    checkpoint: Callable[[], Checkpoint]
    preview: Callable[[int], Tensor]
    budget: tuple[int, ...] = ()
    degraded: tuple[Degradation, ...] = ()

    @property
    def scales(self) -> int:
        """How many scales there are."""
        return len(self.plan)

    @property
    def width(self) -> int:
        """Of the present scale, in pixels."""
        return self.plan[self.scale - 1][0]

    @property
    def height(self) -> int:
        """Of the present scale, in pixels."""
        return self.plan[self.scale - 1][1]

    @property
    def fraction(self) -> float:
        """How much of the whole work is done, by pixels times steps, in [0, 1]."""
        work_of_scales = [
            width * height * self.steps_at(scale)
            for scale, (width, height) in enumerate(self.plan, start=1)
        ]
        here = 1.0 if self.finished else self.step / self.steps
        done = sum(work_of_scales[: self.scale - 1]) + work_of_scales[self.scale - 1] * here
        return done / sum(work_of_scales)

    def steps_at(self, scale: int) -> int:
        """Return how many steps a scale may take."""
        return self.budget[scale - 1] if self.budget else self.steps


@dataclass(frozen=True, slots=True)
class Stylized:
    """A finished picture.

    Attributes:
        image: 1x3xHxW float32 on the CPU, sRGB in [0, 1].
        trace: Losses every `trace_every` steps, and at the first and last of each scale.
        degraded: What had to be given up on the way.
        tile_px: The longest edge of the tiles that the picture was looked at in at last;
            None: it was looked at as a whole.
        precision: What convolutions computed in at last.
        detail_steps: Steps that were taken beyond the size that it was painted at.
    """

    image: Tensor
    trace: tuple[TraceRow, ...]
    degraded: tuple[Degradation, ...] = ()
    tile_px: int | None = None
    precision: str = "float32"
    detail_steps: int = 0

    @property
    def steps(self) -> int:
        """Steps taken at all scales together."""
        return sum({row.scale: row.step for row in self.trace}.values())

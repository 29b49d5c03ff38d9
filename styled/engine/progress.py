"""What a painting tells of itself: after every step, and at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from styled.engine.checkpoint import Checkpoint
from styled.engine.objective import Losses


class TraceRow(NamedTuple):
    """The weighted losses at one step; scales and steps count from one."""

    scale: int
    step: int
    total: float
    content: float
    style: float
    tv: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a picture stands after one step.

    Attributes:
        scale: The present scale, counted from one, of `scales`.
        width: Of the present scale, in pixels.
        step: Steps done at this scale, of `steps` at most.
        fraction: How much of the whole work is done, by pixels times steps, in [0, 1].
        losses: Of the image that this step started from.
        checkpoint: Takes a snapshot to resume from; call it before going on, if at all.
    """

    scale: int
    scales: int
    width: int
    height: int
    step: int
    steps: int
    fraction: float
    losses: Losses
    checkpoint: Callable[[], Checkpoint]


@dataclass(frozen=True, slots=True)
class Stylized:
    """A finished picture.

    Attributes:
        image: 1x3xHxW float32 on the CPU, sRGB in [0, 1].
        trace: Losses every `trace_every` steps, and at the first and last of each scale.
        degraded: What had to be given up on the way, in words.
        tile_px: The longest edge of the tiles that the picture was looked at in at last;
            None: it was looked at as a whole.
        precision: What convolutions computed in at last.
    """

    image: Tensor
    trace: tuple[TraceRow, ...]
    degraded: tuple[str, ...] = ()
    tile_px: int | None = None
    precision: str = "float32"

    @property
    def steps(self) -> int:
        """Steps taken at all scales together."""
        return sum({row.scale: row.step for row in self.trace}.values())

"""The guard: no picture is lost to a step that went wrong, and none is published ruined.

A bad step rolls back to the best image so far and goes on with safer settings, each of
which is put on record. When nothing safer is left, the job has failed. What is done about
a lack of memory is in `ladder`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from styled.degradation import Degradation
from styled.errors import EngineFailure
from styled.recipes import Optimizer

EXPLODED = 100.0
"""A loss of so many times the scale's first one is not on its way anywhere."""

SAFER_RATE = 0.25
LAST_RESORT = Optimizer(name="adam", learning_rate=0.01)
MOST_FAILURES = 4

_BLANK_DEVIATION = 1 / 255
_SATURATED_SHARE = 0.98


@dataclass(frozen=True, slots=True)
class Settings:
    """What may have to become safer while a picture is painted.

    Attributes:
        optimizer: As the recipe has it at first.
        float32: Whether the convolutions must not use less than float32.
        tile_px: The longest edge of a tile; None: the picture is looked at as a whole.
        failures: How many steps have gone wrong.
        degraded: What was given up.
    """

    optimizer: Optimizer
    float32: bool = False
    tile_px: int | None = None
    failures: int = 0
    degraded: tuple[Degradation, ...] = ()


def is_good(total: float, first_total: float) -> bool:
    """Tell whether a loss is finite and has not exploded since the scale's first one."""
    return math.isfinite(total) and total <= EXPLODED * max(abs(first_total), 1e-12)


def safer(settings: Settings, total: float, *, reduced_precision: bool) -> Settings:
    """Return the next safer settings after a step that went wrong.

    Args:
        settings: The present ones.
        total: The loss of that step.
        reduced_precision: Whether the convolutions run in less than float32 now.

    Raises:
        EngineFailure: nothing safer is left.
    """
    what = "was not a number" if math.isnan(total) else f"rose to {total:.3g}"
    failures = settings.failures + 1
    if failures > MOST_FAILURES:
        story = "; ".join(
            given_up.message for given_up in settings.degraded if given_up.kind != "resumed"
        )
        raise EngineFailure(
            f"the loss {what} again, although {story}" if story else f"the loss {what}",
            "lower the recipe's optimizer.learning_rate, or look at the photo, the style and "
            "the weights: one of them may hold values that are no colours",
        )
    optimizer = settings.optimizer
    if reduced_precision and not settings.float32:
        change = "convolutions went on in float32"
        settings = replace(settings, float32=True)
    elif failures > 1 and (
        optimizer.name == "lbfgs" or optimizer.learning_rate > LAST_RESORT.learning_rate
    ):
        change = f"Adam at a rate of {LAST_RESORT.learning_rate} took over"
        settings = replace(settings, optimizer=LAST_RESORT)
    else:
        rate = optimizer.learning_rate * SAFER_RATE
        change = f"the learning rate was lowered to {rate:.3g}"
        settings = replace(settings, optimizer=replace(optimizer, learning_rate=rate))
    degradation = Degradation("guard", f"the loss {what}: {change}")
    return replace(settings, failures=failures, degraded=(*settings.degraded, degradation))


def check_result(result: Tensor, content: Tensor) -> None:
    """Refuse to hand on a picture that nobody can have wanted.

    Args:
        result: 1x3xHxW sRGB, about to be published.
        content: The photo, which may itself be blank or black and white.

    Raises:
        EngineFailure: the result is not finite, blank or saturated, and the photo is not.
    """
    if not bool(torch.isfinite(result).all()):
        raise EngineFailure("the result has values that are not finite", "try another recipe")
    if float(result.std()) < _BLANK_DEVIATION <= float(content.std()):
        raise EngineFailure("the result is blank", "raise the recipe's content_weight")
    if _saturated(result) > _SATURATED_SHARE >= _saturated(content):
        raise EngineFailure(
            "the result is saturated: nearly all of it is black or in full colours",
            "lower the recipe's optimizer.learning_rate",
        )


def _saturated(image: Tensor) -> float:
    return float(((image <= 0) | (image >= 1)).float().mean())

"""Recovery from bad steps, and the check of the result before it is published.

After a step whose loss is not finite or has exploded, the run rolls back to the best image so
far and continues with safer settings, each recorded as a degradation. When no safer settings
are left, the job fails. Lack of memory is handled in `memory_fallback`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from styled.degradation import Degradation
from styled.errors import EngineFailure
from styled.recipes import OptimizerSettings

EXPLOSION_FACTOR = 100.0
"""A loss above this multiple of the scale's first loss has exploded."""

RATE_FACTOR = 0.25
LAST_RESORT = OptimizerSettings(name="adam", learning_rate=0.01)
MAX_FAILURES = 4

_BLANK_DEVIATION = 1 / 255
_SATURATED_SHARE = 0.98


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The settings that fallbacks may change while a picture is painted.

    Attributes:
        optimizer: The recipe's optimiser settings at first.
        float32: Whether convolutions must compute in float32.
        tile_px: The longest edge of a tile; None: the picture is evaluated as a whole.
        failures: The number of bad steps so far.
        degraded: The degradations so far.
    """

    optimizer: OptimizerSettings
    float32: bool = False
    tile_px: int | None = None
    failures: int = 0
    degraded: tuple[Degradation, ...] = ()


def is_good(total: float, first_total: float) -> bool:
    """Return whether a loss is finite and has not exploded relative to the scale's first one."""
    return math.isfinite(total) and total <= EXPLOSION_FACTOR * max(abs(first_total), 1e-12)


def safer(settings: RunSettings, total: float, *, reduced_precision: bool) -> RunSettings:
    """Return the next safer settings after a bad step.

    Args:
        settings: The current ones.
        total: The loss of that step.
        reduced_precision: Whether convolutions currently compute in less than float32.

    Raises:
        EngineFailure: no safer settings are left.
    """
    problem = "was not a number" if math.isnan(total) else f"rose to {total:.3g}"
    failures = settings.failures + 1
    if failures > MAX_FAILURES:
        history = "; ".join(d.message for d in settings.degraded if d.kind != "resumed")
        raise EngineFailure(
            f"the loss {problem} again, although {history}" if history else f"the loss {problem}",
            "lower the recipe's optimizer.learning_rate, or look at the photo, the style and "
            "the weights: one of them may hold values that are not colours",
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
        rate = optimizer.learning_rate * RATE_FACTOR
        change = f"the learning rate was lowered to {rate:.3g}"
        settings = replace(settings, optimizer=replace(optimizer, learning_rate=rate))
    degradation = Degradation("diverged", f"the loss {problem}: {change}")
    return replace(settings, failures=failures, degraded=(*settings.degraded, degradation))


def check_result(result: Tensor, content: Tensor) -> None:
    """Raise if the result is unusable.

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

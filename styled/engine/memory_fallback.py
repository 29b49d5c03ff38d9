"""What to give up when memory runs out, in order of preference.

First smaller tiles, which only cost time: loss and gradient computed tile by tile equal those of
the whole image, up to rounding. Then fewer curvature pairs of L-BFGS: on a large image its history
takes most of the memory. Last a smaller size. Before each scale, fallbacks are applied until the
estimated memory is within the limit; if an allocation fails anyway, the next one is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt

from styled.degradation import Degradation
from styled.engine.guard import RunSettings
from styled.engine.scales import MIN_EDGE_PX
from styled.engine_api import PixelSize
from styled.errors import EngineFailure

TILE_EDGES_PX = (2048, 1024, 512, 256)
"""Edges of a tile without its halo, tried in this order.

With a halo of 80 px, tiles of 256 px compute 2.6 times as many pixels; smaller ones take too long.
"""

LBFGS_HISTORIES = (10, 5, 2)
"""Numbers of curvature pairs to keep, tried in this order."""

_HISTORY_MESSAGE = "memory was short: L-BFGS kept only"


def next_fallback(
    settings: RunSettings, size: PixelSize, *, in_update: bool = False
) -> RunSettings | None:
    """Return the next settings that need less memory; None if only a smaller size is left.

    A shorter history changes the painting and is recorded in `degraded`. Tiles do not change it;
    `stylize` records them if an allocation has failed.

    Args:
        settings: The current ones.
        size: Width and height of the current scale.
        in_update: Whether the optimiser's update ran out of memory. Tiles do not help then: they
            reduce only the memory of the forward and the backward pass.
    """
    # Of the current tiles; without tiles, the long edge of the image.
    edge = min(max(size), settings.tile_px or max(size))
    for tile_px in TILE_EDGES_PX:
        if tile_px < edge and not in_update:
            return replace(settings, tile_px=tile_px)
    optimizer = settings.optimizer
    for history in LBFGS_HISTORIES:
        if optimizer.name == "lbfgs" and history < optimizer.history:
            message = f"{_HISTORY_MESSAGE} {history} steps at {size.width} x {size.height}"
            return replace(
                settings,
                optimizer=replace(optimizer, history=history),
                degraded=(*_without_history_degradations(settings), Degradation("memory", message)),
            )
    return None


def _without_history_degradations(settings: RunSettings) -> tuple[Degradation, ...]:
    # Only the shortest history is reported.
    return tuple(one for one in settings.degraded if not one.message.startswith(_HISTORY_MESSAGE))


def fit_to_limit(
    limit_bytes: int | None,
    settings: RunSettings,
    size: PixelSize,
    estimate: Callable[[RunSettings, PixelSize], int],
) -> tuple[RunSettings, bool]:
    """Apply fallbacks until the estimated memory is within the limit.

    Args:
        limit_bytes: None: no limit.
        settings: The current ones.
        size: Width and height of the current scale.
        estimate: Returns the peak memory in bytes for these settings at this size.

    Returns:
        The settings, and whether the estimate is within the limit. If not, all fallbacks but a
        smaller size have been applied.
    """
    while limit_bytes is not None and estimate(settings, size) > limit_bytes:
        fallback = next_fallback(settings, size)
        if fallback is None:
            return settings, False
        settings = fallback
    return settings, True


def reduce_plan(plan: list[PixelSize]) -> list[PixelSize]:
    """Drop the finest scale; if there is only one, halve its number of pixels.

    Args:
        plan: The size of each scale, coarse to fine.

    Raises:
        EngineFailure: an edge would be shorter than `MIN_EDGE_PX`.
    """
    if len(plan) > 1:
        return plan[:-1]
    width, height = plan[0]
    smaller = PixelSize(round(width / sqrt(2)), round(height / sqrt(2)))
    if min(smaller) < MIN_EDGE_PX:
        raise EngineFailure(
            f"there is too little memory, even for {width} x {height} pixels",
            "raise engine.memory_limit, or stop other programs that use the device's memory",
        )
    return [smaller]

"""The fallbacks where memory is too short, in order of preference.

First smaller tiles, which only cost time: an evaluation in tiles equals one of the whole
picture. Then a shorter L-BFGS history, which is most of what a large picture needs. Last a
smaller size. Fallbacks are applied before each scale, as far as its memory estimate requires,
and once more after every allocation that fails nevertheless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt

from styled.degradation import Degradation
from styled.engine.guard import RunSettings
from styled.engine.scales import SHORTEST_EDGE_PX
from styled.engine_api import PixelSize
from styled.errors import EngineFailure

TILE_EDGES_PX = (2048, 1024, 512, 256)
"""Tried in this order. With a halo of 80 px a tile of 256 px costs 2.6 times its own area."""

HISTORIES = (10, 5, 2)


def next_fallback(
    settings: RunSettings, size: PixelSize, *, in_update: bool = False
) -> RunSettings | None:
    """Return the next settings that need less memory; None if only a smaller size is left.

    A shorter history changes the picture and is recorded in `degraded`; tiles do not.

    Args:
        settings: The current ones.
        size: Of the scale.
        in_update: Whether the optimiser's update ran out of memory: tiles do not help then.
    """
    edge = min(max(size), settings.tile_px or max(size))
    for tile_px in TILE_EDGES_PX:
        if tile_px < edge and not in_update:
            return replace(settings, tile_px=tile_px)
    optimizer = settings.optimizer
    for history in HISTORIES:
        if optimizer.name == "lbfgs" and history < optimizer.history:
            message = (
                f"memory was short: L-BFGS remembered {history} steps at {size[0]} x {size[1]}"
            )
            return replace(
                settings,
                optimizer=replace(optimizer, history=history),
                degraded=(*_without_history_notes(settings), Degradation("memory", message)),
            )
    return None


def _without_history_notes(settings: RunSettings) -> tuple[Degradation, ...]:
    return tuple(d for d in settings.degraded if "L-BFGS remembered" not in d.message)


def fit_to_limit(
    limit: int | None,
    settings: RunSettings,
    size: PixelSize,
    estimate: Callable[[RunSettings, PixelSize], int],
) -> tuple[RunSettings, bool]:
    """Apply fallbacks until the estimated memory is within the limit.

    Args:
        limit: In bytes. None: no limit.
        settings: The current ones.
        size: Of the scale.
        estimate: Returns the bytes needed with some settings at some size.

    Returns:
        The settings, and whether they fit: if none do, those that need the least.
    """
    while limit is not None and estimate(settings, size) > limit:
        fallback = next_fallback(settings, size)
        if fallback is None:
            return settings, False
        settings = fallback
    return settings, True


def reduce_plan(plan: list[PixelSize]) -> list[PixelSize]:
    """Return the next smaller plan: without the last of several scales, or with half the pixels.

    Raises:
        EngineFailure: an edge would be shorter than `SHORTEST_EDGE_PX`.
    """
    if len(plan) > 1:
        return plan[:-1]
    width, height = plan[0]
    smaller = PixelSize(round(width / sqrt(2)), round(height / sqrt(2)))
    if min(smaller) < SHORTEST_EDGE_PX:
        raise EngineFailure(
            f"there is too little memory, even for {width} x {height} pixels",
            "raise engine.memory_limit, or stop other programs that use the device's memory",
        )
    return [smaller]

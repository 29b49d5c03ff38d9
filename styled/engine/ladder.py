"""The memory ladder: what is given up, and in which order, where memory is too short.

First tiles, which cost time and nothing else: an evaluation in tiles equals one of the
whole picture. Then the history of L-BFGS, which is most of what a large picture needs.
Last the size. The ladder is climbed down ahead of a scale, by what it is predicted to need,
and once more at every allocation that fails all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt

from styled.degradation import Degradation
from styled.engine.guard import Settings
from styled.engine.scales import SHORTEST_EDGE_PX
from styled.errors import EngineFailure

Pixels = tuple[int, int]
"""Width and height."""

TILE_EDGES_PX = (2048, 1024, 512, 256)
"""Tried in turn. With a halo of 80 px a tile of 256 costs 2.6 times its own area."""

HISTORIES = (10, 5, 2)


def thriftier(settings: Settings, size: Pixels, *, in_update: bool = False) -> Settings | None:
    """Return the next settings that need less memory, or None: only a smaller size is left.

    What changes the picture is put on record in `degraded`; tiles do not.

    Args:
        settings: The present ones.
        size: Of the scale.
        in_update: Whether it was the optimiser that ran out of memory: tiles are no help then.
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
                degraded=(*_without_histories(settings), Degradation("memory", message)),
            )
    return None


def _without_histories(settings: Settings) -> tuple[Degradation, ...]:
    return tuple(known for known in settings.degraded if "L-BFGS remembered" not in known.message)


def within(
    limit: int | None, settings: Settings, size: Pixels, needs: Callable[[Settings, Pixels], int]
) -> tuple[Settings, bool]:
    """Return the first settings down the ladder whose need is within the limit.

    Returns:
        The settings, and whether they fit: if none do, they are the thriftiest.
    """
    while limit is not None and needs(settings, size) > limit:
        next_rung = thriftier(settings, size)
        if next_rung is None:
            return settings, False
        settings = next_rung
    return settings, True


def smaller_plan(plan: list[Pixels]) -> list[Pixels]:
    """Return the next smaller plan: without the last of several scales, or of half the pixels.

    Raises:
        EngineFailure: there is none.
    """
    if len(plan) > 1:
        return plan[:-1]
    width, height = plan[0]
    smaller = round(width / sqrt(2)), round(height / sqrt(2))
    if min(smaller) < SHORTEST_EDGE_PX:
        raise EngineFailure(
            f"there is too little memory, even for {width} x {height} pixels",
            "raise engine.memory_limit, or stop other programs that use the device's memory",
        )
    return [smaller]

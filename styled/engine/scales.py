"""Sizes: the picture's own, and the ladder of sizes from coarse to fine."""

from __future__ import annotations

from math import sqrt

import torch.nn.functional as F
from torch import Tensor

from styled.errors import InputRejected
from styled.recipes import Recipe, Scales, Size

SHORTEST_EDGE_PX = 32
"""Below this, the deepest layers of VGG-19 have nothing left to look at."""


def working_size(size: Size, width: int, height: int) -> tuple[int, int]:
    """Return the width and height, in pixels, at which a photo is painted.

    Args:
        size: What the recipe asks for.
        width: Of the photo, upright.
        height: Likewise.

    Raises:
        InputRejected: an edge would be shorter than `SHORTEST_EDGE_PX`.
    """
    result = size.exact or _proportional(size, width, height)
    if min(result) < SHORTEST_EDGE_PX:
        raise InputRejected(
            f"the photo is {width} x {height} pixels, which would be painted at "
            f"{result[0]} x {result[1]}: no edge may be under {SHORTEST_EDGE_PX} pixels",
            "use a larger or less elongated photo, or raise the recipe's size",
        )
    return result


def _proportional(size: Size, width: int, height: int) -> tuple[int, int]:
    short, long = min(width, height), max(width, height)
    largest = short if size.upscale is False else long
    if size.short_edge is not None:
        edge = size.short_edge if size.upscale is True else min(size.short_edge, largest)
        # Cut off rather than rounded, as torchvision's Resize does.
        return (edge, edge * height // width) if width <= height else (edge * width // height, edge)
    factor = 1.0
    if size.long_edge is not None:
        factor = size.long_edge / long
    elif size.megapixels is not None:
        factor = sqrt(size.megapixels * 1e6 / (width * height))
    if size.upscale is not True:
        factor = min(factor, largest / short if size.upscale == "to_long_edge" else 1.0)
    return max(1, round(width * factor)), max(1, round(height * factor))


def style_picture_size(
    recipe: Recipe, result: tuple[int, int], style: tuple[int, int]
) -> tuple[int, int]:
    """Return the width and height at which a style image is looked at.

    Args:
        recipe: Says how.
        result: Width and height of the result, at the present scale.
        style: Width and height that the style image has.

    Raises:
        InputRejected: an edge would be shorter than `SHORTEST_EDGE_PX`.
    """
    if recipe.style_size == "content":
        return result
    if recipe.style_size == "scaled":
        return fitted(*style, round(max(result) * recipe.style_scale))
    return working_size(recipe.style_size, *style)


def plan_scales(scales: Scales | None, width: int, height: int) -> list[tuple[int, int]]:
    """Return the sizes to work through, coarse to fine; the last is the picture's own.

    The ladder is counted down from the full size, so that its last step is a full one,
    and it ends before the long edge falls below `start_px` or the short edge below
    `SHORTEST_EDGE_PX`.
    """
    plan = [(width, height)]
    if scales is not None:
        while True:
            factor = scales.factor ** -len(plan)
            smaller = round(width * factor), round(height * factor)
            if max(smaller) < scales.start_px or min(smaller) < SHORTEST_EDGE_PX:
                break
            plan.append(smaller)
    return plan[::-1]


def fitted(width: int, height: int, long_edge: int) -> tuple[int, int]:
    """Return the size at which the long edge is at most `long_edge`, keeping the shape.

    Nothing is ever enlarged, and no edge falls below `SHORTEST_EDGE_PX`.
    """
    factor = max(long_edge / max(height, width), SHORTEST_EDGE_PX / min(height, width))
    if factor >= 1:
        return width, height
    return round(width * factor), round(height * factor)


def resize(image: Tensor, width: int, height: int) -> Tensor:
    """Resample 1xCxHxW in [0, 1] bicubically to 1xCx`height`x`width`, within [0, 1]."""
    if image.shape[-2:] == (height, width):
        return image
    resized = F.interpolate(image, (height, width), mode="bicubic", antialias=True)
    return resized.clamp(0, 1)

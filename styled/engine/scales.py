"""Image sizes: the working size of a photo, the size of style images, coarse-to-fine scales."""

from __future__ import annotations

from math import sqrt

import torch.nn.functional as F
from torch import Tensor

from styled.engine_api import PixelSize
from styled.errors import InputRejected
from styled.recipes import Recipe, Scales, Size

SHORTEST_EDGE_PX = 32
"""Below this, the deepest layers of VGG-19 have no positions left."""


def working_size(size: Size, width: int, height: int) -> PixelSize:
    """Return the width and height, in pixels, at which a photo is painted.

    Args:
        size: The recipe's setting.
        width: Of the photo in its upright orientation, in pixels.
        height: Of the photo in its upright orientation, in pixels.

    Raises:
        InputRejected: an edge would be shorter than `SHORTEST_EDGE_PX`.
    """
    result = PixelSize(*size.exact) if size.exact else _proportional(size, width, height)
    if min(result) < SHORTEST_EDGE_PX:
        raise InputRejected(
            f"the photo is {width} x {height} pixels, which would be painted at "
            f"{result[0]} x {result[1]}: no edge may be under {SHORTEST_EDGE_PX} pixels",
            "use a larger or less elongated photo, or raise the recipe's size",
        )
    return result


def _proportional(size: Size, width: int, height: int) -> PixelSize:
    short, long = min(width, height), max(width, height)
    largest = short if size.upscale is False else long
    if size.short_edge is not None:
        edge = size.short_edge if size.upscale is True else min(size.short_edge, largest)
        # Rounded down, as in torchvision's Resize.
        if width <= height:
            return PixelSize(edge, edge * height // width)
        return PixelSize(edge * width // height, edge)
    factor = 1.0
    if size.long_edge is not None:
        factor = size.long_edge / long
    elif size.megapixels is not None:
        factor = sqrt(size.megapixels * 1e6 / (width * height))
    if size.upscale is not True:
        factor = min(factor, largest / short if size.upscale == "to_long_edge" else 1.0)
    return PixelSize(max(1, round(width * factor)), max(1, round(height * factor)))


def style_picture_size(recipe: Recipe, result: PixelSize, style: PixelSize) -> PixelSize:
    """Return the width and height to which a style image is resized.

    Args:
        recipe: Its `style_size` and `style_scale` are used.
        result: Width and height of the result at the current scale.
        style: Width and height of the style image's file.

    Raises:
        InputRejected: an edge would be shorter than `SHORTEST_EDGE_PX`.
    """
    if recipe.style_size == "content":
        return result
    if recipe.style_size == "scaled":
        return fitted(*style, round(max(result) * recipe.style_scale))
    return working_size(recipe.style_size, *style)


def plan_scales(scales: Scales | None, width: int, height: int) -> list[PixelSize]:
    """Return the sizes of all scales, coarse to fine; the last is width x height.

    Sizes are the full size divided by powers of the factor, so the last upscaling is by the full
    factor. The coarsest scale is the last one before the long edge falls below `start_px` or the
    short edge below `SHORTEST_EDGE_PX`. Without `scales` there is only the full size.
    """
    plan = [PixelSize(width, height)]
    if scales is not None:
        while True:
            factor = scales.factor ** -len(plan)
            smaller = PixelSize(round(width * factor), round(height * factor))
            if max(smaller) < scales.start_px or min(smaller) < SHORTEST_EDGE_PX:
                break
            plan.append(smaller)
    return plan[::-1]


def fitted(width: int, height: int, long_edge: int) -> PixelSize:
    """Return the size reduced to a long edge of at most `long_edge`, keeping the aspect ratio.

    It is never enlarged, and no edge is reduced below `SHORTEST_EDGE_PX`.
    """
    factor = max(long_edge / max(height, width), SHORTEST_EDGE_PX / min(height, width))
    if factor >= 1:
        return PixelSize(width, height)
    return PixelSize(round(width * factor), round(height * factor))


def pixel_size(image: Tensor) -> PixelSize:
    """Return the width and height of 1xCxHxW."""
    return PixelSize(image.shape[3], image.shape[2])


def resize(image: Tensor, width: int, height: int) -> Tensor:
    """Resize 1xCxHxW in [0, 1] bicubically to 1xCx`height`x`width`, clamped to [0, 1]."""
    if image.shape[-2:] == (height, width):
        return image
    resized = F.interpolate(image, (height, width), mode="bicubic", antialias=True)
    return resized.clamp(0, 1)

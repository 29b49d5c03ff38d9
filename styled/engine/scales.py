"""Image sizes: that at which a photo is painted, that of style images, coarse-to-fine scales."""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from styled.engine_api import PixelSize
from styled.errors import InputRejected
from styled.recipes import Recipe, Scales, Size

MIN_EDGE_PX = 32
"""VGG-19 halves an image five times: below this, its last pooling has no positions left."""


def working_size(
    rule: Size, width: int, height: int, *, setting: Literal["size", "style_size"] = "size"
) -> PixelSize:
    """Return the width and height, in pixels, at which an image is processed.

    Args:
        rule: The recipe's `size` or `style_size`: how the size depends on the image's own.
        width: Of the image in its upright orientation, in pixels.
        height: Of the image in its upright orientation, in pixels.
        setting: Which setting of the recipe `rule` is, for the message.

    Raises:
        InputRejected: an edge would be shorter than `MIN_EDGE_PX`.
    """
    size = PixelSize(*rule.exact) if rule.exact else _proportional(rule, width, height)
    if min(size) < MIN_EDGE_PX:
        raise InputRejected(
            f"the image is {width} x {height} pixels, which the recipe's {setting} makes "
            f"{size.width} x {size.height}: no edge may be under {MIN_EDGE_PX} pixels",
            f"use a larger or less elongated image, or raise the recipe's {setting}",
        )
    return size


def _proportional(size: Size, width: int, height: int) -> PixelSize:
    """Return the size by `short_edge`, `long_edge` or `megapixels`, keeping the aspect ratio.

    Without `upscale`, no edge becomes longer than the image's. With `to_long_edge` the short edge
    may become as long as the image's long edge; with True there is no limit.
    """
    short, long = min(width, height), max(width, height)
    max_short_edge = short if size.upscale is False else long
    if size.short_edge is not None:
        edge = size.short_edge if size.upscale is True else min(size.short_edge, max_short_edge)
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
        factor = min(factor, max_short_edge / short if size.upscale == "to_long_edge" else 1.0)
    return PixelSize(max(1, round(width * factor)), max(1, round(height * factor)))


def style_image_size(recipe: Recipe, painted: PixelSize, style: PixelSize) -> PixelSize:
    """Return the width and height to which a style image is resized.

    Args:
        recipe: Its `style_size` and `style_scale` are used.
        painted: Width and height of the painting at the current scale, in pixels.
        style: Width and height of the decoded style image, in pixels.

    Raises:
        InputRejected: `style_size` is a size of its own, and makes an edge shorter than
            `MIN_EDGE_PX`.
    """
    if recipe.style_size == "content":
        return painted
    if recipe.style_size == "scaled":
        return fit_long_edge(*style, round(max(painted) * recipe.style_scale))
    return working_size(recipe.style_size, *style, setting="style_size")


def plan_scales(scales: Scales | None, width: int, height: int) -> list[PixelSize]:
    """Return the sizes of all scales, coarse to fine; the last is width x height.

    They are counted down from the full size, so that each upscaling, also the last one, is by
    `scales.factor`. The coarsest is the smallest whose long edge is at least `start_px` and whose
    short edge is at least `MIN_EDGE_PX`. Without `scales` there is only the full size.
    """
    plan = [PixelSize(width, height)]
    if scales is not None:
        while True:
            factor = scales.factor ** -len(plan)
            smaller = PixelSize(round(width * factor), round(height * factor))
            if max(smaller) < scales.start_px or min(smaller) < MIN_EDGE_PX:
                break
            plan.append(smaller)
    return plan[::-1]


def fit_long_edge(width: int, height: int, long_edge_px: int) -> PixelSize:
    """Return the size scaled down to a long edge of `long_edge_px`, keeping the aspect ratio.

    The long edge stays longer where the short one would fall below `MIN_EDGE_PX`. Nothing is
    scaled up.
    """
    factor = max(long_edge_px / max(height, width), MIN_EDGE_PX / min(height, width))
    if factor >= 1:
        return PixelSize(width, height)
    return PixelSize(round(width * factor), round(height * factor))


def pixel_size(image: Tensor) -> PixelSize:
    """Return the width and height of a 1xCxHxW image, in pixels."""
    return PixelSize(image.shape[3], image.shape[2])


def resize(image: Tensor, width: int, height: int) -> Tensor:
    """Resize a 1xCxHxW image in [0, 1] bicubically, with antialiasing, and clamp it to [0, 1].

    Returns `image` itself if it has that size already.
    """
    if image.shape[-2:] == (height, width):
        return image
    resized = F.interpolate(image, (height, width), mode="bicubic", antialias=True)
    return resized.clamp(0, 1)

"""Transparent pixels: what they take no part in, and how far that goes.

A picture may come as 1x4xHxW, the fourth channel being opacity in [0, 1]. Then each position
of a layer counts as much as the pixels that it stands for are opaque, on the average: in the
content loss, in the moments that style losses compare, in the statistics of colours. No
gradient comes from a position that counts for nothing, and none from a style's.

That is not all, and can't be: a position near an edge sees pixels beyond it. What it sees
there are the colours that the picture has there, so that whoever makes the tensor should give
transparent pixels those of their surroundings. Total variation smooths them like all others.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.tiling import Tile, stride_of

_LEAST = 1e-6
"""How much a transparent position counts: so little, but a sum of weights is never zero."""


def split_opacity(image: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the colours of 1x3xHxW or 1x4xHxW, and 1x1xHxW opacity if there is one."""
    return image[:, :3], image[:, 3:] if image.shape[1] == 4 else None


def with_opacity(image: Tensor, opacity: Tensor | None) -> Tensor:
    """Return 1x3xHxW with the opacity of another picture of the same size."""
    return image if opacity is None else torch.cat([image, opacity], dim=1)


class Opacity:
    """How much each position of each layer counts."""

    def __init__(self, opacity: Tensor, layers: Iterable[str]) -> None:
        """Average 1x1xHxW opacity over the pixels that each position of `layers` stands for."""
        strides = {stride_of(layer) for layer in layers}
        self._weights = {
            stride: F.avg_pool2d(opacity, stride).clamp(min=_LEAST) for stride in strides
        }
        self._totals = {stride: float(w.double().sum()) for stride, w in self._weights.items()}

    def positions(self, layer: str) -> float:
        """Return how many positions of a layer count, over the whole picture."""
        return self._totals[stride_of(layer)]

    def weights(self, tile: Tile, layer: str) -> Tensor:
        """Return 1x1xhxw, how much the positions in the core of a tile count, as a view."""
        stride = stride_of(layer)
        rows, columns = (
            slice(span.start // stride, span.stop // stride) for span in (tile.rows, tile.columns)
        )
        return self._weights[stride][..., rows, columns]

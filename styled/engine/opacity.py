"""Transparency: weights that exclude transparent pixels from losses and statistics.

An image may be 1x4xHxW; the fourth channel is opacity in [0, 1]. Each position of a layer is
weighted by the mean opacity of the stride x stride pixels that it covers. The weights apply to
the content loss, to the moments that style losses compare, and to colour statistics. Positions
of weight zero contribute no gradient, and transparent parts of a style image do not influence
the target.

The exclusion is not complete: the receptive field of an opaque position near an edge includes
transparent pixels, whose colours it sees. Callers should therefore fill transparent pixels with
the surrounding colours. Total variation smooths transparent pixels like all others.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.tiling import Tile, stride_of

_MIN_WEIGHT = 1e-6
"""The weight of a fully transparent position, so that a sum of weights is never zero."""


def split_opacity(image: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the colours (1x3xHxW) and the opacity (1x1xHxW, or None) of 1x3xHxW or 1x4xHxW."""
    return image[:, :3], image[:, 3:] if image.shape[1] == 4 else None


def with_opacity(image: Tensor, opacity: Tensor | None) -> Tensor:
    """Return 1x3xHxW with 1x1xHxW opacity as its fourth channel; unchanged if that is None."""
    return image if opacity is None else torch.cat([image, opacity], dim=1)


class Opacity:
    """The weight of each position of each layer."""

    def __init__(self, opacity: Tensor, layers: Iterable[str]) -> None:
        """Average 1x1xHxW opacity over the pixels that each position of `layers` covers."""
        strides = {stride_of(layer) for layer in layers}
        self._weights = {
            stride: F.avg_pool2d(opacity, stride).clamp(min=_MIN_WEIGHT) for stride in strides
        }
        self._totals = {stride: float(w.double().sum()) for stride, w in self._weights.items()}

    def positions(self, layer: str) -> float:
        """Return the sum of a layer's weights over the whole image."""
        return self._totals[stride_of(layer)]

    def weights(self, tile: Tile, layer: str) -> Tensor:
        """Return the weights of the positions in the core of a tile, 1x1xhxw, as a view."""
        stride = stride_of(layer)
        rows, columns = (
            slice(span.start // stride, span.stop // stride) for span in (tile.rows, tile.columns)
        )
        return self._weights[stride][..., rows, columns]

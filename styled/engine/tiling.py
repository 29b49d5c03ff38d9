"""Tiles of an image whose features are exactly those of the whole image.

A tile has a core and a window around it. The cores partition the image. The window is the core
plus a halo as wide as the receptive fields of the requested layers require. Both start at
multiples of the deepest layer's stride, so that pooling windows are aligned as in the whole
image. Where a window ends inside the image, features near that border are wrong, because
convolutions are padded there; no feature of the core depends on them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from styled.engine.vgg_layers import block_of, needed_slice


@dataclass(frozen=True, slots=True)
class Span:
    """A core and its window along one axis, in pixels of the image."""

    start: int
    stop: int
    window_start: int
    window_stop: int

    def at(self, stride: int) -> slice:
        """Return the slice of the core within the window's features of a layer of this stride."""
        return slice(
            (self.start - self.window_start) // stride, (self.stop - self.window_start) // stride
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of an image."""

    rows: Span
    columns: Span

    @property
    def window_size(self) -> tuple[int, int]:
        """Height and width of the window, in pixels."""
        rows, columns = self.rows, self.columns
        return rows.window_stop - rows.window_start, columns.window_stop - columns.window_start

    @property
    def core_pixels(self) -> int:
        """The number of pixels of the core."""
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)

    def window(self, image: Tensor) -> Tensor:
        """Return the window of a 1xCxHxW image, as a view."""
        return image[
            ...,
            self.rows.window_start : self.rows.window_stop,
            self.columns.window_start : self.columns.window_stop,
        ]

    def core(self, features: Tensor, layer: str) -> Tensor:
        """Return the core of a layer's features of the window, 1xCxhxw, as a view."""
        stride = stride_of(layer)
        rows, columns = self.rows.at(stride), self.columns.at(stride)
        if (rows, columns) == (slice(0, features.shape[-2]), slice(0, features.shape[-1])):
            return features
        return features[..., rows, columns]


def tiles(height: int, width: int, core_px: int | None, layers: Collection[str]) -> list[Tile]:
    """Return the tiles of an image, row by row.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        core_px: The approximate longest edge of a core; None: the whole image is one tile.
        layers: The requested layers; they determine the grid and the halo.
    """
    grid = stride_of(needed_slice(layers)[-1])
    halo = _round_up(receptive_margin(layers), grid)
    return [
        Tile(rows, columns)
        for rows in _spans(height, core_px, grid, halo)
        for columns in _spans(width, core_px, grid, halo)
    ]


def stride_of(layer: str) -> int:
    """Return the stride of a layer's positions, in pixels of the image."""
    return int(2 ** (block_of(layer) if layer.startswith("pool") else block_of(layer) - 1))


def receptive_margin(layers: Collection[str]) -> int:
    """Return the margin of the deepest layer's receptive field, in pixels.

    That is how far the receptive field extends on each side beyond the stride x stride pixels
    of the position itself. Each 3 x 3 convolution adds the stride of its own layer: 70 px up to
    conv5_1, whose stride of 16 px gives a receptive field of 156 px. Pooling adds nothing.
    """
    return sum(stride_of(name) for name in needed_slice(layers) if name.startswith("conv"))


def _spans(size: int, core_px: int | None, grid: int, halo: int) -> list[Span]:
    count = 1 if core_px is None else -(-size // core_px)
    step = _round_up(-(-size // count), grid)
    # A remainder smaller than the grid has no position of its own in the deepest layer: it
    # belongs to the last core.
    starts = [start for start in range(0, size, step) if start == 0 or size - start >= grid]
    stops = [*starts[1:], size]
    return [
        Span(start, stop, max(0, start - halo), min(size, stop + halo))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple

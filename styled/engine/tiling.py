"""Cutting a picture into tiles whose features are exactly those of the whole picture.

A tile has a core and a window around it. Cores divide the picture among them; the window
is the core with a halo, as wide as the layers that are looked at can see. Both begin on
the grid of the deepest layer, so that poolings fall on the same pixels as in the whole
picture. Where a window ends inside the picture, its border sees padding that is not there;
no feature of the core sees that border.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from styled.engine.vgg import block_of, needed_slice


@dataclass(frozen=True, slots=True)
class Span:
    """A core and its window along one axis, in pixels of the picture."""

    start: int
    stop: int
    window_start: int
    window_stop: int

    def at(self, stride: int) -> slice:
        """Return where the core lies among the features of the window."""
        return slice(
            (self.start - self.window_start) // stride, (self.stop - self.window_start) // stride
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a picture."""

    rows: Span
    columns: Span

    @property
    def window_size(self) -> tuple[int, int]:
        """Height and width of what the tile looks at, in pixels."""
        rows, columns = self.rows, self.columns
        return rows.window_stop - rows.window_start, columns.window_stop - columns.window_start

    @property
    def core_pixels(self) -> int:
        """How many pixels are the tile's own."""
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)

    def window(self, image: Tensor) -> Tensor:
        """Return the part of 1xCxHxW that the tile looks at, as a view."""
        return image[
            ...,
            self.rows.window_start : self.rows.window_stop,
            self.columns.window_start : self.columns.window_stop,
        ]

    def core(self, features: Tensor, layer: str) -> Tensor:
        """Return the features that are the tile's own, of those of its window, as a view."""
        stride = stride_of(layer)
        rows, columns = self.rows.at(stride), self.columns.at(stride)
        if (rows, columns) == (slice(0, features.shape[-2]), slice(0, features.shape[-1])):
            return features
        return features[..., rows, columns]


def tiles(height: int, width: int, core_px: int | None, layers: Collection[str]) -> list[Tile]:
    """Cut a picture into tiles, row by row.

    Args:
        height: Of the picture, in pixels.
        width: Likewise.
        core_px: The longest edge of a core, about; None: the whole picture is one tile.
        layers: The layers that will be looked at; they decide grid and halo.
    """
    grid = stride_of(needed_slice(layers)[-1])
    halo = _up_to(reach(layers), grid)
    return [
        Tile(rows, columns)
        for rows in _spans(height, core_px, grid, halo)
        for columns in _spans(width, core_px, grid, halo)
    ]


def stride_of(layer: str) -> int:
    """Return how many pixels lie between two neighbouring positions of a layer."""
    return int(2 ** (block_of(layer) if layer.startswith("pool") else block_of(layer) - 1))


def reach(layers: Collection[str]) -> int:
    """Return how far beyond its own pixels a position of the deepest layer sees.

    Each 3 x 3 convolution adds one position of its own layer on every side: 70 px in all up
    to conv5_1, whose positions of 16 px thus see 156 px. Poolings see no pixels but their own.
    """
    return sum(stride_of(name) for name in needed_slice(layers) if name.startswith("conv"))


def _spans(size: int, core_px: int | None, grid: int, halo: int) -> list[Span]:
    pieces = 1 if core_px is None else -(-size // core_px)
    step = _up_to(-(-size // pieces), grid)
    # A rest that is smaller than the grid has no feature of its own at the deepest layer.
    starts = [start for start in range(0, size, step) if start == 0 or size - start >= grid]
    stops = [*starts[1:], size]
    return [
        Span(start, stop, max(0, start - halo), min(size, stop + halo))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _up_to(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple

"""Energy of an image per spatial frequency band and opponent colour, and a gain for each.

The opponent colours are brightness, red - blue, and green - (red and blue). In photographs they
are nearly uncorrelated, unlike red, green and blue.

A band is a ring of the discrete Fourier transform, half an octave wide. The frequency of a
coefficient is the larger of its vertical and its horizontal frequency, so a ring consists of
rectangles. Sums over rectangles need no index table and are deterministic on GPUs, too.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor, log2

import torch
from torch import Tensor

BANDS_PER_OCTAVE = 2

_OPPONENT_COLORS = torch.nn.functional.normalize(
    torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
)
"""3x3, orthonormal rows: the weights of red, green and blue in each opponent colour."""

Ring = tuple[tuple[slice, slice], ...]
"""A band: disjoint rectangles (rows, columns) of a transform."""


def band_energies(picture: Tensor) -> Tensor:
    """Return the sum of squares in each of the K bands of a 1x3xHxW image: 3xK.

    Only half of the transform of a real image is stored, and each stored column counts once.
    Energies are therefore comparable between images in the same band, not between bands.
    """
    transform = _transform(picture)
    energies = []
    for ring in _rings(*picture.shape[-2:]):
        norms = [torch.linalg.vector_norm(transform[:, *part], dim=(1, 2)) for part in ring]
        energies.append(torch.stack(norms).square().sum(dim=0))
    return torch.stack(energies, dim=1)


def with_gains(picture: Tensor, gains: Tensor) -> Tensor:
    """Return the 1x3xHxW image with each band multiplied by its gain; `gains` is 3xK."""
    height, width = picture.shape[-2:]
    transform = _transform(picture)
    for gain, ring in zip(gains.unbind(dim=1), _rings(height, width), strict=True):
        for part in ring:
            transform[:, *part] *= gain[:, None, None]
    colors = torch.fft.irfft2(transform, s=(height, width), norm="ortho")
    mixed = torch.matmul(_opponent_colors(picture).T, colors.flatten(1))
    return mixed.view_as(picture)


def _transform(picture: Tensor) -> Tensor:
    """Return the real FFT of the opponent colours: complex 3xHx(W/2 + 1), frequency 0 at [0, 0]."""
    colors = torch.matmul(_opponent_colors(picture), picture[0].flatten(1))
    transform: Tensor = torch.fft.rfft2(colors.view(picture.shape[1:]), norm="ortho")
    return transform


def _opponent_colors(picture: Tensor) -> Tensor:
    return _opponent_colors_on(picture.device, picture.dtype)


@lru_cache
def _opponent_colors_on(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the opponent colour matrix, cached: each copy to a GPU would synchronise with it."""
    return _OPPONENT_COLORS.to(device, dtype)


@lru_cache(maxsize=64)
def _rings(height: int, width: int) -> tuple[Ring, ...]:
    """Return the bands of a transform, from low to high frequency; they cover all of it.

    The first band contains all frequencies below about two periods over the longer edge.
    """
    octaves = log2(max(height, width, 3) / 3)
    inner = (0, 0, 0)
    rings = []
    for band in range(-floor(octaves * BANDS_PER_OCTAVE), 1):
        edge = 0.5 * 2 ** (band / BANDS_PER_OCTAVE) if band < 0 else 1.0
        # Frequencies below the band's upper edge: the number of rows with non-negative frequency
        # (from the top), of rows with negative frequency (from the bottom), and of columns.
        rows, columns = ceil(edge * height), ceil(edge * width)
        outer = (
            min(rows, height // 2 + 1),
            min(rows - 1, (height - 1) // 2),
            min(columns, width // 2 + 1),
        )
        ring = _ring_between(inner, outer, height)
        if ring:
            rings.append(ring)
        inner = outer
    return tuple(rings)


def _ring_between(inner: tuple[int, int, int], outer: tuple[int, int, int], height: int) -> Ring:
    """Return the non-empty rectangles that are within `outer` but not within `inner`.

    Both give the number of rows from the top, of rows from the bottom, and of columns.
    """
    from_top, from_bottom, columns = outer
    inner_top, inner_bottom, inner_columns = inner
    parts = (
        (slice(0, from_top), slice(inner_columns, columns)),
        (slice(height - from_bottom, height), slice(inner_columns, columns)),
        (slice(inner_top, from_top), slice(0, inner_columns)),
        (slice(height - from_bottom, height - inner_bottom), slice(0, inner_columns)),
    )
    return tuple(
        (rows, column_slice) for rows, column_slice in parts
        if rows.start < rows.stop and column_slice.start < column_slice.stop
    )  # fmt: skip

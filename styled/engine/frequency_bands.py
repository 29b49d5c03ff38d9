"""Energy of an image per spatial frequency band and opponent colour, and a gain for each.

The opponent colours are brightness, red - blue, and green - (red and blue). In photographs they
are nearly uncorrelated, unlike red, green and blue.

A band is a ring of the discrete Fourier transform, half an octave wide. The frequency of a
coefficient is the larger of its vertical and its horizontal frequency, so a coefficient's band is
the larger of those of its row and of its column. Sums over bands are therefore two products with
matrices of ones and zeros: few kernels, and deterministic on GPUs, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from math import ceil, floor, log2
from typing import NamedTuple

import torch
from torch import Tensor

BANDS_PER_OCTAVE = 2

_OPPONENT_COLORS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
"""The weights of red, green and blue in each opponent colour; orthogonal."""


class Bands(NamedTuple):
    """The bands of the rows and columns of a transform, from 0 to K - 1."""

    rows: Tensor  # H
    columns: Tensor  # W/2 + 1
    has_row: Tensor  # KxH: 1 where a row is in a band, else 0
    has_column: Tensor  # (W/2 + 1)xK, likewise


def band_energies(picture: Tensor) -> Tensor:
    """Return the sum of squares in each of the K bands of a 1x3xHxW image: 3xK.

    Only half of the transform of a real image is stored, and each stored column counts once.
    Energies are therefore comparable between images in the same band, not between bands.
    """
    bands = _bands(*picture.shape[-2:], picture.device, picture.dtype)
    squares = torch.view_as_real(_transform(picture)).square().sum(dim=-1)
    by_row_and_column = bands.has_row @ squares @ bands.has_column  # 3xKxK
    return by_row_and_column.tril().sum(dim=2) + by_row_and_column.triu(diagonal=1).sum(dim=1)


def with_gains(picture: Tensor, gains: Tensor) -> Tensor:
    """Return the 1x3xHxW image with each band multiplied by its gain; `gains` is 3xK."""
    height, width = picture.shape[-2:]
    bands = _bands(height, width, picture.device, picture.dtype)
    band = torch.maximum(bands.rows[:, None], bands.columns)
    transform = _transform(picture)
    transform *= gains.index_select(1, band.flatten()).view(transform.shape)
    colors = torch.fft.irfft2(transform, s=(height, width), norm="ortho")
    mixed = torch.matmul(_opponent_colors(picture).T, colors.flatten(1))
    return mixed.view_as(picture)


def with_band_count(energies: Tensor, count: int) -> Tensor:
    """Return energies of another size's bands, ...xK, for the `count` bands of this size.

    Bands are counted from the highest frequency, half a period per pixel, whatever the size. Where
    this size has more of them, the lowest one stands for those below it.
    """
    missing = max(count - energies.shape[-1], 0)
    lowest = energies[..., :1].expand(*energies.shape[:-1], missing)
    return torch.cat([lowest, energies], dim=-1)[..., -count:]


def _transform(picture: Tensor) -> Tensor:
    """Return the real FFT of the opponent colours: complex 3xHx(W/2 + 1), frequency 0 at [0, 0]."""
    colors = torch.matmul(_opponent_colors(picture), picture[0].flatten(1))
    transform: Tensor = torch.fft.rfft2(colors.view(picture.shape[1:]), norm="ortho")
    return transform


def _opponent_colors(picture: Tensor) -> Tensor:
    return _opponent_colors_on(picture.device, picture.dtype)


@lru_cache
def _opponent_colors_on(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the opponent colours as 3x3 with orthonormal rows.

    Cached: each copy to a GPU would wait for it.
    """
    return torch.nn.functional.normalize(torch.tensor(_OPPONENT_COLORS, dtype=dtype)).to(device)


@lru_cache(maxsize=64)
def _bands(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Bands:
    """Return the bands of a transform, from low to high frequency.

    The first band contains all frequencies below about two periods over the longer edge. Bands
    without a row or a column are left out.
    """
    octaves = log2(max(height, width, 3) / 3)
    edges = [
        0.5 * 2 ** (band / BANDS_PER_OCTAVE)
        for band in range(-floor(octaves * BANDS_PER_OCTAVE), 0)
    ]
    rows = _bands_along((min(row, height - row) for row in range(height)), height, edges)
    columns = _bands_along(range(width // 2 + 1), width, edges)
    used = sorted({*rows, *columns})
    row_bands, column_bands = (
        torch.tensor([used.index(band) for band in bands], device=device, dtype=torch.int32)
        for bands in (rows, columns)
    )
    every = torch.arange(len(used), device=device)
    return Bands(
        row_bands,
        column_bands,
        (every[:, None] == row_bands).to(dtype),
        (column_bands[:, None] == every).to(dtype),
    )


def _bands_along(frequencies: Iterable[int], size: int, edges: list[float]) -> list[int]:
    """Return the band of each frequency, in periods per image of `size` pixels along an axis."""
    upper = [ceil(edge * size) for edge in edges]
    return [bisect_right(upper, frequency) for frequency in frequencies]

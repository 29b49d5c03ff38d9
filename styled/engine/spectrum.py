"""A picture by spatial frequency and color: how much lies in each band, and more or less of it.

Colors are told apart as brightness, red against blue, and green against both: in photographs
these vary nearly independently of each other, which red, green and blue do not.

A band is a ring of the discrete Fourier transform, half an octave wide. Frequency is the larger
of the two along the edges, so that rings are made of rectangles: sums over them need no table of
indices, and come out the same each time on a GPU too.
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
"""Orthonormal rows: what each takes of red, green and blue."""

Ring = tuple[tuple[slice, slice], ...]
"""Rectangles of rows and columns of a transform."""


def band_energies(picture: Tensor) -> Tensor:
    """Return the sums of squares in each band: 3xK for a picture of 1x3xHxW.

    The transform of a real picture is stored by half. All of its columns count once here, so
    that energies compare with those of other pictures in the same band, not with other bands.
    """
    transform = _transform(picture)
    energies = []
    for ring in _rings(*picture.shape[-2:]):
        norms = [torch.linalg.vector_norm(transform[:, *part], dim=(1, 2)) for part in ring]
        energies.append(torch.stack(norms).square().sum(dim=0))
    return torch.stack(energies, dim=1)


def with_gains(picture: Tensor, gains: Tensor) -> Tensor:
    """Return the picture, 1x3xHxW, with each band multiplied by its gain, of 3xK."""
    height, width = picture.shape[-2:]
    transform = _transform(picture)
    for gain, ring in zip(gains.unbind(dim=1), _rings(height, width), strict=True):
        for part in ring:
            transform[:, *part] *= gain[:, None, None]
    colors = torch.fft.irfft2(transform, s=(height, width), norm="ortho")
    mixed = torch.matmul(_opponent_colors(picture).T, colors.flatten(1))
    return mixed.view_as(picture)


def _transform(picture: Tensor) -> Tensor:
    """Return 3xHx(W/2 + 1) complex numbers, the lowest frequencies in the upper left corner."""
    colors = torch.matmul(_opponent_colors(picture), picture[0].flatten(1))
    transform: Tensor = torch.fft.rfft2(colors.view(picture.shape[1:]), norm="ortho")
    return transform


def _opponent_colors(picture: Tensor) -> Tensor:
    return _opponent_colors_on(picture.device, picture.dtype)


@lru_cache
def _opponent_colors_on(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the matrix there; copied once, because a GPU would have to be waited for."""
    return _OPPONENT_COLORS.to(device, dtype)


@lru_cache(maxsize=64)
def _rings(height: int, width: int) -> tuple[Ring, ...]:
    """Return the parts of a transform in each band, from low to high; together they are all of it.

    The first has all below some two waves across the longer edge.
    """
    octaves = log2(max(height, width, 3) / 3)
    inner = (0, 0, 0)
    rings = []
    for band in range(-floor(octaves * BANDS_PER_OCTAVE), 1):
        edge = 0.5 * 2 ** (band / BANDS_PER_OCTAVE) if band < 0 else 1.0
        # Rows of falling, of rising waves, and columns, of frequencies below the edge.
        rows, columns = ceil(edge * height), ceil(edge * width)
        outer = (
            min(rows, height // 2 + 1),
            min(rows - 1, (height - 1) // 2),
            min(columns, width // 2 + 1),
        )
        ring = _between(inner, outer, height)
        if ring:
            rings.append(ring)
        inner = outer
    return tuple(rings)


def _between(inner: tuple[int, int, int], outer: tuple[int, int, int], height: int) -> Ring:
    from_top, from_bottom, columns = outer
    inner_top, inner_bottom, inner_columns = inner
    parts = (
        (slice(0, from_top), slice(inner_columns, columns)),
        (slice(height - from_bottom, height), slice(inner_columns, columns)),
        (slice(inner_top, from_top), slice(0, inner_columns)),
        (slice(height - from_bottom, height - inner_bottom), slice(0, inner_columns)),
    )
    return tuple(
        (rows, across) for rows, across in parts
        if rows.start < rows.stop and across.start < across.stop
    )  # fmt: skip

"""3 x 3 convolutions with a quarter of the multiplications.

The features are cut into tiles of 4 x 4 positions. A tile of a convolution's output needs 6 x 6
positions of its input; as polynomials evaluated at six points along each axis, input and kernel
need one product for each of the 36 pairs of points, where the definition has 4 x 4 x 9 = 144. So
a layer becomes 36 products of matrices (tiles x channels in, channels in x channels out), which is
what processors do best. Libraries for NVIDIA's GPUs do this by themselves; oneDNN does not.

Sources: Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks" (2016), where this is F(4 x 4, 3 x 3). The points are not theirs:
see `POINTS`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor

TILE: Final = 4
"""Rows and columns of output in a tile."""

WINDOW: Final = TILE + 2
"""Rows and columns of input that a tile of output needs."""

POINTS: Final = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Where the polynomials are evaluated, besides at infinity.

All are exact in binary. With these the error of a layer is half of that with 0, 1, -1, 2, -2, and
four to six times that of the definition in the same precision: a millionth of its deviation. The
gradient of a picture is as close to the true one as by the definition: rounding makes itself felt
where it decides between two maxima, and that moves a gradient by a thousand times as much.
"""

_TILES_AT_ONCE = 160
"""How many tiles are worked on together: what is made of them should stay in a core's cache, and
the kernels, which are larger, be read for as many as possible."""

Kernel = Tensor
"""36 x out x in: a kernel at all pairs of points."""

TIMES_LARGER: Final = WINDOW**2 // 9
"""The size of such a kernel, in that of the kernel itself."""


def pays(channels_in: int, channels_out: int) -> bool:
    """Tell whether a convolution of so many channels is quicker this way.

    The transforms cost as much for few channels as the products save.
    """
    return channels_in >= 64 and channels_out >= 128


def transformed(kernel: Tensor) -> Kernel:
    """Return a kernel (out x in x 3 x 3) at all pairs of points, in its own precision."""
    evaluate, _, _ = _transforms(kernel.device, kernel.dtype)
    return (evaluate @ kernel.reshape(-1, 9).T).view(WINDOW**2, *kernel.shape[:2])


def convolve(
    features: Tensor,
    kernel: Kernel,
    bias: Tensor,
    *,
    rectified: bool = False,
    result: Tensor | None = None,
) -> Tensor:
    """Convolve features with a transformed kernel, with zeros beyond their edges.

    Args:
        features: 1 x in x H x W.
        kernel: As `transformed` returns it, in the precision of the features.
        bias: out.
        rectified: Whether negative outputs become zero.
        result: Where the output is written, 1 x out x H x W; None: to memory of its own.

    Returns:
        1 x out x H x W, with all channels of a position side by side.
    """
    _, enter, leave = _transforms(features.device, features.dtype)
    ends = _Ends(bias=bias, rectified=rectified)
    return _by_tiles(features, enter, kernel.transpose(1, 2), leave, ends, result)


def slope_by_features(
    slope: Tensor, kernel: Kernel, outputs: Tensor | None = None, result: Tensor | None = None
) -> Tensor:
    """Return the way back of `convolve`: the slope by the features, 1 x in x H x W.

    Args:
        slope: By the output, 1 x out x H x W.
        kernel: That of the way there.
        outputs: What came out, if that was rectified: there is no slope where it is zero.
        result: Where it is written, as for `convolve`.
    """
    _, enter, leave = _transforms(slope.device, slope.dtype)
    # The way back is a convolution with the kernel turned by half a turn, from its output
    # to its input channels. Turning the tiles instead leaves the kernel as it is: the last of
    # 36 positions is then the first.
    ends = _Ends(outputs=outputs)
    return _by_tiles(slope, enter.flip(1), kernel, leave.flip(0), ends, result)


@dataclass(frozen=True, slots=True)
class _Ends:
    """What is done to the features on their way in, and to the output, while they are at hand."""

    bias: Tensor | None = None
    rectified: bool = False
    outputs: Tensor | None = None


def _by_tiles(
    features: Tensor,
    enter: Tensor,
    kernel: Tensor,
    leave: Tensor,
    ends: _Ends,
    result: Tensor | None,
) -> Tensor:
    """Convolve 1 x in x H x W, a band of some rows of tiles after the other."""
    _, channels_in, height, width = features.shape
    channels_out = kernel.shape[2]
    if result is None:
        result = features.new_empty(1, height, width, channels_out).permute(0, 3, 1, 2)
    source, target = _by_rows(features), _by_rows(result)
    seen = None if ends.outputs is None else _by_rows(ends.outputs)
    high, wide = -(-height // TILE), -(-width // TILE)
    bands = max(1, round(high * wide / _TILES_AT_ONCE))
    most_rows = -(-high // bands)
    largest = WINDOW**2 * most_rows * wide * max(channels_in, channels_out)
    here, there = _scratch(largest, features)
    for first in range(0, high, most_rows):
        rows = min(most_rows, high - first)
        tiles = rows * wide
        windows = here[: WINDOW**2 * tiles * channels_in].view(WINDOW**2, tiles * channels_in)
        _cut(source, seen, first, rows, wide, room=there, windows=windows)
        points = _multiplied(enter, windows, there).view(WINDOW**2, tiles, channels_in)
        products = here[: WINDOW**2 * tiles * channels_out].view(WINDOW**2, tiles, channels_out)
        torch.bmm(points, kernel, out=products)
        outputs = _multiplied(leave, products.view(WINDOW**2, tiles * channels_out), there)
        band = here[: TILE**2 * tiles * channels_out]
        by_rows = band.view(rows, TILE, wide, TILE, channels_out)
        by_rows.copy_(outputs.view(TILE, TILE, rows, wide, channels_out).permute(2, 0, 3, 1, 4))
        part = target[first * TILE : (first + rows) * TILE]
        inside = band.view(rows * TILE, wide * TILE, channels_out)[: len(part), :width]
        if ends.bias is None:
            part.copy_(inside)
        else:
            torch.add(inside, ends.bias, out=part)
        if ends.rectified:
            part.clamp_(min=0)
    return result


def _by_rows(features: Tensor) -> Tensor:
    """Return 1 x channels x H x W as H x W x channels."""
    return features[0].permute(1, 2, 0)


def _cut(
    source: Tensor,
    seen: Tensor | None,
    first: int,
    rows: int,
    wide: int,
    *,
    room: Tensor,
    windows: Tensor,
) -> None:
    """Write the windows of the tiles from row `first` on of H x W x channels to `windows`.

    They come as 6 x 6 x rows x columns x channels. Those of neighbours overlap by two positions.
    Where what was `seen` is zero, so are they.
    """
    height, width, channels = source.shape
    top, bottom = first * TILE - 1, (first + rows) * TILE + 1
    across = wide * TILE + 2
    padded = room[: (bottom - top) * across * channels].view(bottom - top, across, channels)
    inside = source[max(top, 0) : min(bottom, height)]
    above = max(-top, 0)
    padded.zero_()
    filled = padded[above : above + len(inside), 1 : width + 1]
    if seen is None:
        filled.copy_(inside)
    else:
        masked(inside, seen[max(top, 0) : min(bottom, height)], result=filled)
    row, column, channel = padded.stride()
    size = (WINDOW, WINDOW, rows, wide, channels)
    overlapping = padded.as_strided(
        size, (row, column, TILE * row, TILE * column, channel), padded.storage_offset()
    )
    windows.view(size).copy_(overlapping)


def masked(slope: Tensor, outputs: Tensor, result: Tensor) -> Tensor:
    """Write a slope to `result` where outputs of a rectifier are positive, and zeros elsewhere."""
    torch.ops.aten.threshold_backward.grad_input(slope, outputs, 0, grad_input=result)
    return result


def _multiplied(matrix: Tensor, columns: Tensor, room: Tensor) -> Tensor:
    product = room[: len(matrix) * columns.shape[1]].view(len(matrix), -1)
    return torch.mm(matrix, columns, out=product)


_own = threading.local()


def _scratch(numbers: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return two pieces of memory for so many numbers each, which this thread keeps.

    Taken and freed for each band, they would leave holes in the heap, or be mapped and cleared.
    """
    places: dict[tuple[torch.device, torch.dtype], Tensor] = _own.__dict__.setdefault("places", {})
    kind = like.device, like.dtype
    if kind not in places or places[kind].shape[1] < numbers:
        places.pop(kind, None)
        places[kind] = torch.empty((2, numbers), device=like.device, dtype=like.dtype)
    here, there = places[kind]
    return here, there


@cache
def _transforms(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return what brings to points a kernel (36 x 9) and a window (36 x 36), and back (16 x 36)."""
    kernel, window, output = _cook_toom()
    both_axes = (torch.kron(axis, axis) for axis in (kernel, window, output))
    to_kernel, to_window, to_output = (axes.to(device, dtype) for axes in both_axes)
    return to_kernel, to_window, to_output


def _cook_toom() -> tuple[Tensor, Tensor, Tensor]:
    """Return the same along one axis, in float64: 6 x 3, 6 x 6 and 4 x 6.

    Values of a product of polynomials are products of values. Interpolation from six of them
    gives the product's coefficients; read the other way round (Tellegen's principle), the same
    matrices compute a correlation.
    """
    points = torch.tensor(POINTS, dtype=torch.float64)
    powers = points[:, None] ** torch.arange(WINDOW)
    apart = (points[:, None] - points + torch.eye(len(points))).prod(dim=1)

    infinity = torch.zeros(1, WINDOW, dtype=torch.float64)
    kernel = torch.cat([powers[:, :3] / apart[:, None], infinity[:, :3]])
    output = torch.cat([powers[:, :TILE], infinity[:, :TILE]])
    kernel[-1, -1] = output[-1, -1] = 1  # the value at infinity is the highest coefficient

    all_but = [torch.cat([points[:i], points[i + 1 :]]) for i in range(len(points))]
    window = torch.stack([*(_with_roots(others) for others in all_but), _with_roots(points)])
    return kernel, window, output.T.contiguous()


def _with_roots(roots: Tensor) -> Tensor:
    """Return the coefficients, lowest first, of the polynomial with these zeros, filled up to 6."""
    polynomial = torch.zeros(WINDOW, dtype=torch.float64)
    polynomial[0] = 1
    for root in roots:
        polynomial = polynomial.roll(1) - root * polynomial
    return polynomial

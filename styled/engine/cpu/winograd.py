"""Winograd convolution: 3 x 3 convolutions with a quarter of the multiplications.

The output is divided into tiles of 4 x 4 positions, each of which needs a window of 6 x 6 positions
of the input. Window and kernel are treated as polynomials and evaluated at six points along each
axis. One product for each of the 36 pairs of points then replaces the 4 x 4 x 9 = 144 products of a
direct convolution. A layer becomes 36 matrix products (tiles x channels in, channels in x channels
out), which are fast on CPUs. Libraries for NVIDIA's GPUs do this by themselves; oneDNN does not.

Sources: Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks" (2016), where this is F(4 x 4, 3 x 3). The points differ from
theirs: see `POINTS`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor

TILE: Final = 4
"""Rows and columns of an output tile."""

WINDOW: Final = TILE + 2
"""Rows and columns of the input window of a tile."""

POINTS: Final = (0.0, 0.75, -0.75, 1.5, -1.5)
"""The points at which the polynomials are evaluated, besides infinity.

All are exactly representable in binary. With these the rounding error of a layer is half of that
with 0, 1, -1, 2, -2, and four to six times that of a direct convolution in the same precision: 1e-6
of the layer's standard deviation. The gradient of an image is as accurate as with direct
convolution: its error is dominated by max pooling where rounding decides which of two values is the
maximum, and that changes a gradient a thousand times as much.
"""

_TILES_PER_BAND = 160
"""Approximate number of tiles that are processed together. Their intermediate results should fit
into a core's cache; the transformed kernels, which are larger, should be read as rarely as
possible."""

TransformedKernel = Tensor
"""36 x out x in: a kernel evaluated at all pairs of points."""

KERNEL_SIZE_RATIO: Final = WINDOW**2 // 9
"""The size of a transformed kernel, relative to the kernel itself."""


def is_faster_for(channels_in: int, channels_out: int) -> bool:
    """Return whether Winograd convolution is faster than direct for these numbers of channels.

    With few channels the transforms cost as much as the products save.
    """
    return channels_in >= 64 and channels_out >= 128


def transform_kernel(kernel: Tensor) -> TransformedKernel:
    """Return a kernel (out x in x 3 x 3) evaluated at all pairs of points, in the same dtype."""
    evaluate, _, _ = _transforms(kernel.device, kernel.dtype)
    return (evaluate @ kernel.reshape(-1, 9).T).view(WINDOW**2, *kernel.shape[:2])


def convolve(
    features: Tensor,
    kernel: TransformedKernel,
    bias: Tensor,
    *,
    relu: bool = False,
    result: Tensor | None = None,
) -> Tensor:
    """Convolve features with a transformed kernel, with zero padding of one position.

    Args:
        features: 1 x in x H x W.
        kernel: From `transform_kernel`, in the dtype of the features.
        bias: out.
        relu: Whether to apply a ReLU to the output.
        result: Where the output is written, 1 x out x H x W; None: newly allocated.

    Returns:
        1 x out x H x W, channels-last.
    """
    _, input_transform, output_transform = _transforms(features.device, features.dtype)
    fused = _FusedOps(bias=bias, relu=relu)
    return _winograd(
        features, input_transform, kernel.transpose(1, 2), output_transform, fused, result
    )


def conv2d_input_grad(
    grad: Tensor,
    kernel: TransformedKernel,
    relu_output: Tensor | None = None,
    result: Tensor | None = None,
) -> Tensor:
    """Return the backward of `convolve`: the gradient of the features, 1 x in x H x W.

    Args:
        grad: The gradient of the output, 1 x out x H x W.
        kernel: As in the forward pass.
        relu_output: The output of the forward pass, if it had a ReLU: where it is zero, `grad` is
            taken as zero. None: no ReLU.
        result: Where the gradient is written; None: newly allocated.
    """
    _, input_transform, output_transform = _transforms(grad.device, grad.dtype)
    # The input gradient is a convolution with the kernel rotated by 180 degrees, from output to
    # input channels. Rotating windows and tiles instead leaves the transformed kernel as it is:
    # flipping a transform reverses the order of their 36 or 16 positions.
    fused = _FusedOps(relu_output=relu_output)
    return _winograd(grad, input_transform.flip(1), kernel, output_transform.flip(0), fused, result)


@dataclass(frozen=True, slots=True)
class _FusedOps:
    """Operations on the input and on the output, done while a band is in the cache.

    Attributes:
        bias: Added to the output; None: none.
        relu: Whether to apply a ReLU to the output.
        relu_output: 1 x in x H x W; where it is zero, the input is taken as zero. None: unused.
    """

    bias: Tensor | None = None
    relu: bool = False
    relu_output: Tensor | None = None


def _winograd(
    features: Tensor,
    input_transform: Tensor,
    kernel: Tensor,
    output_transform: Tensor,
    fused: _FusedOps,
    result: Tensor | None,
) -> Tensor:
    """Convolve 1 x in x H x W, one band of rows of tiles at a time.

    Args:
        features: 1 x in x H x W.
        input_transform: 36 x 36.
        kernel: 36 x in x out.
        output_transform: 16 x 36.
        fused: What else is done to each band.
        result: Where the output is written; None: newly allocated.
    """
    _, channels_in, height, width = features.shape
    channels_out = kernel.shape[2]
    if result is None:
        result = features.new_empty(1, height, width, channels_out).permute(0, 3, 1, 2)
    source, target = _as_hwc(features), _as_hwc(result)
    relu_output = None if fused.relu_output is None else _as_hwc(fused.relu_output)
    tile_rows, tile_columns = -(-height // TILE), -(-width // TILE)
    bands = max(1, round(tile_rows * tile_columns / _TILES_PER_BAND))
    band_rows = -(-tile_rows // bands)
    numel = WINDOW**2 * band_rows * tile_columns * max(channels_in, channels_out)
    # Each stage reads one scratch buffer and writes the other.
    scratch_a, scratch_b = _scratch(numel, features)
    for first in range(0, tile_rows, band_rows):
        rows = min(band_rows, tile_rows - first)
        tiles = rows * tile_columns
        windows = scratch_a[: WINDOW**2 * tiles * channels_in].view(WINDOW**2, tiles * channels_in)
        _gather_windows(
            source, relu_output, first, rows, tile_columns, scratch=scratch_b, windows=windows
        )
        points = _matmul(input_transform, windows, scratch_b).view(WINDOW**2, tiles, channels_in)
        products = scratch_a[: WINDOW**2 * tiles * channels_out].view(
            WINDOW**2, tiles, channels_out
        )
        torch.bmm(points, kernel, out=products)
        outputs = _matmul(
            output_transform, products.view(WINDOW**2, tiles * channels_out), scratch_b
        )
        band = scratch_a[: TILE**2 * tiles * channels_out]
        band_by_tile = band.view(rows, TILE, tile_columns, TILE, channels_out)
        band_by_tile.copy_(
            outputs.view(TILE, TILE, rows, tile_columns, channels_out).permute(2, 0, 3, 1, 4)
        )
        target_band = target[first * TILE : (first + rows) * TILE]
        cropped = band.view(rows * TILE, tile_columns * TILE, channels_out)[
            : len(target_band), :width
        ]
        if fused.bias is None:
            target_band.copy_(cropped)
        else:
            torch.add(cropped, fused.bias, out=target_band)
        if fused.relu:
            target_band.clamp_(min=0)
    return result


def _as_hwc(features: Tensor) -> Tensor:
    """Return 1 x channels x H x W as H x W x channels, as a view."""
    return features[0].permute(1, 2, 0)


def _gather_windows(
    source: Tensor,
    relu_output: Tensor | None,
    first: int,
    rows: int,
    tile_columns: int,
    *,
    scratch: Tensor,
    windows: Tensor,
) -> None:
    """Write the zero-padded input windows of a band of tiles to `windows`.

    Args:
        source: H x W x channels.
        relu_output: H x W x channels; where it is zero, the source is taken as zero. None: unused.
        first: First row of tiles of the band.
        rows: Number of rows of tiles in the band.
        tile_columns: Number of tiles in a row.
        scratch: Flat temporary buffer, overwritten.
        windows: Written as 6 x 6 x rows x tile_columns x channels. Neighbouring windows overlap by
            two positions.
    """
    height, width, channels = source.shape
    top, bottom = first * TILE - 1, (first + rows) * TILE + 1
    padded_width = tile_columns * TILE + 2
    padded = scratch[: (bottom - top) * padded_width * channels].view(
        bottom - top, padded_width, channels
    )
    inside = source[max(top, 0) : min(bottom, height)]
    above = max(-top, 0)
    padded.zero_()
    filled = padded[above : above + len(inside), 1 : width + 1]
    if relu_output is None:
        filled.copy_(inside)
    else:
        relu_backward(inside, relu_output[max(top, 0) : min(bottom, height)], result=filled)
    row, column, channel = padded.stride()
    size = (WINDOW, WINDOW, rows, tile_columns, channels)
    overlapping = padded.as_strided(
        size, (row, column, TILE * row, TILE * column, channel), padded.storage_offset()
    )
    windows.view(size).copy_(overlapping)


def relu_backward(grad: Tensor, relu_output: Tensor, result: Tensor) -> Tensor:
    """Write `grad` to `result` where a ReLU's output is positive, and zero elsewhere."""
    torch.ops.aten.threshold_backward.grad_input(grad, relu_output, 0, grad_input=result)
    return result


def _matmul(matrix: Tensor, columns: Tensor, scratch: Tensor) -> Tensor:
    """Return matrix @ columns, written to the beginning of a flat buffer."""
    product = scratch[: len(matrix) * columns.shape[1]].view(len(matrix), -1)
    return torch.mm(matrix, columns, out=product)


_thread_local = threading.local()


def _scratch(numel: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return two flat scratch buffers of at least `numel` elements, cached per thread.

    Allocating them for each band would fragment the heap, or map and clear pages each time.
    """
    buffers: dict[tuple[torch.device, torch.dtype], Tensor] = _thread_local.__dict__.setdefault(
        "buffers", {}
    )
    key = like.device, like.dtype
    if key not in buffers or buffers[key].shape[1] < numel:
        buffers.pop(key, None)
        buffers[key] = torch.empty((2, numel), device=like.device, dtype=like.dtype)
    scratch_a, scratch_b = buffers[key]
    return scratch_a, scratch_b


@cache
def _transforms(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the transforms of kernel (36 x 9), input window (36 x 36) and output (16 x 36)."""
    kernel, window, output = _cook_toom()
    both_axes = (torch.kron(axis, axis) for axis in (kernel, window, output))
    to_kernel, to_window, to_output = (axes.to(device, dtype) for axes in both_axes)
    return to_kernel, to_window, to_output


def _cook_toom() -> tuple[Tensor, Tensor, Tensor]:
    """Return the same transforms along one axis, in float64: 6 x 3, 6 x 6 and 4 x 6.

    The value of a product of polynomials at a point is the product of their values. Interpolation
    from six points gives the coefficients of the product, that is, a convolution. By Tellegen's
    principle (transposing the algorithm) the same matrices compute a correlation.
    """
    points = torch.tensor(POINTS, dtype=torch.float64)
    powers = points[:, None] ** torch.arange(WINDOW)
    denominators = (points[:, None] - points + torch.eye(len(points))).prod(dim=1)

    infinity = torch.zeros(1, WINDOW, dtype=torch.float64)
    kernel = torch.cat([powers[:, :3] / denominators[:, None], infinity[:, :3]])
    output = torch.cat([powers[:, :TILE], infinity[:, :TILE]])
    kernel[-1, -1] = output[-1, -1] = 1  # the value at infinity is the highest coefficient

    other_points = [torch.cat([points[:i], points[i + 1 :]]) for i in range(len(points))]
    window = torch.stack(
        [
            *(_polynomial_with_roots(others) for others in other_points),
            _polynomial_with_roots(points),
        ]
    )
    return kernel, window, output.T.contiguous()


def _polynomial_with_roots(roots: Tensor) -> Tensor:
    """Return the 6 coefficients, lowest first, of the monic polynomial with these roots."""
    polynomial = torch.zeros(WINDOW, dtype=torch.float64)
    polynomial[0] = 1
    for root in roots:
        polynomial = polynomial.roll(1) - root * polynomial
    return polynomial

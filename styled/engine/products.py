"""Matrix products in float32 on CPUs, by convolutions where those are faster.

torch computes matrix products with MKL, which uses AVX-512 on Intel's processors only, and
convolutions with oneDNN, which uses it wherever there is AVX-512: on AMD's Zen 5 that is twice as
fast. A convolution with a 1x1 kernel is a matrix product; so is its gradient with respect to the
kernel.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

_MIN_MULTIPLICATIONS = 1 << 24
"""Below this, what a convolution costs besides its arithmetic outweighs the gain."""

_MAX_NUMEL = 1 << 28
"""Elements of a matrix that are multiplied at once. From 2^31 on, oneDNN sums one by one: slowly,
and in float32 no sum of ones exceeds 2^24."""

ROW_MULTIPLE = 16
"""With one thread, products are faster if the number of rows is a multiple of this."""


def transposed_times(a: Tensor, b: Tensor) -> Tensor:
    """Return A^T B for matrices NxC and NxD."""
    size = a.shape[1], b.shape[1]
    if not _by_convolution(a, len(a) * size[0] * size[1]):
        return a.T @ b
    rows = _MAX_NUMEL // max(size)
    kernels: list[Tensor] = [
        conv2d_weight(_as_features(y), (*size, 1, 1), _as_features(x))  # type: ignore[no-untyped-call]  # torch's
        for x, y in zip(torch.split(a, rows), torch.split(b, rows), strict=True)
    ]
    return sum(kernels[1:], start=kernels[0]).view(size)


def times_transposed(a: Tensor, b: Tensor, row: Tensor | None = None) -> Tensor:
    """Return A B^T for matrices NxC and DxC, with `row`, D, added to each of its rows."""
    if not _by_convolution(a, len(a) * a.shape[1] * len(b)):
        return a @ b.T if row is None else torch.addmm(row, a, b.T)
    product = F.conv2d(_as_features(a), b[:, :, None, None], row)
    return product.permute(0, 2, 3, 1).reshape(len(a), len(b))


def _as_features(rows: Tensor) -> Tensor:
    """Return NxC as channels-last features, BxCx1x(N/B); a view if contiguous."""
    # Without other threads torch computes 1x1 kernels with MKL, too, unless B is at least 16.
    is_divided = torch.get_num_threads() == 1 and len(rows) % ROW_MULTIPLE == 0
    batch = ROW_MULTIPLE if is_divided else 1
    return rows.reshape(batch, 1, -1, rows.shape[1]).permute(0, 3, 1, 2)


def _by_convolution(matrix: Tensor, multiplications: int) -> bool:
    return (
        matrix.device.type == "cpu"
        and matrix.dtype == torch.float32
        and multiplications >= _MIN_MULTIPLICATIONS
        and _has_avx512_convolutions()
    )


@cache
def _has_avx512_convolutions() -> bool:
    """Return whether oneDNN can use AVX-512; measured on AMD's Zen 5 only."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's
    return has_onednn and torch.backends.cpu.get_cpu_capability() == "AVX512"

"""Content loss, total variation, and the feature statistics that style losses compare.

Style losses (see `style_losses`) depend on a layer only through its `Moments`, which can be
accumulated over tiles or computed from a whole image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.products import ROW_MULTIPLE, times_transposed, transposed_times
from styled.recipes import ContentLoss, TotalVariationLoss

COVARIANCE_RIDGE = 1e-4
"""Added to the diagonal of every covariance, which keeps its square root differentiable."""


@dataclass(frozen=True, slots=True)
class Moments:
    """The first two moments of a layer's features over all positions.

    Attributes:
        mean: C, the mean of each channel.
        gram: CxC, the Gram matrix F F^T of the features F, CxN: for each pair of channels the
            sum of their products over all positions.
        positions: The number of positions N; with weights, their sum.
        precise_rows: NxC, all features in the dtype of mean and Gram matrix, if that is wider
            than their own; gradients are then returned in float32. Else None.
    """

    mean: Tensor
    gram: Tensor
    positions: float
    precise_rows: Tensor | None = None

    @property
    def channels(self) -> int:
        """The number of channels C."""
        return len(self.mean)

    @property
    def grad_dtype(self) -> torch.dtype:
        """The dtype of gradients with respect to the moments."""
        return self.mean.dtype if self.precise_rows is None else torch.float32

    @property
    def rounding_error(self) -> Tensor:
        """A bound on the rounding errors of the covariance's eigenvalues in float32, a scalar.

        They are relative to the largest mean square, and grow with the length of the sums.
        Measured: 1e-6 to 5e-6 of it with up to 65,536 positions, 3e-5 with 262,144.
        """
        largest = self.gram.diagonal().amax() / self.positions
        return largest * (5e-6 + 1.2e-10 * self.positions)

    def __add__(self, other: Moments) -> Moments:
        """Return the moments over the union of both sets of positions."""
        positions = self.positions + other.positions
        mean = torch.lerp(self.mean, other.mean, other.positions / positions)
        rows = None
        if self.precise_rows is not None and other.precise_rows is not None:
            rows = torch.cat([self.precise_rows, other.precise_rows])
        return Moments(mean, self.gram + other.gram, positions, rows)

    def covariance(self) -> Tensor:
        """Return the CxC covariance with the ridge on its diagonal."""
        covariance = torch.addr(self.gram / self.positions, self.mean, self.mean, alpha=-1)
        covariance.diagonal().add_(COVARIANCE_RIDGE)
        return covariance


@dataclass(frozen=True, slots=True)
class MomentsGrad:
    """The gradient of a loss with respect to the moments of a layer.

    Attributes:
        mean: C, the gradient with respect to the mean, divided by the number of positions.
        gram: CxC, D + D^T, where D is the gradient with respect to the Gram matrix.
    """

    mean: Tensor
    gram: Tensor

    def add_feature_grad(self, features: Tensor, weights: Tensor | None, gradient: Tensor) -> None:
        """Add the gradient with respect to the features F to `gradient`, in place.

        For the Gram matrix F F^T that is (D + D^T) F.

        Args:
            features: 1xCxhxw, in any floating-point dtype.
            weights: 1x1xhxw, which multiply the gradient of each position; None: all one.
            gradient: 1xCxhxw, likewise in any dtype.
        """
        _, channels, height, width = features.shape
        band_numel = _CPU_BAND_NUMEL if features.device.type == "cpu" else _GPU_BAND_NUMEL
        band_rows = max(1, band_numel // (channels * width))
        if band_rows > ROW_MULTIPLE:
            band_rows -= band_rows % ROW_MULTIPLE
        for first in range(0, height, band_rows):
            rows = slice(first, first + band_rows)
            part = features[:, :, rows].to(self.gram.dtype)
            grad = times_transposed(by_position(part), self.gram, self.mean)
            grad = grad.view(1, -1, width, channels).permute(0, 3, 1, 2)
            if weights is not None:
                grad *= weights[:, :, rows]
            gradient[:, :, rows] += grad.to(gradient.dtype)  # with mixed dtypes adding is slow


_CPU_BAND_NUMEL = 1 << 19
"""Elements of a band whose gradient is still in the processor's cache when it is added."""

_GPU_BAND_NUMEL = 1 << 24
"""Elements of a band whose gradient needs little memory, 64 MiB, besides that of the whole."""


def moments(
    features: Tensor, weights: Tensor | None = None, *, precise_dtype: torch.dtype | None = None
) -> Moments:
    """Return the moments of 1xCxhxw features, computed in at least float32.

    Args:
        features: Of an image or a part of it, in any floating-point dtype.
        weights: 1x1xhxw, the weight of each position; None: all one.
        precise_dtype: A wider dtype to compute in. None: the features' own, or float32.
    """
    rows = by_position(at_least_float32(features))
    precise_rows = None
    if precise_dtype is not None and precise_dtype != rows.dtype:
        rows = precise_rows = rows.to(precise_dtype)
    if weights is None:
        return Moments(rows.mean(dim=0), transposed_times(rows, rows), len(rows), precise_rows)
    weighted = rows * weights.flatten()[:, None]
    positions = float(weights.sum(dtype=rows.dtype))
    gram = transposed_times(weighted, rows)
    return Moments(weighted.sum(dim=0) / positions, gram, positions, precise_rows)


def by_position(features: Tensor) -> Tensor:
    """Return 1xCxhxw features as NxC, one row per position; a view if they are channels-last."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def at_least_float32(features: Tensor) -> Tensor:
    """Return features of less than 4 bytes per element as float32, all others unchanged."""
    return features.float() if features.dtype.itemsize < 4 else features


def content_loss(
    kind: ContentLoss,
    features: Tensor,
    target: Tensor,
    numel: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the content loss of 1xCxhxw features, a scalar.

    `half_sum_squared` is Gatys et al. 2016, equation 1; `mean_squared` is the mean that most
    implementations use instead, which does not grow with the image.

    Args:
        kind: Which of the two.
        features: Of an image or a part of it.
        target: The photo's features at the same positions.
        numel: The layer's number of elements over the whole image; with weights, the sum of
            their weights.
        weights: 1x1xhxw, the weight of each position; None: all one.
    """
    squares = (features - target).square()
    if weights is not None:
        squares *= weights
    return squares.sum() * _content_factor(kind, numel)


def content_grad(
    kind: ContentLoss,
    features: Tensor,
    target: Tensor,
    numel: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the gradient of `content_loss` with respect to the features, 1xCxhxw."""
    grad = (features - target).mul_(2 * _content_factor(kind, numel))
    return grad if weights is None else grad.mul_(weights)


def _content_factor(kind: ContentLoss, numel: float) -> float:
    return 1 / numel if kind == "mean_squared" else 1 / 2


def total_variation(
    kind: TotalVariationLoss, image: Tensor, tv_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the total variation of a 1x3xHxW image, a scalar, and its gradient, 1x3xHxW.

    `nine_point` is (mean(dx^2) + mean(dy^2)) / 3 + (mean(d1^2) + mean(d2^2)) / 12 for the
    differences to the right, below and along both diagonals, with the image padded by one
    replicated pixel: HxW differences along the axes, (H+1)x(W+1) along each diagonal. It is half
    of the one in K. Crowson's style-transfer-pytorch. `sum_absolute` is the sum of the absolute
    differences to the right and below, `mean_absolute` half the sum of their two means.

    The image is processed in bands of rows: memory besides the gradient does not grow with it.

    Args:
        kind: Which of these; `none` is zero.
        image: 1x3xHxW.
        tv_smoothing: Huber delta of the absolute differences: below it the gradient (not the
            value) is that of Huber's parabola, which gives L-BFGS a finite curvature. 0: off.
    """
    value, gradient = image.new_zeros(()), torch.zeros_like(image)
    if kind == "none":
        return value, gradient
    height, width = image.shape[-2:]
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        # A band includes the first row of the next one; the last band repeats its last row.
        band = image[..., top : bottom + 1, :].detach().requires_grad_()
        padded = band if bottom < height else torch.cat([band, band[..., -1:, :]], dim=-2)
        loss = _variation(kind, padded, image.shape, tv_smoothing, is_top=top == 0)
        (grad,) = torch.autograd.grad(loss, band)
        value += loss.detach()
        gradient[..., top : bottom + 1, :] += grad
    return value, gradient


_BAND_PIXELS = 1 << 20


def _variation(
    kind: TotalVariationLoss, padded: Tensor, size: torch.Size, tv_smoothing: float, *, is_top: bool
) -> Tensor:
    """Return a band's contribution to the total variation of an image of `size`.

    Args:
        kind: Not `none`.
        padded: 1x3x(h+1)xW, the h rows of the band and the row below them.
        size: 1x3xHxW, the shape of the whole image.
        tv_smoothing: See `total_variation`.
        is_top: Whether the band is the topmost one.
    """
    centre, next_row = padded[..., :-1, :], padded[..., 1:, :]
    if kind == "nine_point":
        return _nine_point(centre, next_row, size, is_top=is_top)
    right = _sum_of_absolutes(centre[..., 1:] - centre[..., :-1], tv_smoothing)
    below = _sum_of_absolutes(next_row - centre, tv_smoothing)
    if kind == "sum_absolute":
        return right + below
    channels, height, width = size[-3:]
    return (right / (height * (width - 1)) + below / ((height - 1) * width)) / (2 * channels)


def _sum_of_absolutes(differences: Tensor, tv_smoothing: float) -> Tensor:
    exact = differences.abs().sum()
    if not tv_smoothing:
        return exact
    zeros = torch.zeros_like(differences)
    smoothed = F.smooth_l1_loss(differences, zeros, reduction="sum", beta=tv_smoothing)
    return exact.detach() + smoothed - smoothed.detach()


def _nine_point(centre: Tensor, next_row: Tensor, size: torch.Size, *, is_top: bool) -> Tensor:
    channels, height, width = size[-3:]
    right = centre[..., 1:] - centre[..., :-1]
    sides = right.square().sum() + (next_row - centre).square().sum()
    centre, next_row = _pad_columns(centre), _pad_columns(next_row)
    falling = next_row[..., 1:] - centre[..., :-1]
    rising = next_row[..., :-1] - centre[..., 1:]
    diagonals = falling.square().sum() + rising.square().sum()
    if is_top:
        # The row above the first one is a copy of it, so both diagonals equal its differences.
        diagonals = diagonals + 2 * right[..., :1, :].square().sum()
    return sides / (3 * channels * height * width) + diagonals / (
        12 * channels * (height + 1) * (width + 1)
    )


def _pad_columns(rows: Tensor) -> Tensor:
    return torch.cat([rows[..., :1], rows, rows[..., -1:]], dim=-1)

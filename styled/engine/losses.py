"""Content loss, total variation, and the statistics that style losses are made of.

Style losses (see `style_losses`) see a layer only through its `Moments`, so that they can
be computed from moments that were accumulated over tiles as well as from a whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.recipes import ContentLoss, TotalVariationLoss

COVARIANCE_RIDGE = 1e-4
"""Added to the diagonal of every covariance: it keeps their roots differentiable."""


@dataclass(frozen=True, slots=True)
class Moments:
    """The first two moments of a layer's features over all positions, in float32.

    Attributes:
        mean: C, the mean of each channel.
        gram: CxC, the Gram matrix F F^T of the features F, CxN: sums of the products of
            each two channels.
        positions: How many positions N these are sums over; a fraction where some count
            for less than one.
    """

    mean: Tensor
    gram: Tensor
    positions: float

    @property
    def channels(self) -> int:
        """How many channels the layer has."""
        return len(self.mean)

    def __add__(self, other: Moments) -> Moments:
        """Return the moments over the positions of both."""
        positions = self.positions + other.positions
        mean = torch.lerp(self.mean, other.mean, other.positions / positions)
        return Moments(mean, self.gram + other.gram, positions)

    def covariance(self) -> Tensor:
        """Return the CxC covariance with the ridge on its diagonal."""
        ridge = COVARIANCE_RIDGE * torch.eye(
            len(self.mean), dtype=self.mean.dtype, device=self.mean.device
        )
        return self.gram / self.positions - torch.outer(self.mean, self.mean) + ridge


def moments(features: Tensor, weights: Tensor | None = None) -> Moments:
    """Return the moments of 1xCxhxw features, in float32 or better whatever they come in.

    Args:
        features: Of a picture or a part of it.
        weights: 1x1xhxw, how much each position counts; None: all the same.
    """
    rows = by_position(at_least_float32(features))
    if weights is None:
        return Moments(rows.mean(dim=0), rows.T @ rows, len(rows))
    weighted = rows * weights.flatten()[:, None]
    positions = float(weights.sum())
    return Moments(weighted.sum(dim=0) / positions, weighted.T @ rows, positions)


def by_position(features: Tensor) -> Tensor:
    """Return 1xCxhxw features as NxC, a row for each position: a view of how they lie in memory."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def at_least_float32(features: Tensor) -> Tensor:
    """Return features in float32 where they are in less, as they are otherwise."""
    return features.float() if features.dtype.itemsize < 4 else features


def content_loss(
    kind: ContentLoss,
    features: Tensor,
    target: Tensor,
    count: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Compare 1xCxhxw features with the photo's; return a scalar.

    `half_sum_squared` is Gatys et al. 2016, equation 1; `mean_squared` is the mean that
    most codes use in its place, which does not grow with the picture.

    Args:
        kind: Which of the two.
        features: Of a picture or a part of it.
        target: The photo's there.
        count: How many numbers the layer has over the whole picture; with weights, their sum.
        weights: 1x1xhxw, how much each position counts; None: all the same.
    """
    squares = (features - target).square()
    if weights is not None:
        squares *= weights
    return squares.sum() * _content_factor(kind, count)


def content_slope(
    kind: ContentLoss,
    features: Tensor,
    target: Tensor,
    count: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the gradient of `content_loss` by the features, 1xCxhxw."""
    slope = (features - target).mul_(2 * _content_factor(kind, count))
    return slope if weights is None else slope.mul_(weights)


def _content_factor(kind: ContentLoss, count: float) -> float:
    return 1 / count if kind == "mean_squared" else 1 / 2


def total_variation(
    kind: TotalVariationLoss, image: Tensor, rounding: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return how much neighbouring pixels of 1x3xHxW differ, and the gradient of that.

    `nine_point` is the mean over pixels of (dx^2 + dy^2) / 3 + (both diagonals squared) / 12,
    with replicate padding, so that the border counts like the inside. The other two are
    sums, or half the sum of means, of absolute differences to the right and below.

    With `rounding` the gradient, though not the value, is that of absolute values whose kink is
    rounded off to a parabola up to there (Huber): so is its curvature one that can be learnt.

    The picture is gone through in bands of rows: what it takes in memory besides the
    gradient does not grow with the picture.
    """
    value, gradient = image.new_zeros(()), torch.zeros_like(image)
    if kind == "none":
        return value, gradient
    height, width = image.shape[-2:]
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        # The row below a band is its neighbour; below the last, the last row once more.
        band = image[..., top : bottom + 1, :].detach().requires_grad_()
        padded = band if bottom < height else torch.cat([band, band[..., -1:, :]], dim=-2)
        loss = _variation(kind, padded, image.shape, rounding)
        (slope,) = torch.autograd.grad(loss, band)
        value += loss.detach()
        gradient[..., top : bottom + 1, :] += slope
    return value, gradient


_BAND_PIXELS = 1 << 20


def _variation(
    kind: TotalVariationLoss, padded: Tensor, size: torch.Size, rounding: float
) -> Tensor:
    """Return what all rows of 1x3x(h+1)xW but the last add to that of a picture of `size`."""
    centre, next_row = padded[..., :-1, :], padded[..., 1:, :]
    if kind == "nine_point":
        return _nine_point(centre, next_row) / size.numel()
    right = _sum_of_absolutes(centre[..., 1:] - centre[..., :-1], rounding)
    below = _sum_of_absolutes(next_row - centre, rounding)
    if kind == "sum_absolute":
        return right + below
    channels, height, width = size[-3:]
    return (right / (height * (width - 1)) + below / ((height - 1) * width)) / (2 * channels)


def _sum_of_absolutes(differences: Tensor, rounding: float) -> Tensor:
    exact = differences.abs().sum()
    if not rounding:
        return exact
    zeros = torch.zeros_like(differences)
    rounded = F.smooth_l1_loss(differences, zeros, reduction="sum", beta=rounding)
    return exact.detach() + rounded - rounded.detach()


def _nine_point(centre: Tensor, next_row: Tensor) -> Tensor:
    # Replication makes the difference beyond an edge zero, and a diagonal one there vertical.
    on_right = torch.cat([next_row[..., 1:], next_row[..., -1:]], dim=-1)
    on_left = torch.cat([next_row[..., :1], next_row[..., :-1]], dim=-1)
    right = centre[..., 1:] - centre[..., :-1]
    sides = right.square().sum() + (next_row - centre).square().sum()
    diagonals = (on_right - centre).square().sum() + (on_left - centre).square().sum()
    return sides / 3 + diagonals / 12

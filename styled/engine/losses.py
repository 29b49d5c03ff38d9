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
        positions: How many positions N these are sums over.
    """

    mean: Tensor
    gram: Tensor
    positions: int

    @property
    def channels(self) -> int:
        """How many channels the layer has."""
        return len(self.mean)

    def covariance(self) -> Tensor:
        """Return the CxC covariance with the ridge on its diagonal."""
        ridge = COVARIANCE_RIDGE * torch.eye(
            len(self.mean), dtype=self.mean.dtype, device=self.mean.device
        )
        return self.gram / self.positions - torch.outer(self.mean, self.mean) + ridge


def moments(features: Tensor) -> Moments:
    """Return the moments of 1xCxhxw features, in float32 or better whatever they come in."""
    flat = at_least_float32(features).flatten(2).squeeze(0)
    return Moments(flat.mean(dim=1), flat @ flat.T, flat.shape[1])


def at_least_float32(features: Tensor) -> Tensor:
    """Return features in float32 where they are in less, as they are otherwise."""
    return features.float() if features.dtype.itemsize < 4 else features


def content_loss(kind: ContentLoss, features: Tensor, target: Tensor) -> Tensor:
    """Compare 1xCxhxw features with the photo's.

    `half_sum_squared` is Gatys et al. 2016, equation 1; `mean_squared` is the mean that
    most codes use in its place, which does not grow with the picture.
    """
    if kind == "mean_squared":
        return F.mse_loss(features, target)
    return (features - target).square().sum() / 2


def total_variation(kind: TotalVariationLoss, image: Tensor) -> Tensor:
    """Return how much neighbouring pixels of 1x3xHxW differ.

    `nine_point` is the mean over pixels of (dx^2 + dy^2) / 3 + (both diagonals squared) / 12,
    with replicate padding, so that the border counts like the inside. The other two are
    sums, or half the sum of means, of absolute differences to the right and below.
    """
    if kind == "none":
        return image.new_zeros(())
    if kind == "nine_point":
        return _nine_point(image)
    right = (image[..., :, 1:] - image[..., :, :-1]).abs()
    below = (image[..., 1:, :] - image[..., :-1, :]).abs()
    if kind == "sum_absolute":
        return right.sum() + below.sum()
    return (right.mean() + below.mean()) / 2


def _nine_point(image: Tensor) -> Tensor:
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    centre = padded[..., 1:-1, 1:-1]
    right = padded[..., 1:-1, 2:] - centre
    below = padded[..., 2:, 1:-1] - centre
    below_right = padded[..., 2:, 2:] - centre
    below_left = padded[..., 2:, :-2] - centre
    sides = right.square().mean() + below.square().mean()
    diagonals = below_right.square().mean() + below_left.square().mean()
    return sides / 3 + diagonals / 12

"""The three terms of the objective, and the statistics that style is made of.

Style losses see a layer only through its `Moments`, so that they can be computed from
moments that were accumulated over tiles as well as from a whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.matrix_root import symmetric_root, trace_of_root

COVARIANCE_RIDGE = 1e-4
"""Added to the diagonal of every covariance: it keeps their roots differentiable."""


@dataclass(frozen=True, slots=True)
class Moments:
    """The first two moments of a layer's features over all positions, in float32.

    Attributes:
        mean: C, the mean of each channel.
        second: CxC, the mean of the products of each two channels.
    """

    mean: Tensor
    second: Tensor

    def covariance(self) -> Tensor:
        """Return the CxC covariance with the ridge on its diagonal."""
        ridge = COVARIANCE_RIDGE * torch.eye(
            len(self.mean), dtype=self.mean.dtype, device=self.mean.device
        )
        return self.second - torch.outer(self.mean, self.mean) + ridge


def moments(features: Tensor) -> Moments:
    """Return the moments of 1xCxhxw features, in float32 or better whatever they come in."""
    flat = at_least_float32(features).flatten(2).squeeze(0)
    return Moments(flat.mean(dim=1), flat @ flat.T / flat.shape[1])


def at_least_float32(features: Tensor) -> Tensor:
    """Return features in float32 where they are in less, as they are otherwise."""
    return features.float() if features.dtype.itemsize < 4 else features


@dataclass(frozen=True, slots=True)
class WassersteinTarget:
    """A Gaussian to come close to.

    Attributes:
        mean: C.
        root: CxC, the symmetric square root of the covariance.
        trace: the trace of the covariance, a scalar.
    """

    mean: Tensor
    root: Tensor
    trace: Tensor


def wasserstein_target(styles: Sequence[tuple[Moments, float]]) -> WassersteinTarget:
    """Blend the Gaussians of several styles into one target.

    Args:
        styles: The moments of one layer for each style, with its weight. Weights are
            normalised to a sum of one.
    """
    total = sum(weight for _, weight in styles)
    mean = torch.stack([m.mean * (weight / total) for m, weight in styles]).sum(dim=0)
    covariance = torch.stack([m.covariance() * (weight / total) for m, weight in styles]).sum(dim=0)
    return WassersteinTarget(mean, symmetric_root(covariance), covariance.trace())


def wasserstein_loss(result: Moments, target: WassersteinTarget) -> Tensor:
    """Return the squared 2-Wasserstein distance between two Gaussians, channel by channel.

    mean((mu - mu_s)^2) + mean(diag(S + S_s - 2 (S_s^1/2 S S_s^1/2)^1/2)): Olkin and
    Pukelsheim (1982), equation 4; as a style loss in K. Crowson's style-transfer-pytorch.
    It departs from the distance proper by the means over channels in place of sums, which
    keeps layers of different width comparable.
    """
    covariance = result.covariance()
    channels = len(result.mean)
    spread = covariance.trace() + target.trace - 2 * trace_of_root(covariance, target.root)
    return (result.mean - target.mean).square().mean() + spread.to(result.mean.dtype) / channels


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference of features, 1xCxhxw: Gatys et al. 2016, equation 1."""
    return F.mse_loss(features, target)


def total_variation(image: Tensor) -> Tensor:
    """Return how much neighbouring pixels of 1x3xHxW differ, over a nine-point stencil.

    The mean over pixels of (dx^2 + dy^2) / 3 + (both diagonals squared) / 12. Replicate
    padding makes the border count like the inside.
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    centre = padded[..., 1:-1, 1:-1]
    right = padded[..., 1:-1, 2:] - centre
    below = padded[..., 2:, 1:-1] - centre
    below_right = padded[..., 2:, 2:] - centre
    below_left = padded[..., 2:, :-2] - centre
    return (
        (right.square().mean() + below.square().mean()) / 3
        + (below_right.square().mean() + below_left.square().mean()) / 12
    )  # fmt: skip

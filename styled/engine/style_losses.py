"""Style losses: how far the statistics of a layer are from the style's.

Each comes as two functions: one blends the statistics of the style images into a target,
once; the other compares a picture with it, at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.losses import Moments
from styled.engine.matrix_root import symmetric_root, trace_of_root
from styled.recipes import StyleLoss

Weighted = Sequence[tuple[Moments, float]]
"""The moments of one layer for each style image, with its weight."""


@dataclass(frozen=True, slots=True)
class WassersteinTarget:
    """A Gaussian to come close to.

    Attributes:
        mean: C.
        root: CxC, the symmetric square root of the covariance, float64.
        trace: The trace of the covariance, a scalar.
    """

    mean: Tensor
    root: Tensor
    trace: Tensor


@dataclass(frozen=True, slots=True)
class GramTarget:
    """A Gram matrix to come close to.

    Attributes:
        gram: CxC, F F^T.
        gram_by_size: CxC, F F^T / (c h w).
        size: c h w of the style's layer; of several, their weighted mean.
    """

    gram: Tensor
    gram_by_size: Tensor
    size: float


StyleTarget = WassersteinTarget | GramTarget


def style_target(kind: StyleLoss, styles: Weighted) -> StyleTarget:
    """Blend the statistics of several styles; weights are normalised to a sum of one."""
    total = sum(weight for _, weight in styles)
    normalised = [(moments, weight / total) for moments, weight in styles]
    if kind == "wasserstein":
        covariance = _blend([(m.covariance(), w) for m, w in normalised])
        mean = _blend([(m.mean, w) for m, w in normalised])
        return WassersteinTarget(mean, symmetric_root(covariance), covariance.trace())
    return GramTarget(
        _blend([(m.gram, w) for m, w in normalised]),
        _blend([(m.gram / (m.channels * m.positions), w) for m, w in normalised]),
        sum(m.channels * m.positions * w for m, w in normalised),
    )


def style_loss(kind: StyleLoss, result: Moments, target: StyleTarget) -> Tensor:
    """Return the style loss of one layer, a scalar."""
    if isinstance(target, WassersteinTarget):
        return wasserstein_loss(result, target)
    return gram_loss(kind, result, target)


def wasserstein_loss(result: Moments, target: WassersteinTarget) -> Tensor:
    """Return the squared 2-Wasserstein distance between two Gaussians, channel by channel.

    mean((mu - mu_s)^2) + mean(diag(S + S_s - 2 (S_s^1/2 S S_s^1/2)^1/2)): Olkin and
    Pukelsheim (1982), equation 4; as a style loss in K. Crowson's style-transfer-pytorch.
    It departs from the distance proper by the means over channels in place of sums, which
    keeps layers of different width comparable.
    """
    covariance = result.covariance()
    spread = covariance.trace() + target.trace - 2 * trace_of_root(covariance, target.root)
    shift = (result.mean - target.mean).square().mean()
    return shift + spread.to(shift.dtype) / result.channels


def gram_loss(kind: StyleLoss, result: Moments, target: GramTarget) -> Tensor:
    """Return a squared difference of Gram matrices G = F F^T and A, scaled as `kind` says.

    Gatys et al. 2016, equations 3 and 4, give `gram_gatys`:
    sum((G - A)^2) / (4 N^2 M^2) for N channels and M positions. The others are what
    published codes use in its place: means over the matrix, divided by the layer's size
    c h w once, or twice (`gram_by_size`), or not at all.
    """
    size = result.channels * result.positions
    if kind == "gram_by_size":
        return F.mse_loss(result.gram / size, target.gram_by_size)
    squared = F.mse_loss(result.gram, target.gram)
    if kind == "gram_over_style_size":
        return squared / target.size
    if kind == "gram_over_result_size":
        return squared / size
    if kind == "gram_gatys":
        # A mean over C^2 entries in place of the sum takes C^2 out of N^2 M^2.
        return squared / (4 * result.positions**2)
    return squared


def _blend(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    return torch.stack([tensor * weight for tensor, weight in parts]).sum(dim=0)

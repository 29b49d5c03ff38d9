"""Style losses: distances between a layer's feature statistics and those of the style images.

`style_target` blends the statistics of the style images into a target, once; `style_loss`
compares an image's statistics with it, at every step.
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
    """The target Gaussian of a layer.

    Attributes:
        mean: C, the mean.
        root: CxC, the symmetric square root of the covariance, float64.
        trace: The trace of the covariance, a scalar.
    """

    mean: Tensor
    root: Tensor
    trace: Tensor


@dataclass(frozen=True, slots=True)
class GramTarget:
    """The target Gram matrix of a layer.

    Attributes:
        gram: CxC, F F^T.
        gram_by_size: CxC, F F^T / (c h w).
        size: c h w of the style's layer; with several styles, the weighted mean.
    """

    gram: Tensor
    gram_by_size: Tensor
    size: float


StyleTarget = WassersteinTarget | GramTarget


def style_target(kind: StyleLoss, styles: Weighted) -> StyleTarget:
    """Return the weighted mean of the styles' statistics; weights are normalised to sum to one."""
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
    """Return the squared 2-Wasserstein distance between two Gaussians, averaged over channels.

    mean((mu - mu_s)^2) + mean(diag(S + S_s - 2 (S_s^1/2 S S_s^1/2)^1/2)): Olkin and
    Pukelsheim (1982), equation 4; as a style loss in K. Crowson's style-transfer-pytorch.
    The actual distance has sums over channels; means keep layers of different width
    comparable.
    """
    covariance = result.covariance()
    spread = covariance.trace() + target.trace - 2 * trace_of_root(covariance, target.root)
    shift = (result.mean - target.mean).square().mean()
    return shift + spread.to(shift.dtype) / result.channels


def gram_loss(kind: StyleLoss, result: Moments, target: GramTarget) -> Tensor:
    """Return a squared difference of Gram matrices G = F F^T and A, scaled as `kind` says.

    `gram_gatys` is Gatys et al. 2016, equations 3 and 4: sum((G - A)^2) / (4 N^2 M^2) for N
    channels and M positions. Published implementations use other kinds: the mean of the squared
    differences (`gram_raw`), divided by the style's or the result's layer size c h w
    (`gram_over_style_size`, `gram_over_result_size`), or of Gram matrices that are each divided
    by their own layer size first (`gram_by_size`).
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
        # `squared` is a mean over N^2 entries, so that only 4 M^2 is left of the denominator.
        return squared / (4 * result.positions**2)
    return squared


def _blend(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    return torch.stack([tensor * weight for tensor, weight in parts]).sum(dim=0)

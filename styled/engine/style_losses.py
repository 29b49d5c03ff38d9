"""Style losses: distances between a layer's feature statistics and those of the style images.

`style_target` blends the statistics of the style images into a target, once; `style_term` compares
an image's statistics with the targets of all layers, at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.losses import Moments, MomentsGrad
from styled.engine.matrix_root import CovarianceFactor, root_traces, widest_dtype
from styled.recipes import StyleLoss

Weighted = Sequence[tuple[Moments, float]]
"""The moments of one layer for each style image, with its weight."""


@dataclass(frozen=True, slots=True)
class WassersteinTarget:
    """The target Gaussian of a layer.

    Attributes:
        mean: C, the mean.
        factor: The factored covariance.
        trace: The trace of the covariance, a scalar in the widest dtype of the device.
    """

    mean: Tensor
    factor: CovarianceFactor
    trace: Tensor

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return self.mean.nbytes + self.factor.nbytes + self.trace.nbytes


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

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return self.gram.nbytes + self.gram_by_size.nbytes


StyleTarget = WassersteinTarget | GramTarget


def style_target(kind: StyleLoss, styles: Weighted) -> StyleTarget:
    """Return the weighted mean of the styles' statistics; weights are normalised to sum to one.

    For `wasserstein`, the means and the second raw moments F F^T / N are blended, which gives the
    moments of a mixture of the styles' features.
    """
    total = sum(weight for _, weight in styles)
    normalised = [(moments, weight / total) for moments, weight in styles]
    if kind == "wasserstein":
        mean = _blend([(m.mean, w) for m, w in normalised])
        second = _blend([(m.gram / m.positions, w) for m, w in normalised])
        covariance = Moments(mean, second, positions=1).covariance()
        factor = CovarianceFactor.of(covariance, styles[0][0].grad_dtype)
        return WassersteinTarget(mean, factor, _trace(covariance))
    return GramTarget(
        _blend([(m.gram, w) for m, w in normalised]),
        _blend([(m.gram / (m.channels * m.positions), w) for m, w in normalised]),
        sum(m.channels * m.positions * w for m, w in normalised),
    )


def precise_dtype(
    kind: StyleLoss, channels: int, positions: int, device: torch.device
) -> torch.dtype | None:
    """Return the wider dtype that a layer's moments must be computed in; None: none is needed.

    With fewer positions than channels a covariance is singular but for its ridge, and in float32
    the ridge would be lost in the rounding errors of the large eigenvalues.
    """
    is_thin = kind == "wasserstein" and positions < channels
    return widest_dtype(device) if is_thin else None


def style_term(
    kind: StyleLoss,
    results: Mapping[str, Moments],
    targets: Mapping[str, StyleTarget],
    weights: Mapping[str, float],
) -> tuple[Tensor, dict[str, MomentsGrad]]:
    """Return the weighted sum of all layers' style losses, a scalar, and its gradients.

    Args:
        kind: Of the loss.
        results: The moments of the image, by layer.
        targets: From `style_target` of the same kind, by layer.
        weights: The factor of each layer's loss.
    """
    if kind == "wasserstein":
        return _wasserstein_term(results, targets, weights)
    terms, grads = [], {}
    for layer, weight in weights.items():
        target, result = targets[layer], results[layer]
        assert isinstance(target, GramTarget)
        gram = result.gram.requires_grad_()
        term = weight * gram_loss(kind, Moments(result.mean, gram, result.positions), target)
        (grad,) = torch.autograd.grad(term, gram)
        terms.append(term.detach())
        grads[layer] = MomentsGrad(torch.zeros_like(result.mean), grad + grad.T)
    return torch.stack(terms).sum(), grads


def _wasserstein_term(
    results: Mapping[str, Moments],
    targets: Mapping[str, StyleTarget],
    weights: Mapping[str, float],
) -> tuple[Tensor, dict[str, MomentsGrad]]:
    """Return the weighted squared 2-Wasserstein distances between Gaussians, and gradients.

    For each layer, mean((mu - mu_s)^2) + mean(diag(S + S_s - 2 (S_s^1/2 S S_s^1/2)^1/2)): Olkin
    and Pukelsheim (1982), equation 4; as a style loss in K. Crowson's style-transfer-pytorch. The
    actual distance has sums over channels; means keep layers of different width comparable.
    """
    layers = list(weights)
    wanted = [targets[layer] for layer in layers]
    gaussians = [target for target in wanted if isinstance(target, WassersteinTarget)]
    assert len(gaussians) == len(layers)
    covariances = [results[layer].covariance() for layer in layers]
    traces, trace_grads = root_traces(
        covariances,
        [target.factor for target in gaussians],
        [results[layer].rounding_error for layer in layers],
    )
    terms, grads = [], {}
    for layer, target, covariance, trace, trace_grad in zip(
        layers, gaussians, covariances, traces, trace_grads, strict=True
    ):
        result, per_channel = results[layer], weights[layer] / results[layer].channels
        shift = result.mean - target.mean
        # The three nearly cancel out, hence the wider dtype.
        spread = _trace(covariance) + target.trace - 2 * trace
        terms.append(per_channel * (shift.square().sum() + spread).to(result.grad_dtype))
        # d spread / dS = I - 2 dT/dS, which is symmetric; and S = F F^T / N - mu mu^T.
        factor = 2 * per_channel / result.positions
        gram = trace_grad.mul(-2 * factor)
        gram.diagonal().add_(factor)
        mean = torch.addmv(
            shift.to(gram.dtype), gram, result.mean.to(gram.dtype), beta=factor, alpha=-1
        )
        grads[layer] = MomentsGrad(mean, gram)
    return torch.stack(terms).sum(), grads


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


def _trace(covariance: Tensor) -> Tensor:
    return covariance.diagonal().sum(dtype=widest_dtype(covariance.device))


def _blend(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    return torch.stack([tensor * weight for tensor, weight in parts]).sum(dim=0)

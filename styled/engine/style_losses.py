"""Style losses: distances between a layer's feature statistics and those of the style images.

`style_target` blends the statistics of the style images into a target, once; `total_style_loss`
compares an image's statistics with the targets of all layers, at every step.

In all modules C is a layer's number of channels, N that of its positions (with a mask, the sum of
their weights), F its features, CxN; G = F F^T is their Gram matrix and S their covariance.
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

WeightedMoments = Sequence[tuple[Moments, float]]
"""For each style image: the moments of one layer, and the image's weight."""


@dataclass(frozen=True, slots=True)
class WassersteinTarget:
    """The target Gaussian of a layer.

    Attributes:
        mean: The mean of each channel, shape C.
        factor: The factored covariance, CxC, which includes the ridge of `Moments.covariance`.
        trace: The trace of that covariance, a scalar: float64, float32 on MPS.
    """

    mean: Tensor
    factor: CovarianceFactor
    trace: Tensor

    @property
    def nbytes(self) -> int:
        """The size of all tensors, in bytes."""
        return self.mean.nbytes + self.factor.nbytes + self.trace.nbytes


@dataclass(frozen=True, slots=True)
class GramTarget:
    """The target Gram matrix of a layer; with several style images, weighted means over them.

    Attributes:
        gram: G of the style image, CxC.
        gram_per_element: G / (C N), CxC.
        numel: C N, the number of elements of the style image's features.
    """

    gram: Tensor
    gram_per_element: Tensor
    numel: float

    @property
    def nbytes(self) -> int:
        """The size of all tensors, in bytes."""
        return self.gram.nbytes + self.gram_per_element.nbytes


StyleTarget = WassersteinTarget | GramTarget


def style_target(kind: StyleLoss, styles: WeightedMoments) -> StyleTarget:
    """Return the weighted mean of the style images' statistics.

    For `wasserstein`, the means and the second raw moments G / N are blended, which gives the
    moments of a mixture of the style images' features.

    Args:
        kind: The style loss that the target is for.
        styles: At least one. The weights are normalised to sum to one; they must not sum to zero.
    """
    total = sum(weight for _, weight in styles)
    normalised = [(moments, weight / total) for moments, weight in styles]
    if kind == "wasserstein":
        mean = _blend([(m.mean, w) for m, w in normalised])
        second_moments = _blend([(m.gram / m.positions, w) for m, w in normalised])
        # They are divided by N already, hence `positions=1`.
        covariance = Moments(mean, second_moments, positions=1).covariance()
        factor = CovarianceFactor.of(covariance, styles[0][0].grad_dtype)
        return WassersteinTarget(mean, factor, _wide_trace(covariance))
    return GramTarget(
        _blend([(m.gram, w) for m, w in normalised]),
        _blend([(m.gram / (m.channels * m.positions), w) for m, w in normalised]),
        sum(m.channels * m.positions * w for m, w in normalised),
    )


def precise_dtype(
    kind: StyleLoss, channels: int, positions: int, device: torch.device
) -> torch.dtype | None:
    """Return the dtype to compute a layer's moments in if float32 does not suffice, else None.

    The rank of a covariance is less than the number of positions. Unless there are more of them
    than channels, it is singular but for its ridge, which in float32 would be lost in the rounding
    errors of the large eigenvalues. On MPS no dtype is wider than float32.

    Args:
        kind: The style loss that the moments are for.
        channels: C of the layer.
        positions: N of the layer for the whole image, also where it is processed in tiles.
        device: Where the moments are computed.
    """
    is_rank_deficient = kind == "wasserstein" and positions <= channels
    return widest_dtype(device) if is_rank_deficient else None


def total_style_loss(
    kind: StyleLoss,
    image_moments: Mapping[str, Moments],
    targets: Mapping[str, StyleTarget],
    weights: Mapping[str, float],
) -> tuple[Tensor, dict[str, MomentsGrad]]:
    """Return the weighted sum of the layers' style losses and its gradients.

    Args:
        kind: Which style loss.
        image_moments: The moments of the current image, by layer.
        targets: From `style_target` of the same kind, by layer.
        weights: Factor of each layer's loss; layers without a weight are ignored.

    Returns:
        The sum, a scalar without a graph, and for each layer the gradient with respect to its
        moments, scaled as `MomentsGrad` says.
    """
    if kind == "wasserstein":
        return _wasserstein_loss(image_moments, targets, weights)
    losses, grads = [], {}
    for layer, weight in weights.items():
        target, current = targets[layer], image_moments[layer]
        assert isinstance(target, GramTarget), "all targets are of one kind"
        gram = current.gram.detach().requires_grad_()
        loss = weight * gram_loss(kind, Moments(current.mean, gram, current.positions), target)
        (grad,) = torch.autograd.grad(loss, gram)
        losses.append(loss.detach())
        # Gram losses do not depend on the mean. D + D^T: see `MomentsGrad`.
        grads[layer] = MomentsGrad(torch.zeros_like(current.mean), grad + grad.T)
    return torch.stack(losses).sum(), grads


def _wasserstein_loss(
    image_moments: Mapping[str, Moments],
    targets: Mapping[str, StyleTarget],
    weights: Mapping[str, float],
) -> tuple[Tensor, dict[str, MomentsGrad]]:
    """Return the weighted sum of squared 2-Wasserstein distances between Gaussians, and gradients.

    For each layer, mean((mu - mu_s)^2) + mean(diag(S + S_s - 2 (S_s^1/2 S S_s^1/2)^1/2)): Olkin
    and Pukelsheim (1982), equation 4; as a style loss in K. Crowson's style-transfer-pytorch. The
    actual distance has sums over channels; means keep layers of different width comparable.
    """
    layers = list(weights)
    gaussians = [
        target for target in map(targets.__getitem__, layers)
        if isinstance(target, WassersteinTarget)
    ]  # fmt: skip
    assert len(gaussians) == len(layers), "all targets are of one kind"
    covariances = [image_moments[layer].covariance() for layer in layers]
    # T = tr((S_s^1/2 S S_s^1/2)^1/2) and dT/dS of each layer.
    root_trace_of, root_trace_grads = root_traces(
        covariances,
        [target.factor for target in gaussians],
        [image_moments[layer] for layer in layers],
    )
    losses, grads = [], {}
    for layer, target, covariance, root_trace, root_trace_grad in zip(
        layers, gaussians, covariances, root_trace_of, root_trace_grads, strict=True
    ):
        current = image_moments[layer]
        per_channel = weights[layer] / current.channels  # turns the sums into means
        shift = current.mean - target.mean
        # The three traces nearly cancel out near the optimum, hence the wider dtype.
        spread = _wide_trace(covariance) + target.trace - 2 * root_trace
        losses.append(per_channel * (shift.square().sum() + spread).to(current.grad_dtype))
        # With D = d loss / dG, `MomentsGrad` holds D + D^T and (d loss / d mu) / N. S is
        # G / N - mu mu^T, and E = d spread / dS = I - 2 dT/dS is symmetric, so with
        # c = per_channel they are 2 c / N E and 2 c / N (shift - E mu).
        factor = 2 * per_channel / current.positions
        gram = root_trace_grad.mul(-2 * factor)
        gram.diagonal().add_(factor)
        mean = torch.addmv(
            shift.to(gram.dtype), gram, current.mean.to(gram.dtype), beta=factor, alpha=-1
        )
        grads[layer] = MomentsGrad(mean, gram)
    return torch.stack(losses).sum(), grads


def gram_loss(kind: StyleLoss, current: Moments, target: GramTarget) -> Tensor:
    """Return a squared difference of the Gram matrices G of an image and A of the style.

    - `gram_raw`: mean((G - A)^2).
    - `gram_over_style_size`, `gram_over_result_size`: that, divided by C N of the style image or
      of the current image.
    - `gram_by_size`: mean((G / (C N) - A / (C N_s))^2), N_s being that of the style image.
    - `gram_gatys`: sum((G - A)^2) / (4 C^2 N^2); Gatys et al. 2016, equations 3 and 4, where C is
      called N_l and N is called M_l.
    """
    numel = current.channels * current.positions
    if kind == "gram_by_size":
        return F.mse_loss(current.gram / numel, target.gram_per_element)
    squared = F.mse_loss(current.gram, target.gram)
    if kind == "gram_over_style_size":
        return squared / target.numel
    if kind == "gram_over_result_size":
        return squared / numel
    if kind == "gram_gatys":
        # `squared` is a mean over C^2 entries, so that only 4 N^2 is left of the denominator.
        return squared / (4 * current.positions**2)
    assert kind == "gram_raw", kind
    return squared


def _wide_trace(covariance: Tensor) -> Tensor:
    return covariance.diagonal().sum(dtype=widest_dtype(covariance.device))


def _blend(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    return torch.stack([tensor * weight for tensor, weight in parts]).sum(dim=0)

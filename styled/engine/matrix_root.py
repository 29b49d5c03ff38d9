"""Traces of roots of covariance products, with closed-form gradients.

The Wasserstein distance of two Gaussians needs T = tr((B S B)^1/2), where S is a covariance of the
result and B the symmetric root of a covariance of the style, a constant.

The root itself is not needed. Let S_style = W W^T and S = L L^T (Cholesky). Then T is the nuclear
norm of M = L^T W, the sum of its singular values: M^T M has the eigenvalues of B S B. With the
orthogonal polar factor U of M, T = sum(U * M) and dT/dS = 1/2 L^-T U W^T. The singular values of M
span half as many orders of magnitude as the eigenvalues of B S B, so that float32 suffices, if
large and small values are kept apart: the columns of W are the eigenvectors of the style's
covariance, scaled by the roots of their eigenvalues, in descending order; and the channels are
sorted by their variance, so that the rows of L^T descend as well. Rounding errors are then
relative to each row and column rather than to the largest of them, which makes the gradient up to
a hundred times as accurate.

On GPUs the polar factor comes from Newton-Schulz iterations: matrix products alone, without
waiting for the host, for several layers at once. On CPUs one symmetric eigendecomposition in
float64 takes half the time of the products.

In every direction orthogonal to the centred features of both images, both covariances are their
ridge alone. Where both have few positions there are many such directions: on CPUs only the others
are decomposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import sqrt

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch does not list it

from styled.engine.losses import COVARIANCE_RIDGE, Moments
from styled.engine.products import times_transposed, transposed_times


@dataclass(frozen=True, slots=True)
class CovarianceFactor:
    """A factor W of a CxC covariance W W^T.

    Attributes:
        columns: CxC, W: orthogonal columns, from the longest to the shortest; its rows are the
            channels in `order`.
        order: C, the channels from the largest to the smallest variance if polar factors are
            used, else in their own order.
        inverse_order: C, the inverse permutation.
        rank: The number of columns, the first ones, that are longer than the ridge makes them; C
            if rounding errors hide the ridge, or if polar factors are used.
    """

    columns: Tensor
    order: Tensor
    inverse_order: Tensor
    rank: int

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return self.columns.nbytes + self.order.nbytes + self.inverse_order.nbytes

    @classmethod
    def of(cls, covariance: Tensor, dtype: torch.dtype) -> CovarianceFactor:
        """Factor a symmetric positive semidefinite matrix in float64; W is returned as `dtype`."""
        device = covariance.device
        values, vectors = torch.linalg.eigh(_on_host_if_needed(covariance).double())
        columns = (vectors * values.clamp(min=0).sqrt()).flip(1).to(device, dtype)
        if uses_polar_factor(device):
            order = covariance.diagonal().argsort(descending=True, stable=True)
            rank = len(values)
        else:
            order = torch.arange(len(covariance), device=device)
            rank = _rank(values)
        return cls(columns[order], order, order.argsort(), rank)


def _rank(values: Tensor) -> int:
    """Return how many eigenvalues, ascending, are larger than the ridge; C if any are smaller.

    Rounding errors of a covariance in float32 make some smaller; then the larger ones can't be
    told from rounding errors either.
    """
    from_ridge = values / COVARIANCE_RIDGE - 1
    if from_ridge[0] < -_RIDGE_TOLERANCE:
        return len(values)
    return int((from_ridge > _RIDGE_TOLERANCE).sum())


_RIDGE_TOLERANCE = 1e-4
"""How far an eigenvalue may be from the ridge, relatively, to count as the ridge alone.

In float64 the smallest eigenvalues of a covariance up to 1e6 are off by 1e-7 to 1e-6 of it.
"""


def root_traces(
    covariances: Sequence[Tensor],
    factors: Sequence[CovarianceFactor],
    moments: Sequence[Moments],
) -> tuple[list[Tensor], list[Tensor]]:
    """Return T = tr((B S B)^1/2) and dT/dS for each layer.

    Args:
        covariances: S of each layer, CxC, symmetric, positive definite up to rounding.
        factors: Of the style's covariance B B, for each layer.
        moments: The image's, from which S was computed.

    Returns:
        Scalars in the widest dtype of the device, and symmetric CxC gradients in the dtype of the
        factors.
    """
    if not uses_polar_factor(covariances[0].device):
        results = [
            _by_eigenvalues(covariance, factor, _centred_rows(layer))
            for covariance, factor, layer in zip(covariances, factors, moments, strict=True)
        ]
        return [value for value, _ in results], [grad for _, grad in results]
    values, grads = [*covariances], [*covariances]  # all are replaced
    for batch in _batches(covariances):
        found = _by_polar_factors(
            [covariances[i] for i in batch],
            [factors[i] for i in batch],
            torch.stack([moments[i].rounding_error for i in batch]),
        )
        for i, value, grad in zip(batch, *found, strict=True):
            values[i], grads[i] = value, grad
    return values, grads


def uses_polar_factor(device: torch.device) -> bool:
    """Return whether Newton-Schulz iterations are used on this device."""
    return device.type == "cuda"


def _by_eigenvalues(
    covariance: Tensor, factor: CovarianceFactor, rows: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return T and dT/dS by the eigendecomposition of W^T S W.

    With W^T S W = V diag(lambda) V^T, T is the sum of the roots of the eigenvalues, and
    dT/dS = 1/2 W V diag(lambda)^-1/2 V^T W^T, which is H H^T: a sum without cancellation.

    Args:
        covariance: S, CxC.
        factor: W.
        rows: NxC, the centred features whose covariance S is, if there are few of them.
    """
    device, columns = covariance.device, _on_host_if_needed(factor.columns)
    columns = _without_common_ridge(columns, factor.rank, rows)
    # S W is S^T W, since S is symmetric.
    covariance = _on_host_if_needed(covariance).to(columns.dtype)
    product = transposed_times(columns, transposed_times(covariance, columns))
    try:
        values, vectors = torch.linalg.eigh(product.double())
    except LinAlgError:
        # Some LAPACK libraries raise for a matrix that is not finite. Return NaN instead: the
        # numerical guard handles it.
        not_a_number = torch.full_like(factor.columns, torch.nan)
        return not_a_number[0, 0], not_a_number
    # Rounding can push the smallest eigenvalues to zero or below. Directions whose eigenvalue is
    # below what float64 resolves carry no usable gradient.
    floor = values[-1].clamp(min=0) * torch.finfo(values.dtype).eps
    values = torch.maximum(values, floor)
    roots = values.sqrt()
    inverse_roots = torch.where(values > floor, roots.reciprocal(), torch.zeros_like(roots))
    half = times_transposed(columns, vectors.T.to(columns.dtype))
    half = half * (0.5 * inverse_roots).sqrt().to(columns.dtype)
    trace, grad = roots.sum(), times_transposed(half, half)
    left_out = len(columns) - columns.shape[1]
    if left_out:
        # There T is the sum of the ridges, and dT/dS is half of the identity.
        trace += COVARIANCE_RIDGE * left_out
        basis = columns / torch.linalg.vector_norm(columns, dim=0)
        grad.addmm_(basis, basis.T, alpha=-0.5).diagonal().add_(0.5)
    return trace.to(device, widest_dtype(device)), grad.to(device)


def _centred_rows(moments: Moments) -> Tensor | None:
    """Return the features around their mean, NxC, where there are no more positions than C."""
    return None if moments.precise_rows is None else moments.precise_rows - moments.mean


def _without_common_ridge(columns: Tensor, rank: int, rows: Tensor | None) -> Tensor:
    """Return W without the directions in which both covariances consist of their ridge alone.

    From column `rank` on, the columns are orthogonal and of equal length, so that they can be
    rotated: the first N then span what the features have there, and the others are dropped.

    Args:
        columns: CxC, W.
        rank: As in `CovarianceFactor`.
        rows: NxC, the centred features of the image; None: there are many of them.
    """
    if rows is None or rank + len(rows) > _WORTHWHILE * len(columns):
        return columns
    of_ridge = columns[:, rank:]
    rotation, _ = torch.linalg.qr((rows.to(columns.dtype) @ of_ridge).T)
    return torch.cat([columns[:, :rank], of_ridge @ rotation], dim=1)


_WORTHWHILE = 0.9
"""Above this share of the directions, finding them takes as long as decomposing all."""


def _by_polar_factors(
    covariances: Sequence[Tensor], factors: Sequence[CovarianceFactor], rounding_errors: Tensor
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return T and dT/dS of several layers, padded to the width of the widest one.

    Padding adds singular values of zero, which stay zero in every iteration.
    """
    sorted_covariances = [
        covariance[factor.order[:, None], factor.order]
        for covariance, factor in zip(covariances, factors, strict=True)
    ]
    # Ones on the diagonal beyond a layer's own channels, so that it can be factored.
    covariance = _padded(sorted_covariances, diagonal=1.0)
    columns = _padded([factor.columns for factor in factors], diagonal=0.0)
    upper = _cholesky(covariance, rounding_errors).mT.to(columns.dtype)
    product = upper @ columns
    polar = polar_factor(product)
    values = (polar * product).sum(dim=(1, 2), dtype=widest_dtype(product.device))
    grad = torch.linalg.solve_triangular(upper, polar @ columns.mT, upper=True)
    grad = 0.25 * (grad + grad.mT)
    places = [factor.inverse_order for factor in factors]
    return values.unbind(), [grad[i][place[:, None], place] for i, place in enumerate(places)]


def polar_factor(matrices: Tensor) -> Tensor:
    """Return the orthogonal polar factors of BxCxC matrices: U of M = U H, H positive definite.

    Newton-Schulz iterations, Higham, "Functions of Matrices" (2008), equation 8.20. Each is scaled
    so that it maps the smallest and the largest possible singular value to the same value: Chen
    and Chow, "A Stable Scaling of Newton-Schulz" (2014). The number of iterations and the scales
    are fixed in advance, so the host never waits for a result.
    """
    norms = torch.linalg.matrix_norm(matrices, keepdim=True)  # at least the largest singular value
    factor: Tensor = matrices / norms
    for scale in _SCALES:
        factor = torch.baddbmm(
            factor, factor, torch.bmm(factor.mT, factor), beta=1.5 * scale, alpha=-0.5 * scale**3
        )
    return factor


SMALLEST_SINGULAR_VALUE = 1e-7
"""The smallest singular value, relative to the norm, for which `ITERATIONS` suffice.

The ridge on both covariances bounds it from below. In a network with the ranges of a trained one
it is 5e-8 to 7e-9 in the deepest layers, where so small values no longer matter: measured on
photographs at 128 to 512 px, the trace is within 3e-6 of an exact one, and its gradient with
respect to the features within 3e-4.
"""

ITERATIONS = 20


def _scales(smallest: float, iterations: int) -> list[float]:
    """Return the scale of each iteration, if singular values start in [smallest, 1].

    An iteration maps such a value x to scale * x * (3 - scale^2 x^2) / 2. The scale that maps
    both ends of [smallest, 1] to the same value is sqrt(3 / (1 + smallest + smallest^2)). It is
    capped slightly below sqrt(3), where x = 1 would be mapped to zero: rounding can push x a
    little above 1.
    """
    scales = []
    for _ in range(iterations):
        scale = min(sqrt(3 / (1 + smallest + smallest**2)), _MAX_SCALE)
        scales.append(scale)
        smallest = scale * smallest * (3 - scale**2 * smallest**2) / 2
    return scales


_MAX_SCALE = 1.7
_SCALES = _scales(SMALLEST_SINGULAR_VALUE, ITERATIONS)


def _cholesky(covariance: Tensor, rounding_errors: Tensor) -> Tensor:
    """Return the lower Cholesky factors of BxCxC covariances, with a larger ridge if one fails.

    Drawings of a few flat colours have indefinite covariances: most of their eigenvalues are zero
    but for the ridge, and below the rounding errors of the largest ones.
    """
    factor, failed_at = torch.linalg.cholesky_ex(covariance)
    # Always computed, but rarely used: asking the device whether it is needed would mean waiting.
    ridge = torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)
    ridge = ridge * rounding_errors.to(covariance.dtype)[:, None, None]
    safe, _ = torch.linalg.cholesky_ex(covariance + ridge)
    return torch.where((failed_at > 0)[:, None, None], safe, factor)


def _batches(covariances: Sequence[Tensor]) -> list[list[int]]:
    """Return the indices of the widest layers, and of all narrower ones, as two batches.

    The narrower layers are padded to the width of the widest among them, which costs less than
    launching their kernels one by one.
    """
    width = max(map(len, covariances))
    batches: tuple[list[int], list[int]] = ([], [])
    for i, covariance in enumerate(covariances):
        batches[len(covariance) < width].append(i)
    return [batch for batch in batches if batch]


def _padded(matrices: Sequence[Tensor], diagonal: float) -> Tensor:
    """Return CxC matrices as one tensor, each padded with zeros, and `diagonal` on the diagonal."""
    width = max(map(len, matrices))
    dtype = reduce(torch.promote_types, (matrix.dtype for matrix in matrices))
    batch = diagonal * torch.eye(width, dtype=dtype, device=matrices[0].device)
    batch = batch.repeat(len(matrices), 1, 1)
    for padded, matrix in zip(batch, matrices, strict=True):
        padded[: len(matrix), : len(matrix)] = matrix
    return batch


def widest_dtype(device: torch.device) -> torch.dtype:
    """Return the widest floating-point dtype of a device: Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _on_host_if_needed(matrix: Tensor) -> Tensor:
    # Apple's GPUs have neither float64 nor eigendecompositions.
    return matrix.cpu() if matrix.device.type == "mps" else matrix

"""Square roots of covariance matrices, with a closed-form gradient.

The usual way, Newton-Schulz iterations with their own backward pass, costs many large
matrix products for each layer and step. One symmetric eigendecomposition gives value
and gradient at once, and to full precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable


def symmetric_root(matrix: Tensor) -> Tensor:
    """Return the symmetric square root of a CxC symmetric positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def trace_of_root(covariance: Tensor, root: Tensor) -> Tensor:
    """Return tr((B S B)^1/2), a scalar, for S = `covariance` and B = `root`.

    Args:
        covariance: CxC, symmetric, positive definite; gradients flow to it.
        root: CxC, symmetric, positive definite; a constant.
    """
    value: Tensor = _TraceOfRoot.apply(covariance, root)
    return value


class _TraceOfRoot(Function):
    """d tr((B S B)^1/2) / dS = 1/2 B (B S B)^-1/2 B.

    For a symmetric matrix function f, d tr f(M) = tr(f'(M) dM); here f' = 1/2 M^-1/2 and
    dM = B dS B, and the trace is cyclic.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, covariance: Tensor, root: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(root @ covariance @ root)
        # Rounding can push the smallest eigenvalues to zero or below. Directions whose
        # eigenvalue is below what this precision resolves carry no usable slope.
        floor = values[-1].clamp(min=0) * torch.finfo(values.dtype).eps
        values = torch.maximum(values, floor)
        roots = values.sqrt()
        inverse_roots = torch.where(values > floor, roots.reciprocal(), torch.zeros_like(roots))
        half = root @ vectors
        ctx.save_for_backward((half * (0.5 * inverse_roots)) @ half.T)
        return roots.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]  # absent from torch's stub
        return upstream * slope, None

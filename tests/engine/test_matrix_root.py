"""Matrix square roots against definitions and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch does not list it

from styled.engine import matrix_root
from styled.engine.matrix_root import symmetric_root, trace_of_root


def covariance(size: int, seed: int, samples: int = 50) -> Tensor:
    """Return a random covariance with a small ridge, float64."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(size, samples, generator=generator, dtype=torch.float64)
    return data @ data.T / samples + 1e-4 * torch.eye(size, dtype=torch.float64)


def test_the_root_squared_is_the_matrix() -> None:
    """The symmetric root times itself gives the matrix back, and is symmetric."""
    matrix = covariance(7, 0)
    root = symmetric_root(matrix)
    torch.testing.assert_close(root @ root, matrix)
    torch.testing.assert_close(root, root.T)


def test_the_root_of_a_diagonal_is_taken_by_element() -> None:
    """diag(4, 9) has the root diag(2, 3)."""
    root = symmetric_root(torch.diag(torch.tensor([4.0, 9.0])))
    torch.testing.assert_close(root, torch.diag(torch.tensor([2.0, 3.0], dtype=torch.float64)))


def test_trace_of_root_of_commuting_matrices() -> None:
    """For diagonal S and B the trace is the sum of b * sqrt(s)."""
    s, b = torch.tensor([4.0, 9.0, 1.0]), torch.tensor([1.0, 2.0, 5.0])
    torch.testing.assert_close(
        trace_of_root(torch.diag(s), torch.diag(b)),
        torch.tensor(2.0 + 6.0 + 5.0, dtype=torch.float64),
    )


@pytest.mark.parametrize("samples", [50, 3], ids=["full rank", "nearly singular"])
def test_gradient_equals_finite_differences(samples: int) -> None:
    """The closed-form gradient agrees with central differences in float64."""
    matrix = covariance(5, 1, samples).requires_grad_()
    root = symmetric_root(covariance(5, 2))

    def of_symmetric(m: Tensor) -> Tensor:
        return trace_of_root((m + m.T) / 2, root)

    assert torch.autograd.gradcheck(of_symmetric, (matrix,), eps=1e-7, atol=1e-5)


def test_a_library_that_refuses_a_matrix_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient are NaN if eigh raises, as some libraries do for non-finite matrices.

    The numerical guard handles NaN; an exception would reach the user.
    """

    def refuse(_: Tensor) -> None:
        raise LinAlgError("it did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    matrix = torch.eye(3, requires_grad=True)
    value = trace_of_root(matrix, torch.eye(3))
    (gradient,) = torch.autograd.grad(value, matrix)
    assert value.isnan()
    assert gradient.isnan().all()


def test_a_singular_matrix_has_a_finite_gradient() -> None:
    """Directions without variance have a gradient of zero instead of infinity."""
    vector = torch.tensor([[1.0], [2.0], [3.0]])
    matrix = (vector @ vector.T).requires_grad_()
    value = trace_of_root(matrix, torch.eye(3))
    (gradient,) = torch.autograd.grad(value, matrix)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("condition", [1e2, 1e10])
def test_roots_by_products_are_those_of_the_eigenvalues(
    monkeypatch: pytest.MonkeyPatch, condition: float
) -> None:
    """Newton-Schulz (used on GPUs) gives the value and gradient of the eigendecomposition.

    Most eigenvalues are at the ridge, as in deep layers.
    """
    torch.manual_seed(0)
    channels, rank = 96, 20
    factors = torch.randn(2, channels, rank, dtype=torch.float64) * 3
    smallest = float(torch.linalg.matrix_norm(factors[0], 2) ** 2) / condition**0.5
    ridge = smallest * torch.eye(channels, dtype=torch.float64)
    image, style = (factor @ factor.T + ridge for factor in factors)
    root = symmetric_root(style)
    results = []
    for enabled in (False, True):
        monkeypatch.setattr(matrix_root, "uses_newton_schulz", lambda device, value=enabled: value)
        variable = image.clone().requires_grad_()
        value = trace_of_root(variable, root)
        (grad,) = torch.autograd.grad(value, variable)
        results.append((value.detach(), grad))
    (value, grad), (newton_schulz_value, newton_schulz_grad) = results
    torch.testing.assert_close(newton_schulz_value, value, rtol=1e-10, atol=0)
    torch.testing.assert_close(newton_schulz_grad, grad, rtol=0, atol=1e-6 * float(grad.norm()))

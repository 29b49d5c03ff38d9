"""Traces of matrix roots against definitions, finite differences and an exact decomposition."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import skimage.data
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch does not list it

from styled.engine import matrix_root
from styled.engine.losses import COVARIANCE_RIDGE, Moments, moments
from styled.engine.matrix_root import CovarianceFactor, polar_factor, root_traces
from styled.engine.scales import fit_long_edge, resize
from styled.engine.style_losses import precise_dtype
from styled.engine.vgg import Vgg19, normalize
from styled.recipes import PYRAMID
from tests.engine.conftest import untrained
from tests.trained_ranges import with_trained_ranges

WIDE = torch.float64
POLAR = pytest.mark.parametrize("polar", [False, True], ids=["eigenvalues", "polar factor"])


@pytest.fixture
def polar_factors(monkeypatch: pytest.MonkeyPatch, polar: bool) -> None:
    """Compute by the method of GPUs, or by that of CPUs."""
    monkeypatch.setattr(matrix_root, "uses_polar_factor", lambda device: polar)


def covariance(size: int, seed: int, samples: int = 50) -> Tensor:
    """Return a random covariance with a small ridge, float64."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(size, samples, generator=generator, dtype=torch.float64)
    return data @ data.T / samples + 1e-4 * torch.eye(size, dtype=torch.float64)


def traces_of(
    matrices: list[Tensor], factors: list[CovarianceFactor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return traces and gradients of matrices in float32 or wider."""
    moments_of_each = [Moments(torch.zeros(len(m)), m, positions=1) for m in matrices]
    return root_traces(matrices, factors, moments_of_each)


def factor(matrix: Tensor) -> CovarianceFactor:
    return CovarianceFactor.of(matrix, matrix.dtype)


@POLAR
@pytest.mark.usefixtures("polar_factors")
def test_a_factor_times_its_transpose_is_the_covariance() -> None:
    """W W^T is the covariance with its channels in the factor's order, columns by length."""
    matrix = covariance(7, 0)
    found = factor(matrix)
    ordered = matrix[found.order[:, None], found.order]
    torch.testing.assert_close(found.columns @ found.columns.T, ordered)
    torch.testing.assert_close(ordered[found.inverse_order[:, None], found.inverse_order], matrix)
    lengths = found.columns.norm(dim=0)
    assert (lengths[:-1] >= lengths[1:]).all()


@POLAR
@pytest.mark.usefixtures("polar_factors")
def test_trace_of_commuting_matrices() -> None:
    """For diagonal S and B B the trace is the sum of sqrt(s) * b."""
    s, b = torch.tensor([4.0, 9.0, 1.0]).double(), torch.tensor([1.0, 2.0, 5.0]).double()
    (trace,), (grad,) = traces_of([torch.diag(s)], [factor(torch.diag(b**2))])
    assert float(trace) == pytest.approx(2.0 + 6.0 + 5.0, rel=1e-6)
    torch.testing.assert_close(grad, torch.diag(0.5 * b / s.sqrt()), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("samples", [50, 3], ids=["full rank", "nearly singular"])
def test_gradient_equals_finite_differences(samples: int) -> None:
    """The closed-form gradient agrees with central differences in float64.

    Those of polar factors are compared with this method's below: their traces are not smooth
    enough for differences so small.
    """
    matrix, style = covariance(5, 1, samples), factor(covariance(5, 2))
    _, (grad,) = traces_of([matrix], [style])
    for i in range(5):
        for j in range(i + 1):
            change = torch.zeros_like(matrix)
            change[i, j] += 5e-8
            change[j, i] += 5e-8
            (above,), (below,) = (
                traces_of([m], [style])[0] for m in (matrix + change, matrix - change)
            )
            expected = float(above - below) / 2e-7
            assert float(grad[i, j]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("samples", [50, 3], ids=["full rank", "nearly singular"])
def test_both_methods_agree(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """Trace and gradient by polar factors are those by eigenvalues."""
    found = []
    for polar in (False, True):
        monkeypatch.setattr(matrix_root, "uses_polar_factor", lambda device, value=polar: value)
        found.append(traces_of([covariance(5, 1, samples)], [factor(covariance(5, 2))]))
    ((trace,), (grad,)), ((polar_trace,), (polar_grad,)) = found
    torch.testing.assert_close(polar_trace, trace, rtol=5e-6, atol=0)
    torch.testing.assert_close(polar_grad, grad, rtol=0, atol=1e-5 * float(grad.norm()))


@pytest.mark.parametrize(
    ("positions", "decomposed"), [((6, 9), 14), ((6, 30), 35), ((9, 30), 40), ((60, 9), 40)]
)
@pytest.mark.parametrize("mean", [0.0, 100.0, 1000.0])
@pytest.mark.parametrize("kind", ["whole", "weighted", "tiles"])
def test_where_both_images_have_few_positions_less_is_decomposed(
    monkeypatch: pytest.MonkeyPatch,
    positions: tuple[int, int],
    decomposed: int,
    mean: float,
    kind: str,
) -> None:
    """Directions orthogonal to all features are left out; trace and gradient are the same.

    N directions of the photo and N - 1 of the style image are left, if that is at most 36 of 40.
    The variances are near the ridge, so that it counts. With a large mean, what is left of
    I - 2 dT/dS in the other directions would be a large gradient.
    """
    generator = torch.Generator().manual_seed(0)

    def features(columns: int) -> Tensor:
        return mean + 0.02 * torch.randn((1, 40, 1, columns), generator=generator)

    result, style = features(positions[0]), moments_of(features(positions[1]))
    precise = precise_dtype("wasserstein", 40, positions[0], result.device)
    weights = torch.rand((1, 1, *result.shape[2:]), generator=generator)
    weights[..., 0] = 0
    if kind == "whole":
        found = moments_of(result)
    elif kind == "weighted":
        found = moments(result, weights, precise_dtype=precise)
    else:
        parts = (result[..., :2], result[..., 2:])
        found = moments(parts[0], precise_dtype=precise) + moments(parts[1], precise_dtype=precise)
    of_style = CovarianceFactor.of(style.covariance(), torch.float32)
    sizes = []
    eigh = torch.linalg.eigh

    def count(matrix: Tensor) -> Any:
        sizes.append(len(matrix))
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", count)
    (trace,), (grad,) = root_traces([found.covariance()], [of_style], [found])
    without_rows = replace(found, precise_rows=None)
    (expected,), (expected_grad,) = root_traces([found.covariance()], [of_style], [without_rows])
    assert sizes == [decomposed, 40]
    assert float(trace) == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-3 * float(expected_grad.norm()))


def test_opacity_hides_no_ridge() -> None:
    """Weights are summed in float64, or the large mean would spoil the small eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    features = 100 + torch.randn((1, 40, 5, 6), generator=generator)
    opacity = torch.rand((1, 1, 5, 6), generator=generator)
    assert factor(moments(features, opacity, precise_dtype=WIDE).covariance()).rank == 29


@pytest.mark.parametrize(
    ("others", "rank"), [([1.0, 1.0], 2), ([1.00001, 0.99999], 2), ([1.0, 0.5], 4), ([1.01, 1], 3)]
)
def test_only_equal_eigenvalues_count_as_the_ridge(others: list[float], rank: int) -> None:
    """Rounding errors of float32 can make some smaller than the ridge: then none are left out."""
    values = COVARIANCE_RIDGE * torch.tensor([1e7, 3.0, *others], dtype=WIDE)
    assert factor(torch.diag(values)).rank == rank


def test_layers_of_all_widths_are_computed_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of layers, with narrower ones padded, give what each layer gives by itself."""
    monkeypatch.setattr(matrix_root, "uses_polar_factor", lambda device: True)
    sizes = (3, 8, 5, 8, 2)
    matrices = [covariance(size, seed) for seed, size in enumerate(sizes)]
    factors = [factor(covariance(size, seed + 9)) for seed, size in enumerate(sizes)]
    traces, grads = traces_of(matrices, factors)
    for matrix, style, trace, grad in zip(matrices, factors, traces, grads, strict=True):
        (alone,), (grad_alone,) = traces_of([matrix], [style])
        torch.testing.assert_close(trace, alone)
        torch.testing.assert_close(grad, grad_alone)


def test_a_polar_factor_is_orthogonal_and_the_rest_positive_definite() -> None:
    """U of M = U H, with singular values over six orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(2, 20, 20, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    matrices = left @ torch.diag_embed(torch.logspace(0, -6, 20).double()) @ right
    found = polar_factor(matrices)
    torch.testing.assert_close(found, left @ right, atol=1e-4, rtol=0)


def test_a_library_that_refuses_a_matrix_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace and gradient are NaN if eigh raises, as some libraries do for non-finite matrices.

    The numerical guard handles NaN; an exception would reach the user.
    """
    style = factor(torch.eye(3))

    def refuse(_: Tensor) -> None:
        raise LinAlgError("it did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    (trace,), (grad,) = traces_of([torch.eye(3)], [style])
    assert trace.isnan()
    assert grad.isnan().all()


@POLAR
@pytest.mark.usefixtures("polar_factors")
def test_a_singular_matrix_has_a_finite_gradient() -> None:
    """Directions without variance do not have an infinite gradient."""
    vector = torch.tensor([[1.0], [2.0], [3.0]])
    (trace,), (grad,) = traces_of([vector @ vector.T], [factor(torch.eye(3))])
    assert float(trace) == pytest.approx(14**0.5, rel=0.01)
    assert grad.isfinite().all()


# Accuracy on features of photographs


@cache
def layers(network: str, size: int, picture: str) -> dict[str, Tensor]:
    """Return the features of each style layer of a picture, one row per position."""
    convolutions = untrained()
    if network == "trained ranges":
        convolutions = with_trained_ranges(convolutions)
    if picture == "bars":
        pixels = (torch.arange(size) // 16 % 2).float().expand(1, 3, size, size).contiguous()
    else:
        photo = torch.from_numpy(getattr(skimage.data, picture)()).permute(2, 0, 1)[None]
        pixels = resize(photo / 255, *fit_long_edge(photo.shape[3], photo.shape[2], size))
    features = Vgg19(convolutions).features(
        normalize(pixels), PYRAMID.style_layers, first_padding=PYRAMID.first_padding
    )
    return {name: f.clone() for name, f in features.items()}


def moments_of(features: Tensor) -> Moments:
    """Return the moments as the objective computes them."""
    channels, positions = features.shape[1], features[0, 0].numel()
    dtype = precise_dtype("wasserstein", channels, positions, features.device)
    return moments(features, precise_dtype=dtype)


def arguments(
    result: dict[str, Tensor], style: dict[str, Tensor]
) -> tuple[list[Tensor], list[CovarianceFactor], list[Moments]]:
    """Return the arguments of `root_traces` for these features."""
    found = [moments_of(f) for f in result.values()]
    factors = [
        CovarianceFactor.of(moments_of(f).covariance(), torch.float32) for f in style.values()
    ]
    return [m.covariance() for m in found], factors, found


@cache
def exact(
    network: str, layer: str, result: tuple[str, int], style: tuple[str, int]
) -> tuple[Tensor, Tensor]:
    """Return trace and gradient by singular values in float64, from features in float64.

    Args:
        network: The network's name.
        layer: A style layer.
        result: A picture and its size.
        style: Likewise.
    """
    found, wanted = (layers(network, size, name)[layer] for name, size in (result, style))
    covariance, of_style = (moments(f.double()).covariance() for f in (found, wanted))
    lower, root = torch.linalg.cholesky(covariance), torch.linalg.cholesky(of_style)
    left, values, right = torch.linalg.svd(lower.T @ root)
    grad = 0.5 * torch.linalg.solve_triangular(lower.T, left @ right @ root.T, upper=True)
    return values.sum(), (grad + grad.T) / 2


@POLAR
@pytest.mark.usefixtures("polar_factors")
@pytest.mark.parametrize(
    ("network", "size"), [("untrained", 128), ("trained ranges", 128), ("trained ranges", 256)]
)
def test_photographs_at_all_layers(network: str, size: int) -> None:
    """The trace is within 1e-5, its gradient with respect to the features within 1e-3."""
    photo, painting = layers(network, size, "coffee"), layers(network, size, "astronaut")
    traces, grads = root_traces(*arguments(photo, painting))
    for name, trace, grad in zip(photo, traces, grads, strict=True):
        expected, expected_grad = exact(network, name, ("coffee", size), ("astronaut", size))
        rows = photo[name][0].flatten(1).T.double()
        rows -= rows.mean(dim=0)
        assert float(trace) == pytest.approx(float(expected), rel=1e-5), name
        difference = rows @ (grad.double() - expected_grad)
        assert difference.norm() < 1e-3 * (rows @ expected_grad).norm(), name


@POLAR
@pytest.mark.usefixtures("polar_factors")
def test_a_drawing_whose_covariances_are_indefinite() -> None:
    """Rounding makes some covariances indefinite; traces and gradients remain usable."""
    network = "trained ranges"
    drawing, painting = layers(network, 512, "bars"), layers(network, 256, "astronaut")
    covariances, factors, found_moments = arguments(drawing, painting)
    failures = [int(torch.linalg.cholesky_ex(c)[1]) for c in covariances]
    assert any(failures)
    traces, grads = root_traces(covariances, factors, found_moments)
    for name, trace, grad in zip(drawing, traces, grads, strict=True):
        rows = drawing[name][0].flatten(1).T.double()
        rows -= rows.mean(dim=0)
        expected, expected_grad = exact(network, name, ("bars", 512), ("astronaut", 256))
        assert float(trace) == pytest.approx(float(expected), rel=0.05), name
        found, wanted = rows @ grad.double(), rows @ expected_grad
        cosine = (found * wanted).sum() / (found.norm() * wanted.norm())
        assert cosine > 0.9, name

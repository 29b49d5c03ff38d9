from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from styled.engine import products
from styled.engine.objective import Objective, style_targets
from styled.engine.products import times_transposed, transposed_times
from styled.engine.vgg import Vgg19
from styled.recipes import RECIPES


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["matrix product", "convolution"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, threads: None) -> str:
    way: str = request.param
    use(way, monkeypatch)
    return way


def use(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_convolution(matrix: Tensor, multiplications: int) -> bool:
        return way == "convolution" and matrix.dtype == torch.float32

    monkeypatch.setattr(products, "_by_convolution", by_convolution)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def off(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).abs().max() / expected.abs().max())


HAS_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's

SHAPES = [(20_000, 64, 64), (513, 512, 512), (512, 400, 300), (37, 131, 70), (1, 5, 7), (9, 1, 1)]


@pytest.mark.parametrize(("n", "c", "d"), SHAPES)
def test_products_are_those_in_float64(way: str, n: int, c: int, d: int) -> None:
    a, b, other = random(n, c), random(n, d, seed=1), random(d, c, seed=2)

    assert off(transposed_times(a, b), a.double().T @ b.double()) < 2e-6
    assert off(times_transposed(a, other), a.double() @ other.double().T) < 2e-6
    assert transposed_times(a, b).shape == (c, d)
    assert times_transposed(a, other).shape == (n, d)


@pytest.mark.parametrize(("n", "c", "d"), SHAPES)
def test_a_row_is_added_to_each_row(way: str, n: int, c: int, d: int) -> None:
    a, b, row = random(n, c), random(d, c, seed=1), random(d, seed=2)

    assert off(times_transposed(a, b, row), a.double() @ b.double().T + row) < 2e-6


def test_matrices_need_not_be_contiguous(way: str) -> None:
    wide, tall = random(300, 90), random(80, 120, seed=1)
    a, b = wide[:, 10:90:2], tall.T[:, :40]  # 300x40, 120x40

    assert off(times_transposed(a, b), a.double() @ b.double().T) < 2e-6
    assert (
        off(transposed_times(wide[::2], wide[1::2]), wide[::2].double().T @ wide[1::2].double())
        < 2e-6
    )


def test_the_same_matrices_give_the_same_bytes(way: str) -> None:
    a, b = random(30_000, 128), random(30_000, 128, seed=1)

    first = transposed_times(a, b)

    assert all(torch.equal(transposed_times(a, b), first) for _ in range(5))


def test_not_a_number_is_not_lost(way: str) -> None:
    a, b = random(400, 64), random(64, 64, seed=1)
    a[17, 3] = torch.nan

    assert transposed_times(a, a)[3].isnan().all()
    assert times_transposed(a, b)[17].isnan().all()


def test_when_convolutions_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_has_avx512_convolutions", lambda: True)
    matrix, many = random(2, 2), products._MIN_MULTIPLICATIONS

    assert products._by_convolution(matrix, many)
    assert not products._by_convolution(matrix, many - 1)
    assert not products._by_convolution(matrix.double(), many)
    with FakeTensorMode():
        assert not products._by_convolution(torch.empty(2, 2, device="cuda"), many)
    monkeypatch.setattr(products, "_has_avx512_convolutions", lambda: False)
    assert not products._by_convolution(matrix, many)


@pytest.mark.parametrize(
    ("capability", "has_onednn", "expected"),
    [
        ("AVX512", True, True),
        ("AVX512", False, False),
        ("AVX2", True, False),
        ("DEFAULT", True, False),
    ],
)
def test_convolutions_need_onednn_and_avx512(
    monkeypatch: pytest.MonkeyPatch, capability: str, has_onednn: bool, expected: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)

    assert products._has_avx512_convolutions.__wrapped__() is expected


@pytest.mark.skipif(not HAS_ONEDNN, reason="needs oneDNN")
@pytest.mark.parametrize("rows", [4096, 4096 + 8])
def test_onednn_is_called(monkeypatch: pytest.MonkeyPatch, threads: None, rows: int) -> None:
    """With one thread only if the rows can be divided into 16 groups: otherwise torch uses MKL."""
    use("convolution", monkeypatch)
    a, b = random(rows, 128), random(128, 128, seed=1)

    with torch.profiler.profile() as profile:
        times_transposed(a, b)
    called = {event.key for event in profile.key_averages()}

    is_onednn = torch.get_num_threads() > 1 or rows % 16 == 0
    assert ("aten::mkldnn_convolution" in called) is is_onednn


@pytest.mark.parametrize("rows", [1000, 1001])
def test_long_sums_are_divided(monkeypatch: pytest.MonkeyPatch, threads: None, rows: int) -> None:
    use("convolution", monkeypatch)
    monkeypatch.setattr(products, "_MAX_NUMEL", 128 * 20)
    sizes: list[int] = []
    as_features = products._as_features

    def record(rows: Tensor) -> Tensor:
        sizes.append(rows.numel())
        return as_features(rows)

    monkeypatch.setattr(products, "_as_features", record)
    a, b = random(rows, 64), random(rows, 128, seed=1)

    assert off(transposed_times(a, b), a.double().T @ b.double()) < 2e-6
    assert len(sizes) == 2 * -(-rows // 20)
    assert max(sizes) <= 128 * 20


@pytest.mark.parametrize("recipe", ["pyramid", "gatys"])
@pytest.mark.parametrize("tile_px", [None, 64])
@pytest.mark.parametrize("opaque", [True, False])
def test_the_objective_is_the_same_either_way(
    network: Vgg19,
    recipe: str,
    tile_px: int | None,
    opaque: bool,
    threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = random(1, 3 if opaque else 4, 96, 128).sigmoid()
    image = random(1, 3, 96, 128, seed=1).sigmoid()
    losses, gradients = [], []
    for way in ("matrix product", "convolution"):
        use(way, monkeypatch)
        targets = style_targets(network, RECIPES[recipe], [(photo.flip(3), 1.0)])
        objective = Objective(network, RECIPES[recipe], photo, targets, tile_px)
        loss, gradient = objective.evaluate(image)
        losses.append(loss.total)
        gradients.append(gradient)

    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert torch.linalg.vector_norm(gradients[1] - gradients[0]) < 1e-3 * torch.linalg.vector_norm(
        gradients[0]
    )
    assert not torch.equal(gradients[1], gradients[0])  # convolutions were used

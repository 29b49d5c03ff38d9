"""Selection of the precision of convolutions."""

from __future__ import annotations

import pytest
import torch

from styled.engine import precision as precision_module
from styled.engine.precision import bfloat16_time_ratio, convolution_dtype
from styled.engine.vgg import Vgg19

CPU = torch.device("cpu")


def test_precision_decides_what_convolutions_compute_in() -> None:
    """An explicit precision is used, regardless of its speed."""
    assert convolution_dtype("bfloat16", CPU) is torch.bfloat16
    assert convolution_dtype("float32", CPU) is torch.float32


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.3, torch.bfloat16), (0.9, torch.float32), (2.0, torch.float32)]
)
def test_auto_takes_bfloat16_only_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, ratio: float, expected: torch.dtype
) -> None:
    """bfloat16 is chosen at 0.3 of float32's time, but not at 0.9 or at twice the time."""
    monkeypatch.setattr(precision_module, "bfloat16_time_ratio", lambda device: ratio)
    assert convolution_dtype("auto", CPU) is expected


def test_the_ratio_is_that_of_whole_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions do not decide, not even slow first ones; the step of a recipe does.

    The times were measured in a new process.
    """
    milliseconds = {
        torch.bfloat16: iter([60.05, 40.44, 0.64, 0.39, 0.35, 0.36]),
        torch.float32: iter([1.90, 0.68, 0.49, 0.50, 0.49, 0.47]),
    }
    monkeypatch.setattr(
        precision_module, "_convolution_seconds", lambda device, dtype: next(milliseconds[dtype])
    )
    steps = {torch.bfloat16: 0.6, torch.float32: 0.8}
    monkeypatch.setattr(
        precision_module, "_step_seconds", lambda device, dtype, edge_px: steps[dtype]
    )
    assert bfloat16_time_ratio(CPU) == pytest.approx(0.75)
    assert [next(rest, None) for rest in milliseconds.values()] == [None, None]


def test_a_step_is_timed_as_the_network_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 on a CPU, that is by Winograd's algorithm."""
    calls = []
    convolve = Vgg19.features

    def features(network: Vgg19, *args: object, **options: object) -> object:
        calls.append((network.dtype, type(network.backend).__name__))
        return convolve(network, *args, **options)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(Vgg19, "features", features)
    assert precision_module._step_seconds(CPU, torch.float32, 48) > 0
    assert set(calls) == {(torch.float32, "CpuBackend")}


def test_where_bfloat16_is_emulated_a_small_trial_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole steps would add minutes to each start."""

    def emulated(device: torch.device, dtype: torch.dtype) -> float:
        return 0.1 if dtype is torch.bfloat16 else 0.001

    monkeypatch.setattr(precision_module, "_convolution_seconds", emulated)
    monkeypatch.setattr(precision_module, "_step_seconds", None)  # calling it would raise
    assert bfloat16_time_ratio(CPU) == 100.0


def test_a_device_without_bfloat16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the trial raises, `auto` is float32."""

    def unsupported(device: torch.device, dtype: torch.dtype) -> float:
        raise RuntimeError("BFloat16 is not supported on this device")

    monkeypatch.setattr(precision_module, "_convolution_seconds", unsupported)
    assert convolution_dtype("auto", CPU) is torch.float32

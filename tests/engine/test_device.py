"""Selection of the device and of the precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from styled.degradation import Degradation
from styled.engine import device as device_module
from styled.engine.device import Device, bfloat16_time_ratio, choose_device, convolution_dtype
from styled.errors import DeviceError


def test_auto_falls_back_to_the_cpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no GPU works, `auto` is the CPU, with the reason as a degradation."""

    def broken(device: torch.device) -> Device:
        raise DeviceError(f"{device} does not work here")

    monkeypatch.setattr(device_module, "_probe", broken)
    monkeypatch.setattr(device_module, "GPU_DEVICE_FILES", ())
    device = choose_device("auto")
    assert device.torch_device.type == "cpu"
    assert device.degraded == Degradation("device", "no GPU was found: running on the CPU")


def test_auto_says_why_a_gpu_that_is_there_does_not_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The degradation for a GPU whose driver fails contains the driver's message."""
    message = "CUDA driver version is insufficient for CUDA runtime version"
    zeros = torch.zeros

    def failing(*size: int, device: torch.device) -> torch.Tensor:
        if device.type == "cuda":
            raise RuntimeError(f"{message}\nand a second line that is dropped")
        if device.type == "mps":
            raise RuntimeError("PyTorch is not linked with support for mps devices")
        return zeros(*size, device=device)

    monkeypatch.setattr(torch, "zeros", failing)
    monkeypatch.setattr(device_module, "GPU_DEVICE_FILES", (str(tmp_path),))
    device = choose_device("auto")
    assert device.torch_device.type == "cpu"
    assert device.degraded == Degradation(
        "device", f"a GPU was found, but cuda does not work here: {message}: running on the CPU"
    )


def test_the_cpu_when_asked_for_is_no_degradation() -> None:
    """`cpu` gives the CPU without a degradation."""
    assert choose_device("cpu").degraded is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps"])
def test_a_named_device_that_is_missing_is_an_error(name: str) -> None:
    """A missing GPU is not silently replaced."""
    with pytest.raises(DeviceError, match=name):
        choose_device(name)


def test_a_device_that_does_not_exist_lists_those_that_may() -> None:
    """The error for an unknown device lists the valid names."""
    with pytest.raises(DeviceError, match="gpu") as caught:
        choose_device("gpu")
    assert "cuda:1" in str(caught.value)


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
    monkeypatch.setattr(device_module, "bfloat16_time_ratio", lambda device: ratio)
    assert convolution_dtype("auto", CPU) is expected


def test_the_share_is_the_quotient_of_the_shortest_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minimum of several trials counts: other load on the machine only adds time."""
    assert bfloat16_time_ratio(CPU) > 0.01  # an actual measurement
    times = iter([2.0, 1.0, 1.0, 1.0, 9.0, 2.0, 3.0, 8.0, 9.0, 5.0, 4.0, 8.0])
    monkeypatch.setattr(
        device_module, "_convolution_seconds", lambda device, dtype, edge_px: next(times)
    )
    assert bfloat16_time_ratio(CPU) == 0.5


def test_where_bfloat16_is_emulated_a_small_trial_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full trial would add ten seconds to each start."""
    sizes = []

    def emulated(device: torch.device, dtype: torch.dtype, edge_px: int) -> float:
        sizes.append(edge_px)
        return 0.1 if dtype is torch.bfloat16 else 0.001

    monkeypatch.setattr(device_module, "_convolution_seconds", emulated)
    assert bfloat16_time_ratio(CPU) == 100.0
    assert set(sizes) == {min(sizes)}
    assert len(sizes) == 4


def test_a_device_without_bfloat16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the trial raises, `auto` is float32."""

    def unsupported(device: torch.device, dtype: torch.dtype, edge_px: int) -> float:
        raise RuntimeError("BFloat16 is not supported on this device")

    monkeypatch.setattr(device_module, "_convolution_seconds", unsupported)
    assert convolution_dtype("auto", CPU) is torch.float32

"""Selection of the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from styled.degradation import Degradation
from styled.engine import device as device_module
from styled.engine.device import Device, choose_device
from styled.errors import DeviceError


def test_auto_falls_back_to_the_cpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no GPU works, `auto` is the CPU, with the reason as a degradation."""

    def broken(device: torch.device) -> Device:
        raise DeviceError(f"{device} does not work here")

    monkeypatch.setattr(device_module, "_probe", broken)
    monkeypatch.setattr(device_module, "GPU_DEVICE_FILES", ())
    device = choose_device("auto")
    assert device.torch_device.type == "cpu"
    assert device.degradation == Degradation("device", "no GPU was found: running on the CPU")


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
    assert device.degradation == Degradation(
        "device", f"a GPU was found, but cuda does not work here: {message}: running on the CPU"
    )


def test_the_cpu_when_asked_for_is_no_degradation() -> None:
    """`cpu` gives the CPU without a degradation."""
    assert choose_device("cpu").degradation is None


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

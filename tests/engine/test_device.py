"""The choice of a device."""

from __future__ import annotations

import pytest
import torch

from styled.engine import device as device_module
from styled.engine.device import Device, choose_device, convolution_dtype
from styled.errors import DeviceError


def test_auto_falls_back_to_the_cpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no GPU works, `auto` is the CPU and the reason is kept."""

    def broken(device: torch.device) -> Device:
        raise DeviceError(f"{device} does not work here")

    monkeypatch.setattr(device_module, "_tried", broken)
    device = choose_device("auto")
    assert device.torch_device.type == "cpu"
    assert "no GPU" in (device.degraded or "")


def test_the_cpu_when_asked_for_is_no_degradation() -> None:
    """Whoever asks for the CPU gets it without a complaint."""
    assert choose_device("cpu").degraded is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps"])
def test_a_named_device_that_is_missing_is_an_error(name: str) -> None:
    """A missing GPU is not silently replaced."""
    with pytest.raises(DeviceError, match=name):
        choose_device(name)


def test_a_device_that_does_not_exist_lists_those_that_may() -> None:
    """A misspelt device is answered with the right names."""
    with pytest.raises(DeviceError, match="gpu") as caught:
        choose_device("gpu")
    assert "cuda:1" in str(caught.value)


def test_precision_decides_what_convolutions_compute_in() -> None:
    """bfloat16 has to be asked for."""
    assert convolution_dtype("bfloat16") is torch.bfloat16
    assert convolution_dtype("float32") is torch.float32
    assert convolution_dtype("auto") is torch.float32

"""Which device and precision the engine runs in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from styled.errors import DeviceError

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Device:
    """A device that has been seen to work.

    Attributes:
        torch_device: For tensors.
        name: For people, such as `NVIDIA H200` or `cpu`.
        degraded: Why it is not the fastest kind, or None.
    """

    torch_device: torch.device
    name: str
    degraded: str | None = None


def choose_device(requested: str) -> Device:
    """Return the device that `engine.device` asks for.

    Args:
        requested: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`. `auto` takes the first GPU that
            works and falls back to the CPU, saying so; a named device must be there.

    Raises:
        DeviceError: the named device is missing, does not work, or has no such name.
    """
    if requested == "auto":
        for candidate in ("cuda", "mps"):
            try:
                return _tried(torch.device(candidate))
            except DeviceError:
                continue
        return Device(torch.device("cpu"), "cpu", degraded="no GPU was found: running on the CPU")
    try:
        device = torch.device(requested)
    except RuntimeError:
        raise DeviceError(
            f'engine.device: there is no device "{requested}"',
            "use auto, cpu, cuda, cuda:1 or mps",
        ) from None
    return _tried(device)


def _tried(device: torch.device) -> Device:
    try:
        # Listing a GPU proves little: a driver that does not fit fails at the first kernel.
        torch.zeros(8, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f"engine.device: {device} does not work here: {str(error).splitlines()[0]}",
            "set engine.device to auto or cpu, or mend the driver",
        ) from error
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Device(device, name)


def convolution_dtype(precision: Precision) -> torch.dtype:
    """Return what convolutions compute in; statistics and losses are always float32."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32

"""Selection of the device."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from styled.degradation import Degradation
from styled.engine.determinism import fix_cublas_workspace
from styled.errors import DeviceError

GPU_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""Created by the drivers of NVIDIA, AMD and WSL, to find GPUs that torch can't use and omits."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that has been tested and works.

    Attributes:
        torch_device: For tensors.
        name: For display, such as `NVIDIA H200` or `cpu`.
        degradation: Why no GPU is used, or None.
    """

    torch_device: torch.device
    name: str
    degradation: Degradation | None = None

    @property
    def model(self) -> str:
        """The exact model, such as `NVIDIA H200` or `AMD EPYC 7763 (AVX2)`."""
        return device_model(self.torch_device)


def device_name(device: torch.device) -> str:
    """Return a GPU's model, else `cpu` or `mps`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def device_model(device: torch.device) -> str:
    """Return a GPU's model, or a CPU's with the instruction set that torch's kernels use."""
    match device.type:
        case "cuda":
            return torch.cuda.get_device_name(device)
        case "mps":
            return _apple_gpu()
        case _:
            return f"{_cpu_model()} ({torch.backends.cpu.get_cpu_capability()})"


def _apple_gpu() -> str:
    # Not in torch 2.6.
    get_name = getattr(torch.backends.mps, "get_name", None)
    return str(get_name()) if get_name is not None else f"Apple GPU ({platform.machine()})"


CPUINFO = Path("/proc/cpuinfo")


@cache
def _cpu_model() -> str:
    """Return the model name from Linux; on ARM and other systems the architecture."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, names), platform.processor() or platform.machine() or "unknown CPU")


def choose_device(requested: str, *, deterministic: bool = True) -> Device:
    """Return the device for a value of `engine.device`.

    Args:
        requested: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`. `auto` takes the first GPU that
            works and falls back to the CPU, with a degradation; a named device must exist.
        deterministic: Whether to prepare CUDA for deterministic algorithms, see `determinism`.

    Raises:
        DeviceError: the named device is missing or does not work, or the name is unknown.
    """
    if deterministic:
        fix_cublas_workspace()
    if requested == "auto":
        broken = None
        for candidate in ("cuda", "mps"):
            try:
                return _probe(torch.device(candidate))
            except DeviceError as error:
                if _is_present(candidate):
                    broken = broken or error.message.removeprefix("engine.device: ")
        found = "no GPU was found" if broken is None else f"a GPU was found, but {broken}"
        degradation = Degradation("device", f"{found}: running on the CPU")
        return Device(torch.device("cpu"), "cpu", degradation)
    try:
        device = torch.device(requested)
    except RuntimeError:
        raise DeviceError(
            f'engine.device: there is no device "{requested}"',
            "use auto, cpu, cuda, cuda:1 or mps",
        ) from None
    return _probe(device)


def _is_present(kind: str) -> bool:
    """Return whether a GPU of this kind exists, working or not."""
    if kind == "mps":
        return torch.backends.mps.is_available()
    return any(map(os.path.exists, GPU_DEVICE_FILES))


def _probe(device: torch.device) -> Device:
    try:
        # A listed GPU may still not work: an incompatible driver fails at the first kernel.
        torch.zeros(8, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f"engine.device: {device} does not work here: {str(error).splitlines()[0]}",
            "set engine.device to auto or cpu, or mend the driver",
        ) from error
    return Device(device, device_name(device))

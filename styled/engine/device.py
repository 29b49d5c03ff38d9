"""Which device and precision the engine runs in."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from styled.degradation import Degradation
from styled.engine.determinism import fix_cublas_workspace
from styled.errors import DeviceError

Precision = Literal["auto", "float32", "bfloat16"]


GPU_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA, AMD and WSL create; torch itself counts only GPUs that work."""


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
    degraded: Degradation | None = None

    @property
    def model(self) -> str:
        """What exactly it is, such as `NVIDIA H200` or `AMD EPYC 7763 (AVX2)`."""
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
    """Return the model's name as Linux has it; ARM and other systems have the architecture."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, names), platform.processor() or platform.machine() or "unknown CPU")


def choose_device(requested: str, *, deterministic: bool = True) -> Device:
    """Return the device that `engine.device` asks for.

    Args:
        requested: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`. `auto` takes the first GPU that
            works and falls back to the CPU, saying so; a named device must be there.
        deterministic: Whether CUDA is to be initialised for deterministic algorithms, see
            `determinism`.

    Raises:
        DeviceError: the named device is missing, does not work, or has no such name.
    """
    if deterministic:
        fix_cublas_workspace()
    if requested == "auto":
        broken = None
        for candidate in ("cuda", "mps"):
            try:
                return _tried(torch.device(candidate))
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
    return _tried(device)


def _is_present(kind: str) -> bool:
    """Tell whether there is a GPU of this kind at all, whether or not it works."""
    if kind == "mps":
        return torch.backends.mps.is_available()
    return any(map(os.path.exists, GPU_DEVICE_FILES))


def _tried(device: torch.device) -> Device:
    try:
        # Listing a GPU proves little: a driver that does not fit fails at the first kernel.
        torch.zeros(8, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f"engine.device: {device} does not work here: {str(error).splitlines()[0]}",
            "set engine.device to auto or cpu, or mend the driver",
        ) from error
    return Device(device, device_name(device))


WORTH_IT = 0.75
"""bfloat16 is taken by itself where it needs at most this share of float32's time."""


def convolution_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return what convolutions compute in; statistics and losses are always float32.

    `auto` measures: there are devices that compute in bfloat16 several times faster, and
    others that only emulate it.
    """
    if precision == "auto":
        return torch.bfloat16 if bfloat16_share(device) <= WORTH_IT else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def bfloat16_share(device: torch.device) -> float:
    """Return the time of a convolution in bfloat16 over that in float32, both ways, by trial."""
    try:
        # Where it is emulated it may take a hundred times as long: then a small trial will do.
        share = _share(device, _SMALL_EDGE_PX, trials=2)
        if share > _HOPELESS:
            return share
        return _share(device, _EDGE_PX.get(device.type, 96), _TRIALS)
    except (RuntimeError, NotImplementedError):
        return float("inf")  # not on this device


def _share(device: torch.device, edge_px: int, trials: int) -> float:
    fast, exact = (
        min(_seconds(device, dtype, edge_px) for _ in range(trials))
        for dtype in (torch.bfloat16, torch.float32)
    )
    return fast / exact


_HOPELESS = 4.0
_SMALL_EDGE_PX = 16
_TRIALS = 4  # of which the first pays for what is loaded on demand
_CHANNELS = 128
_EDGE_PX = {"cpu": 96, "cuda": 512, "mps": 256}  # enough work to time that, not its launch


def _seconds(device: torch.device, dtype: torch.dtype, edge_px: int) -> float:
    features = torch.ones(1, _CHANNELS, edge_px, edge_px, device=device, dtype=dtype)
    kernel = torch.ones(_CHANNELS, _CHANNELS, 3, 3, device=device, dtype=dtype)
    features.requires_grad_()
    _wait_for(device)
    begun = time.perf_counter()
    result = torch.nn.functional.conv2d(features, kernel, padding=1)
    torch.autograd.grad(result, features, torch.ones_like(result))
    _wait_for(device)
    return time.perf_counter() - begun


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

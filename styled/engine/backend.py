"""How the layers of VGG-19 are computed: by torch, or on CPUs by `styled.engine.cpu`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.cpu.arena import ActivationArena
from styled.engine.cpu.backend import CpuBackend
from styled.engine.cpu.layers import LayerBuffers, l2_pool
from styled.engine.memory import MMAP_THRESHOLD_WITHOUT_ARENA
from styled.recipes import Pooling


class Convolution(Protocol):
    """A frozen 3 x 3 convolution."""

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias, as they are now."""

    @property
    def lazy_bytes(self) -> int:
        """By how many bytes it will grow when it is first used."""

    def __call__(
        self, features: Tensor, *, padding: int, relu: bool, buffers: LayerBuffers
    ) -> Tensor:
        """Convolve 1 x in x H x W, optionally followed by a ReLU."""


class Backend(Protocol):
    """Computes layers, forward and backward.

    `buffers` are those of an arena of this backend, or `NO_BUFFERS`.

    Attributes:
        mmap_threshold: What suits it as argument of `memory.configure_allocator`.
    """

    mmap_threshold: int

    def convolution(self, kernel: Tensor, bias: Tensor) -> Convolution:
        """Prepare a convolution from its kernel, out x in x 3 x 3, and bias, out."""

    def relu(self, features: Tensor, buffers: LayerBuffers) -> Tensor:
        """Return the ReLU of features of any shape."""

    def pool(self, features: Tensor, pooling: Pooling, buffers: LayerBuffers) -> Tensor:
        """Return 1xCxHxW pooled by 2 x 2.

        `max`: the maximum; `average`; `average_rescaled`: twice the average; `l2`: see `l2_pool`.
        """

    def arena(
        self, layers: Collection[str], sizes: Iterable[tuple[int, int]]
    ) -> ActivationArena | None:
        """Return buffers for passes over images of these heights and widths; None: not needed."""


def backend_for(device: torch.device, dtype: torch.dtype) -> Backend:
    """Return the backend for a device and the dtype of the convolutions."""
    if uses_cpu_backend(device.type, dtype):
        return CpuBackend()
    return TorchBackend(layout_on(device))


def uses_cpu_backend(device_type: str, precision: torch.dtype) -> bool:
    """Return whether layers are computed by `styled.engine.cpu`: on CPUs, in float32 only.

    GPU libraries choose fast algorithms such as Winograd's by themselves, and torch's caching
    allocator manages GPU memory well. In bfloat16 some of these algorithms are not accurate
    enough. float64 is for exact references, which use the direct convolution.
    """
    return device_type == "cpu" and precision == torch.float32


def layout_on(device: torch.device) -> torch.memory_format:
    """Return the memory format of features on a device: channels-last, except on MPS.

    oneDNN and cuDNN otherwise convert to channels-last and back at each convolution. Apple's
    libraries expect contiguous channels.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


class TorchConvolution:
    """A convolution by torch's own operation."""

    lazy_bytes = 0

    def __init__(self, kernel: Tensor, bias: Tensor) -> None:
        self._kernel, self._bias = kernel, bias

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """See `Convolution`."""
        return self._kernel, self._bias

    def __call__(
        self, features: Tensor, *, padding: int, relu: bool, buffers: LayerBuffers
    ) -> Tensor:
        """See `Convolution`."""
        convolved = F.conv2d(features, self._kernel, self._bias, padding=padding)
        return F.relu_(convolved) if relu else convolved


class TorchBackend:
    """Layers by torch's own operations, on any device and in any dtype; torch allocates them."""

    mmap_threshold = MMAP_THRESHOLD_WITHOUT_ARENA

    def __init__(self, layout: torch.memory_format) -> None:
        """Keep kernels in this memory format."""
        self._layout = layout

    def convolution(self, kernel: Tensor, bias: Tensor) -> Convolution:
        """See `Backend`."""
        return TorchConvolution(kernel.contiguous(memory_format=self._layout), bias)

    def relu(self, features: Tensor, buffers: LayerBuffers) -> Tensor:
        """See `Backend`."""
        return F.relu(features)

    def pool(self, features: Tensor, pooling: Pooling, buffers: LayerBuffers) -> Tensor:
        """See `Backend`."""
        if pooling == "max":
            return F.max_pool2d(features, 2)
        if pooling == "l2":
            return l2_pool(features)
        pooled = F.avg_pool2d(features, 2)
        return pooled * 2 if pooling == "average_rescaled" else pooled

    def arena(
        self, layers: Collection[str], sizes: Iterable[tuple[int, int]]
    ) -> ActivationArena | None:
        """Return None: torch's allocator reuses freed memory well."""
        return None

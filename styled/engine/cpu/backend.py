"""The layers of VGG-19 on CPUs in float32; see `styled.engine.backend.Backend`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from styled.engine.cpu import layers, winograd
from styled.engine.cpu.arena import ActivationArena
from styled.engine.cpu.layers import LayerBuffers
from styled.engine.memory import MMAP_THRESHOLD_WITH_ARENA
from styled.recipes import Pooling


class DirectConvolution:
    """A convolution by torch's own operation, band by band."""

    lazy_bytes = 0

    def __init__(self, kernel: Tensor, bias: Tensor) -> None:
        self._kernel = kernel.contiguous(memory_format=torch.channels_last)
        self._bias = bias

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias."""
        return self._kernel, self._bias

    def __call__(
        self, features: Tensor, *, padding: int, relu: bool, buffers: LayerBuffers
    ) -> Tensor:
        """Convolve 1 x in x H x W, optionally followed by a ReLU."""
        return layers.convolve(
            features, self._kernel, self._bias, padding=padding, relu=relu, buffers=buffers
        )


class WinogradConvolution:
    """A convolution by Winograd's algorithm.

    Its kernel is transformed on first use, not in advance: it is then four times as large.
    """

    def __init__(self, kernel: Tensor, bias: Tensor) -> None:
        self._kernel = kernel
        self._bias = bias
        self._is_transformed = False

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Kernel, transformed or not yet, and bias."""
        return self._kernel, self._bias

    @property
    def lazy_bytes(self) -> int:
        """By how many bytes the kernel will grow when it is first used."""
        return 0 if self._is_transformed else (winograd.KERNEL_SIZE_RATIO - 1) * self._kernel.nbytes

    def __call__(
        self, features: Tensor, *, padding: int, relu: bool, buffers: LayerBuffers
    ) -> Tensor:
        """Convolve 1 x in x H x W, optionally followed by a ReLU; `padding` must be one."""
        assert padding == 1
        if not self._is_transformed:
            self._kernel = winograd.transform_kernel(self._kernel)
            self._is_transformed = True
        return layers.winograd_convolve(
            features, self._kernel, self._bias, relu=relu, buffers=buffers
        )


class CpuBackend:
    """Fused layers, Winograd's convolutions where they are faster, and an arena."""

    mmap_threshold = MMAP_THRESHOLD_WITH_ARENA

    def convolution(self, kernel: Tensor, bias: Tensor) -> DirectConvolution | WinogradConvolution:
        """Prepare a convolution by the faster algorithm for its numbers of channels."""
        channels_out, channels_in = kernel.shape[:2]
        if winograd.is_faster_for(channels_in, channels_out):
            return WinogradConvolution(kernel, bias)
        return DirectConvolution(kernel, bias)

    def relu(self, features: Tensor, buffers: LayerBuffers) -> Tensor:
        """Return the ReLU of features of any shape."""
        return layers.rectify(features, buffers)

    def pool(self, features: Tensor, pooling: Pooling, buffers: LayerBuffers) -> Tensor:
        """See `Backend`."""
        return layers.pool(features, pooling, buffers)

    def arena(self, layers: Collection[str], sizes: Iterable[tuple[int, int]]) -> ActivationArena:
        """Return buffers for passes over images of these heights and widths, or smaller ones."""
        return ActivationArena(layers, sizes)

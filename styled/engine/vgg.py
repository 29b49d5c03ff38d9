"""VGG-19 as a frozen feature extractor with named layers.

Only the layers up to the deepest requested one are run. The layers are those of Simonyan and
Zisserman, "Very Deep Convolutional Networks" (2015), configuration E.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine.cpu import layers as cpu_layers
from styled.engine.cpu import winograd
from styled.engine.cpu.layers import NO_BUFFERS, LayerBuffers
from styled.errors import ConfigError
from styled.recipes import (
    CONVOLUTIONS_PER_BLOCK,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LAYER_NAMES,
    FirstPadding,
    Pooling,
)

CHANNELS_PER_BLOCK = (64, 128, 256, 512, 512)
CONVOLUTION_NAMES: tuple[str, ...] = tuple(n for n in LAYER_NAMES if n.startswith("conv"))

Convolutions = Mapping[str, tuple[Tensor, Tensor]]
"""Layer name -> kernel (out x in x 3 x 3) and bias (out)."""


@cache
def convolution_shapes() -> dict[str, tuple[int, int]]:
    """Return the output and input channels of every convolution, by layer name."""
    shapes: dict[str, tuple[int, int]] = {}
    channels_in = 3
    for block, (count, channels) in enumerate(
        zip(CONVOLUTIONS_PER_BLOCK, CHANNELS_PER_BLOCK, strict=True), start=1
    ):
        for i in range(1, count + 1):
            shapes[f"conv{block}_{i}"] = (channels, channels_in)
            channels_in = channels
    return shapes


def needed_slice(layers: Collection[str]) -> tuple[str, ...]:
    """Return the layers to run, in order, so that all of `layers` are computed.

    Raises:
        ConfigError: a name is not a layer of VGG-19.
    """
    unknown = sorted(set(layers) - set(LAYER_NAMES))
    if unknown:
        raise ConfigError(
            f"VGG-19 has no layer {', '.join(unknown)}", f"its layers are {', '.join(LAYER_NAMES)}"
        )
    deepest = max(LAYER_NAMES.index(name) for name in layers)
    return LAYER_NAMES[: deepest + 1]


def block_of(layer: str) -> int:
    """Return the number of the block, from 1 to 5, that a layer belongs to."""
    return int(layer.removeprefix("conv").removeprefix("relu").removeprefix("pool")[0])


def channels_of(layer: str) -> int:
    """Return the number of channels of a layer."""
    return CHANNELS_PER_BLOCK[block_of(layer) - 1]


def layout_on(device: torch.device) -> torch.memory_format:
    """Return the memory format of features on a device: channels-last, except on MPS.

    oneDNN and cuDNN otherwise convert to channels-last and back at each convolution. Apple's
    libraries expect contiguous channels.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def uses_cpu_backend(device_type: str, precision: torch.dtype) -> bool:
    """Return whether layers are computed by `styled.engine.cpu`: on CPUs, in float32 only.

    GPU libraries choose fast algorithms such as Winograd's by themselves, and torch's caching
    allocator manages GPU memory well. In bfloat16 some of these algorithms are not accurate
    enough. float64 is for exact references, which use the direct convolution.
    """
    return device_type == "cpu" and precision == torch.float32


class ProgressCounter:
    """Counts layers completed in forward and backward passes.

    A step of a large image may take minutes. Other threads read this counter to distinguish a
    slow step from a stuck one: while it grows, the network makes progress.
    """

    def __init__(self) -> None:
        self.layers = 0


class Vgg19:
    """The resident network: frozen convolutions on one device in one precision.

    Attributes:
        device: Where the network runs.
        dtype: The dtype of the convolutions and of the features.
        progress: Shared with the float32 copy, see `in_float32`.
    """

    def __init__(
        self,
        convolutions: Convolutions,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        progress: ProgressCounter | None = None,
    ) -> None:
        """Copy `convolutions` (see `weights`) to `device` as `dtype`, detached from autograd."""
        self.progress = progress or ProgressCounter()
        self.device = torch.device(device)
        self.dtype = dtype
        self._source = {} if dtype == torch.float32 else convolutions
        self._float32: Vgg19 | None = None
        self._kernels: dict[str, Tensor] = {}
        self._biases: dict[str, Tensor] = {}
        for name, (kernel, bias) in convolutions.items():
            kernel, bias = (x.detach().to(self.device, dtype) for x in (kernel, bias))
            if not self._uses_winograd(name):
                kernel = kernel.contiguous(memory_format=layout_on(self.device))
            self._kernels[name], self._biases[name] = kernel, bias

    def in_float32(self) -> Vgg19:
        """Return the same network in float32, created on first use."""
        if self.dtype == torch.float32:
            return self
        if self._float32 is None:
            self._float32 = Vgg19(self._source, self.device, torch.float32, self.progress)
        return self._float32

    def features(
        self,
        image: Tensor,
        layers: Collection[str],
        *,
        pooling: Pooling = "max",
        first_padding: FirstPadding = "zeros",
        buffers: Mapping[str, LayerBuffers] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Return the activations of the named layers.

        Args:
            image: 1x3xHxW, normalised if the recipe says so.
            layers: Names from `LAYER_NAMES`.
            pooling: The pooling at the end of a block. `average_rescaled` doubles the average,
                which keeps activations close in size to those of max pooling.
            first_padding: The padding of the first convolution.
            buffers: Layer name -> preallocated buffers, see `ActivationArena`; only used if
                `uses_cpu_backend`. Overwrites features returned by an earlier pass with the
                same buffers.

        Returns:
            Layer name -> 1xCxhxw in the network's dtype.

        Raises:
            ConfigError: a layer does not exist.
        """
        requested = frozenset(layers)
        activations: dict[str, Tensor] = {}
        x = image.to(self.dtype)
        if first_padding == "replicate":
            x = _pad_replicate(x)
        x = x.contiguous(memory_format=layout_on(self.device))
        for name in needed_slice(requested):
            self.progress.layers += 1
            layer_buffers = buffers.get(name, NO_BUFFERS)
            if name.startswith("conv"):
                is_padded = name == "conv1_1" and first_padding == "replicate"
                # The ReLU is fused into the convolution, unless the convolution's own output is
                # requested. The deepest layer is always requested, so no ReLU is added to it.
                relu = name not in requested
                x = self._convolve(name, x, 0 if is_padded else 1, relu, layer_buffers)
            elif name.startswith("relu"):
                x = self._rectify(x, layer_buffers) if f"conv{name[4:]}" in requested else x
            else:
                x = self._pool(x, pooling, layer_buffers)
            if name in requested:
                activations[name] = x
        return activations

    @property
    def uses_cpu_backend(self) -> bool:
        """Whether layers are computed by `styled.engine.cpu`, see the function of this name."""
        return uses_cpu_backend(self.device.type, self.dtype)

    def lazy_weight_bytes(self, layers: Collection[str]) -> int:
        """Return by how many bytes the weights will grow when these layers are first run.

        Kernels of Winograd convolutions are transformed, and so enlarged, on first use.
        """
        convolutions = (name for name in needed_slice(layers) if name.startswith("conv"))
        untransformed = [self._kernels[name] for name in convolutions if not self._is_ready(name)]
        return sum((winograd.KERNEL_SIZE_RATIO - 1) * kernel.nbytes for kernel in untransformed)

    def _convolve(
        self, name: str, x: Tensor, padding: int, relu: bool, buffers: LayerBuffers
    ) -> Tensor:
        if not self._is_ready(name):
            self._kernels[name] = winograd.transform_kernel(self._kernels[name])
        kernel, bias = self._kernels[name], self._biases[name]
        if self.uses_cpu_backend:
            return cpu_layers.convolve(x, kernel, bias, padding=padding, relu=relu, buffers=buffers)
        x = F.conv2d(x, kernel, bias, padding=padding)
        return F.relu_(x) if relu else x

    def _rectify(self, x: Tensor, buffers: LayerBuffers) -> Tensor:
        return cpu_layers.rectify(x, buffers) if self.uses_cpu_backend else F.relu(x)

    def _pool(self, x: Tensor, pooling: Pooling, buffers: LayerBuffers) -> Tensor:
        if self.uses_cpu_backend:
            return cpu_layers.pool(x, pooling, buffers)
        if pooling == "max":
            return F.max_pool2d(x, 2)
        x = F.avg_pool2d(x, 2)
        return x * 2 if pooling == "average_rescaled" else x

    def _is_ready(self, name: str) -> bool:
        # A transformed kernel (3 dimensions instead of 4) is four times as large, so kernels are
        # transformed on first use, not in advance.
        return not self._uses_winograd(name) or self._kernels[name].dim() == 3

    def _uses_winograd(self, name: str) -> bool:
        channels_out, channels_in = convolution_shapes()[name]
        return self.uses_cpu_backend and winograd.is_faster_for(channels_in, channels_out)


def _pad_replicate(image: Tensor) -> Tensor:
    """Replicate-pad 1xCxHxW by one pixel on each side; `cat` is deterministic on GPUs, too."""
    image = torch.cat([image[..., :1], image, image[..., -1:]], dim=-1)
    return torch.cat([image[..., :1, :], image, image[..., -1:, :]], dim=-2)


def normalize(image: Tensor) -> Tensor:
    """Normalise 1x3xHxW sRGB in [0, 1] by ImageNet's mean and standard deviation."""
    mean, std = _mean_and_std(image.device, image.dtype)
    return (image - mean) / std


def denormalize(image: Tensor) -> Tensor:
    """Undo `normalize`."""
    mean, std = _mean_and_std(image.device, image.dtype)
    return image * std + mean


@cache  # each copy from the host to a GPU would wait for all queued kernels
def _mean_and_std(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(values, device=device, dtype=dtype).view(1, 3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return mean, std

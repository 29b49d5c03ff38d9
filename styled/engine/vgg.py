"""VGG-19 as a frozen feature extractor with named layers.

Only the layers up to the deepest requested one are run. The layers are those of Simonyan and
Zisserman, "Very Deep Convolutional Networks" (2015), configuration E.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from styled.engine.backend import backend_for, layout_on
from styled.engine.cpu.layers import NO_BUFFERS, LayerBuffers
from styled.engine.vgg_layers import needed_slice
from styled.recipes import IMAGENET_MEAN, IMAGENET_STD, FirstPadding, Pooling

Convolutions = Mapping[str, tuple[Tensor, Tensor]]
"""Layer name -> kernel (out x in x 3 x 3) and bias (out)."""


class ProgressCounter:
    """Counts layers completed in forward and backward passes.

    A step of a large image may take minutes. Other threads read this counter to distinguish a
    slow step from a stalled one: while it grows, the network makes progress.
    """

    def __init__(self) -> None:
        self.layers = 0


class Vgg19:
    """The resident network: frozen convolutions on one device in one precision.

    Attributes:
        device: Where the network runs.
        dtype: The dtype of the convolutions and of the features.
        backend: Computes the layers.
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
        self.backend = backend_for(self.device, dtype)
        self._convolutions = {
            name: self.backend.convolution(
                *(tensor.detach().to(self.device, dtype) for tensor in convolution)
            )
            for name, convolution in convolutions.items()
        }

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
            buffers: Layer name -> preallocated buffers, of an arena of the network's backend.
                Features returned by an earlier pass with the same buffers are overwritten.

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
                x = self._convolutions[name](
                    x, padding=0 if is_padded else 1, relu=name not in requested,
                    buffers=layer_buffers,
                )  # fmt: skip
            elif name.startswith("pool"):
                x = self.backend.pool(x, pooling, layer_buffers)
            elif f"conv{name.removeprefix('relu')}" in requested:
                x = self.backend.relu(x, layer_buffers)
            if name in requested:
                activations[name] = x
        return activations

    def lazy_weight_bytes(self, layers: Collection[str]) -> int:
        """Return by how many bytes the weights will grow when these layers are first run."""
        return sum(
            self._convolutions[name].lazy_bytes
            for name in needed_slice(layers)
            if name.startswith("conv")
        )


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

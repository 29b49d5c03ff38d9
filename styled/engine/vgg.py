"""VGG-19 as a frozen feature extractor with named layers.

Only the slice up to the deepest layer that is asked for is run. The layers are those
of Simonyan and Zisserman, "Very Deep Convolutional Networks" (2015), configuration E.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.engine import cpu_layers, winograd
from styled.engine.cpu_layers import NO_ROOM, Room
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
    """Return how many channels a layer has."""
    return CHANNELS_PER_BLOCK[block_of(layer) - 1]


def layout_on(device: torch.device) -> torch.memory_format:
    """Return how features lie in memory: with all channels of a position side by side.

    So the libraries of CPUs and of NVIDIA's GPUs want them: otherwise they bring them into that
    order and back at each convolution. Apple's want whole channels one after the other.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def has_own_layers(device_type: str, precision: torch.dtype) -> bool:
    """Tell whether layers are computed by `cpu_layers`.

    GPUs have libraries that choose such ways by themselves, and torch keeps their memory well.
    In bfloat16 some of those ways are not exact enough; and whoever wants float64 wants the
    definition.
    """
    return device_type == "cpu" and precision == torch.float32


class Odometer:
    """Counts the layers that have been worked through, there and back.

    A step of a large picture may take minutes. Whoever wants to know whether it has got stuck
    looks at this number, from any thread: as long as it grows, work goes on.
    """

    def __init__(self) -> None:
        self.layers = 0


class Vgg19:
    """The resident network: frozen convolutions on one device in one precision.

    Attributes:
        device: Where the network runs.
        dtype: What the convolutions compute in; features come out in this type.
        odometer: Shared by all precisions of the network.
    """

    def __init__(
        self,
        convolutions: Convolutions,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        odometer: Odometer | None = None,
    ) -> None:
        """Put a frozen copy of `convolutions` (see `weights`) on `device` as `dtype`."""
        self.odometer = odometer or Odometer()
        self.device = torch.device(device)
        self.dtype = dtype
        self._source = {} if dtype == torch.float32 else convolutions
        self._float32: Vgg19 | None = None
        self._kernels: dict[str, Tensor] = {}
        self._biases: dict[str, Tensor] = {}
        for name, (kernel, bias) in convolutions.items():
            kernel, bias = (x.detach().to(self.device, dtype) for x in (kernel, bias))
            if not self._goes_by_tiles(name):
                kernel = kernel.contiguous(memory_format=layout_on(self.device))
            self._kernels[name], self._biases[name] = kernel, bias

    def in_float32(self) -> Vgg19:
        """Return the same network in float32, made when it is first asked for."""
        if self.dtype == torch.float32:
            return self
        if self._float32 is None:
            self._float32 = Vgg19(self._source, self.device, torch.float32, self.odometer)
        return self._float32

    def features(
        self,
        image: Tensor,
        layers: Collection[str],
        *,
        pooling: Pooling = "max",
        first_padding: FirstPadding = "zeros",
        rooms: Mapping[str, Room] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Return the activations of the named layers.

        Args:
            image: 1x3xHxW, normalised where the recipe asks for it.
            layers: Names from `LAYER_NAMES`.
            pooling: What ends a block. `average_rescaled` doubles the average, which
                keeps the size of activations close to that of max pooling.
            first_padding: How the first convolution sees beyond the picture's edge.
            rooms: Where layers write, see `Workplace`; for a network that `has_own_layers`. What
                has been written there by another pass, which may be its result, is lost.

        Returns:
            Layer name -> 1xCxhxw in the network's dtype.

        Raises:
            ConfigError: a layer does not exist.
        """
        wanted = frozenset(layers)
        found: dict[str, Tensor] = {}
        x = image.to(self.dtype)
        if first_padding == "replicate":
            x = _replicated(x)
        x = x.contiguous(memory_format=layout_on(self.device))
        for name in needed_slice(wanted):
            self.odometer.layers += 1
            room = rooms.get(name, NO_ROOM)
            if name.startswith("conv"):
                is_padded = name == "conv1_1" and first_padding == "replicate"
                # Rectified at once, it would not be there for whom asks for it, or for the end.
                rectified = name not in wanted
                x = self._convolve(name, x, 0 if is_padded else 1, rectified, room)
            elif name.startswith("relu"):
                x = self._rectify(x, room) if f"conv{name[4:]}" in wanted else x
            else:
                x = self._pool(x, pooling, room)
            if name in wanted:
                found[name] = x
        return found

    @property
    def has_own_layers(self) -> bool:
        """Whether layers are computed by `cpu_layers`, see the function of this name."""
        return has_own_layers(self.device.type, self.dtype)

    def growth(self, layers: Collection[str]) -> int:
        """Return by how many bytes the network will grow when these layers are first run."""
        convolutions = (name for name in needed_slice(layers) if name.startswith("conv"))
        unready = [self._kernels[name] for name in convolutions if not self._is_ready(name)]
        return sum((winograd.TIMES_LARGER - 1) * kernel.nbytes for kernel in unready)

    def _convolve(self, name: str, x: Tensor, padding: int, rectified: bool, room: Room) -> Tensor:
        if not self._is_ready(name):
            self._kernels[name] = winograd.transformed(self._kernels[name])
        kernel, bias = self._kernels[name], self._biases[name]
        if self.has_own_layers:
            return cpu_layers.convolve(
                x, kernel, bias, padding=padding, rectified=rectified, room=room
            )
        x = F.conv2d(x, kernel, bias, padding=padding)
        return F.relu_(x) if rectified else x

    def _rectify(self, x: Tensor, room: Room) -> Tensor:
        return cpu_layers.rectify(x, room) if self.has_own_layers else F.relu(x)

    def _pool(self, x: Tensor, pooling: Pooling, room: Room) -> Tensor:
        if self.has_own_layers:
            return cpu_layers.pool(x, pooling, room)
        if pooling == "max":
            return F.max_pool2d(x, 2)
        x = F.avg_pool2d(x, 2)
        return x * 2 if pooling == "average_rescaled" else x

    def _is_ready(self, name: str) -> bool:
        # At all pairs of points a kernel has four times the size: only those of layers that are
        # run are brought there.
        return not self._goes_by_tiles(name) or self._kernels[name].dim() == 3

    def _goes_by_tiles(self, name: str) -> bool:
        channels_out, channels_in = convolution_shapes()[name]
        return self.has_own_layers and winograd.pays(channels_in, channels_out)


def _replicated(image: Tensor) -> Tensor:
    """Repeat the border of 1xCxHxW once on each side; always in the same order, on GPUs too."""
    image = torch.cat([image[..., :1], image, image[..., -1:]], dim=-1)
    return torch.cat([image[..., :1, :], image, image[..., -1:, :]], dim=-2)


def normalize(image: Tensor) -> Tensor:
    """Map 1x3xHxW sRGB in [0, 1] to what the network was trained on."""
    mean, std = _mean_and_std(image.device, image.dtype)
    return (image - mean) / std


def denormalize(image: Tensor) -> Tensor:
    """Undo `normalize`."""
    mean, std = _mean_and_std(image.device, image.dtype)
    return image * std + mean


@cache  # on a GPU each copy from the host would wait for all that is being computed
def _mean_and_std(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(numbers, device=device, dtype=dtype).view(1, 3, 1, 1)
        for numbers in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return mean, std

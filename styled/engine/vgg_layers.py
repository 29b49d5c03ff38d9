"""The layers of VGG-19: names, channels, strides, and which are needed for others.

Simonyan and Zisserman, "Very Deep Convolutional Networks" (2015), configuration E.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from styled.errors import ConfigError
from styled.recipes import CONVOLUTIONS_PER_BLOCK, LAYER_NAMES

CHANNELS_PER_BLOCK = (64, 128, 256, 512, 512)
CONVOLUTION_NAMES: tuple[str, ...] = tuple(n for n in LAYER_NAMES if n.startswith("conv"))


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

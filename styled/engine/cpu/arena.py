"""Preallocated memory for the activations and gradients of a forward and backward pass.

A layer's output is needed until the backward pass has passed the layer; the gradient of a layer's
output only until that of its input exists. Both are laid out once, in one block. Activations are
laid out in layer order. Gradients alternate between the two ends of the space behind the live
activations. With many layers, the block is therefore hardly larger than the activations.

The C library's heap would need no more, except for the gaps between its blocks, which amount to
as much again (see `memory.configure_allocator`).
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import torch
from torch import Tensor

from styled.engine.cpu.layers import LayerBuffers
from styled.engine.memory import trim_heap
from styled.engine.vgg_layers import channels_of, needed_slice

_FLOAT32_BYTES: Final = 4

_ALIGNMENT: Final = 16
"""Buffers start at multiples of so many float32 elements, which is one cache line."""

# Private, as the C library maps memory: mmap's default would share it with forked processes.
_PRIVATE: Final[dict[str, Any]] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
)

Shape = tuple[int, int, int]
"""Channels, height and width."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer with an output buffer."""

    name: str
    shape: Shape

    @property
    def numel(self) -> int:
        """The size of the output in float32 elements, rounded up to the alignment."""
        channels, height, width = self.shape
        return -(-channels * height * width // _ALIGNMENT) * _ALIGNMENT


class ActivationArena:
    """Buffers for one pass at a time over images of certain sizes, or smaller ones.

    Features and their autograd graph are valid until the next forward pass, which overwrites the
    buffers.

    Attributes:
        layers: The requested layers.
    """

    def __init__(self, layers: Collection[str], sizes: Iterable[tuple[int, int]]) -> None:
        """Map as much memory as the largest pass needs; pages are allocated on first use.

        Args:
            layers: The requested layers, see `Vgg19.features`. A pass without backward may
                request a subset.
            sizes: Height and width of the images.

        Raises:
            MemoryError: the kernel refuses to map so much.
        """
        self.layers = frozenset(layers)
        numel = max(numel_needed(layers, height, width) for height, width in set(sizes))
        trim_heap()  # it holds freed activations, which will be in this block from now on
        try:
            # mmap instead of the C library's heap: unmapped as soon as it is unreferenced.
            block = mmap.mmap(-1, numel * _FLOAT32_BYTES, **_PRIVATE)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise MemoryError(f"out of memory: {error}") from error
        self._block = torch.frombuffer(block, dtype=torch.uint8).untyped_storage()

    def buffers(self, height: int, width: int) -> dict[str, LayerBuffers]:
        """Return the buffers of each layer in a pass over 1x3xHxW.

        A ReLU has none unless its convolution's own output is requested: otherwise it is fused
        into the convolution.
        """
        layers = _layers_with_output(self.layers, height, width)
        ends = list(accumulate(layer.numel for layer in layers))
        total = _total_numel(layers)
        buffers = {}
        for i, layer in enumerate(layers):
            grad_input = None
            if i:
                previous = layers[i - 1]
                # The gradient of this layer's output is at the other end, see `_total_numel`.
                grad_input = self._view_at(
                    ends[i] if i % 2 else total - previous.numel, previous.shape
                )
            buffers[layer.name] = LayerBuffers(
                self._view_at(ends[i] - layer.numel, layer.shape), grad_input
            )
        return buffers

    def _view_at(self, start: int, shape: Shape) -> Tensor:
        """Return a channels-last view of the block, 1 x `shape`, from element `start` on."""
        channels, height, width = shape
        strides = (channels * height * width, 1, width * channels, channels)
        return torch.empty(0, dtype=torch.float32, device="cpu").set_(
            self._block, start, (1, *shape), strides
        )


def numel_needed(layers: Collection[str], height: int, width: int) -> int:
    """Return the size of all buffers for a pass over 1x3xHxW, in float32 elements."""
    return _total_numel(_layers_with_output(layers, height, width))


def _total_numel(layers: list[_Layer]) -> int:
    """Return the size of a block for all outputs and, in the backward pass, for the gradients.

    The backward pass of a layer needs the outputs up to this layer and behind them the gradients
    of the layer's output and of its input. One of the two gradients starts where the outputs
    ended that were live when it was written; the other one is at the end of the block.
    """
    ends = list(accumulate(layer.numel for layer in layers))
    both = (
        ends[min(i + 1 - i % 2, len(layers) - 1)] + layers[i].numel + layers[i - 1].numel
        for i in range(1, len(layers))
    )
    return max(ends[-1], *both, 0)


def _layers_with_output(requested: Collection[str], height: int, width: int) -> list[_Layer]:
    """Return the layers to run that have an output buffer, in order.

    A ReLU has none unless its convolution's own output is requested.
    """
    layers, previous = [], ""
    for name in needed_slice(requested):
        if name.startswith("pool"):
            height, width = height // 2, width // 2
        if not (name.startswith("relu") and previous not in requested):
            layers.append(_Layer(name, (channels_of(name), height, width)))
        previous = name
    return layers

"""The memory in which a picture is looked at, there and back, again at every step.

What a layer makes of a picture is needed until the way back has passed it, and a slope only by
the layer before. All of it has its place in one block, found once: activations one after the
other, from the first layer on; slopes in what lies beyond the activations that are still needed,
in turn at its near and at its far end. So for many layers the block is hardly larger than the
activations.

The C library would do with as much, were it not for the gaps between its pieces, which come to
as much again (see `memory.keep_freed_memory`).
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor

from styled.engine.cpu_layers import Room
from styled.engine.memory import give_back_heap
from styled.engine.vgg import channels_of, needed_slice

_NUMBER_BYTES: Final = 4

_ALIGNMENT: Final = 16
"""Pieces begin at multiples of so many numbers, which is a line of a processor's cache."""

# As the C library maps memory; without it, processes that come of this one would share it.
_PRIVATE: Final = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
)

Shape = tuple[int, int, int]
"""Channels, height and width."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer that writes an output of its own."""

    name: str
    shape: Shape

    @property
    def numbers(self) -> int:
        """The size of the output, in numbers of float32."""
        channels, height, width = self.shape
        return -(-channels * height * width // _ALIGNMENT) * _ALIGNMENT


class Workplace:
    """Memory for one pass at a time over pictures of some size, or smaller.

    What a pass has found is there until the next one begins, and so is its way back, which nobody
    may go after that: it would lead over what the next one has written.
    """

    def __init__(self, layers: Collection[str], sizes: Iterable[tuple[int, int]]) -> None:
        """Take as much as the largest pass needs; the kernel gives it when it is first used.

        Args:
            layers: Those that are asked for, see `Vgg19.features`. A pass without a way back
                may ask for some of them.
            sizes: Height and width of the pictures.

        Raises:
            MemoryError: there is not as much.
        """
        self.layers = frozenset(layers)
        numbers = max(numbers_needed(layers, height, width) for height, width in set(sizes))
        give_back_heap()  # what lay there will lie here
        try:
            # Not of the C library's heap: it goes back to the kernel as soon as nobody needs it.
            block = mmap.mmap(-1, numbers * _NUMBER_BYTES, **_PRIVATE)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise MemoryError(f"out of memory: {error}") from error
        self._block = torch.frombuffer(block, dtype=torch.uint8).untyped_storage()

    def rooms(self, height: int, width: int) -> dict[str, Room]:
        """Return where each layer writes in a pass over 1x3xHxW.

        A ReLU has none where nobody asks for its convolution's own output: it is done in place.
        """
        layers = _written(self.layers, height, width)
        ends = list(accumulate(layer.numbers for layer in layers))
        total = _total(layers)
        rooms = {}
        for i, layer in enumerate(layers):
            slope = None
            if i:
                before = layers[i - 1]
                # The slope by this layer's output is at the other end, see `_total`.
                slope = self._at(ends[i] if i % 2 else total - before.numbers, before.shape)
            rooms[layer.name] = Room(self._at(ends[i] - layer.numbers, layer.shape), slope)
        return rooms

    def _at(self, start: int, shape: Shape) -> Tensor:
        channels, height, width = shape
        strides = (channels * height * width, 1, width * channels, channels)
        return torch.empty(0, dtype=torch.float32, device="cpu").set_(
            self._block, start, (1, *shape), strides
        )


def numbers_needed(layers: Collection[str], height: int, width: int) -> int:
    """Return how many numbers of float32 a pass over 1x3xHxW needs room for."""
    return _total(_written(layers, height, width))


def _total(layers: list[_Layer]) -> int:
    """Return how many numbers fit all outputs, and at each layer those that are still needed.

    Beyond them are the slopes by the layer's output and by its input, of which one begins where
    the outputs end that were needed when it was written.
    """
    ends = list(accumulate(layer.numbers for layer in layers))
    both = (
        ends[min(i + 1 - i % 2, len(layers) - 1)] + layers[i].numbers + layers[i - 1].numbers
        for i in range(1, len(layers))
    )
    return max(ends[-1], *both, 0)


def _written(wanted: Collection[str], height: int, width: int) -> list[_Layer]:
    """Return the layers of the slice that write an output of their own.

    A ReLU writes none where its convolution's own output is not wanted.
    """
    layers, previous = [], ""
    for name in needed_slice(wanted):
        if name.startswith("pool"):
            height, width = height // 2, width // 2
        if not (name.startswith("relu") and previous not in wanted):
            layers.append(_Layer(name, (channels_of(name), height, width)))
        previous = name
    return layers

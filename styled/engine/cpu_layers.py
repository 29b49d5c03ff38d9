"""The network's layers on a CPU in float32: there and back, in memory that is given to them.

A ReLU is done while the output of its convolution is still in the processor's cache, there as well
as back, and everything large is written to where a `Workplace` has it. Left to the C library, the
same memory is taken and freed at every step, and what lies between the pieces is lost.

Gradients flow to the features only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from styled.engine import winograd
from styled.recipes import Pooling

_BAND_NUMBERS: Final = 1 << 19
"""How many numbers of a layer are worked on at once, by whole rows, which should stay in the
processor's cache. Below `memory.SMALL_BLOCKS`, but for very long rows."""


@dataclass(frozen=True, slots=True)
class Room:
    """Where a layer writes.

    Attributes:
        output: Of the shape of its output; None: to memory of its own.
        slope: Of the shape of its input, for the slope by that; None: likewise.
    """

    output: Tensor | None = None
    slope: Tensor | None = None


NO_ROOM: Final = Room()


def convolve(
    features: Tensor,
    kernel: Tensor,
    bias: Tensor,
    *,
    padding: int = 1,
    rectified: bool = False,
    room: Room = NO_ROOM,
) -> Tensor:
    """Convolve features with a 3 x 3 kernel.

    Args:
        features: 1 x in x H x W.
        kernel: out x in x 3 x 3; or as `winograd.transformed` returns it, which wants a padding
            of one.
        bias: out.
        padding: How many zeros there are beyond each edge, up to two.
        rectified: Whether negative outputs become zero: a ReLU.
        room: Where output and slope are written.

    Returns:
        1 x out x H' x W', with all channels of a position side by side.
    """
    convolved: Tensor = _Convolution.apply(features, kernel, bias, padding, rectified, room)
    return convolved


def rectify(features: Tensor, room: Room = NO_ROOM) -> Tensor:
    """Return features with zeros in place of negative numbers."""
    rectified: Tensor = _Rectifier.apply(features, room)
    return rectified


def pool(features: Tensor, pooling: Pooling, room: Room = NO_ROOM) -> Tensor:
    """Return the maximum or the average of each 2 x 2 positions of 1 x C x H x W."""
    pooled: Tensor
    if pooling == "max":
        pooled = _MaxPooling.apply(features, room)
    else:
        pooled = _AveragePooling.apply(features, 2 if pooling == "average_rescaled" else 4, room)
    return pooled


# Each keeps where its slope goes, and not its room: with the output in it, and this kept by that,
# neither would ever be freed.


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        kernel: Tensor,
        bias: Tensor,
        padding: int,
        rectified: bool,
        room: Room,
    ) -> Tensor:
        if kernel.dim() == 3:
            output = winograd.convolve(
                features, kernel, bias, rectified=rectified, result=room.output
            )
        else:
            output = _by_bands(features, kernel, bias, padding, rectified, None, room.output)
        ctx.save_for_backward(kernel, *([output] if rectified else []))
        ctx.padding, ctx.place = padding, room.slope
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        kernel, *rest = ctx.saved_tensors
        outputs = rest[0] if rest else None
        result = ctx.place
        if kernel.dim() == 3:
            found = winograd.slope_by_features(slope, kernel, outputs, result)
        else:
            turned = kernel.flip(2, 3).transpose(0, 1)
            turned = turned.contiguous(memory_format=torch.channels_last)
            found = _by_bands(slope, turned, None, 2 - ctx.padding, False, outputs, result)
        return found, None, None, None, None, None


class _Rectifier(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, room: Room) -> Tensor:
        output = torch.clamp(features, min=0, out=_place(room.output, features))
        ctx.save_for_backward(output)
        ctx.place = room.slope
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        return winograd.masked(slope, output, _place(ctx.place, output)), None


class _MaxPooling(torch.autograd.Function):
    """Where the maxima are is found again on the way back.

    Remembered as torch does, in 64 bits each, it would be a sixth of all that a step holds.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, room: Room) -> Tensor:
        output = _pooled(features, room)
        _, _, height, width = output.shape
        seen = features[:, :, : 2 * height, : 2 * width]
        torch.maximum(seen[:, :, ::2, ::2], seen[:, :, ::2, 1::2], out=output)
        torch.maximum(output, seen[:, :, 1::2, ::2], out=output)
        torch.maximum(output, seen[:, :, 1::2, 1::2], out=output)
        ctx.save_for_backward(features)
        ctx.place = room.slope
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        result = _place(ctx.place, features)
        windows = slope.shape[2]
        for first, last in _bands(windows, 4 * slope.shape[1] * slope.shape[3]):
            # The last band has the row that may be left over.
            seen = slice(2 * first, 2 * last if last < windows else None)
            band = features[:, :, seen]
            _, maxima = F.max_pool2d(band, 2, return_indices=True)
            torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
                slope[:, :, first:last], band, [2, 2], [2, 2], [0, 0], [1, 1], False, maxima,
                grad_input=result[:, :, seen],
            )  # fmt: skip
        return result, None


class _AveragePooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, divisor: int, room: Room) -> Tensor:
        output = _pooled(features, room)
        torch.ops.aten.avg_pool2d.out(
            features, [2, 2], [2, 2], divisor_override=divisor, out=output
        )
        ctx.save_for_backward(features)
        ctx.divisor, ctx.place = divisor, room.slope
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (features,) = ctx.saved_tensors
        result = _place(ctx.place, features)
        torch.ops.aten.avg_pool2d_backward.grad_input(
            slope, features, [2, 2], [2, 2], [0, 0], False, True, ctx.divisor,
            grad_input=result,
        )  # fmt: skip
        return result, None, None


def _pooled(features: Tensor, room: Room) -> Tensor:
    """Return the place for half of the rows and columns of features."""
    if min(features.shape[2:]) < 2:
        raise RuntimeError(f"features of {tuple(features.shape)} are too small to be pooled")
    if room.output is not None:
        return room.output
    _, channels, height, width = features.shape
    return features.new_empty(1, height // 2, width // 2, channels).permute(0, 3, 1, 2)


def _by_bands(
    features: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    padding: int,
    rectified: bool,
    outputs: Tensor | None,
    result: Tensor | None,
) -> Tensor:
    """Convolve by the definition, some rows after the other.

    Args:
        features: 1 x in x H x W.
        kernel: out x in x 3 x 3.
        bias: out.
        padding: Zeros beyond each edge.
        rectified: Whether negative results become zero.
        outputs: Of a rectifier: where they are zero, so are the features.
        result: Where the result is written.
    """
    channels_out, channels_in, _, _ = kernel.shape
    high, wide = (edge + 2 * padding - 2 for edge in features.shape[2:])
    if result is None:
        result = features.new_empty(1, high, wide, channels_out).permute(0, 3, 1, 2)
    for first, last in _bands(high, wide * max(channels_in, channels_out)):
        top, bottom = first - padding, last - padding + 2
        inside = slice(max(top, 0), min(bottom, features.shape[2]))
        band = features[:, :, inside]
        if outputs is not None:
            band = winograd.masked(band, outputs[:, :, inside], torch.empty_like(band))
        above, below = max(-top, 0), max(bottom - features.shape[2], 0)
        if above or below:
            band = F.pad(band, (0, 0, above, below))
        convolved = F.conv2d(band, kernel, bias, padding=(0, padding))
        part = result[:, :, first:last]
        if rectified:
            torch.clamp(convolved, min=0, out=part)
        else:
            part.copy_(convolved)
    return result


def _bands(rows: int, row_numbers: int) -> Iterator[tuple[int, int]]:
    """Yield where to begin and to end if so many rows of so many numbers are taken in turn."""
    at_once = max(2, _BAND_NUMBERS // row_numbers)
    for first in range(0, rows, at_once):
        yield first, min(first + at_once, rows)


def _place(place: Tensor | None, like: Tensor) -> Tensor:
    return torch.empty_like(like) if place is None else place

"""Forward and backward of VGG-19's layers on CPU, float32.

Convolution and ReLU are fused band by band, forward and backward, so that a band stays in the
processor's cache. Outputs and input gradients go to preallocated buffers (`ActivationArena`):
allocating them every step fragments the heap.

Only features get a gradient; weights are constants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from styled.engine.cpu import winograd
from styled.recipes import Pooling

_BAND_NUMEL: Final = 1 << 19
"""Size of a band of whole rows in elements, which should fit into the processor's cache. In bytes
it is below `memory.MMAP_THRESHOLD_WITH_ARENA`, except for very long rows."""


@dataclass(frozen=True, slots=True)
class LayerBuffers:
    """The preallocated buffers of a layer.

    Attributes:
        output: Of the shape of the layer's output; None: newly allocated.
        grad_input: Of the shape of the layer's input, for the gradient with respect to it; None:
            newly allocated.
    """

    output: Tensor | None = None
    grad_input: Tensor | None = None


NO_BUFFERS: Final = LayerBuffers()


def convolve(
    features: Tensor,
    kernel: Tensor,
    bias: Tensor,
    *,
    padding: int = 1,
    relu: bool = False,
    buffers: LayerBuffers = NO_BUFFERS,
) -> Tensor:
    """Convolve features with a 3 x 3 kernel, optionally followed by a ReLU.

    Args:
        features: 1 x in x H x W.
        kernel: out x in x 3 x 3.
        bias: out.
        padding: Zero padding on each side, from 0 to 2.
        relu: Whether to apply a ReLU to the output.
        buffers: Where the output and the input gradient are written.

    Returns:
        1 x out x H' x W', channels-last.
    """
    convolved: Tensor = _DirectConvolution.apply(features, kernel, bias, padding, relu, buffers)
    return convolved


def winograd_convolve(
    features: Tensor,
    kernel: winograd.TransformedKernel,
    bias: Tensor,
    *,
    relu: bool = False,
    buffers: LayerBuffers = NO_BUFFERS,
) -> Tensor:
    """Convolve as `convolve` does, with a padding of one and a kernel already transformed."""
    convolved: Tensor = _WinogradConvolution.apply(features, kernel, bias, relu, buffers)
    return convolved


def rectify(features: Tensor, buffers: LayerBuffers = NO_BUFFERS) -> Tensor:
    """Return the ReLU of features of any shape."""
    rectified: Tensor = _ReLU.apply(features, buffers)
    return rectified


def pool(features: Tensor, pooling: Pooling, buffers: LayerBuffers = NO_BUFFERS) -> Tensor:
    """Return 1 x C x H x W pooled by 2 x 2; see `Backend.pool`."""
    pooled: Tensor
    if pooling == "max":
        pooled = _MaxPooling.apply(features, buffers)
    elif pooling == "l2":
        pooled = l2_pool(features, buffers.output, buffers.grad_input)
    else:
        pooled = _AveragePooling.apply(features, 2 if pooling == "average_rescaled" else 4, buffers)
    return pooled


# Save only the grad_input buffer on ctx. `LayerBuffers` also holds the output, and
# output -> grad_fn -> ctx -> output is a reference cycle, which would keep the memory alive.


class _DirectConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        kernel: Tensor,
        bias: Tensor,
        padding: int,
        relu: bool,
        buffers: LayerBuffers,
    ) -> Tensor:
        output = _conv2d_in_bands(features, kernel, bias, padding, relu, None, buffers.output)
        ctx.save_for_backward(kernel, *([output] if relu else []))
        ctx.padding, ctx.grad_input = padding, buffers.grad_input
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        kernel, *saved = ctx.saved_tensors
        relu_output = saved[0] if saved else None
        flipped = kernel.flip(2, 3).transpose(0, 1)
        flipped = flipped.contiguous(memory_format=torch.channels_last)
        grad_input = _conv2d_in_bands(
            grad, flipped, None, 2 - ctx.padding, False, relu_output, ctx.grad_input
        )
        return grad_input, None, None, None, None, None


class _WinogradConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        kernel: winograd.TransformedKernel,
        bias: Tensor,
        relu: bool,
        buffers: LayerBuffers,
    ) -> Tensor:
        output = winograd.convolve(features, kernel, bias, relu=relu, result=buffers.output)
        ctx.save_for_backward(kernel, *([output] if relu else []))
        ctx.grad_input = buffers.grad_input
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        kernel, *saved = ctx.saved_tensors
        relu_output = saved[0] if saved else None
        grad_input = winograd.conv2d_input_grad(grad, kernel, relu_output, ctx.grad_input)
        return grad_input, None, None, None, None


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, buffers: LayerBuffers) -> Tensor:
        output = torch.clamp(features, min=0, out=_buffer_or_empty(buffers.output, features))
        ctx.save_for_backward(output)
        ctx.grad_input = buffers.grad_input
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        return winograd.relu_backward(grad, output, _buffer_or_empty(ctx.grad_input, output)), None


class _MaxPooling(torch.autograd.Function):
    """Max pooling that recomputes the positions of the maxima in the backward pass.

    torch saves them as 64-bit indices, which would be a sixth of the memory of a step.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, buffers: LayerBuffers) -> Tensor:
        output = _pooling_output(features, buffers)
        _, _, height, width = output.shape
        pooled_part = features[:, :, : 2 * height, : 2 * width]
        torch.maximum(pooled_part[:, :, ::2, ::2], pooled_part[:, :, ::2, 1::2], out=output)
        torch.maximum(output, pooled_part[:, :, 1::2, ::2], out=output)
        torch.maximum(output, pooled_part[:, :, 1::2, 1::2], out=output)
        ctx.save_for_backward(features)
        ctx.grad_input = buffers.grad_input
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        result = _buffer_or_empty(ctx.grad_input, features)
        height = grad.shape[2]
        for first, last in _bands(height, 4 * grad.shape[1] * grad.shape[3]):
            # If the height is odd, the last band includes the last row, which is not pooled.
            rows = slice(2 * first, 2 * last if last < height else None)
            band = features[:, :, rows]
            _, maxima = F.max_pool2d(band, 2, return_indices=True)
            torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
                grad[:, :, first:last], band, [2, 2], [2, 2], [0, 0], [1, 1], False, maxima,
                grad_input=result[:, :, rows],
            )  # fmt: skip
        return result, None


class _AveragePooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, divisor: int, buffers: LayerBuffers) -> Tensor:
        output = _pooling_output(features, buffers)
        torch.ops.aten.avg_pool2d.out(
            features, [2, 2], [2, 2], divisor_override=divisor, out=output
        )
        ctx.save_for_backward(features)
        ctx.divisor, ctx.grad_input = divisor, buffers.grad_input
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (features,) = ctx.saved_tensors
        result = _buffer_or_empty(ctx.grad_input, features)
        torch.ops.aten.avg_pool2d_backward.grad_input(
            grad, features, [2, 2], [2, 2], [0, 0], False, True, ctx.divisor,
            grad_input=result,
        )  # fmt: skip
        return result, None, None


L2_SCALE = 0.78
"""Factor of L2 pooling, which keeps activations close in size to those of max pooling."""


def l2_pool(
    features: Tensor, output: Tensor | None = None, grad_input: Tensor | None = None
) -> Tensor:
    """Return `L2_SCALE` x sqrt(sum of squares) of each 2 x 2 block of 1 x C x H x W.

    Works on any device and in any dtype. The gradient of a block of zeros is zero.

    Args:
        features: The input.
        output: Buffer for the result; None: it is allocated.
        grad_input: Buffer for the gradient with respect to `features`; likewise.
    """
    pooled: Tensor = _L2Pooling.apply(features, output, grad_input)
    return pooled


class _L2Pooling(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, output: Tensor | None, grad_input: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(features)
        ctx.grad_input = grad_input
        pooled = _block_norms(features).mul_(L2_SCALE)
        return pooled if output is None else output.copy_(pooled)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (features,) = ctx.saved_tensors
        # The norms are computed again: kept, they would need a quarter of the features' memory.
        norms = _block_norms(features)
        factors = torch.where(norms > 0, grad * L2_SCALE / norms, 0)
        spread = torch.ops.aten.avg_pool2d_backward(
            factors, features, [2, 2], [2, 2], [0, 0], False, True, 1
        )
        result = torch.empty_like(features) if ctx.grad_input is None else ctx.grad_input
        return torch.mul(spread, features, out=result), None, None


def _block_norms(features: Tensor) -> Tensor:
    """Return the Euclidean norm of each 2 x 2 block."""
    return F.avg_pool2d(features.square(), 2, divisor_override=1).sqrt_()


def _pooling_output(features: Tensor, buffers: LayerBuffers) -> Tensor:
    """Return an uninitialised output for features pooled by 2 x 2."""
    if min(features.shape[2:]) < 2:
        raise RuntimeError(f"features of {tuple(features.shape)} are too small to be pooled")
    if buffers.output is not None:
        return buffers.output
    _, channels, height, width = features.shape
    return features.new_empty(1, height // 2, width // 2, channels).permute(0, 3, 1, 2)


def _conv2d_in_bands(
    features: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    padding: int,
    relu: bool,
    relu_output: Tensor | None,
    result: Tensor | None,
) -> Tensor:
    """Convolve with `F.conv2d`, one band of rows at a time.

    Args:
        features: 1 x in x H x W; in the backward pass, the gradient of the output.
        kernel: out x in x 3 x 3.
        bias: out; None: zero.
        padding: Zero padding on each side.
        relu: Whether to apply a ReLU to the result.
        relu_output: In the backward pass, the output of the fused ReLU, of the shape of
            `features`: where it is zero, the features are taken as zero. None: no ReLU.
        result: Where the result is written; None: newly allocated.
    """
    channels_out, channels_in, _, _ = kernel.shape
    height, width = (edge + 2 * padding - 2 for edge in features.shape[2:])
    if result is None:
        result = features.new_empty(1, height, width, channels_out).permute(0, 3, 1, 2)
    for first, last in _bands(height, width * max(channels_in, channels_out)):
        top, bottom = first - padding, last - padding + 2
        rows = slice(max(top, 0), min(bottom, features.shape[2]))
        band = features[:, :, rows]
        if relu_output is not None:
            band = winograd.relu_backward(band, relu_output[:, :, rows], torch.empty_like(band))
        above, below = max(-top, 0), max(bottom - features.shape[2], 0)
        if above or below:
            band = F.pad(band, (0, 0, above, below))
        convolved = F.conv2d(band, kernel, bias, padding=(0, padding))
        part = result[:, :, first:last]
        if relu:
            torch.clamp(convolved, min=0, out=part)
        else:
            part.copy_(convolved)
    return result


def _bands(rows: int, row_numel: int) -> Iterator[tuple[int, int]]:
    """Yield the first and one past the last row of each band, for rows of so many elements."""
    band_rows = max(2, _BAND_NUMEL // row_numel)
    for first in range(0, rows, band_rows):
        yield first, min(first + band_rows, rows)


def _buffer_or_empty(buffer: Tensor | None, like: Tensor) -> Tensor:
    return torch.empty_like(like) if buffer is None else buffer

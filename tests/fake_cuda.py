"""CUDA tensors without a GPU: shapes, dtypes and devices are checked, nothing is computed.

torch's FakeTensorMode runs every operation on tensors that have no data. It raises where devices
are mixed, as a GPU would. `Recorder` notes what a GPU would be asked to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from styled.engine import frequency_bands, vgg
from styled.engine.vgg import Vgg19
from styled.engine.vgg_layers import convolution_shapes

VIEWS = frozenset(
    {"alias", "as_strided", "detach", "diagonal", "expand", "permute", "select", "slice", "split",
     "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view",
     "view_as_real", "_reshape_alias", "lift_fresh", "device", "promote_types", "_conj"}
)  # fmt: skip
"""Operations that launch no kernel."""

PRODUCTS = frozenset({"mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "matmul"})
"""Products of two matrices."""

READ_VALUE = 0.5
"""What every value is when the host reads it."""


@dataclass
class Recorded:
    """What a stretch of a program asks of a GPU.

    Attributes:
        kernels: Launches, by operation.
        products: Matrix products, by dtype.
        flops: Of those products, by dtype.
        host_reads: Operations that make the host wait for the GPU's results.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    products: Counter[torch.dtype] = field(default_factory=Counter)
    flops: Counter[torch.dtype] = field(default_factory=Counter)
    host_reads: list[str] = field(default_factory=list)

    @property
    def launches(self) -> int:
        """The number of kernels launched."""
        return sum(self.kernels.values())


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Records the operations on fake CUDA tensors into `recorded`, which may be replaced."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.recorded = Recorded()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[-1].split(".")[0]
        on_gpu = _on_gpu([*args, *(kwargs or {}).values()])
        if on_gpu and name in ("_local_scalar_dense", "is_nonzero", "equal"):
            self.recorded.host_reads.append(name)
        if name in ("_local_scalar_dense", "is_nonzero"):
            return bool(READ_VALUE) if name == "is_nonzero" else _as_read(args[0])
        result = func(*args, **(kwargs or {}))
        if name == "_to_copy" and on_gpu and not _on_gpu([result]):
            self.recorded.host_reads.append("copy")
        if name in VIEWS or not (on_gpu or _on_gpu([result])):
            return result
        self.recorded.kernels[name] += 1
        if name in PRODUCTS:
            left, right = [x for x in args if isinstance(x, Tensor) and x.dim() >= 2][-2:]
            self.recorded.products[left.dtype] += 1
            self.recorded.flops[left.dtype] += 2 * left.numel() * right.shape[-1]
        return result


def _as_read(value: Tensor) -> float | int | bool:
    """Return `READ_VALUE` as the Python number that a tensor's dtype gives."""
    if value.dtype == torch.bool:
        return True
    return READ_VALUE if value.dtype.is_floating_point else 1


def _on_gpu(values: Sequence[object]) -> bool:
    """Return whether a tensor among values, or in lists of them, is on a GPU."""
    for value in values:
        if isinstance(value, Tensor) and value.device.type == "cuda":
            return True
        if isinstance(value, (list, tuple)) and _on_gpu(value):
            return True
    return False


def _no_backward(outputs: object, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, ...]:
    # autograd's engine wants a driver, even for fake tensors.
    return tuple(map(torch.zeros_like, [inputs] if isinstance(inputs, Tensor) else inputs))


def _clear_caches() -> None:
    """Forget constants kept on a device: fake ones must not meet others."""
    vgg._mean_and_std.cache_clear()
    frequency_bands._bands.cache_clear()
    frequency_bands._opponent_colors_on.cache_clear()


@contextmanager
def fake_cuda() -> Iterator[Recorder]:
    """Make tensors fake, so that `device="cuda"` works; backward passes give zeros."""
    _clear_caches()
    with ExitStack() as stack:
        stack.enter_context(patch("torch.autograd.grad", _no_backward))
        stack.enter_context(patch("torch.cuda.get_device_name", lambda *_: "a fake GPU"))
        stack.enter_context(patch.object(Tensor, "tolist", _tolist))
        stack.enter_context(FakeTensorMode())
        recorder = stack.enter_context(Recorder())
        try:
            yield recorder
        finally:
            _clear_caches()


def _tolist(tensor: Tensor) -> Any:
    # torch's own reads the memory that a fake tensor lacks.
    return [_tolist(row) if row.dim() else row.item() for row in tensor.unbind()]


def fake_network(dtype: torch.dtype = torch.float32) -> Vgg19:
    """Return a network on the fake GPU; only within `fake_cuda`."""
    convolutions = {
        name: (torch.empty(outputs, inputs, 3, 3), torch.empty(outputs))
        for name, (outputs, inputs) in convolution_shapes().items()
    }
    return Vgg19(convolutions, "cuda", dtype)

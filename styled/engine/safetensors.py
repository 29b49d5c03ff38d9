"""Reading and writing .safetensors files: named tensors, without code.

The format is a little-endian 64-bit length, a JSON header of that many bytes with dtype, shape
and data offsets of each tensor, and the raw data.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000  # the limit in the format's specification
_ALIGNMENT_BYTES = 8


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the floating-point tensors of a .safetensors file, mapped into memory.

    Raises:
        ValueError: the file is not well formed, or empty.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        # Copied on write: torch has no read-only tensors.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    header_bytes = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header_bytes > min(len(data) - 8, _MAX_HEADER_BYTES):
        raise ValueError("the header is longer than the file")
    header = json.loads(data[8 : 8 + header_bytes])
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    body = memoryview(data)[8 + header_bytes :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _DTYPES:
            continue
        dtype = _DTYPES[entry["dtype"]]
        start, end = entry["data_offsets"]
        if (
            not 0 <= start < end <= len(body)
            or end - start != math.prod(entry["shape"]) * dtype.itemsize
        ):
            raise ValueError(f"{name} does not lie inside the file")
        tensors[name] = torch.frombuffer(body[start:end], dtype=dtype).reshape(entry["shape"])
    return tensors


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a .safetensors file; the same tensors give the same bytes.

    Args:
        tensors: Floating-point tensors on the CPU; they are written in this order.
        metadata: Free-form text entries for the header's `__metadata__`.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    chunks = []
    end = 0
    for name, tensor in tensors.items():
        # Viewed as bytes, because NumPy has no bfloat16.
        chunk = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        start, end = end, end + len(chunk)
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        chunks.append(chunk)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # The header is padded with spaces to align the data, so that a reader can use mmap.
    encoded += b" " * (-len(encoded) % _ALIGNMENT_BYTES)
    return b"".join([len(encoded).to_bytes(8, "little"), encoded, *chunks])

"""Reading and writing .safetensors files: named tensors, without code.

The format is a little-endian 64-bit length, a JSON header of that many bytes with dtype, shape
and data offsets of each tensor, and the raw data.
"""

from __future__ import annotations

import json
import math
import os
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
    """Read the floating-point tensors of a .safetensors file.

    Raises:
        ValueError: the file is not well formed.
        OSError: it can't be read.
    """
    tensors = {}
    # Not mapped into memory: if the file shrank meanwhile, that would end the process.
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        header_bytes = int.from_bytes(file.read(8), "little")
        if file_bytes < 8 or header_bytes > min(file_bytes - 8, _MAX_HEADER_BYTES):
            raise ValueError("the header is longer than the file")
        header = json.loads(file.read(header_bytes))
        if not isinstance(header, dict):
            raise ValueError("the header is not an object")
        body = 8 + header_bytes
        for name, entry in header.items():
            if name == "__metadata__" or entry["dtype"] not in _DTYPES:
                continue
            dtype = _DTYPES[entry["dtype"]]
            start, end = entry["data_offsets"]
            if (
                not 0 <= start < end <= file_bytes - body
                or end - start != math.prod(entry["shape"]) * dtype.itemsize
            ):
                raise ValueError(f"{name} does not lie inside the file")
            tensor = torch.empty(entry["shape"], dtype=dtype)
            file.seek(body + start)
            if file.readinto(tensor.flatten().view(torch.uint8).numpy().data) != end - start:
                raise ValueError(f"the file ends within {name}")
            tensors[name] = tensor
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

"""Checkpoints of unfinished jobs, and their binary format.

Layout: `MAGIC`, the length of the header (8 bytes, little-endian), the header (JSON), the bytes of
all tensors in the order of the header, and the SHA-256 of everything before it. Checkpoints are
written and read in pieces: a copy of the state in memory would be larger than everything else
that a large picture needs.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from math import prod
from typing import IO, Any, Final

import torch
from torch import Tensor

from styled.engine_api import PaintTask

FORMAT: Final = 8
MAGIC: Final = b"styled checkpoint\n"
PIECE_BYTES: Final = 4 << 20

_DIGEST_BYTES = 32
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The complete state of a run: resuming from it gives the same picture.

    Attributes:
        scale: The current scale, counted from one.
        step: Steps done at this scale.
        finished: Whether the scale is finished.
        image: 1x3xHxW float32, the optimiser's current image.
        best: 1x3xHxW float32, the image of the lowest loss at this scale.
        best_total: That loss.
        first_total: The first loss of this scale, against which an explosion is measured.
        convergence: The state of the scale's `Convergence`.
        optimizer: The optimiser's own state.
        run_settings: The current settings, as the fields of `guard.RunSettings`.
        trace: Loss rows so far.
        environment: Where it was made, as the fields of `environment.Environment`; empty:
            unknown.
    """

    scale: int
    step: int
    finished: bool
    image: Tensor
    best: Tensor
    best_total: float
    first_total: float
    convergence: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    run_settings: Mapping[str, Any]
    trace: list[Any]
    environment: Mapping[str, Any] = field(default_factory=dict)


def checkpoint_pieces(checkpoint: Checkpoint, fingerprint: str) -> Iterator[bytes]:
    """Yield the serialised checkpoint in pieces.

    Each piece has at most `PIECE_BYTES`, except for the header. The checkpoint's tensors must not
    change before the last piece has been taken.

    Args:
        checkpoint: What to serialise.
        fingerprint: Of the task, see `task_fingerprint`; the checkpoint can be loaded for
            this task only.
    """
    digest = hashlib.sha256()
    for piece in _pieces(checkpoint, fingerprint):
        digest.update(piece)
        yield piece
    yield digest.digest()


def _pieces(checkpoint: Checkpoint, fingerprint: str) -> Iterator[bytes]:
    tensors: list[Tensor] = []
    body = {f.name: _as_json(getattr(checkpoint, f.name), tensors) for f in fields(checkpoint)}
    header = json.dumps({
        "format": FORMAT,
        "fingerprint": fingerprint,
        "body": body,
        "tensors": [[str(t.dtype).removeprefix("torch."), list(t.shape)] for t in tensors],
    }).encode()  # fmt: skip
    yield MAGIC + len(header).to_bytes(_LENGTH_BYTES, "little") + header
    for tensor in tensors:
        # Viewed as bytes, because NumPy has no bfloat16.
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        for start in range(0, flat.numel(), PIECE_BYTES):
            yield flat[start : start + PIECE_BYTES].numpy().tobytes()


def load_checkpoint(stream: IO[bytes], fingerprint: str, device: torch.device) -> Checkpoint:
    """Read a checkpoint.

    Args:
        stream: All pieces of `checkpoint_pieces`, one after the other; seekable.
        fingerprint: Of the task to resume.
        device: Where the tensors go.

    Raises:
        ValueError: it is damaged, belongs to another picture, style, recipe or network, or
            has another format; the message says whether it is damaged.
    """
    if not _is_intact(stream):
        raise ValueError("the checkpoint is damaged")
    stream.seek(0)
    if stream.read(len(MAGIC)) != MAGIC:
        raise ValueError("the checkpoint can't be read by this version")
    header = json.loads(stream.read(int.from_bytes(stream.read(_LENGTH_BYTES), "little")))
    if header["format"] != FORMAT:
        raise ValueError("the checkpoint can't be read by this version")
    if header["fingerprint"] != fingerprint:
        raise ValueError("the settings, the pictures or the weights have changed")
    tensors = [_read_tensor(stream, dtype, shape, device) for dtype, shape in header["tensors"]]
    return Checkpoint(
        **{name: _from_json(value, tensors) for name, value in header["body"].items()}
    )


def _read_tensor(
    stream: IO[bytes], dtype_name: str, shape: list[int], device: torch.device
) -> Tensor:
    dtype = getattr(torch, dtype_name)
    data = bytearray(stream.read(prod(shape) * dtype.itemsize))
    if not data:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.frombuffer(data, dtype=dtype).reshape(shape).to(device)


def _as_json(value: Any, tensors: list[Tensor]) -> Any:
    """Return a value with each tensor replaced by its index in `tensors`.

    A tensor that is referenced more than once is stored once, and loaded as one tensor.
    """
    if isinstance(value, Tensor):
        indices = [index for index, tensor in enumerate(tensors) if tensor is value]
        if not indices:
            tensors.append(value)
            indices = [len(tensors) - 1]
        return {"tensor": indices[0]}
    if isinstance(value, Mapping):
        return {"map": {key: _as_json(item, tensors) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [_as_json(item, tensors) for item in value]
    return value


def _from_json(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _from_json(item, tensors) for key, item in value["map"].items()}
    if isinstance(value, list):
        return [_from_json(item, tensors) for item in value]
    return value


def _is_intact(stream: IO[bytes]) -> bool:
    remaining = stream.seek(0, io.SEEK_END) - _DIGEST_BYTES
    stream.seek(0)
    digest = hashlib.sha256()
    while remaining > 0:
        data = stream.read(min(remaining, 1 << 20))
        if not data:
            return False
        digest.update(data)
        remaining -= len(data)
    return remaining == 0 and stream.read() == digest.digest()


def task_fingerprint(task: PaintTask, weights_sha256: str) -> str:
    """Return a digest that identifies a task's work, to bind checkpoints to it.

    Device, threads, precision and versions are not part of it: a job may be resumed with other
    ones, which is then recorded as a degradation.
    """
    images_and_weights: list[object] = [part for style in task.styles for part in style]
    images_and_weights += [] if task.init is None else ["init", task.init]
    return fingerprint_of(task.content, *images_and_weights, task.recipe, weights_sha256)


def fingerprint_of(*parts: object) -> str:
    """Return the hexadecimal SHA-256 of several values.

    Tensors are hashed by dtype, shape and values, dataclasses by their fields, anything else
    by its `repr`.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.detach().cpu().contiguous().numpy().data)
        elif hasattr(part, "__dataclass_fields__"):
            digest.update(repr(sorted(asdict(part).items())).encode())  # type: ignore[call-overload]  # narrowed by the check above
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()

"""A snapshot of unfinished work, as bytes that can be trusted or are refused.

Layout: `MAGIC`, the length of the header (8 bytes, little-endian), the header (JSON), the bytes of
all tensors in the order of the header, and the SHA-256 of all that. It is written and read piece
by piece: a copy of the state in memory would be larger than all else that a large picture needs.
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

FORMAT: Final = 7
MAGIC: Final = b"styled checkpoint\n"
PIECE_BYTES: Final = 4 << 20

_DIGEST_BYTES = 32
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that is needed to go on as if nothing had happened.

    Attributes:
        scale: The scale being worked on, counted from one.
        step: Steps done at it.
        finished: Whether the scale has come to its end.
        image: 1x3xHxW float32, where the optimiser stands.
        best: 1x3xHxW float32, the image of the lowest loss at this scale.
        best_total: That loss.
        first_total: The first loss of this scale, against which an explosion is measured.
        milestone: The lowest loss ten steps ago, against which convergence is measured.
        optimizer: The optimiser's own state.
        settings: What has become safer so far, as the fields of `guard.Settings`.
        trace: Loss rows so far.
        environment: What it was made on, as the fields of `environment.Environment`; empty:
            nobody knows.
    """

    scale: int
    step: int
    finished: bool
    image: Tensor
    best: Tensor
    best_total: float
    first_total: float
    milestone: float
    optimizer: Mapping[str, Any]
    settings: Mapping[str, Any]
    trace: list[Any]
    environment: Mapping[str, Any] = field(default_factory=dict)


def checkpoint_pieces(checkpoint: Checkpoint, fingerprint: str) -> Iterator[bytes]:
    """Yield the snapshot, bound to the work that `fingerprint` names, in pieces.

    Each piece has at most `PIECE_BYTES`, except for the header. Nothing may change the
    snapshot's tensors before the last piece has been taken.
    """
    digest = hashlib.sha256()
    for piece in _pieces(checkpoint, fingerprint):
        digest.update(piece)
        yield piece
    yield digest.digest()


def _pieces(checkpoint: Checkpoint, fingerprint: str) -> Iterator[bytes]:
    tensors: list[Tensor] = []
    body = {
        part.name: _as_json(getattr(checkpoint, part.name), tensors) for part in fields(checkpoint)
    }
    header = json.dumps({
        "format": FORMAT,
        "fingerprint": fingerprint,
        "body": body,
        "tensors": [[str(t.dtype).removeprefix("torch."), list(t.shape)] for t in tensors],
    }).encode()  # fmt: skip
    yield MAGIC + len(header).to_bytes(_LENGTH_BYTES, "little") + header
    for tensor in tensors:
        # As bytes first: NumPy has no bfloat16.
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        for start in range(0, flat.numel(), PIECE_BYTES):
            yield flat[start : start + PIECE_BYTES].numpy().tobytes()


def load_checkpoint(stream: IO[bytes], fingerprint: str, device: torch.device) -> Checkpoint:
    """Read a snapshot back, its tensors on `device`.

    Args:
        stream: What `checkpoint_pieces` has yielded, all of it; it must be seekable.
        fingerprint: Of the work that is to be gone on with.
        device: Where the engine works.

    Raises:
        ValueError: it is damaged, belongs to another picture, style, recipe or network, or
            has another format; the message says whether it is damaged.
    """
    if not _is_whole(stream):
        raise ValueError("the checkpoint is damaged")
    stream.seek(0)
    if stream.read(len(MAGIC)) != MAGIC:
        raise ValueError("the checkpoint can't be read by this version")
    header = json.loads(stream.read(int.from_bytes(stream.read(_LENGTH_BYTES), "little")))
    if header["format"] != FORMAT or header["fingerprint"] != fingerprint:
        raise ValueError(
            "the checkpoint belongs to other work or has the format of another version"
        )
    tensors = [_read_tensor(stream, kind, shape, device) for kind, shape in header["tensors"]]
    return Checkpoint(
        **{name: _from_json(value, tensors) for name, value in header["body"].items()}
    )


def _read_tensor(stream: IO[bytes], dtype: str, shape: list[int], device: torch.device) -> Tensor:
    kind = getattr(torch, dtype)
    data = bytearray(stream.read(prod(shape) * kind.itemsize))
    if not data:
        return torch.empty(shape, dtype=kind, device=device)
    return torch.frombuffer(data, dtype=kind).reshape(shape).to(device)


def _as_json(value: Any, tensors: list[Tensor]) -> Any:
    """Return a value with each tensor replaced by its place among all of them.

    A tensor that stands in several places is kept once, and is one tensor again afterwards.
    """
    if isinstance(value, Tensor):
        places = [place for place, known in enumerate(tensors) if known is value]
        if not places:
            tensors.append(value)
            places = [len(tensors) - 1]
        return {"tensor": places[0]}
    if isinstance(value, Mapping):
        return {"map": {key: _as_json(one, tensors) for key, one in value.items()}}
    if isinstance(value, list | tuple):
        return [_as_json(one, tensors) for one in value]
    return value


def _from_json(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _from_json(one, tensors) for key, one in value["map"].items()}
    if isinstance(value, list):
        return [_from_json(one, tensors) for one in value]
    return value


def _is_whole(stream: IO[bytes]) -> bool:
    left = stream.seek(0, io.SEEK_END) - _DIGEST_BYTES
    stream.seek(0)
    digest = hashlib.sha256()
    while left > 0:
        piece = stream.read(min(left, 1 << 20))
        if not piece:
            return False
        digest.update(piece)
        left -= len(piece)
    return left == 0 and stream.read() == digest.digest()


def task_fingerprint(task: PaintTask, weights_sha256: str) -> str:
    """Return a digest of a task's work, to bind checkpoints to it.

    It says nothing of device, threads, precision or versions: a job may be resumed on others,
    which is then put on record.
    """
    weighted = [part for style in task.styles for part in style]
    return fingerprint_of(task.content, *weighted, task.recipe, weights_sha256)


def fingerprint_of(*parts: object) -> str:
    """Return a digest of what a piece of work is made of: tensors, recipes, names.

    Tensors count by type, shape and values, dataclasses by their fields, anything else
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

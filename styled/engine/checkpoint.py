"""A snapshot of unfinished work, as a file that can be trusted or is refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pickle import UnpicklingError
from typing import IO, Any

import torch
from torch import Tensor

FORMAT = 6
_DIGEST_BYTES = 32


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


def dump_checkpoint(checkpoint: Checkpoint, fingerprint: str, stream: IO[bytes]) -> None:
    """Write the snapshot, bound to the work that `fingerprint` names, and its digest after it.

    It goes to the stream piece by piece: a copy of the state in memory would be larger than
    all else that a large picture needs.
    """
    hashing = _Hashing(stream)
    body = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    try:
        torch.save({"format": FORMAT, "fingerprint": fingerprint, "body": body}, hashing)  # type: ignore[arg-type]  # it only writes
    except RuntimeError:
        # torch has its own words for a disk that is full.
        if hashing.failure is not None:
            raise hashing.failure from None
        raise
    stream.write(hashing.digest.digest())


class _Hashing(io.RawIOBase):
    """Hands on what is written, and takes its digest."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self._stream.write(data)
        except OSError as error:
            self.failure = error
            raise


def load_checkpoint(stream: IO[bytes], fingerprint: str, device: torch.device) -> Checkpoint:
    """Read a snapshot back, its tensors on `device`.

    Args:
        stream: What `dump_checkpoint` has written; it must be possible to seek in it.
        fingerprint: Of the work that is to be gone on with.
        device: Where the engine works.

    Raises:
        ValueError: it is damaged, or belongs to another picture, style, recipe, network
            or version; the message says which of the two.
    """
    if not _is_whole(stream):
        raise ValueError("the checkpoint is damaged")
    stream.seek(0)
    try:
        content = torch.load(stream, map_location=device, weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError("the checkpoint can't be read by this version") from error
    if content.get("format") != FORMAT or content.get("fingerprint") != fingerprint:
        raise ValueError("the checkpoint belongs to other work or to another version")
    return Checkpoint(**content["body"])


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


def fingerprint_of(*parts: object) -> str:
    """Return a digest of everything that decides the pixels: tensors, recipes, names.

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

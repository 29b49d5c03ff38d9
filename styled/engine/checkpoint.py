"""A snapshot of unfinished work, as bytes that can be trusted or are refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

FORMAT = 3
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


def dump_checkpoint(checkpoint: Checkpoint, fingerprint: str) -> bytes:
    """Return the snapshot as bytes, bound to the work that `fingerprint` names."""
    buffer = io.BytesIO()
    body = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    torch.save({"format": FORMAT, "fingerprint": fingerprint, "body": body}, buffer)
    data = buffer.getvalue()
    return hashlib.sha256(data).digest() + data


def load_checkpoint(data: bytes, fingerprint: str, device: torch.device) -> Checkpoint:
    """Read a snapshot back, its tensors on `device`.

    Raises:
        ValueError: it is damaged, or belongs to another picture, style, recipe, network
            or version; the message says which of the two.
    """
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("the checkpoint is damaged")
    try:
        content = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError("the checkpoint can't be read by this version") from error
    if content.get("format") != FORMAT or content.get("fingerprint") != fingerprint:
        raise ValueError("the checkpoint belongs to other work or to another version")
    return Checkpoint(**content["body"])


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

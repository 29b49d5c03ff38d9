"""Checkpoints: round trip, and rejection of damaged or mismatched ones."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch

from styled.engine.checkpoint import (
    MAGIC,
    PIECE_BYTES,
    Checkpoint,
    checkpoint_pieces,
    fingerprint_of,
)
from styled.recipes import PYRAMID
from tests.engine.conftest import dumped, loaded


def checkpoint() -> Checkpoint:
    """Return a checkpoint with a value in every field."""
    return Checkpoint(
        scale=2,
        step=7,
        finished=False,
        image=torch.rand(1, 3, 4, 5),
        best=torch.rand(1, 3, 4, 5),
        best_total=0.25,
        first_total=0.5,
        convergence={"lowest": [0.5, 0.3], "predictions": [20.0]},
        optimizer={"pairs": [[torch.rand(3), torch.rand(3), 0.5]], "previous": None},
        run_settings={
            "float32": False,
            "degraded": [{"kind": "diverged", "message": "it was dark"}],
        },
        trace=[(1, 1, 0.4, 0.3, 0.1, 0.0)],
    )


def test_a_checkpoint_comes_back_bit_for_bit() -> None:
    """All fields are equal after a round trip, including tensors."""
    original = checkpoint()
    restored = loaded(dumped(original))
    assert (restored.scale, restored.step, restored.best_total) == (2, 7, 0.25)
    assert torch.equal(restored.image, original.image)
    assert torch.equal(restored.best, original.best)
    assert torch.equal(restored.optimizer["pairs"][0][1], original.optimizer["pairs"][0][1])
    assert [tuple(row) for row in restored.trace] == original.trace


@pytest.mark.parametrize("position", [0, 40, 500, -1])
def test_one_flipped_byte_is_found(position: int) -> None:
    """A damaged checkpoint is refused, regardless of the position of the damage."""
    data = bytearray(dumped(checkpoint()))
    data[position] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        loaded(bytes(data))


@pytest.mark.parametrize("length", [0, 10, 32, 1000])
def test_a_cut_checkpoint_is_refused(length: int) -> None:
    """A truncated file is refused."""
    with pytest.raises(ValueError, match="damaged"):
        loaded(dumped(checkpoint())[:length])


def test_a_checkpoint_of_other_work_is_refused() -> None:
    """A checkpoint with another fingerprint is refused."""
    with pytest.raises(ValueError, match="have changed"):
        loaded(dumped(checkpoint()), "other work")


def test_everything_that_decides_the_pixels_changes_the_fingerprint() -> None:
    """Changing a pixel, a shape, a recipe field or a name changes the fingerprint."""
    image = torch.zeros(1, 3, 4, 6)
    other = image.clone()
    other[0, 0, 0, 0] = 1e-6
    parts = [
        (image, PYRAMID, "weights"),
        (other, PYRAMID, "weights"),
        (image.view(1, 3, 6, 4), PYRAMID, "weights"),
        (image, replace(PYRAMID, steps=PYRAMID.steps + 1), "weights"),
        (image, PYRAMID, "other weights"),
    ]
    assert len({fingerprint_of(*part) for part in parts}) == len(parts)
    assert fingerprint_of(*parts[0]) == fingerprint_of(image.clone(), replace(PYRAMID), "weights")


def test_no_piece_is_large() -> None:
    """No piece exceeds `PIECE_BYTES`: a full copy of a large picture's state is too large."""
    large = replace(checkpoint(), image=torch.rand(1, 3, 1024, 1024))
    sizes = [len(piece) for piece in checkpoint_pieces(large, "work")]
    assert max(sizes) == PIECE_BYTES
    assert sum(sizes) > 12 << 20


def test_tensors_of_every_kind_come_back() -> None:
    """A round trip keeps bfloat16, empty tensors, infinities, and one tensor in two places."""
    shared = torch.rand(3)
    half = torch.rand(4).bfloat16()
    optimizer = {
        "half": half,
        "empty": torch.empty(0, 3),
        "steps": torch.tensor(7),
        "pairs": [(shared, shared)],
        "loss": float("inf"),
    }
    restored = loaded(dumped(replace(checkpoint(), optimizer=optimizer))).optimizer
    assert torch.equal(restored["half"], half)
    assert restored["half"].dtype == torch.bfloat16
    assert restored["empty"].shape == (0, 3)
    assert restored["steps"].item() == 7
    first, second = restored["pairs"][0]
    assert first is second
    assert restored["loss"] == float("inf")


@pytest.mark.parametrize("magic", [b"another format\n", MAGIC[:-1] + b"!"])
def test_a_checkpoint_of_another_kind_is_refused(magic: bytes) -> None:
    """A file with another magic is refused, even if its digest is right."""
    data = magic + dumped(checkpoint())[len(MAGIC) : -32]
    with pytest.raises(ValueError, match="this version"):
        loaded(data + hashlib.sha256(data).digest())

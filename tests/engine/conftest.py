"""Networks, pictures and helpers shared by the engine's tests."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from styled.engine.checkpoint import Checkpoint, checkpoint_pieces, load_checkpoint
from styled.engine.events import StepProgress, Stylized
from styled.engine.vgg import Convolutions, Vgg19
from styled.engine.weights import untrained as compute_untrained
from styled.engine_api import CheckpointPiece, Engine, Failed, Painted, PaintTask
from styled.recipes import PYRAMID, Recipe


@cache
def untrained() -> Convolutions:
    """Return the untrained network's convolutions, which take a second to compute.

    The first process of a run of all tests saves them for the others, see `tests.shortcuts`.
    """
    file = os.environ.get("STYLED_TESTS_UNTRAINED_FILE")
    if file is None:
        return compute_untrained()
    if not os.path.exists(file):
        temporary = f"{file}.{os.getpid()}"
        torch.save(compute_untrained(), temporary)
        os.chmod(temporary, 0o644)  # some tests start styled as another user
        os.replace(temporary, file)
    convolutions: Convolutions = torch.load(file, mmap=True, weights_only=True)
    return convolutions


SHALLOW = replace(
    PYRAMID,
    content_layers={"relu2_2": 1.0},
    style_layers={"relu1_1": 0.8, "relu2_1": 0.2},
)
"""The default recipe on few layers, where a step takes a tenth of the time.

For tests of the loop around the objective: the steps have the same structure.
"""


@pytest.fixture(scope="session")
def network() -> Vgg19:
    """An untrained VGG-19 in float32 on the CPU."""
    return Vgg19(untrained())


@pytest.fixture(scope="session")
def network64() -> Vgg19:
    """The same in float64, for finite differences."""
    return Vgg19(untrained(), dtype=torch.float64)


def picture(width: int, height: int, seed: int = 0) -> Tensor:
    """Return 1x3xHxW smooth random colours in [0, 1], more similar to a photo than white noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, max(height // 8, 2), max(width // 8, 2), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return smooth.clamp(0, 1)


def dumped(checkpoint: Checkpoint, fingerprint: str = "work") -> bytes:
    """Return the serialised checkpoint."""
    return b"".join(checkpoint_pieces(checkpoint, fingerprint))


def loaded(data: bytes, fingerprint: str = "work") -> Checkpoint:
    """Return the deserialised checkpoint."""
    return load_checkpoint(io.BytesIO(data), fingerprint, torch.device("cpu"))


def task_of(
    content: Tensor, styles: Sequence[tuple[Tensor, float]], recipe: Recipe, **options: Any
) -> PaintTask:
    """Return a task that reports every step; `options` are further fields of `PaintTask`."""
    return PaintTask("job", content, tuple(styles), recipe, progress_seconds=0.0, **options)


def painted_by(engine: Engine, task: PaintTask, checkpoint: bytes | None = None) -> Painted:
    """Paint to the end.

    Raises:
        StyledError: the error of the engine's `Failed` event.
    """
    *_, last = engine.run(task, None if checkpoint is None else io.BytesIO(checkpoint))
    if isinstance(last, Failed):
        raise last.error
    assert isinstance(last, Painted)
    return last


def checkpoint_after(
    engine: Engine, task: PaintTask, steps: int, checkpoint: bytes | None = None
) -> bytes:
    """Return the checkpoint that is saved after `steps` more steps."""
    resume = None if checkpoint is None else io.BytesIO(checkpoint)
    pieces: list[bytes] = []
    events = engine.run(replace(task, checkpoint_seconds=0.0), resume)
    for event in events:
        if isinstance(event, CheckpointPiece):
            pieces.append(event.data)
            if event.is_last:
                steps -= 1
                if steps == 0:
                    break
                pieces.clear()
    return b"".join(pieces)


def driven(painting: Generator[StepProgress, None, Stylized]) -> Stylized:
    """Run a painting to its end and return the picture."""
    while True:
        try:
            next(painting)
        except StopIteration as finished:
            stylized: Stylized = finished.value
            return stylized

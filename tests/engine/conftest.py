"""Networks and pictures that the engine's tests share; loaded once, because they are large."""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from styled.engine import weights
from styled.engine.checkpoint import Checkpoint, checkpoint_pieces, load_checkpoint
from styled.engine.progress import Progress, Stylized
from styled.engine.vgg import Vgg19
from styled.engine_api import CheckpointPiece, Engine, Failed, Painted, PaintTask
from styled.recipes import PYRAMID, Recipe

untrained = cache(weights.untrained)
"""The untrained network's kernels, which take seconds to make and are never changed."""

SHALLOW = replace(
    PYRAMID,
    content_layers={"relu2_2": 1.0},
    style_layers={"relu1_1": 0.8, "relu2_1": 0.2},
)
"""The default recipe on few layers, where a step takes a tenth of the time.

It is for tests of the loop around the objective: what a step is made of is the same.
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
    """Return 1x3xHxW smooth random colours in [0, 1]: more like a photo than white noise is."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, max(height // 8, 2), max(width // 8, 2), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return smooth.clamp(0, 1)


def dumped(checkpoint: Checkpoint, fingerprint: str = "work") -> bytes:
    """Return what a checkpoint is written as."""
    return b"".join(checkpoint_pieces(checkpoint, fingerprint))


def loaded(data: bytes, fingerprint: str = "work") -> Checkpoint:
    """Return the checkpoint that was written."""
    return load_checkpoint(io.BytesIO(data), fingerprint, torch.device("cpu"))


def task_of(
    content: Tensor, styles: Sequence[tuple[Tensor, float]], recipe: Recipe, **cadence: Any
) -> PaintTask:
    """Return a task that reports each step."""
    return PaintTask("job", content, tuple(styles), recipe, progress_seconds=0.0, **cadence)


def painted_by(engine: Engine, task: PaintTask, checkpoint: bytes | None = None) -> Painted:
    """Paint to the end.

    Raises:
        StyledError: as the engine says.
    """
    *_, last = engine.run(task, None if checkpoint is None else io.BytesIO(checkpoint))
    if isinstance(last, Failed):
        raise last.error
    assert isinstance(last, Painted)
    return last


def checkpoint_after(
    engine: Engine, task: PaintTask, steps: int, checkpoint: bytes | None = None
) -> bytes:
    """Return the checkpoint that is saved after so many more steps."""
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


def driven(painting: Generator[Progress, None, Stylized]) -> Stylized:
    """Drive a painting to its end and return the picture."""
    while True:
        try:
            next(painting)
        except StopIteration as finished:
            stylized: Stylized = finished.value
            return stylized

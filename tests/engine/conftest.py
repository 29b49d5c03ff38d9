"""Networks and pictures that the engine's tests share; loaded once, because they are large."""

from __future__ import annotations

import io
from collections.abc import Generator
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from styled.engine import weights
from styled.engine.checkpoint import Checkpoint, dump_checkpoint, load_checkpoint
from styled.engine.progress import Progress, Stylized
from styled.engine.vgg import Vgg19
from styled.recipes import PYRAMID

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
    stream = io.BytesIO()
    dump_checkpoint(checkpoint, fingerprint, stream)
    return stream.getvalue()


def loaded(data: bytes, fingerprint: str = "work") -> Checkpoint:
    """Return the checkpoint that was written."""
    return load_checkpoint(io.BytesIO(data), fingerprint, torch.device("cpu"))


def driven(painting: Generator[Progress, None, Stylized]) -> Stylized:
    """Drive a painting to its end and return the picture."""
    while True:
        try:
            next(painting)
        except StopIteration as finished:
            stylized: Stylized = finished.value
            return stylized

"""What GPUs are asked to do, checked without one: see `tests.fake_cuda`."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from packaging.version import Version

from styled.engine.checkpoint import Checkpoint
from styled.engine.stylize import stylize
from styled.recipes import PYRAMID, RECIPES, OptimizerName, PreserveColor, Recipe, Scales
from tests.fake_cuda import Recorded, Recorder, fake_cuda, fake_network

pytestmark = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.13"),
    reason="old versions of torch need a driver even for tensors without data",
)

STEPS = 5
PHOTO_SIZE, STYLE_SIZE = (341, 512), (400, 512)


def short(recipe: Recipe, **changes: Any) -> Recipe:
    """Return a recipe of few steps at each of at most two scales."""
    scales = recipe.scales and Scales(start_px=300)
    return replace(recipe, steps=STEPS, min_improvement=0.0, scales=scales, **changes)


class Run:
    """A painting on a fake GPU.

    Attributes:
        steps: What each step asks for; the first of a scale includes its preparation.
        end: What finishing the picture asks for.
        checkpoint: Of the step `checkpoint_at`.
    """

    def __init__(
        self,
        recorder: Recorder,
        recipe: Recipe,
        *,
        dtype: torch.dtype = torch.float32,
        channels: int = 3,
        checkpoint_at: int | None = None,
        resume: Checkpoint | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        photo = torch.rand(1, channels, *PHOTO_SIZE)
        painting = torch.rand(1, channels, *STYLE_SIZE)
        self.steps: list[Recorded] = []
        self.checkpoint: Checkpoint | None = None
        network = fake_network(dtype)
        running = stylize(
            network, photo, [(painting, 1.0)], recipe, resume, memory_bytes=memory_bytes
        )
        for progress in self._record(recorder, running):
            if len(self.steps) == checkpoint_at:
                self.checkpoint = progress.checkpoint()

    def _record(self, recorder: Recorder, running: Generator[Any, None, Any]) -> Iterator[Any]:
        recorder.recorded = Recorded()
        for progress in running:
            self.steps.append(recorder.recorded)
            yield progress
            recorder.recorded = Recorded()
        self.end = recorder.recorded


@contextmanager
def run(recipe: Recipe, **options: Any) -> Iterator[Run]:
    """Paint on a fake GPU; a mix of devices raises."""
    with fake_cuda() as recorder:
        yield Run(recorder, recipe, **options)


@pytest.mark.parametrize(
    ("recipe", "dtype"),
    [
        *(pytest.param(recipe, torch.float32, id=name) for name, recipe in RECIPES.items()),
        pytest.param(PYRAMID, torch.bfloat16, id="pyramid in bfloat16"),
    ],
)
def test_every_recipe_stays_on_its_device(recipe: Recipe, dtype: torch.dtype) -> None:
    """No operation mixes devices; products are in float32; the host reads now and then."""
    with run(short(recipe), dtype=dtype) as painting:
        assert len(painting.steps) in (STEPS, 2 * STEPS)
        for index, step in enumerate(painting.steps):
            number = index % STEPS + 1
            if number > 1:  # the first one includes the preparation of the scale
                assert step.host_reads == ["copy"] * (number in (5, STEPS)), number
                # At the coarser scale, the deepest layer has fewer positions than channels.
                assert step.products[torch.float64] <= (index < STEPS)
                assert set(step.products) <= {torch.float32, torch.float64}
            assert step.launches > 0


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_transparency_and_resuming(optimizer: OptimizerName) -> None:
    """Neither opacity nor a checkpoint brings a tensor of the host into a step."""
    recipe = short(PYRAMID, optimizer=replace(PYRAMID.optimizer, name=optimizer))
    with fake_cuda() as recorder:
        painting = Run(recorder, recipe, channels=4, checkpoint_at=STEPS + 3)
        assert painting.checkpoint is not None
        resumed = Run(recorder, recipe, channels=4, resume=painting.checkpoint)
        assert len(resumed.steps) == len(painting.steps) - STEPS - 3


@pytest.mark.parametrize("preserve_color", ["luminance", "histogram", "affine"])
def test_color_modes(preserve_color: PreserveColor) -> None:
    """Keeping the photo's colours mixes no devices."""
    with run(short(PYRAMID, preserve_color=preserve_color)) as painting:
        assert painting.end.launches > 0


def test_starts() -> None:
    """Starts from noise, grey and the style's colours mix no devices."""
    for init in ("noise", "gray", "style_colors"):
        with run(replace(short(PYRAMID, init=init), scales=None, steps=1)) as painting:
            assert len(painting.steps) == 1


def test_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles launch more kernels and read no more values."""
    monkeypatch.setattr("styled.engine.memory_fallback.TILE_EDGES_PX", (256,))
    monkeypatch.setattr(
        "styled.engine.memory_estimate.MemoryEstimate.peak_bytes",
        lambda self, settings, size: settings.tile_px or max(size),
    )
    with run(short(PYRAMID)) as whole:
        launches = whole.steps[-3].launches
    with run(short(PYRAMID), memory_bytes=300) as tiled:
        assert tiled.steps[-3].launches > 1.5 * launches
        assert tiled.steps[-3].host_reads == []


def test_a_step_of_the_default_launches_few_kernels() -> None:
    """At 512 px, before the backward pass: 600 kernels, 220 products, none in float64."""
    with run(short(PYRAMID)) as painting:
        step = painting.steps[-3]
        assert step.launches <= 600
        assert sum(step.products.values()) <= 220
        assert set(step.products) == {torch.float32}
        assert step.host_reads == []

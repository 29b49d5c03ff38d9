"""The memory fallbacks: their order, and pictures painted despite a lack of memory."""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from styled.degradation import Degradation
from styled.engine.curvature_pairs import CurvaturePairs
from styled.engine.events import Stylized
from styled.engine.guard import RunSettings
from styled.engine.memory_fallback import fit_to_limit, next_fallback, reduce_plan
from styled.engine.objective import Losses, Objective
from styled.engine.optimizers import Lbfgs
from styled.engine.scale_run import ScaleRun
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.engine_api import PixelSize
from styled.errors import EngineFailure
from styled.recipes import OptimizerSettings, Recipe, Scales
from tests.engine.conftest import SHALLOW, driven, dumped, loaded, picture

CONTENT, STYLES = picture(96, 72), [(picture(80, 80, 1), 1.0)]
TWO_SCALES = replace(
    SHALLOW, steps=3, scales=Scales(start_px=48, factor=2.0, steps=3), min_improvement=0.0
)
# Average pooling: where two values are nearly equal, rounding decides which one is the maximum.
SMALL = replace(SHALLOW, pooling="average", steps=3, scales=Scales(start_px=48), trace_every=1)
FLAT = replace(SMALL, scales=None)
START = RunSettings(OptimizerSettings(history=20))
SMALLER = Degradation("memory", "memory was short: painted at 68 x 51 in place of 96 x 72")


def painted(
    network: Vgg19, recipe: Recipe, memory_bytes: int | None = None, content: Tensor = CONTENT
) -> Stylized:
    """Paint to the end."""
    return driven(stylize(network, content, STYLES, recipe, memory_bytes=memory_bytes))


# The order of fallbacks


def test_tiles_come_first_then_history_then_nothing() -> None:
    """For 1500 px: tiles of 1024, 512 and 256 px, then histories of 10, 5 and 2 steps."""
    fallbacks, settings = [], next_fallback(START, PixelSize(1500, 900))
    while settings is not None:
        fallbacks.append((settings.tile_px, settings.optimizer.history))
        last, settings = settings, next_fallback(settings, PixelSize(1500, 900))
    assert fallbacks == [(1024, 20), (512, 20), (256, 20), (256, 10), (256, 5), (256, 2)]
    message = "memory was short: L-BFGS kept only 2 steps at 1500 x 900"
    assert last.degraded == (Degradation("memory", message),)


def test_adam_has_no_history_to_give_up() -> None:
    """With Adam the only fallbacks are tiles."""
    adam = RunSettings(OptimizerSettings(name="adam"))
    tiled = next_fallback(adam, PixelSize(400, 300))
    assert tiled is not None
    assert (tiled.tile_px, tiled.degraded) == (256, ())
    assert next_fallback(tiled, PixelSize(400, 300)) is None


def test_the_first_rung_that_fits_is_taken() -> None:
    """`fit_to_limit` returns the first settings within the limit, or else the last ones."""

    def estimate(settings: RunSettings, size: tuple[int, int]) -> int:
        return (settings.tile_px or max(size)) + 100 * settings.optimizer.history

    assert fit_to_limit(None, START, PixelSize(1500, 900), estimate) == (START, True)
    assert fit_to_limit(3500, START, PixelSize(1500, 900), estimate) == (START, True)
    half, fits = fit_to_limit(2600, START, PixelSize(1500, 900), estimate)
    assert (half.tile_px, half.optimizer.history, fits) == (512, 20, True)
    least, fits = fit_to_limit(100, START, PixelSize(1500, 900), estimate)
    assert (least.tile_px, least.optimizer.history, fits) == (256, 2, False)


def test_a_smaller_plan_lacks_the_last_scale_or_half_the_pixels() -> None:
    """Large scales are dropped first; a single scale is halved until it is too small."""
    assert reduce_plan([PixelSize(71, 50), PixelSize(100, 71)]) == [PixelSize(71, 50)]
    assert reduce_plan([PixelSize(100, 71)]) == [PixelSize(71, 50)]
    with pytest.raises(EngineFailure, match="even for 40 x 32"):
        reduce_plan([PixelSize(40, 32)])


# Fallbacks by estimate


def test_a_limit_is_kept_by_a_smaller_picture_that_says_so(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no fallback fits the full size, the previous scale is the result, with a degradation."""

    def peak_bytes(_: object, settings: RunSettings, size: tuple[int, int]) -> int:
        return size[0] * size[1]

    monkeypatch.setattr("styled.engine.memory_estimate.MemoryEstimate.peak_bytes", peak_bytes)
    result = painted(network, SMALL, memory_bytes=96 * 72 - 1)
    assert result.image.shape == (1, 3, 51, 68)
    assert SMALLER in result.degraded
    single = painted(network, FLAT, memory_bytes=96 * 72 // 3)
    assert single.image.shape == (1, 3, 36, 48)
    message = "memory was short: painted at 48 x 36 in place of 96 x 72"
    assert single.degraded == (Degradation("memory", message),)
    with pytest.raises(EngineFailure, match="too little memory"):
        painted(network, SMALL, memory_bytes=10)


def test_tiles_change_neither_picture_nor_record(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles give the same picture up to rounding, and no degradation."""

    def peak_bytes(_: object, settings: RunSettings, size: tuple[int, int]) -> int:
        return settings.tile_px or max(size)

    monkeypatch.setattr("styled.engine.memory_fallback.TILE_EDGES_PX", (64, 32))
    whole = painted(network, FLAT)
    monkeypatch.setattr("styled.engine.memory_estimate.MemoryEstimate.peak_bytes", peak_bytes)
    tiled = painted(network, FLAT, memory_bytes=50)
    assert (whole.tile_px, tiled.tile_px) == (None, 32)
    assert tiled.degraded == ()
    torch.testing.assert_close(tiled.image, whole.image, rtol=0, atol=1e-3)


# Fallbacks after failed allocations


class Allocator:
    """Simulates failed allocations in evaluations and updates, as the `refuses_` fields say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wrap every evaluation and every update."""
        self.evaluations = 0
        self.refuses_evaluation: tuple[int, ...] = ()
        self.refuses_untiled_above = 10_000
        evaluate, add = Objective.evaluate, CurvaturePairs.add
        self.refuses_history_above = 1000
        self.refuses_updates = False

        def limited(
            objective: Objective, image: Tensor, tv_smoothing: float = 0.0
        ) -> tuple[Losses, Tensor]:
            self.evaluations += 1
            whole = len(objective._tiles) == 1 and max(image.shape) > self.refuses_untiled_above
            if whole or self.evaluations in self.refuses_evaluation:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
            return evaluate(objective, image, tv_smoothing)

        update = Lbfgs.update

        def limited_update(optimizer: Lbfgs, image: Tensor, gradient: Tensor, total: float) -> None:
            if self.refuses_updates:
                raise MemoryError
            update(optimizer, image, gradient, total)

        def limited_add(pairs: CurvaturePairs, new: Any, old: Any) -> Tensor:
            if pairs._capacity > self.refuses_history_above:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")
            return add(pairs, new, old)

        monkeypatch.setattr(Objective, "evaluate", limited)
        monkeypatch.setattr(CurvaturePairs, "add", limited_add)
        monkeypatch.setattr(Lbfgs, "update", limited_update)
        monkeypatch.setattr("styled.engine.memory_fallback.TILE_EDGES_PX", (64, 32))
        monkeypatch.setattr("styled.engine.memory_fallback.LBFGS_HISTORIES", (2, 1))


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    """An allocator that does not fail until told to."""
    return Allocator(monkeypatch)


def test_a_picture_that_does_not_fit_goes_on_in_tiles(network: Vgg19, allocator: Allocator) -> None:
    """The failed scale continues in tiles, with the same picture and a degradation."""
    whole = painted(network, SMALL)
    allocator.refuses_untiled_above = 70
    result = painted(network, SMALL)
    assert result.tile_px == 64
    message = "memory ran out at 96 x 72: it went on in tiles"
    assert result.degraded == (Degradation("memory", message),)
    torch.testing.assert_close(result.image, whole.image, rtol=0, atol=1e-3)


def test_a_failure_in_the_middle_of_a_scale_keeps_what_was_painted(
    network: Vgg19, allocator: Allocator
) -> None:
    """Earlier steps and curvature pairs are kept, so that the picture is the same."""
    recipe = replace(FLAT, steps=6)
    whole = painted(network, recipe)
    allocator.evaluations, allocator.refuses_evaluation = 0, (4,)
    result = painted(network, recipe)
    assert len(result.trace) == len(whole.trace) == 6
    # Tiles round differently, and six steps of L-BFGS amplify it. A lost history would change the
    # picture a hundred times as much.
    torch.testing.assert_close(result.image, whole.image, rtol=0, atol=5e-3)
    assert float((result.image - whole.image).abs().mean()) < 1e-4


def test_a_history_that_does_not_fit_is_shortened(network: Vgg19, allocator: Allocator) -> None:
    """If the update runs out of memory, L-BFGS restarts with a shorter history."""
    allocator.refuses_history_above = 2
    result = painted(network, replace(FLAT, steps=12))
    assert {degradation.kind for degradation in result.degraded} == {"memory"}
    assert any("L-BFGS kept only 2 steps" in d.message for d in result.degraded)
    assert result.tile_px is None  # tiles would not have helped
    assert result.trace[-1].total < result.trace[0].total


def test_a_photo_that_no_update_could_change_is_not_handed_on(
    network: Vgg19, allocator: Allocator
) -> None:
    """Without a single successful update there is no result."""
    allocator.refuses_updates = True
    with pytest.raises(EngineFailure, match="too little memory"):
        painted(network, SMALL)


def test_when_no_rung_is_left_the_scale_before_is_the_picture(
    network: Vgg19, allocator: Allocator
) -> None:
    """If the last scale has no successful step, the previous one is the result, degraded."""
    steps_before = 3 * 2  # two scales of three steps
    allocator.refuses_evaluation = tuple(range(steps_before + 1, 100))
    result = painted(network, SMALL)
    assert result.image.shape == (1, 3, 51, 68)
    assert SMALLER in result.degraded


def test_when_no_rung_is_left_within_a_scale_it_ends_early(
    network: Vgg19, allocator: Allocator
) -> None:
    """A scale with some successful steps is the result, with a degradation."""
    allocator.refuses_evaluation = tuple(range(3, 100))
    result = painted(network, replace(FLAT, steps=9))
    assert result.image.shape == CONTENT.shape
    message = "memory ran out at 96 x 72 after 2 steps"
    assert Degradation("memory", message) in result.degraded
    assert (result.trace[-1].step, result.steps) == (2, 2)


def test_a_single_scale_that_does_not_fit_is_painted_smaller(
    network: Vgg19, allocator: Allocator
) -> None:
    """Without coarser scales the picture is restarted with half the pixels."""
    allocator.refuses_evaluation = (1, 2, 3, 4, 5)
    result = painted(network, FLAT)
    assert result.image.shape == (1, 3, 51, 68)
    assert len(result.trace) == 3


def test_a_picture_for_which_there_is_never_memory_is_an_engine_failure(
    network: Vgg19, allocator: Allocator
) -> None:
    """If even a tiny picture does not fit, it is an EngineFailure."""
    allocator.refuses_evaluation = tuple(range(1, 1000))
    with pytest.raises(EngineFailure, match="too little memory"):
        painted(network, SMALL)


def test_an_out_of_memory_error_holds_no_memory(
    network: Vgg19, allocator: Allocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error, whose traceback keeps tensors alive, is freed before the next attempt."""
    allocator.refuses_untiled_above = 70
    handled: list[object] = []
    alive: list[object] = []

    def empty_cache(device: torch.device) -> None:
        handled.append(sys.exc_info()[1])
        alive.extend(o for o in gc.get_objects() if type(o) is torch.OutOfMemoryError)

    monkeypatch.setattr("styled.engine.stylize.empty_cache", empty_cache)
    painted(network, SMALL)
    assert handled == [None]
    assert alive == []


def test_of_a_finished_scale_only_the_result_is_kept(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its curvature pairs are freed before the first step of the next scale, which needs more."""

    def count() -> int:
        gc.collect()
        return sum(type(thing) is CurvaturePairs for thing in gc.get_objects())

    counts: list[int] = []
    evaluate = Objective.evaluate

    def counting(objective: Objective, *args: Any) -> Any:
        counts.append(count())
        return evaluate(objective, *args)

    before = count()
    monkeypatch.setattr(Objective, "evaluate", counting)
    driven(stylize(network, CONTENT, STYLES, TWO_SCALES))
    assert [number - before for number in counts] == [0, 1, 1, 0, 1, 1]


def test_a_job_that_was_shrunk_resumes_at_its_size(network: Vgg19, allocator: Allocator) -> None:
    """A picture interrupted after its size was reduced gives the same result when resumed."""
    allocator.refuses_evaluation = (1, 2, 3, 4, 5)
    whole = painted(network, FLAT)
    allocator.evaluations = 0
    painting = stylize(network, CONTENT, STYLES, FLAT)
    progress = next(painting)
    data = dumped(progress.checkpoint())
    resume = loaded(data)
    resumed = stylize(network, CONTENT, STYLES, FLAT, resume)
    result = driven(resumed)
    assert torch.equal(result.image, whole.image)
    assert result.degraded == whole.degraded


def test_a_checkpoint_that_no_longer_fits_is_begun_again(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less memory than before, the job restarts at a size that fits."""
    painting = stylize(network, CONTENT, STYLES, FLAT)
    data = dumped(next(painting).checkpoint())
    resume = loaded(data)

    def peak_bytes(_: object, settings: RunSettings, size: tuple[int, int]) -> int:
        return size[0] * size[1]

    monkeypatch.setattr("styled.engine.memory_estimate.MemoryEstimate.peak_bytes", peak_bytes)
    resumed = stylize(network, CONTENT, STYLES, FLAT, resume, memory_bytes=4000)
    first = next(resumed)
    assert (first.step, first.width, first.height) == (1, 68, 51)


def test_a_resumed_job_without_memory_for_its_scale_begins_again_smaller(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the checkpoint's size no longer fits, the photo is resized, not cropped."""
    painting = stylize(network, CONTENT, STYLES, FLAT)
    resume = loaded(dumped(next(painting).checkpoint()))
    refused = 0
    original_init = ScaleRun.__init__

    def refuse_large(run: ScaleRun, image: Tensor, *args: Any) -> None:
        nonlocal refused
        if image.shape[-1] == 96:
            refused += 1
            raise RuntimeError("CUDA out of memory")
        original_init(run, image, *args)

    monkeypatch.setattr(ScaleRun, "__init__", refuse_large)
    result = driven(stylize(network, CONTENT, STYLES, FLAT, resume))
    assert refused > 0
    assert result.image.shape == (1, 3, 51, 68)
    assert [row.step for row in result.trace] == [1, 2, 3]


def test_a_job_that_begins_again_is_not_called_resumed(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart the `resumed` degradation is dropped with the old result."""
    resume = loaded(dumped(next(stylize(network, CONTENT, STYLES, FLAT)).checkpoint()))
    resume = replace(resume, environment={**resume.environment, "threads": 99})
    continued = next(stylize(network, CONTENT, STYLES, FLAT, resume))
    assert [degradation.kind for degradation in continued.degraded] == ["resumed"]
    original_init = ScaleRun.__init__

    def refuse_large(run: ScaleRun, image: Tensor, *args: Any) -> None:
        if image.shape[-1] == 96:
            raise RuntimeError("CUDA out of memory")
        original_init(run, image, *args)

    monkeypatch.setattr(ScaleRun, "__init__", refuse_large)
    restarted = next(stylize(network, CONTENT, STYLES, FLAT, resume))
    assert (restarted.step, restarted.width) == (1, 68)
    assert "resumed" not in [degradation.kind for degradation in restarted.degraded]


def test_a_resumed_job_lets_go_of_its_checkpoint(network: Vgg19) -> None:
    """After the first step no reference to the checkpoint's images is left."""
    recipe = replace(FLAT, steps=9)
    painting = stylize(network, CONTENT, STYLES, recipe)
    for _ in range(4):
        progress = next(painting)
    resume = loaded(dumped(progress.checkpoint()))
    image = weakref.ref(resume.image)
    resumed = stylize(network, CONTENT, STYLES, recipe, resume)
    del resume
    next(resumed)
    next(resumed)
    assert image() is None


def test_more_memory_than_before_leaves_no_false_record(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job resumed with enough memory for the full size has no degradation."""

    def peak_bytes(_: object, settings: RunSettings, size: tuple[int, int]) -> int:
        return size[0] * size[1]

    monkeypatch.setattr("styled.engine.memory_estimate.MemoryEstimate.peak_bytes", peak_bytes)
    painting = stylize(network, CONTENT, STYLES, SMALL, memory_bytes=4000)
    resume = loaded(dumped(next(painting).checkpoint()))
    result = driven(stylize(network, CONTENT, STYLES, SMALL, resume))
    assert result.image.shape == CONTENT.shape
    assert result.degraded == ()

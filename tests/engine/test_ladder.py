"""The memory ladder: rungs in their order, and pictures that are painted all the same."""

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
from styled.engine.guard import Settings
from styled.engine.ladder import smaller_plan, thriftier, within
from styled.engine.objective import Losses, Objective
from styled.engine.optimizers import Lbfgs
from styled.engine.progress import Stylized
from styled.engine.stage import Stage
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.errors import EngineFailure
from styled.recipes import Optimizer, Recipe, Scales
from tests.engine.conftest import SHALLOW, driven, dumped, loaded, picture

CONTENT, STYLES = picture(96, 72), [(picture(80, 80, 1), 1.0)]
SMALL = replace(SHALLOW, steps=3, scales=Scales(start_px=48), trace_every=1)
FLAT = replace(SMALL, scales=None)
START = Settings(Optimizer(history=20))
SMALLER = Degradation("memory", "memory was short: painted at 68 x 51 in place of 96 x 72")


def painted(
    network: Vgg19, recipe: Recipe, memory_bytes: int | None = None, content: Tensor = CONTENT
) -> Stylized:
    """Paint to the end."""
    return driven(stylize(network, content, STYLES, recipe, memory_bytes=memory_bytes))


# Rungs


def test_tiles_come_first_then_history_then_nothing() -> None:
    """A picture of 1500 px goes into tiles of 1024, 512, 256; then 10, 5 and 2 steps remembered."""
    rungs, settings = [], thriftier(START, (1500, 900))
    while settings is not None:
        rungs.append((settings.tile_px, settings.optimizer.history))
        last, settings = settings, thriftier(settings, (1500, 900))
    assert rungs == [(1024, 20), (512, 20), (256, 20), (256, 10), (256, 5), (256, 2)]
    message = "memory was short: L-BFGS remembered 2 steps at 1500 x 900"
    assert last.degraded == (Degradation("memory", message),)


def test_adam_has_no_history_to_give_up() -> None:
    """With Adam only tiles are left."""
    adam = Settings(Optimizer(name="adam"))
    tiled = thriftier(adam, (400, 300))
    assert tiled is not None
    assert (tiled.tile_px, tiled.degraded) == (256, ())
    assert thriftier(tiled, (400, 300)) is None


def test_the_first_rung_that_fits_is_taken() -> None:
    """Of all settings down the ladder the first within the limit, or the last of them."""

    def needs(settings: Settings, size: tuple[int, int]) -> int:
        return (settings.tile_px or max(size)) + 100 * settings.optimizer.history

    assert within(None, START, (1500, 900), needs) == (START, True)
    assert within(3500, START, (1500, 900), needs) == (START, True)
    half, fits = within(2600, START, (1500, 900), needs)
    assert (half.tile_px, half.optimizer.history, fits) == (512, 20, True)
    least, fits = within(100, START, (1500, 900), needs)
    assert (least.tile_px, least.optimizer.history, fits) == (256, 2, False)


def test_a_smaller_plan_lacks_the_last_scale_or_half_the_pixels() -> None:
    """Scales are dropped from the top; a single size shrinks until no picture is left."""
    assert smaller_plan([(71, 50), (100, 71)]) == [(71, 50)]
    assert smaller_plan([(100, 71)]) == [(71, 50)]
    with pytest.raises(EngineFailure, match="even for 40 x 32"):
        smaller_plan([(40, 32)])


# Ahead of time


def test_a_limit_is_kept_by_a_smaller_picture_that_says_so(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no rung fits at the full size, the picture is the scale before, on record."""

    def peak_bytes(_: object, settings: Settings, size: tuple[int, int]) -> int:
        return size[0] * size[1]

    monkeypatch.setattr("styled.engine.footprint.Footprint.peak_bytes", peak_bytes)
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
    """A limit that tiles can keep gives the same picture to rounding, and nothing degraded."""

    def peak_bytes(_: object, settings: Settings, size: tuple[int, int]) -> int:
        return settings.tile_px or max(size)

    monkeypatch.setattr("styled.engine.ladder.TILE_EDGES_PX", (64, 32))
    whole = painted(network, FLAT)
    monkeypatch.setattr("styled.engine.footprint.Footprint.peak_bytes", peak_bytes)
    tiled = painted(network, FLAT, memory_bytes=50)
    assert (whole.tile_px, tiled.tile_px) == (None, 32)
    assert tiled.degraded == ()
    torch.testing.assert_close(tiled.image, whole.image, rtol=0, atol=1e-3)


# At run time


class Allocator:
    """Stands in for an allocator that refuses what `refuses` says, at the evaluation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put itself before every evaluation and every update."""
        self.evaluations = 0
        self.refuses_evaluation: tuple[int, ...] = ()
        self.refuses_untiled_above = 10_000
        evaluate, newton_step = Objective.evaluate, Lbfgs._newton_step
        self.refuses_history_above = 1000
        self.refuses_updates = False

        def limited(
            objective: Objective, image: Tensor, rounding: float = 0.0
        ) -> tuple[Losses, Tensor]:
            self.evaluations += 1
            whole = len(objective._tiles) == 1 and max(image.shape) > self.refuses_untiled_above
            if whole or self.evaluations in self.refuses_evaluation:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
            return evaluate(objective, image, rounding)

        update = Lbfgs.update

        def limited_update(optimizer: Lbfgs, image: Tensor, gradient: Tensor, total: float) -> None:
            if self.refuses_updates:
                raise MemoryError
            update(optimizer, image, gradient, total)

        def limited_step(optimizer: Lbfgs, downhill: Tensor) -> Tensor:
            if len(optimizer._pairs) > self.refuses_history_above:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")
            return newton_step(optimizer, downhill)

        monkeypatch.setattr(Objective, "evaluate", limited)
        monkeypatch.setattr(Lbfgs, "_newton_step", limited_step)
        monkeypatch.setattr(Lbfgs, "update", limited_update)
        monkeypatch.setattr("styled.engine.ladder.TILE_EDGES_PX", (64, 32))
        monkeypatch.setattr("styled.engine.ladder.HISTORIES", (2, 1))


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    """An allocator that refuses nothing yet."""
    return Allocator(monkeypatch)


def test_a_picture_that_does_not_fit_goes_on_in_tiles(network: Vgg19, allocator: Allocator) -> None:
    """The scale that failed is done in tiles: the same picture, and the record says what was."""
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
    """The steps before it count, and curvature is not forgotten: the undisturbed picture."""
    recipe = replace(FLAT, steps=6)
    whole = painted(network, recipe)
    allocator.evaluations, allocator.refuses_evaluation = 0, (4,)
    result = painted(network, recipe)
    assert len(result.trace) == len(whole.trace) == 6
    # Rounding differs in tiles, and six steps of L-BFGS make more of it; a history lost would
    # change the picture by a hundred times that.
    torch.testing.assert_close(result.image, whole.image, rtol=0, atol=5e-3)
    assert float((result.image - whole.image).abs().mean()) < 1e-4


def test_a_history_that_does_not_fit_is_shortened(network: Vgg19, allocator: Allocator) -> None:
    """When the update itself runs out of memory L-BFGS starts anew, and remembers less."""
    allocator.refuses_history_above = 2
    result = painted(network, replace(FLAT, steps=12))
    assert {degradation.kind for degradation in result.degraded} == {"memory"}
    assert any("L-BFGS remembered 2 steps" in d.message for d in result.degraded)
    assert result.tile_px is None  # tiles would not have helped
    assert result.trace[-1].total < result.trace[0].total


def test_a_photo_that_no_update_could_change_is_not_handed_on(
    network: Vgg19, allocator: Allocator
) -> None:
    """Evaluations alone are no steps: without a single update there is no picture."""
    allocator.refuses_updates = True
    with pytest.raises(EngineFailure, match="too little memory"):
        painted(network, SMALL)


def test_when_no_rung_is_left_the_scale_before_is_the_picture(
    network: Vgg19, allocator: Allocator
) -> None:
    """A last scale of which not one step could be taken is left out, on record."""
    steps_before = 3 * 2  # two scales of three steps
    allocator.refuses_evaluation = tuple(range(steps_before + 1, 100))
    result = painted(network, SMALL)
    assert result.image.shape == (1, 3, 51, 68)
    assert SMALLER in result.degraded


def test_when_no_rung_is_left_within_a_scale_it_ends_early(
    network: Vgg19, allocator: Allocator
) -> None:
    """A scale of which some steps could be taken is the picture, on record."""
    allocator.refuses_evaluation = tuple(range(3, 100))
    result = painted(network, replace(FLAT, steps=9))
    assert result.image.shape == CONTENT.shape
    message = "memory ran out at 96 x 72 after 2 steps"
    assert Degradation("memory", message) in result.degraded
    assert (result.trace[-1].step, result.steps) == (2, 2)


def test_a_single_scale_that_does_not_fit_is_painted_smaller(
    network: Vgg19, allocator: Allocator
) -> None:
    """Without scales the picture is begun again, with half the pixels."""
    allocator.refuses_evaluation = (1, 2, 3, 4, 5)
    result = painted(network, FLAT)
    assert result.image.shape == (1, 3, 51, 68)
    assert len(result.trace) == 3


def test_a_picture_for_which_there_is_never_memory_is_an_engine_failure(
    network: Vgg19, allocator: Allocator
) -> None:
    """When even a tiny picture does not fit, the job fails in words."""
    allocator.refuses_evaluation = tuple(range(1, 1000))
    with pytest.raises(EngineFailure, match="too little memory"):
        painted(network, SMALL)


def test_no_memory_is_held_by_the_error_that_told_of_its_lack(
    network: Vgg19, allocator: Allocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt begins when the error, and the frames it came through, are gone."""
    allocator.refuses_untiled_above = 70
    handled: list[object] = []
    alive: list[object] = []

    def give_back(device: torch.device) -> None:
        handled.append(sys.exc_info()[1])
        alive.extend(o for o in gc.get_objects() if type(o) is torch.OutOfMemoryError)

    monkeypatch.setattr("styled.engine.stylize.give_back", give_back)
    painted(network, SMALL)
    assert handled == [None]
    assert alive == []


def test_a_job_that_was_shrunk_resumes_at_its_size(network: Vgg19, allocator: Allocator) -> None:
    """Interrupted after it had become smaller, a picture goes on as if nothing had happened."""
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
    """With less memory than before, the job starts over at a size that fits."""
    painting = stylize(network, CONTENT, STYLES, FLAT)
    data = dumped(next(painting).checkpoint())
    resume = loaded(data)

    def peak_bytes(_: object, settings: Settings, size: tuple[int, int]) -> int:
        return size[0] * size[1]

    monkeypatch.setattr("styled.engine.footprint.Footprint.peak_bytes", peak_bytes)
    resumed = stylize(network, CONTENT, STYLES, FLAT, resume, memory_bytes=4000)
    first = next(resumed)
    assert (first.step, first.width, first.height) == (1, 68, 51)


def test_a_resumed_job_without_memory_for_its_scale_begins_again_smaller(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a checkpoint's own size no longer fits, the photo is painted smaller, not cropped."""
    painting = stylize(network, CONTENT, STYLES, FLAT)
    resume = loaded(dumped(next(painting).checkpoint()))
    refused = 0
    make = Stage.__init__

    def refuse_large(stage: Stage, image: Tensor, *rest: Any) -> None:
        nonlocal refused
        if image.shape[-1] == 96:
            refused += 1
            raise RuntimeError("CUDA out of memory")
        make(stage, image, *rest)

    monkeypatch.setattr(Stage, "__init__", refuse_large)
    result = driven(stylize(network, CONTENT, STYLES, FLAT, resume))
    assert refused > 0
    assert result.image.shape == (1, 3, 51, 68)
    assert [row.step for row in result.trace] == [1, 2, 3]


def test_a_job_that_begins_again_is_not_called_resumed(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of what was painted with another thread count is left in the picture."""
    resume = loaded(dumped(next(stylize(network, CONTENT, STYLES, FLAT)).checkpoint()))
    resume = replace(resume, environment={**resume.environment, "threads": 99})
    went_on = next(stylize(network, CONTENT, STYLES, FLAT, resume))
    assert [known.kind for known in went_on.degraded] == ["resumed"]
    make = Stage.__init__

    def refuse_large(stage: Stage, image: Tensor, *rest: Any) -> None:
        if image.shape[-1] == 96:
            raise RuntimeError("CUDA out of memory")
        make(stage, image, *rest)

    monkeypatch.setattr(Stage, "__init__", refuse_large)
    began_again = next(stylize(network, CONTENT, STYLES, FLAT, resume))
    assert (began_again.step, began_again.width) == (1, 68)
    assert "resumed" not in [known.kind for known in began_again.degraded]


def test_a_resumed_job_lets_go_of_its_checkpoint(network: Vgg19) -> None:
    """After the first step nothing holds the images that were read from the file."""
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
    """A job that was to be painted smaller, and after a restart is not, says nothing of it."""

    def peak_bytes(_: object, settings: Settings, size: tuple[int, int]) -> int:
        return size[0] * size[1]

    monkeypatch.setattr("styled.engine.footprint.Footprint.peak_bytes", peak_bytes)
    painting = stylize(network, CONTENT, STYLES, SMALL, memory_bytes=4000)
    resume = loaded(dumped(next(painting).checkpoint()))
    result = driven(stylize(network, CONTENT, STYLES, SMALL, resume))
    assert result.image.shape == CONTENT.shape
    assert result.degraded == ()

"""The optimisation loop: progress, results, and resuming from any step."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from styled.engine.checkpoint import Checkpoint
from styled.engine.events import StepProgress, Stylized
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19, denormalize
from styled.errors import EngineFailure
from styled.recipes import PYRAMID, RECIPES, OptimizerSettings, PreserveColor, Recipe, Scales
from tests.engine.conftest import SHALLOW, dumped, loaded, picture

SMALL = replace(SHALLOW, steps=4, scales=Scales(start_px=32), trace_every=3)
CONTENT, STYLE = picture(64, 48), picture(60, 60, 1)
STYLES = [(STYLE, 1.0)]


def finish(
    painting: Generator[StepProgress, None, Stylized],
) -> tuple[list[StepProgress], Stylized]:
    """Run a painting to its end; return all progress and the result."""
    seen = []
    while True:
        try:
            seen.append(next(painting))
        except StopIteration as finished:
            return seen, finished.value


def test_a_painting_has_the_contents_size_and_valid_colours(network: Vgg19) -> None:
    """The result is 1x3xHxW float32 within [0, 1], and differs from the photo."""
    _, result = finish(stylize(network, CONTENT, STYLES, SMALL))
    assert result.image.shape == CONTENT.shape
    assert result.image.dtype == torch.float32
    assert 0 <= float(result.image.min()) <= float(result.image.max()) <= 1
    assert float((result.image - CONTENT).abs().mean()) > 0.02


def test_progress_goes_from_scale_to_scale_up_to_one(network: Vgg19) -> None:
    """Every step is yielded once, in order, and the fraction grows to exactly one."""
    seen, _ = finish(stylize(network, CONTENT, STYLES, SMALL))
    assert [(p.scale, p.step) for p in seen] == [(s, k) for s in (1, 2) for k in (1, 2, 3, 4)]
    assert [(p.width, p.height) for p in seen][::4] == [(45, 34), (64, 48)]
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_coarse_scales_may_take_steps_of_their_own(network: Vgg19) -> None:
    """`Scales.steps` limits all scales but the last; `budget` has all limits from the start."""
    recipe = replace(SMALL, scales=Scales(start_px=32, steps=2))
    seen, result = finish(stylize(network, CONTENT, STYLES, recipe))
    assert [(p.scale, p.step, p.steps) for p in seen] == [
        (1, 1, 2), (1, 2, 2), (2, 1, 4), (2, 2, 4), (2, 3, 4), (2, 4, 4)
    ]  # fmt: skip
    assert [p.budget for p in seen] == [(2, 4)] * 6
    assert [(row.scale, row.step) for row in result.trace] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 3),
        (2, 4),
    ]
    single, _ = finish(stylize(network, CONTENT, STYLES, replace(recipe, scales=None)))
    assert len(single) == 4


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_resuming_knows_how_many_steps_a_coarse_scale_takes(
    network: Vgg19, stop_after: int
) -> None:
    """Stopped in either scale and resumed, the picture equals that of an uninterrupted run."""
    recipe = replace(SMALL, scales=Scales(start_px=32, steps=2))
    _, whole = finish(stylize(network, CONTENT, STYLES, recipe))
    painting = stylize(network, CONTENT, STYLES, recipe)
    for _ in range(stop_after - 1):
        next(painting)
    checkpoint = loaded(dumped(next(painting).checkpoint()))
    painting.close()
    rest, resumed = finish(stylize(network, CONTENT, STYLES, recipe, resume=checkpoint))
    assert len(rest) == 6 - stop_after
    assert torch.equal(resumed.image, whole.image)


def test_the_trace_has_the_first_the_last_and_every_third_step(network: Vgg19) -> None:
    """The trace has every `trace_every`-th step and the first and last of each scale."""
    seen, result = finish(stylize(network, CONTENT, STYLES, SMALL))
    assert [(row.scale, row.step) for row in result.trace] == [
        (1, 1), (1, 3), (1, 4), (2, 1), (2, 3), (2, 4)
    ]  # fmt: skip
    assert result.trace[-1].total == seen[-1].losses.total


def test_the_loss_falls(network: Vgg19) -> None:
    """Twelve steps at least halve the loss of a scale."""
    recipe = replace(SMALL, steps=12, scales=None)
    seen, _ = finish(stylize(network, CONTENT, STYLES, recipe))
    assert seen[-1].losses.total < 0.5 * seen[0].losses.total


@pytest.mark.parametrize(
    "optimizer",
    [OptimizerSettings(), OptimizerSettings(name="adam", learning_rate=0.5)],
    ids=["lbfgs", "adam"],
)
def test_colours_are_kept_valid_in_the_normalised_space_too(
    network: Vgg19, optimizer: OptimizerSettings
) -> None:
    """In normalised space the bounds are not 0 and 1 and differ between channels."""
    recipe = replace(SMALL, space="normalized", scales=None, steps=8, optimizer=optimizer)
    for progress in stylize(network, CONTENT, STYLES, recipe):
        colors = denormalize(progress.checkpoint().image)
        assert float(colors.min()) > -1e-6
        assert float(colors.max()) < 1 + 1e-6
    # Nearly the full range is used, not just normalised values from 0 to 1.
    assert float(colors.min()) < 0.1
    assert float(colors.max()) > 0.9


@pytest.mark.parametrize(
    "optimizer",
    [OptimizerSettings(), OptimizerSettings(name="adam", learning_rate=0.02)],
    ids=["lbfgs", "adam"],
)
@pytest.mark.parametrize("stop_after", [1, 3, 4, 5, 8])
def test_resuming_at_any_step_gives_the_same_bytes(
    network: Vgg19, optimizer: OptimizerSettings, stop_after: int
) -> None:
    """Resumed from a serialised checkpoint, the picture equals that of an uninterrupted run."""
    recipe = replace(SMALL, optimizer=optimizer)
    _, whole = finish(stylize(network, CONTENT, STYLES, recipe))
    painting = stylize(network, CONTENT, STYLES, recipe)
    for _ in range(stop_after):
        progress = next(painting)
    data = dumped(progress.checkpoint())
    painting.close()
    resume = loaded(data)
    rest, resumed = finish(stylize(network, CONTENT, STYLES, recipe, resume))
    assert len(rest) == 8 - stop_after
    assert torch.equal(resumed.image, whole.image)
    assert [row._asdict() for row in resumed.trace] == [row._asdict() for row in whole.trace]


def test_the_same_job_gives_the_same_bytes(network: Vgg19) -> None:
    """On the CPU two runs of the same recipe are bit-identical."""
    _, first = finish(stylize(network, CONTENT, STYLES, SMALL))
    _, second = finish(stylize(network, CONTENT, STYLES, SMALL))
    assert torch.equal(first.image, second.image)


@pytest.mark.parametrize("init", ["noise", "uniform", "gray"])
def test_other_starts_than_the_content(network: Vgg19, init: str) -> None:
    """Noise and gray starts give other pictures than a content start; noise depends on the seed."""
    # Enough steps for gray to become a picture: a blank result is an error.
    recipe: Recipe = replace(SMALL, init=init, scales=None, steps=12)  # type: ignore[arg-type]  # parametrised
    _, from_content = finish(stylize(network, CONTENT, STYLES, replace(recipe, init="content")))
    _, first = finish(stylize(network, CONTENT, STYLES, recipe))
    _, again = finish(stylize(network, CONTENT, STYLES, recipe))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, from_content.image)
    if init in ("noise", "uniform"):
        _, other = finish(stylize(network, CONTENT, STYLES, replace(recipe, seed=1)))
        assert not torch.equal(first.image, other.image)


def test_two_styles_are_blended(network: Vgg19) -> None:
    """A second style changes the picture, but hardly with a weight near zero."""
    other = picture(60, 60, 5)

    def painted(weight: float) -> Tensor:
        styles = [(STYLE, 1.0), (other, weight)]
        return finish(stylize(network, CONTENT, styles, SMALL))[1].image

    alone = finish(stylize(network, CONTENT, STYLES, SMALL))[1].image
    assert float((painted(1e-6) - alone).abs().mean()) < 1e-2
    assert float((painted(1.0) - alone).abs().mean()) > 1e-2


def test_the_best_image_is_kept_not_the_last(network: Vgg19) -> None:
    """If Adam's loss rises again, the result is the image with the lowest loss."""
    recipe = replace(
        SMALL, scales=None, steps=7, optimizer=OptimizerSettings(name="adam", learning_rate=0.3)
    )
    seen, result = finish(stylize(network, CONTENT, STYLES, recipe))
    totals = [p.losses.total for p in seen]
    assert totals[-1] > min(totals)  # otherwise this tests nothing
    lowest = totals.index(min(totals)) + 1
    shorter, short = finish(stylize(network, CONTENT, STYLES, replace(recipe, steps=lowest)))
    assert shorter[-1].losses.total == min(totals)
    assert torch.equal(short.image, result.image)


def test_a_photo_with_a_value_that_is_no_number_is_an_engine_failure(network: Vgg19) -> None:
    """A photo with a NaN gives an EngineFailure, not a black picture."""
    broken = CONTENT.clone()
    broken[0, 0, 0, 0] = float("nan")
    with pytest.raises(EngineFailure, match="not a number"):
        finish(stylize(network, broken, STYLES, SMALL))


def test_closing_the_generator_stops_the_work(network: Vgg19) -> None:
    """After `close` the generator is exhausted, without an error."""
    painting = stylize(network, CONTENT, STYLES, SMALL)
    next(painting)
    painting.close()
    with pytest.raises(StopIteration):
        next(painting)


def test_a_checkpoint_is_a_snapshot_of_the_step_it_came_with(network: Vgg19) -> None:
    """A checkpoint has the scale and step of its progress."""
    painting = stylize(network, CONTENT, STYLES, SMALL)
    for _ in range(6):
        progress = next(painting)
    checkpoint: Checkpoint = progress.checkpoint()
    assert (checkpoint.scale, checkpoint.step) == (progress.scale, progress.step) == (2, 2)


def test_the_network_counts_its_layers_while_a_step_goes_on(network: Vgg19) -> None:
    """The counter advances in forward and backward pass, to tell slow steps from hung ones."""
    recipe = replace(PYRAMID, steps=4, scales=Scales(start_px=32))
    painting = stylize(network, CONTENT, STYLES, recipe)
    next(painting)
    layers_before = network.progress.layers
    next(painting)
    step = network.progress.layers - layers_before
    # 30 layers forward to relu5_1, and the backward pass counts at each layer with a loss.
    assert step == 30 + 6
    assert network.in_float32().progress is network.progress


@pytest.mark.parametrize("preserve_color", ["none", "luminance"])
def test_a_preview_is_the_present_picture_made_small(
    network: Vgg19, preserve_color: PreserveColor
) -> None:
    """A preview has the colours of the result, in either space of the optimisation."""
    for recipe in (SMALL, replace(RECIPES["avgpool"], steps=3)):
        painting = stylize(network, CONTENT, STYLES, replace(recipe, preserve_color=preserve_color))
        last = None
        while True:
            try:
                last = next(painting)
                preview = last.preview(32)
            except StopIteration as finished:
                result = finished.value
                break
            assert preview.shape == (1, 3, 24, 32)
            assert 0 <= float(preview.min()) <= float(preview.max()) <= 1
        assert last is not None
        small = torch.nn.functional.interpolate(result.image, (24, 32), mode="area")
        # The result is the best image, the preview the latest one.
        assert float((preview - small).abs().mean()) < 0.08


def test_a_preview_is_never_larger_than_the_picture(network: Vgg19) -> None:
    """A small scale is not enlarged."""
    progress = next(stylize(network, CONTENT, STYLES, SMALL))
    assert progress.preview(256).shape == (1, 3, 34, 45)


def test_taking_previews_changes_nothing(network: Vgg19) -> None:
    """The result is bit-identical with and without previews."""
    _, alone = finish(stylize(network, CONTENT, STYLES, SMALL))
    painting = stylize(network, CONTENT, STYLES, SMALL)
    while True:
        try:
            next(painting).preview(16)
        except StopIteration as finished:
            with_previews = finished.value
            break
    assert torch.equal(alone.image, with_previews.image)

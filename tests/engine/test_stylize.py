"""The loop: progress, results, and resuming from any step."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from styled.engine.checkpoint import Checkpoint
from styled.engine.progress import Progress, Stylized
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19, denormalize
from styled.errors import EngineFailure
from styled.recipes import PYRAMID, RECIPES, Optimizer, PreserveColor, Recipe, Scales
from tests.engine.conftest import SHALLOW, dumped, loaded, picture

SMALL = replace(SHALLOW, steps=4, scales=Scales(start_px=32), trace_every=3)
CONTENT, STYLE = picture(64, 48), picture(60, 60, 1)
STYLES = [(STYLE, 1.0)]


def finish(painting: Generator[Progress, None, Stylized]) -> tuple[list[Progress], Stylized]:
    """Drive a painting to its end."""
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
    """The last takes as many as the recipe has, and progress counts on that from the start."""
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
    """Stopped in either scale and resumed: the undisturbed picture."""
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
    """Rows of the trace are what `trace_every` asks for, at each scale."""
    seen, result = finish(stylize(network, CONTENT, STYLES, SMALL))
    assert [(row.scale, row.step) for row in result.trace] == [
        (1, 1), (1, 3), (1, 4), (2, 1), (2, 3), (2, 4)
    ]  # fmt: skip
    assert result.trace[-1].total == seen[-1].losses.total


def test_the_loss_falls(network: Vgg19) -> None:
    """Twelve steps bring the loss of a scale well below its first value."""
    recipe = replace(SMALL, steps=12, scales=None)
    seen, _ = finish(stylize(network, CONTENT, STYLES, recipe))
    assert seen[-1].losses.total < 0.5 * seen[0].losses.total


@pytest.mark.parametrize(
    "optimizer", [Optimizer(), Optimizer(name="adam", learning_rate=0.5)], ids=["lbfgs", "adam"]
)
def test_colours_are_kept_valid_in_the_normalised_space_too(
    network: Vgg19, optimizer: Optimizer
) -> None:
    """Black and white are not 0 and 1 there, and differ from channel to channel."""
    recipe = replace(SMALL, space="normalized", scales=None, steps=8, optimizer=optimizer)
    for progress in stylize(network, CONTENT, STYLES, recipe):
        colors = denormalize(progress.checkpoint().image)
        assert float(colors.min()) > -1e-6
        assert float(colors.max()) < 1 + 1e-6
    # Almost as far as that, and not just between the grey that is 0 there and what is 1.
    assert float(colors.min()) < 0.1
    assert float(colors.max()) > 0.9


@pytest.mark.parametrize(
    "optimizer", [Optimizer(), Optimizer(name="adam", learning_rate=0.02)], ids=["lbfgs", "adam"]
)
@pytest.mark.parametrize("stop_after", [1, 3, 4, 5, 8])
def test_resuming_at_any_step_gives_the_same_bytes(
    network: Vgg19, optimizer: Optimizer, stop_after: int
) -> None:
    """Stopped within or between scales and resumed from bytes: the undisturbed picture."""
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
    """On the CPU two runs of the same recipe agree bit for bit."""
    _, first = finish(stylize(network, CONTENT, STYLES, SMALL))
    _, second = finish(stylize(network, CONTENT, STYLES, SMALL))
    assert torch.equal(first.image, second.image)


@pytest.mark.parametrize("init", ["noise", "gray"])
def test_other_starts_than_the_content(network: Vgg19, init: str) -> None:
    """Noise and gray starts give other pictures than the content does; a seed decides noise."""
    # Enough steps for gray to become a picture: a blank one would be refused.
    recipe: Recipe = replace(SMALL, init=init, scales=None, steps=12)  # type: ignore[arg-type]  # parametrised
    _, from_content = finish(stylize(network, CONTENT, STYLES, replace(recipe, init="content")))
    _, first = finish(stylize(network, CONTENT, STYLES, recipe))
    _, again = finish(stylize(network, CONTENT, STYLES, recipe))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, from_content.image)
    if init == "noise":
        _, other = finish(stylize(network, CONTENT, STYLES, replace(recipe, seed=1)))
        assert not torch.equal(first.image, other.image)


def test_two_styles_are_blended(network: Vgg19) -> None:
    """A second style with a weight changes the picture; with a weight near zero hardly."""
    other = picture(60, 60, 5)

    def painted(weight: float) -> Tensor:
        styles = [(STYLE, 1.0), (other, weight)]
        return finish(stylize(network, CONTENT, styles, SMALL))[1].image

    alone = finish(stylize(network, CONTENT, STYLES, SMALL))[1].image
    assert float((painted(1e-6) - alone).abs().mean()) < 1e-2
    assert float((painted(1.0) - alone).abs().mean()) > 1e-2


def test_the_best_image_is_kept_not_the_last(network: Vgg19) -> None:
    """With a rate at which Adam climbs again, the result is the lowest point of the way."""
    recipe = replace(
        SMALL, scales=None, steps=7, optimizer=Optimizer(name="adam", learning_rate=0.3)
    )
    seen, result = finish(stylize(network, CONTENT, STYLES, recipe))
    totals = [p.losses.total for p in seen]
    assert totals[-1] > min(totals)  # otherwise this tests nothing
    lowest = totals.index(min(totals)) + 1
    shorter, short = finish(stylize(network, CONTENT, STYLES, replace(recipe, steps=lowest)))
    assert shorter[-1].losses.total == min(totals)
    assert torch.equal(short.image, result.image)


def test_a_photo_with_a_value_that_is_no_number_is_an_engine_failure(network: Vgg19) -> None:
    """A photo with a NaN in it ends in words, not in a black picture."""
    broken = CONTENT.clone()
    broken[0, 0, 0, 0] = float("nan")
    with pytest.raises(EngineFailure, match="not a number"):
        finish(stylize(network, broken, STYLES, SMALL))


def test_closing_the_generator_stops_the_work(network: Vgg19) -> None:
    """After close nothing more is computed, and nothing is raised."""
    painting = stylize(network, CONTENT, STYLES, SMALL)
    next(painting)
    painting.close()
    with pytest.raises(StopIteration):
        next(painting)


def test_a_checkpoint_is_a_snapshot_of_the_step_it_came_with(network: Vgg19) -> None:
    """Scale and step of a checkpoint are those of its progress."""
    painting = stylize(network, CONTENT, STYLES, SMALL)
    for _ in range(6):
        progress = next(painting)
    found: Checkpoint = progress.checkpoint()
    assert (found.scale, found.step) == (progress.scale, progress.step) == (2, 2)


def test_the_network_counts_its_layers_while_a_step_goes_on(network: Vgg19) -> None:
    """There and back, tile by tile: a step of minutes can be told from one that hangs."""
    recipe = replace(PYRAMID, steps=4, scales=Scales(start_px=32))
    painting = stylize(network, CONTENT, STYLES, recipe)
    next(painting)
    whole_before = network.odometer.layers
    next(painting)
    step = network.odometer.layers - whole_before
    # One way to relu5_1, 30 layers, and the five layers of losses on the way back.
    assert step == 30 + 6
    assert network.in_float32().odometer is network.odometer


@pytest.mark.parametrize("preserve_color", ["none", "luminance"])
def test_a_preview_is_the_present_picture_made_small(
    network: Vgg19, preserve_color: PreserveColor
) -> None:
    """With the colours that the result will have, whatever space the pixels are moved in."""
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
    """Small scales are shown as they are."""
    progress = next(stylize(network, CONTENT, STYLES, SMALL))
    assert progress.preview(256).shape == (1, 3, 34, 45)


def test_taking_previews_changes_nothing(network: Vgg19) -> None:
    """The same bytes come out, whoever looked on the way."""
    _, alone = finish(stylize(network, CONTENT, STYLES, SMALL))
    painting = stylize(network, CONTENT, STYLES, SMALL)
    while True:
        try:
            next(painting).preview(16)
        except StopIteration as finished:
            watched = finished.value
            break
    assert torch.equal(alone.image, watched.image)

"""The detail scale: a painting is enlarged to the photo's size and takes a few more steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from styled.degradation import Degradation
from styled.engine.guard import RunSettings
from styled.engine.memory_estimate import FIXED_BYTES, MemoryEstimate
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.engine_api import PixelSize
from styled.recipes import RECIPES, OptimizerSettings, Scales, Size
from tests.engine.conftest import SHALLOW, dumped, loaded, picture
from tests.engine.test_stylize import finish

RECIPE = replace(SHALLOW, steps=4, detail_steps=2, scales=Scales(start_px=32))
CONTENT, STYLES = picture(128, 96), [(picture(60, 60, 1), 1.0)]
PAINTED = PixelSize(64, 48)


def test_the_last_scale_is_the_photos_own_and_takes_few_steps(network: Vgg19) -> None:
    """The plan has the scales up to the painted size, then the content's size."""
    seen, result = finish(stylize(network, CONTENT, STYLES, RECIPE, painted_size=PAINTED))
    assert seen[0].plan == ((45, 34), (64, 48), (128, 96))
    assert [(p.scale, p.step) for p in seen][-3:] == [(2, 4), (3, 1), (3, 2)]
    assert seen[-1].finished
    assert result.detail_steps == 2
    assert result.image.shape == CONTENT.shape
    assert result.degraded == ()


def test_the_fraction_knows_how_few_the_last_steps_are(network: Vgg19) -> None:
    """The fraction grows to one, in proportion to pixels times steps."""
    seen, _ = finish(stylize(network, CONTENT, STYLES, RECIPE, painted_size=PAINTED))
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    painted, detail = 4 * (45 * 34 + 64 * 48), 2 * 128 * 96
    assert fractions[-3] == pytest.approx(painted / (painted + detail))


def test_what_was_painted_stays_and_its_detail_gets_closer_to_the_style(network: Vgg19) -> None:
    """Downsampled, the result is close to the painting; the loss at full size has decreased."""
    recipe = replace(RECIPE, steps=12, detail_steps=6)
    painting = stylize(network, CONTENT, STYLES, recipe, painted_size=PAINTED)
    progress = next(painting)
    while not (progress.scale == 2 and progress.finished):
        progress = next(painting)
    painted = progress.preview(64)
    rest, result = finish(painting)
    assert rest[-1].losses.total < rest[0].losses.total
    small = torch.nn.functional.interpolate(result.image, (48, 64), mode="area")
    changed = (small - painted).abs().mean()
    photo = torch.nn.functional.interpolate(CONTENT, (48, 64), mode="area")
    assert float(changed) < 0.5 * float((painted - photo).abs().mean())


def test_without_detail_steps_it_is_only_painted(network: Vgg19) -> None:
    """The result has the painted size; enlarging it is left to the caller."""
    recipe = replace(RECIPE, detail_steps=0)
    seen, result = finish(stylize(network, CONTENT, STYLES, recipe, painted_size=PAINTED))
    assert seen[-1].plan[-1] == PAINTED
    assert result.image.shape == (1, 3, 48, 64)
    assert (result.detail_steps, result.degraded) == (0, ())


def test_memory_for_the_full_size_may_be_missing(network: Vgg19) -> None:
    """Then the result is smaller, with a degradation."""
    recipe = replace(RECIPE, optimizer=OptimizerSettings(name="adam", learning_rate=0.02))
    small = replace(recipe, size=Size(long_edge=64))
    layers = [*recipe.content_layers, *recipe.style_layers]
    memory_bytes = FIXED_BYTES + network.lazy_weight_bytes(layers) + 7_000_000
    painting = stylize(
        network, CONTENT, STYLES, small, memory_bytes=memory_bytes, painted_size=PAINTED
    )
    _, result = finish(painting)
    width, height = result.image.shape[3], result.image.shape[2]
    assert (width, height) < (128, 96)
    assert result.detail_steps == 0
    message = f"memory was short: painted at {width} x {height} in place of 128 x 96"
    assert Degradation("memory", message) == result.degraded[-1]
    assert [d for d in result.degraded[:-1] if "in place of" in d.message] == []


def test_it_can_be_interrupted_amid_the_detail(network: Vgg19) -> None:
    """Resumed at the detail scale, the result is identical, byte for byte."""
    _, whole = finish(stylize(network, CONTENT, STYLES, RECIPE, painted_size=PAINTED))
    painting = stylize(network, CONTENT, STYLES, RECIPE, painted_size=PAINTED)
    progress = next(painting)
    while progress.scale < 3:
        progress = next(painting)
    resume = loaded(dumped(progress.checkpoint()))
    rest, resumed = finish(stylize(network, CONTENT, STYLES, RECIPE, resume, painted_size=PAINTED))
    assert [(p.scale, p.step) for p in rest] == [(3, 2)]
    assert torch.equal(resumed.image, whole.image)


def test_a_style_of_its_own_size_is_seen_at_the_painted_size(network: Vgg19) -> None:
    """A style size of 48 pixels set by the recipe applies at the painted size."""
    recipe = replace(RECIPE, scales=None, style_size=Size(long_edge=48), size=Size(long_edge=64))
    style = [(picture(48, 48, 1), 1.0)]
    first, _ = finish(stylize(network, CONTENT, style, recipe, painted_size=PAINTED))
    small = torch.nn.functional.interpolate(
        CONTENT, (48, 64), mode="bicubic", antialias=True
    ).clamp(0, 1)
    alone, _ = finish(stylize(network, small, style, recipe))
    assert first[0].losses.style == pytest.approx(alone[0].losses.style, rel=1e-4)


def test_memory_that_is_short_makes_the_detail_smaller_before_it_is_left_out(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the pixels of 256 x 192 are still more than twice the painted ones."""
    recipe = replace(RECIPE, steps=1, detail_steps=1)
    content = picture(256, 192)
    limit = 90 * 1000  # the fake estimate counts pixels

    def peak_bytes(self: MemoryEstimate, settings: RunSettings, size: tuple[int, int]) -> int:
        return size[0] * size[1] * 3

    monkeypatch.setattr(MemoryEstimate, "peak_bytes", peak_bytes)
    painting = stylize(network, content, STYLES, recipe, memory_bytes=limit, painted_size=PAINTED)
    seen, result = finish(painting)
    assert seen[-1].plan[-1] == (181, 136)
    assert result.detail_steps == 1
    message = "memory was short: painted at 181 x 136 in place of 256 x 192"
    assert Degradation("memory", message) in result.degraded
    assert result.degraded == seen[-1].degraded


def test_a_style_of_its_own_size_is_predicted_at_that_size(network: Vgg19) -> None:
    """The estimate for the painted size does not shrink the style by the enlargement."""
    recipe = replace(RECIPES["avgpool"], size=Size(long_edge=64))
    style = [(picture(512, 384), 1.0)]
    settings = RunSettings(recipe.optimizer)
    plain = MemoryEstimate.of(network, recipe, picture(64, 48), style)
    enlarged = MemoryEstimate.of(network, recipe, picture(1024, 768), style, PAINTED)
    more = (1024 * 768 - 64 * 48) * 4 * 3 * 4  # at most four images of the photo
    difference = enlarged.peak_bytes(settings, PAINTED) - plain.peak_bytes(settings, PAINTED)
    assert 0 <= difference <= more

"""The one block of memory that steps are taken in."""

from __future__ import annotations

import gc
import mmap
import weakref
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from styled.engine import cpu_layers, winograd
from styled.engine.objective import Objective, layer_features, style_targets
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.engine.workplace import Workplace, numbers_needed
from styled.recipes import RECIPES, Recipe
from tests.engine.conftest import driven, picture

LAYERS = [
    ("relu1_1",),
    ("conv1_1",),
    ("relu1_1", "conv1_1"),
    ("pool4",),
    ("relu2_1", "conv4_2"),
    *((*recipe.content_layers, *recipe.style_layers) for recipe in RECIPES.values()),
]
SIZES = [(16, 16), (37, 50), (96, 33)]


def span(tensor: Tensor) -> tuple[int, int]:
    """Return where a tensor's memory begins and ends."""
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes


def assert_apart(*tensors: Tensor) -> None:
    """Assert that no two share a byte."""
    for (_, end), (start, _) in pairwise(sorted(map(span, tensors))):
        assert end <= start


@pytest.mark.parametrize("layers", LAYERS, ids="-".join)
@pytest.mark.parametrize("size", SIZES)
def test_nothing_that_is_needed_is_written_over(
    layers: tuple[str, ...], size: tuple[int, int]
) -> None:
    """At each layer there and back, what lies in memory and is still needed lies apart."""
    rooms = list(Workplace(layers, [size]).rooms(*size).values())
    outputs = [room.output for room in rooms if room.output is not None]
    slopes = [room.slope for room in rooms if room.slope is not None]
    assert len(outputs) == len(rooms)
    assert_apart(*outputs)
    # The first layer's is that by the pixels, and the last layer's output has none from here.
    assert len(slopes) == len(rooms) - 1
    for i in reversed(range(1, len(rooms))):
        by_output = slopes[i : i + 1]
        assert_apart(*outputs[: i + 1], slopes[i - 1], *by_output)
    end = min(span(output)[0] for output in outputs) + 4 * numbers_needed(layers, *size)
    assert max(span(piece)[1] for piece in [*outputs, *slopes]) <= end


@pytest.mark.parametrize("layers", LAYERS, ids="-".join)
def test_results_are_the_same_as_in_memory_of_their_own(
    network: Vgg19, layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features and gradient, byte for byte; a smaller picture after a larger one, and back."""
    monkeypatch.setattr(winograd, "_TILES_AT_ONCE", 2)  # many bands: what is read is written over
    monkeypatch.setattr(cpu_layers, "_BAND_NUMBERS", 1)
    place = Workplace(layers, SIZES)
    for height, width in [*SIZES, *reversed(SIZES)]:
        image = picture(width, height).requires_grad_()
        expected = network.features(image, layers)
        found = network.features(image, layers, rooms=place.rooms(height, width))
        for name in layers:
            assert torch.equal(found[name], expected[name]), name
        totals = [
            torch.stack([f.square().mean() for f in of.values()]).sum() for of in (found, expected)
        ]
        gradients = [torch.autograd.grad(total, image)[0] for total in totals]
        assert torch.equal(gradients[0][0], gradients[1][0])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
@pytest.mark.parametrize(("tile_px", "has_opacity"), [(None, True), (48, False)])
def test_an_objective_is_the_same_without_it(
    network: Vgg19,
    recipe: Recipe,
    tile_px: int | None,
    has_opacity: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Losses and gradient, whatever has been looked at before."""
    content, style, image = picture(72, 33, 0), picture(40, 50, 1), picture(72, 33, 3)
    if has_opacity:
        content = torch.cat([content, picture(72, 33, 4)[:, :1]], dim=1)
    targets = style_targets(network, recipe, [(style, 1.0)], tile_px)
    objective = Objective(network, recipe, content, targets, tile_px)
    objective.evaluate(picture(72, 33, 2))
    losses, gradient = objective.evaluate(image)
    monkeypatch.setattr("styled.engine.objective.workplace_for", lambda *_: None)
    plain = Objective(network, recipe, content, targets, tile_px)
    assert objective._workplace is not None
    assert plain._workplace is None
    expected_losses, expected = plain.evaluate(image)
    assert losses.total == expected_losses.total
    assert torch.equal(gradient, expected)


def test_a_way_back_through_fewer_layers_is_refused(network: Vgg19) -> None:
    """Its slopes would lie elsewhere; without a gradient some of the layers may be asked for."""
    place = Workplace(["relu2_1", "relu3_1"], [(40, 40)])
    recipe, image = RECIPES["pyramid"], picture(40, 40)
    found = layer_features(network, recipe, image, {"relu2_1": 1.0}, place)["relu2_1"].clone()
    expected = layer_features(network, recipe, image, {"relu2_1": 1.0})["relu2_1"]
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="fewer layers"):
        layer_features(network, recipe, image.requires_grad_(), {"relu2_1": 1.0}, place)


def test_where_there_is_no_room_for_it_a_picture_is_painted_in_tiles(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real refusal of the kernel, of a block that is made too large for whole pictures only."""

    class Greedy(Workplace):
        def __init__(self, layers: Collection[str], sizes: Iterable[tuple[int, int]]) -> None:
            sizes = list(sizes)
            super().__init__(layers, [*sizes, (1 << 20, 1 << 21)] if len(sizes) == 1 else sizes)

    monkeypatch.setattr("styled.engine.objective.Workplace", Greedy)
    recipe = replace(RECIPES["pyramid"], steps=2, scales=None)
    result = driven(stylize(network, picture(600, 80), [(picture(40, 40, 1), 1.0)], recipe))
    assert result.tile_px is not None
    assert result.image.shape == (1, 3, 80, 600)


def test_it_is_hardly_larger_than_the_activations() -> None:
    """Of `pyramid`, all outputs and two slopes of the deepest layers."""
    recipe = RECIPES["pyramid"]
    layers = {*recipe.content_layers, *recipe.style_layers}
    rooms = Workplace(layers, [(256, 384)]).rooms(256, 384)
    activations = sum(room.output.numel() for room in rooms.values() if room.output is not None)
    assert activations <= numbers_needed(layers, 256, 384) <= 1.05 * activations


def test_more_than_there_can_be_is_a_lack_of_memory() -> None:
    """The kernel refuses; that is said as everywhere else, so that tiles are tried."""
    with pytest.raises(MemoryError, match="out of memory"):
        Workplace(["relu1_1"], [(1 << 20, 1 << 21)])


def test_it_is_given_back_at_once(network: Vgg19, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is gone with the last that looks at it: nothing goes in circles."""
    layers = RECIPES["pyramid"].style_layers
    blocks = []
    mapped = mmap.mmap

    def remembered(*args: Any, **settings: Any) -> mmap.mmap:
        block = mapped(*args, **settings)
        blocks.append(weakref.ref(block))
        return block

    monkeypatch.setattr("styled.engine.workplace.mmap.mmap", remembered)
    gc.disable()
    try:
        place = Workplace(layers, [(64, 80)])
        image = picture(80, 64).requires_grad_()
        found = network.features(image, layers, rooms=place.rooms(64, 80))
        torch.autograd.grad([f.sum() for f in found.values()], image)
        del place, image
        assert [block() is None for block in blocks] == [False]
        del found
        assert [block() is None for block in blocks] == [True]
    finally:
        gc.enable()

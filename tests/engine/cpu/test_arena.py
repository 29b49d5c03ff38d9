"""The preallocated block for activations and gradients."""

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

from styled.engine.cpu import layers as cpu_layers
from styled.engine.cpu import winograd
from styled.engine.cpu.arena import ActivationArena, numel_needed
from styled.engine.cpu.backend import CpuBackend
from styled.engine.objective import Objective, layer_features, style_targets
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
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
    """Return the addresses of the first byte of a dense tensor and of the byte after its last."""
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes


def assert_disjoint(*tensors: Tensor) -> None:
    """Assert that no two tensors share memory."""
    for (_, end), (start, _) in pairwise(sorted(map(span, tensors))):
        assert end <= start


@pytest.mark.parametrize("layers", LAYERS, ids="-".join)
@pytest.mark.parametrize("size", SIZES)
def test_nothing_that_is_needed_is_written_over(
    layers: tuple[str, ...], size: tuple[int, int]
) -> None:
    """At each layer, forward and backward, all buffers that are still needed are disjoint."""
    buffers = list(ActivationArena(layers, [size]).buffers(*size).values())
    outputs = [layer.output for layer in buffers if layer.output is not None]
    grads = [layer.grad_input for layer in buffers if layer.grad_input is not None]
    assert len(outputs) == len(buffers)
    assert_disjoint(*outputs)
    # The arena holds neither the gradient of the pixels nor that of the last layer's output.
    assert len(grads) == len(buffers) - 1
    for i in reversed(range(1, len(buffers))):
        grad_output = grads[i : i + 1]
        assert_disjoint(*outputs[: i + 1], grads[i - 1], *grad_output)
    end = min(span(output)[0] for output in outputs) + 4 * numel_needed(layers, *size)
    assert max(span(tensor)[1] for tensor in [*outputs, *grads]) <= end


@pytest.mark.parametrize("layers", LAYERS, ids="-".join)
def test_results_are_the_same_as_in_memory_of_their_own(
    network: Vgg19, layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features and gradient are bitwise equal, for images of growing and of shrinking size."""
    # Many bands: the scratch buffers are overwritten often.
    monkeypatch.setattr(winograd, "_TILES_PER_BAND", 2)
    monkeypatch.setattr(cpu_layers, "_BAND_NUMEL", 1)
    arena = ActivationArena(layers, SIZES)
    for height, width in [*SIZES, *reversed(SIZES)]:
        image = picture(width, height).requires_grad_()
        expected = network.features(image, layers)
        actual = network.features(image, layers, buffers=arena.buffers(height, width))
        for name in layers:
            assert torch.equal(actual[name], expected[name]), name
        totals = [
            torch.stack([f.square().mean() for f in features.values()]).sum()
            for features in (actual, expected)
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
    """Losses and gradient are bitwise equal, also after a pass over another image."""
    content, style, image = picture(72, 33, 0), picture(40, 50, 1), picture(72, 33, 3)
    if has_opacity:
        content = torch.cat([content, picture(72, 33, 4)[:, :1]], dim=1)
    targets = style_targets(network, recipe, [(style, 1.0)], tile_px)
    objective = Objective(network, recipe, content, targets, tile_px)
    objective.evaluate(picture(72, 33, 2))
    losses, gradient = objective.evaluate(image)
    monkeypatch.setattr(CpuBackend, "arena", lambda *_: None)
    plain = Objective(network, recipe, content, targets, tile_px)
    assert objective._arena is not None
    assert plain._arena is None
    expected_losses, expected = plain.evaluate(image)
    assert losses.total == expected_losses.total
    assert torch.equal(gradient, expected)


def test_a_way_back_through_fewer_layers_is_refused(network: Vgg19) -> None:
    """The gradient buffers are laid out for all layers; without a gradient a subset is allowed."""
    arena = ActivationArena(["relu2_1", "relu3_1"], [(40, 40)])
    recipe, image = RECIPES["pyramid"], picture(40, 40)
    actual = layer_features(network, recipe, image, {"relu2_1": 1.0}, arena)["relu2_1"].clone()
    expected = layer_features(network, recipe, image, {"relu2_1": 1.0})["relu2_1"]
    assert torch.equal(actual, expected)
    with pytest.raises(ValueError, match="exactly the layers"):
        layer_features(network, recipe, image.requires_grad_(), {"relu2_1": 1.0}, arena)


def test_where_there_is_no_room_for_it_a_picture_is_painted_in_tiles(
    network: Vgg19, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel really refuses a block, made too large here for whole images only."""

    class Greedy(ActivationArena):
        def __init__(self, layers: Collection[str], sizes: Iterable[tuple[int, int]]) -> None:
            sizes = list(sizes)
            super().__init__(layers, [*sizes, (1 << 20, 1 << 21)] if len(sizes) == 1 else sizes)

    monkeypatch.setattr("styled.engine.cpu.backend.ActivationArena", Greedy)
    recipe = replace(RECIPES["pyramid"], steps=2, scales=None)
    result = driven(stylize(network, picture(600, 80), [(picture(40, 40, 1), 1.0)], recipe))
    assert result.tile_px is not None
    assert result.image.shape == (1, 3, 80, 600)


def test_it_is_hardly_larger_than_the_activations() -> None:
    """For `pyramid` the block exceeds all outputs by less than 5 %."""
    recipe = RECIPES["pyramid"]
    layers = {*recipe.content_layers, *recipe.style_layers}
    buffers = ActivationArena(layers, [(256, 384)]).buffers(256, 384)
    activations = sum(
        layer.output.numel() for layer in buffers.values() if layer.output is not None
    )
    assert activations <= numel_needed(layers, 256, 384) <= 1.05 * activations


def test_more_than_there_can_be_is_a_lack_of_memory() -> None:
    """If the kernel refuses, a MemoryError is raised, for which tiles are tried."""
    with pytest.raises(MemoryError, match="out of memory"):
        ActivationArena(["relu1_1"], [(1 << 20, 1 << 21)])


def test_it_is_given_back_at_once(network: Vgg19, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is freed with its last reference, without the cyclic garbage collector."""
    layers = RECIPES["pyramid"].style_layers
    blocks = []
    original = mmap.mmap

    def recording(*args: Any, **kwargs: Any) -> mmap.mmap:
        block = original(*args, **kwargs)
        blocks.append(weakref.ref(block))
        return block

    monkeypatch.setattr("styled.engine.cpu.arena.mmap.mmap", recording)
    gc.disable()
    try:
        arena = ActivationArena(layers, [(64, 80)])
        image = picture(80, 64).requires_grad_()
        features = network.features(image, layers, buffers=arena.buffers(64, 80))
        torch.autograd.grad([f.sum() for f in features.values()], image)
        del arena, image
        assert [block() is None for block in blocks] == [False]
        del features
        assert [block() is None for block in blocks] == [True]
    finally:
        gc.enable()

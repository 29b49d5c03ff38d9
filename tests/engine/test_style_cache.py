"""The style cache: hits, misses and eviction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from styled.engine.device import Device
from styled.engine.local_engine import LocalEngine
from styled.engine.style_cache import StyleCache
from styled.engine.vgg import Vgg19
from styled.engine.weights import Weights
from styled.recipes import PYRAMID, Scales
from tests.engine.conftest import painted_by, picture, task_of, untrained


class Counting(Vgg19):
    """A network that counts its forward passes."""

    calls = 0

    def features(
        self, image: Tensor, layers: Collection[str], **options: object
    ) -> dict[str, Tensor]:
        """Count the call and compute."""
        self.calls += 1
        return super().features(image, layers, **options)  # type: ignore[arg-type]  # handed through


STYLE = picture(48, 40)


def test_a_known_style_computes_no_features_again() -> None:
    """A second request for the same pixels and layers needs no forward pass."""
    network, cache = Counting(untrained()), StyleCache()
    first = cache.targets(network, PYRAMID, [(STYLE, 1.0)])
    assert network.calls == 1
    assert cache.targets(network, PYRAMID, [(STYLE.clone(), 1.0)]) is first
    assert network.calls == 1


def test_whatever_changes_the_target_is_another_entry() -> None:
    """Pixels, weights, a second style, layers, pooling and loss are part of the key."""
    network, cache = Counting(untrained()), StyleCache()
    edited = STYLE.clone()
    edited[0, 0, 0, 0] += 0.01
    requests = [
        (PYRAMID, [(STYLE, 1.0)]),
        (PYRAMID, [(edited, 1.0)]),
        (PYRAMID, [(STYLE, 1.0), (edited, 1.0)]),
        (PYRAMID, [(STYLE, 1.0), (edited, 2.0)]),
        (replace(PYRAMID, style_layers={"relu1_1": 1.0}), [(STYLE, 1.0)]),
        (replace(PYRAMID, pooling="average"), [(STYLE, 1.0)]),
        (replace(PYRAMID, style_loss="gram_raw"), [(STYLE, 1.0)]),
        (replace(PYRAMID, normalize_input=False), [(STYLE, 1.0)]),
    ]
    entries = {id(cache.targets(network, recipe, styles)) for recipe, styles in requests}
    assert len(entries) == len(requests)


def test_what_does_not_change_the_target_does_not_count() -> None:
    """Steps, content weight and layer weights are not part of the key."""
    network, cache = Counting(untrained()), StyleCache()
    first = cache.targets(network, PYRAMID, [(STYLE, 1.0)])
    other = replace(
        PYRAMID,
        steps=7,
        content_weight=1.0,
        style_layers=dict.fromkeys(PYRAMID.style_layers, 1.0),
    )
    assert cache.targets(network, other, [(STYLE, 1.0)]) is first


def test_memory_is_bounded_and_the_least_recently_used_goes_first() -> None:
    """Above the limit the least recently used entry is evicted, the others are kept."""
    network = Counting(untrained())
    recipe = replace(PYRAMID, style_layers={"relu2_1": 1.0})
    entry_bytes = 128 * 4 + 128 * 128 * 4 + 2 * 128 * 8 + 8  # mean, factor, orders, trace
    cache = StyleCache(limit_bytes=2 * entry_bytes + entry_bytes // 2)
    a, b, c = ([(picture(40, 40, seed), 1.0)] for seed in range(3))
    for styles in (a, b, a, c):  # b is now the least recently used
        cache.targets(network, recipe, styles)
    assert network.calls == 3
    cache.targets(network, recipe, a)
    cache.targets(network, recipe, c)
    assert network.calls == 3
    cache.targets(network, recipe, b)
    assert network.calls == 4


def test_the_second_job_of_a_style_computes_no_style_features() -> None:
    """With a known style, a scale costs one forward pass for the content and one per step."""
    engine = LocalEngine(
        Weights(untrained(), "untrained", "0" * 64), Device(torch.device("cpu"), "cpu"), "float32"
    )
    network = Counting(untrained())
    engine._network = network
    recipe = replace(PYRAMID, steps=2, scales=Scales(start_px=32))

    def job(seed: int) -> int:
        before = network.calls
        painted_by(engine, task_of(picture(64, 48, seed), [(STYLE, 1.0)], recipe))
        return network.calls - before

    scales, steps = 2, 2
    assert job(1) == scales * (1 + 1 + steps)  # content, style, and one pass for each step
    assert job(2) == scales * (1 + steps)

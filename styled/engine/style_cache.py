"""LRU cache of style targets, by style image, size and recipe."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

from styled.engine.checkpoint import fingerprint_of
from styled.engine.objective import StyleTargets, style_targets
from styled.engine.vgg import Vgg19
from styled.recipes import Recipe

LIMIT_BYTES = 1 << 26
"""Targets of `pyramid` take 2.5 MB for a style at one size; evicted ones cost a forward pass."""


class StyleCache:
    """An LRU cache of style targets, keyed by the pixels of the styles."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """Keep at most `limit_bytes` of tensors."""
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[str, StyleTargets] = OrderedDict()
        self.bytes = 0  # of all cached tensors

    def targets(
        self,
        network: Vgg19,
        recipe: Recipe,
        styles: Sequence[tuple[Tensor, float]],
        tile_px: int | None = None,
    ) -> StyleTargets:
        """Return the result of `style_targets`, from the cache if possible.

        The key includes the pixels, so that an edited style image is another style.
        """
        key = fingerprint_of(
            *(part for image, weight in styles for part in (image, weight)),
            sorted(recipe.style_layers),
            recipe.style_loss,
            recipe.normalize_input,
            recipe.space,
            recipe.pooling,
            recipe.first_padding,
            network.dtype,
            tile_px,  # tiles change the order of summation, and with it the last digits
        )
        cached = self._entries.get(key)
        if cached is None:
            cached = style_targets(network, recipe, styles, tile_px)
            self._entries[key] = cached
            self.bytes += _bytes_of(cached)
        self._entries.move_to_end(key)
        self.shrink_to(self._limit_bytes, at_least=1)
        return cached

    def shrink_to(self, limit_bytes: int, at_least: int = 0) -> None:
        """Evict least recently used entries down to `limit_bytes`, keeping `at_least` of them."""
        while self.bytes > limit_bytes and len(self._entries) > at_least:
            _, evicted = self._entries.popitem(last=False)
            self.bytes -= _bytes_of(evicted)


def _bytes_of(targets: StyleTargets) -> int:
    return sum(target.nbytes for target in targets.values())

"""Style targets are computed once for each style, size and recipe, and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields

from torch import Tensor

from styled.engine.checkpoint import fingerprint_of
from styled.engine.objective import StyleTargets, style_targets
from styled.engine.style_losses import StyleTarget
from styled.engine.vgg import Vgg19
from styled.recipes import Recipe

LIMIT_BYTES = 1 << 26
"""Those of `pyramid` take 2.4 MB for a style at one size; what is forgotten costs another look."""


class StyleCache:
    """Remembers targets by the pixels of their styles, the least recently used go first."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """Keep at most `limit_bytes` of tensors."""
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[str, StyleTargets] = OrderedDict()
        self.bytes = 0  # that are held now

    def targets(
        self,
        network: Vgg19,
        recipe: Recipe,
        styles: Sequence[tuple[Tensor, float]],
        tile_px: int | None = None,
    ) -> StyleTargets:
        """Return what `style_targets` returns, computed only where it is not known yet.

        The key is the pixels themselves, so that an edited style image is another style.
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
            tile_px,  # another order of the sums gives other last digits
        )
        found = self._kept.get(key)
        if found is None:
            found = style_targets(network, recipe, styles, tile_px)
            self._kept[key] = found
            self.bytes += _bytes_of(found)
        self._kept.move_to_end(key)
        self.shrink_to(self._limit_bytes, at_least=1)
        return found

    def shrink_to(self, limit_bytes: int, at_least: int = 0) -> None:
        """Forget the least recently used until the rest fits, or `at_least` so many are left."""
        while self.bytes > limit_bytes and len(self._kept) > at_least:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= _bytes_of(dropped)


def _bytes_of(targets: StyleTargets) -> int:
    return sum(_bytes_of_target(target) for target in targets.values())


def _bytes_of_target(target: StyleTarget) -> int:
    values = (getattr(target, field.name) for field in fields(target))
    return sum(value.nbytes for value in values if isinstance(value, Tensor))

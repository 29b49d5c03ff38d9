"""How much memory a picture will take, known before it is begun.

What a step needs is counted layer by layer. What comes on top, the scratch space of
convolutions and what an allocator leaves unused between its blocks, is measured: see
`OVERHEAD`, which steps in a `Workplace` are spared, and `tests/engine/test_footprint.py`, which
holds both to the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from styled.engine.guard import Settings
from styled.engine.ladder import Pixels
from styled.engine.objective import keeps_content_features
from styled.engine.tiling import Tile, stride_of, tiles
from styled.engine.vgg import Vgg19, channels_of, has_own_layers, needed_slice
from styled.engine.workplace import numbers_needed
from styled.recipes import Recipe

OVERHEAD = {"cpu": 1.5, "cuda": 1.1, "mps": 1.3}
"""Bytes really taken for each byte of activations.

On a CPU much is lost between the blocks of the C library's heap, which is kept from step to
step because that is faster (see `keep_freed_memory`): measured with torch 2.15, oneDNN and
glibc 2.36. In float32 there is no such loss: steps have a `Workplace`, and the rest is mapped. The
factors for GPUs are estimates until they have been measured.
"""

FIXED_BYTES = 48 << 20
"""What does not grow with the picture: style targets, matrix roots, code loaded on demand, and
where convolutions keep their tiles (see `winograd`)."""

_IMAGE_BYTES = 3 * 4
_INDEX_BYTES = 8  # torch's max pooling remembers where each maximum was
_UPDATE_IMAGES = 6  # that an update of the optimiser needs for a moment...
_TRANSFORM_IMAGES = 3  # ...and where it tells frequencies apart


@dataclass(frozen=True, slots=True)
class Footprint:
    """What decides how much memory a picture takes.

    Attributes:
        recipe: How it is painted.
        asked: Width and height that were asked for.
        styles: Width and height of each style image at that size.
        precision: What convolutions compute in.
        device_type: `cpu`, `cuda` or `mps`.
        has_opacity: Whether photo or styles have transparent pixels.
        painted_size: Width and height at which it is painted before it is enlarged to `asked`.
        network_growth: Bytes by which the network will still grow, see `Vgg19.growth`.
    """

    recipe: Recipe
    asked: Pixels
    styles: tuple[Pixels, ...]
    precision: torch.dtype
    device_type: str
    has_opacity: bool = False
    painted_size: Pixels | None = None
    network_growth: int = 0

    @classmethod
    def of(
        cls,
        network: Vgg19,
        recipe: Recipe,
        content: Tensor,
        styles: Sequence[tuple[Tensor, float]],
        painted_size: Pixels | None = None,
    ) -> Self:
        """Describe a picture by its 1x3xHxW photo and styles, or 1x4xHxW with opacity."""
        sizes = tuple((image.shape[3], image.shape[2]) for image, _ in styles)
        asked = content.shape[3], content.shape[2]
        has_opacity = any(image.shape[1] == 4 for image in (content, *(i for i, _ in styles)))
        return cls(
            recipe,
            asked,
            sizes,
            network.dtype,
            network.device.type,
            has_opacity,
            painted_size,
            network.growth([*recipe.content_layers, *recipe.style_layers]),
        )

    def peak_bytes(self, settings: Settings, size: Pixels) -> int:
        """Return the most that painting a scale of `size` will take, besides the network."""
        precision = torch.float32 if settings.float32 else self.precision
        pixels = size[0] * size[1]
        # A style of a size of its own has it where the picture is painted at first.
        has_own_size = self.recipe.style_size not in ("scaled", "content")
        full = self.painted_size if has_own_size and self.painted_size else self.asked
        shrink = min(1.0, (pixels / (full[0] * full[1])) ** 0.5)
        style_sizes = [(round(w * shrink), round(h * shrink)) for w, h in self.styles]

        held = self._images_held(settings) * pixels * _IMAGE_BYTES
        # The photo and the styles at full size, from which each scale takes its own.
        held += sum(w * h for w, h in (self.asked, *self.styles)) * _IMAGE_BYTES
        layers = {**self.recipe.content_layers, **self.recipe.style_layers}
        cut = tiles(size[1], size[0], settings.tile_px, layers)
        if keeps_content_features(self.recipe, len(cut)):
            held += int(_numbers_per_pixel(self.recipe.content_layers) * pixels * 4)

        look = 0
        for width, height in style_sizes:
            seen = tiles(height, width, settings.tile_px, self.recipe.style_layers)
            look = max(look, self._look_bytes(max(map(_window_pixels, seen)), precision))
        images = _UPDATE_IMAGES + _TRANSFORM_IMAGES * settings.optimizer.by_frequency
        update = images * pixels * _IMAGE_BYTES
        fixed = FIXED_BYTES + self.network_growth
        if has_own_layers(self.device_type, precision):
            passes, beside = self._workplace_bytes(cut)
            return fixed + held + max(look, passes + max(update, beside))
        step = max(look, self._step_bytes(max(map(_window_pixels, cut)), precision))
        return fixed + held + max(int(step * OVERHEAD[self.device_type]), update)

    def _images_held(self, settings: Settings) -> int:
        """Return how many images of the scale's size live from step to step."""
        optimizer = settings.optimizer
        if optimizer.name == "lbfgs":
            remembered = 2 * min(optimizer.history, self.recipe.steps) + 2
        else:
            remembered = 2 + (optimizer.average > 0)
        present_best_gradient = 3
        photo = 1 + (self.recipe.space == "normalized")
        return remembered + present_best_gradient + photo

    def _workplace_bytes(self, cut: Sequence[Tile]) -> tuple[int, int]:
        """Return what a workplace for these tiles has, and what is needed beside it for a moment.

        That is, of one layer's features in the core of a tile, their difference from the photo's
        and its square, or a copy of them and the slope by them, where these are not views; and
        all of the photo's where they are not kept.
        """
        content, style = self.recipe.content_layers, self.recipe.style_layers
        layers = {**content, **style}
        windows = {tile.window_size for tile in cut}
        numbers = max(numbers_needed(layers, height, width) for height, width in windows)
        copied = {**content, **(style if len(cut) > 1 or self.has_opacity else {})}
        beside = 2 * max(map(_numbers_per_pixel, ([name] for name in copied)), default=0.0)
        if not keeps_content_features(self.recipe, len(cut)):
            beside += _numbers_per_pixel(content)
        return 4 * numbers, int(4 * beside * max(tile.core_pixels for tile in cut))

    def _step_bytes(self, window: int, precision: torch.dtype) -> int:
        """Return what forward and backward pass over a window of so many pixels keep."""
        recipe = self.recipe
        wanted = {**recipe.content_layers, **recipe.style_layers}
        numbers = indices = 0.0
        previous = ""
        for name in needed_slice(wanted):
            positions = channels_of(name) / stride_of(name) ** 2
            if name.startswith("conv") or previous in wanted:
                numbers += positions
            if name.startswith("pool"):
                numbers += positions * (2 if recipe.pooling == "average_rescaled" else 1)
                indices += positions if recipe.pooling == "max" else 0
            previous = name
        # The pixels, as they are, normalised and padded, and their gradient.
        numbers += 4 * 3
        if self.has_opacity:  # the widest features once more, each as much as it counts
            numbers += channels_of("conv1_1")
        return int(window * (numbers * precision.itemsize + indices * _INDEX_BYTES))

    def _look_bytes(self, window: int, precision: torch.dtype) -> int:
        """Return what a forward pass over a window of so many pixels keeps, for style layers."""
        widest = 2 * channels_of("conv1_1")
        numbers = _numbers_per_pixel(self.recipe.style_layers) + widest
        if self.has_opacity:
            numbers += channels_of("conv1_1")
        return int(window * numbers * precision.itemsize)


def _numbers_per_pixel(layers: Iterable[str]) -> float:
    return sum(channels_of(name) / stride_of(name) ** 2 for name in layers)


def _window_pixels(tile: Tile) -> int:
    height, width = tile.window_size
    return height * width

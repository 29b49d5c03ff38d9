"""Estimates the memory that a picture takes, before it is painted.

The tensors of a step are counted layer by layer. The rest, scratch space of convolutions and
fragmentation of the heap, is a measured factor, `OVERHEAD`; steps that use an `ActivationArena`
do not have it. `tests/engine/test_memory_estimate.py` compares estimates with measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from styled.engine.backend import uses_cpu_backend
from styled.engine.cpu.arena import numel_needed
from styled.engine.guard import RunSettings
from styled.engine.objective import keeps_content_features
from styled.engine.scales import pixel_size
from styled.engine.tiling import Tile, stride_of, tiles
from styled.engine.vgg import Vgg19
from styled.engine.vgg_layers import channels_of, needed_slice
from styled.engine_api import PixelSize
from styled.recipes import Recipe

OVERHEAD = {"cpu": 1.5, "cuda": 1.1, "mps": 1.3}
"""Bytes actually used per byte of activations, by device type.

On a CPU the C library's heap is fragmented, because freed memory is kept from step to step for
speed (see `configure_allocator`): measured with torch 2.15, oneDNN and glibc 2.36. In float32
there is no such loss: the activations are in an `ActivationArena` and other large allocations use
mmap. The factors for GPUs are estimates until they have been measured.
"""

FIXED_BYTES = 48 << 20
"""Memory that does not depend on the picture's size: style targets, matrix roots, code loaded on
demand, and the convolutions' tile buffers (see `winograd`)."""

_IMAGE_BYTES = 3 * 4
_INDEX_BYTES = 8  # torch's max pooling stores the index of each maximum
_UPDATE_IMAGES = 6  # temporary images of an optimiser update...
_TRANSFORM_IMAGES = 3  # ...and those added by `frequency_preconditioner`


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The properties of a picture that determine how much memory it takes.

    Attributes:
        recipe: The recipe that it is painted with.
        requested_size: Width and height of the result.
        styles: Width and height of each style image at that size.
        precision: The dtype of the convolutions.
        device_type: `cpu`, `cuda` or `mps`.
        has_opacity: Whether the photo or a style has transparent pixels.
        painted_size: Width and height at which it is painted before it is enlarged to
            `requested_size`. None: it is painted at `requested_size`.
        lazy_weight_bytes: Bytes by which the network will still grow, see
            `Vgg19.lazy_weight_bytes`.
    """

    recipe: Recipe
    requested_size: PixelSize
    styles: tuple[PixelSize, ...]
    precision: torch.dtype
    device_type: str
    has_opacity: bool = False
    painted_size: PixelSize | None = None
    lazy_weight_bytes: int = 0

    @classmethod
    def of(
        cls,
        network: Vgg19,
        recipe: Recipe,
        content: Tensor,
        styles: Sequence[tuple[Tensor, float]],
        painted_size: PixelSize | None = None,
    ) -> Self:
        """Create the estimate for a photo and styles, 1x3xHxW, or 1x4xHxW with opacity."""
        sizes = tuple(pixel_size(image) for image, _ in styles)
        requested_size = pixel_size(content)
        has_opacity = any(image.shape[1] == 4 for image in (content, *(i for i, _ in styles)))
        return cls(
            recipe,
            requested_size,
            sizes,
            network.dtype,
            network.device.type,
            has_opacity,
            painted_size,
            network.lazy_weight_bytes([*recipe.content_layers, *recipe.style_layers]),
        )

    def peak_bytes(self, settings: RunSettings, size: PixelSize) -> int:
        """Return the estimated peak in bytes of painting a scale of `size`, without the network."""
        precision = torch.float32 if settings.float32 else self.precision
        pixels = size[0] * size[1]
        # A style size set by the recipe itself applies at the size painted before enlarging.
        has_own_size = self.recipe.style_size not in ("scaled", "content")
        full = self.painted_size if has_own_size and self.painted_size else self.requested_size
        shrink = min(1.0, (pixels / (full[0] * full[1])) ** 0.5)
        style_sizes = [(round(w * shrink), round(h * shrink)) for w, h in self.styles]

        resident = self._images_held(settings) * pixels * _IMAGE_BYTES
        # The photo and the styles at full size, which each scale is resized from.
        resident += sum(w * h for w, h in (self.requested_size, *self.styles)) * _IMAGE_BYTES
        layers = {**self.recipe.content_layers, **self.recipe.style_layers}
        image_tiles = tiles(size[1], size[0], settings.tile_px, layers)
        if keeps_content_features(self.recipe, len(image_tiles)):
            resident += int(_values_per_pixel(self.recipe.content_layers) * pixels * 4)

        style_pass = 0
        for width, height in style_sizes:
            style_tiles = tiles(height, width, settings.tile_px, self.recipe.style_layers)
            style_pass = max(
                style_pass, self._style_pass_bytes(max(map(_window_pixels, style_tiles)), precision)
            )
        images = _UPDATE_IMAGES + _TRANSFORM_IMAGES * settings.optimizer.frequency_preconditioner
        update = images * pixels * _IMAGE_BYTES
        fixed = FIXED_BYTES + self.lazy_weight_bytes
        if uses_cpu_backend(self.device_type, precision):
            arena, temporaries = self._arena_bytes(image_tiles)
            return fixed + resident + max(style_pass, arena + max(update, temporaries))
        step = max(style_pass, self._step_bytes(max(map(_window_pixels, image_tiles)), precision))
        return fixed + resident + max(int(step * OVERHEAD[self.device_type]), update)

    def _images_held(self, settings: RunSettings) -> int:
        """Return how many images of the scale's size are kept from step to step."""
        optimizer = settings.optimizer
        if optimizer.name == "lbfgs":
            # All pairs are allocated at once, but a CPU's memory is taken when it is written.
            pairs = optimizer.history
            if self.device_type == "cpu":
                pairs = min(pairs, self.recipe.steps)
            optimizer_state = 2 * pairs + 2
        else:
            optimizer_state = 2 + (optimizer.average > 0)
        current_best_gradient = 3
        photo = 1 + (self.recipe.space == "normalized")
        return optimizer_state + current_best_gradient + photo

    def _arena_bytes(self, image_tiles: Sequence[Tile]) -> tuple[int, int]:
        """Return the bytes of the arena for these tiles, and of the temporaries outside it.

        Temporaries, of one layer in the core of a tile: for content layers, the difference from
        the photo's features and its square; for style layers, a copy of the features where the
        core is a part of a window, and one weighted by opacity. All of the photo's content features
        are added if they are recomputed at each step.
        """
        content, style = self.recipe.content_layers, self.recipe.style_layers
        layers = {**content, **style}
        windows = {tile.window_size for tile in image_tiles}
        numel = max(numel_needed(layers, height, width) for height, width in windows)
        copies = dict.fromkeys(style, (len(image_tiles) > 1) + self.has_opacity)
        copies |= dict.fromkeys(content, 2)
        temporaries = max(n * _values_per_pixel([name]) for name, n in copies.items())
        if not keeps_content_features(self.recipe, len(image_tiles)):
            temporaries += _values_per_pixel(content)
        return 4 * numel, int(4 * temporaries * max(tile.core_pixels for tile in image_tiles))

    def _step_bytes(self, window: int, precision: torch.dtype) -> int:
        """Return the bytes kept by a forward and backward pass over a window of `window` pixels."""
        recipe = self.recipe
        output_layers = {**recipe.content_layers, **recipe.style_layers}
        values = indices = 0.0  # per pixel
        previous = ""
        for name in needed_slice(output_layers):
            positions = channels_of(name) / stride_of(name) ** 2
            if name.startswith("conv") or previous in output_layers:
                values += positions
            if name.startswith("pool"):
                values += positions * (2 if recipe.pooling == "average_rescaled" else 1)
                indices += positions if recipe.pooling == "max" else 0
            previous = name
        # The pixels, normalised pixels, padded pixels, and the gradient.
        values += 4 * 3
        if self.has_opacity:  # a copy of the widest features, weighted by opacity
            values += channels_of("conv1_1")
        return int(window * (values * precision.itemsize + indices * _INDEX_BYTES))

    def _style_pass_bytes(self, window: int, precision: torch.dtype) -> int:
        """Return the bytes kept by a forward pass for the style layers over `window` pixels."""
        widest = 2 * channels_of("conv1_1")
        values = _values_per_pixel(self.recipe.style_layers) + widest
        if self.has_opacity:
            values += channels_of("conv1_1")
        return int(window * values * precision.itemsize)


def _values_per_pixel(layers: Iterable[str]) -> float:
    return sum(channels_of(name) / stride_of(name) ** 2 for name in layers)


def _window_pixels(tile: Tile) -> int:
    height, width = tile.window_size
    return height * width

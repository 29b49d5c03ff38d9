"""The objective that is minimised: content loss + style loss + total variation.

An image is processed in tiles; usually one tile covers all of it. Style losses need the
moments of the *whole* image, so an evaluation takes two passes over the tiles. The first
accumulates the moments (forward only). The second computes the gradients of the loss with
respect to the moments and to the content features, and backpropagates them to the pixels.
The result equals that of a single tile up to rounding, and memory grows with the size of a
tile, not of the image. A single tile needs only one forward and one backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import add

import torch
from torch import Tensor

from styled.engine.backend import layout_on
from styled.engine.cpu.arena import ActivationArena
from styled.engine.losses import (
    Moments,
    MomentsGrad,
    at_least_float32,
    content_grad,
    content_loss,
    moments,
    total_variation,
)
from styled.engine.opacity import Opacity, split_opacity
from styled.engine.scales import pixel_size
from styled.engine.style_losses import StyleTarget, precise_dtype, style_target, total_style_loss
from styled.engine.tiling import Tile, stride_of, tiles
from styled.engine.vgg import ProgressCounter, Vgg19, denormalize, normalize
from styled.engine.vgg_layers import channels_of
from styled.engine_api import PixelSize
from styled.recipes import LAYER_NAMES, Recipe

StyleTargets = Mapping[str, StyleTarget]


@dataclass(frozen=True, eq=False)
class Losses:
    """The value of the objective and its three weighted terms: total = content + style + tv.

    Attributes:
        on_device: Total, content, style and tv as one float32 tensor of four elements, on the
            image's device. The float properties copy it to the host on first access, which on a
            GPU waits for all queued kernels.
    """

    on_device: Tensor

    @classmethod
    def of(cls, total: float, content: float, style: float, tv: float) -> Losses:
        """Return a record of four known values."""
        return cls(torch.tensor([total, content, style, tv]))

    @property
    def total(self) -> float:
        """The total loss."""
        return self._values[0]

    @property
    def content(self) -> float:
        """The weighted content loss."""
        return self._values[1]

    @property
    def style(self) -> float:
        """The weighted style loss."""
        return self._values[2]

    @property
    def tv(self) -> float:
        """The weighted total variation."""
        return self._values[3]

    @cached_property
    def _values(self) -> list[float]:
        return self.on_device.tolist()


def to_space(recipe: Recipe, image: Tensor) -> Tensor:
    """Convert 1x3xHxW sRGB in [0, 1] to the space in which the recipe optimises."""
    return normalize(image) if recipe.space == "normalized" else image


def from_space(recipe: Recipe, image: Tensor) -> Tensor:
    """Convert 1x3xHxW from the space in which the recipe optimises to sRGB, without clamping."""
    return denormalize(image) if recipe.space == "normalized" else image


def layer_features(
    network: Vgg19,
    recipe: Recipe,
    image: Tensor,
    layers: Mapping[str, float],
    arena: ActivationArena | None = None,
) -> dict[str, Tensor]:
    """Return the features of an image, normalised and padded as the recipe says.

    Args:
        network: The resident network.
        recipe: Decides normalisation, pooling and padding.
        image: 1x3xHxW in the recipe's space.
        layers: The layers to return; only the names are used.
        arena: Buffers for activations and gradients. The features in it are valid until the
            next forward pass overwrites them.

    Returns:
        Layer -> 1xCxhxw in the network's dtype.

    Raises:
        ValueError: a gradient is needed and `layers` are not exactly the arena's layers.
            Without a gradient they may be a subset.
    """
    needs_grad = image.requires_grad and torch.is_grad_enabled()
    if arena is not None and needs_grad and arena.layers != frozenset(layers):
        raise ValueError("a backward pass needs exactly the layers of the arena")
    if recipe.normalize_input and recipe.space == "srgb":
        image = normalize(image)
    elif not recipe.normalize_input and recipe.space == "normalized":
        image = denormalize(image)
    buffers = arena.buffers(*image.shape[-2:]) if arena else {}
    return network.features(
        image, layers, pooling=recipe.pooling, first_padding=recipe.first_padding, buffers=buffers
    )


@torch.no_grad()
def picture_moments(
    network: Vgg19,
    recipe: Recipe,
    image: Tensor,
    tile_list: Sequence[Tile],
    opacity: Opacity | None = None,
    arena: ActivationArena | None = None,
) -> dict[str, Moments]:
    """Return the moments of each style layer over 1x3xHxW in the recipe's space.

    They are accumulated over the cores of the tiles, so they cover every position once.
    """
    parts = [_tile_moments(network, recipe, image, tile, opacity, arena) for tile in tile_list]
    return {name: reduce(add, (part[name] for part in parts)) for name in recipe.style_layers}


def _tile_moments(
    network: Vgg19,
    recipe: Recipe,
    image: Tensor,
    tile: Tile,
    opacity: Opacity | None,
    arena: ActivationArena | None,
) -> dict[str, Moments]:
    features = layer_features(network, recipe, tile.window(image), recipe.style_layers, arena)
    return {
        name: _layer_moments(
            recipe,
            name,
            tile.core(f, name),
            pixel_size(image),
            None if opacity is None else opacity.weights(tile, name),
        )
        for name, f in features.items()
    }


def _layer_moments(
    recipe: Recipe, layer: str, features: Tensor, size: PixelSize, weights: Tensor | None
) -> Moments:
    """Return the moments of a layer's features in a tile of an image of `size`."""
    stride = stride_of(layer)
    positions = (size.width // stride) * (size.height // stride)
    dtype = precise_dtype(recipe.style_loss, channels_of(layer), positions, features.device)
    return moments(features, weights, precise_dtype=dtype)


@torch.no_grad()
def style_targets(
    network: Vgg19,
    recipe: Recipe,
    styles: Sequence[tuple[Tensor, float]],
    tile_px: int | None = None,
) -> StyleTargets:
    """Return the target statistics of each style layer, blended over the style images.

    Args:
        network: The resident network.
        recipe: Names the layers.
        styles: 1x3xHxW sRGB in [0, 1] of any size, or 1x4xHxW with opacity, each with its
            weight; the weights are normalised to sum to one.
        tile_px: The approximate longest edge of a tile's core, in pixels; None: each image is
            processed as a whole.
    """
    statistics: list[tuple[dict[str, Moments], float]] = []
    for image, weight in styles:
        tile_list = tiles(image.shape[2], image.shape[3], tile_px, recipe.style_layers)
        colors, alpha = split_opacity(image)
        opacity = None if alpha is None else Opacity(alpha, recipe.style_layers)
        by_layer = picture_moments(network, recipe, to_space(recipe, colors), tile_list, opacity)
        statistics.append((by_layer, weight))
    return {
        name: style_target(
            recipe.style_loss, [(by_layer[name], weight) for by_layer, weight in statistics]
        )
        for name in recipe.style_layers
    }


@dataclass(frozen=True, slots=True)
class _TilePass:
    """The forward pass over one tile.

    Attributes:
        tile: The tile.
        pixels: 1x3xhxw, the tile's window; requires a gradient.
        features: Layer name -> 1xCxhxw, the features of the tile's window.
        progress: The network's progress counter.
    """

    tile: Tile
    pixels: Tensor
    features: dict[str, Tensor]
    progress: ProgressCounter

    def core(self, layer: str) -> Tensor:
        """Return the features of the tile's core, detached."""
        return self.tile.core(self.features[layer].detach(), layer)

    def pixel_grad(self, add_grad: Callable[[str, Tensor], None]) -> Tensor:
        """Run the backward pass; return the gradient with respect to the pixels, 1x3xhxw.

        The losses' own gradients are added on the way, each at its layer:

            pixels <- relu1_1 <- ... <- relu4_1 <- relu4_2 <- ... <- relu5_1 <- zeros
                         +                 +          +                 +
                       style             style     content            style

        Args:
            add_grad: Adds the gradient of the loss with respect to a layer's core features to a
                tensor, in place. It is called by a hook when the backward pass reaches that
                layer: computed in advance, these gradients would be a quarter of the memory of
                a step.
        """
        *shallower, deepest = sorted(self.features, key=LAYER_NAMES.index)

        def add_layer_grad(layer: str, gradient: Tensor) -> Tensor:
            # In place: only the next layer uses a layer's output, so autograd holds no other
            # reference to this gradient.
            add_grad(layer, self.tile.core(gradient, layer))
            self.progress.layers += 1
            return gradient

        # Remove the hooks afterwards: hook -> self -> features -> hook is a reference cycle, which
        # would keep all activations alive until the garbage collector runs.
        hooks = [
            self.features[layer].register_hook(partial(add_layer_grad, layer))  # type: ignore[no-untyped-call]  # torch's
            for layer in shallower
        ]
        try:
            start = add_layer_grad(deepest, torch.zeros_like(self.features[deepest]))
            # Of a scalar: for anything else torch imports sympy first, which takes half a second.
            product = (self.features[deepest] * start).sum()
            (gradient,) = torch.autograd.grad(product, self.pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return gradient


class Objective:
    """The total loss of a recipe at one scale, with its gradient."""

    def __init__(
        self,
        network: Vgg19,
        recipe: Recipe,
        content: Tensor,
        targets: StyleTargets,
        tile_px: int | None = None,
    ) -> None:
        """Allocate buffers and, where they are cached, compute the photo's content features.

        Args:
            network: The resident network.
            recipe: Layers, weights and terms.
            content: 1x3xHxW sRGB in [0, 1], or 1x4xHxW with opacity: the photo at this scale.
            targets: The style's, from `style_targets`.
            tile_px: The approximate longest edge of a tile's core in pixels, which bounds the
                memory; None: the image is processed as a whole.
        """
        content, alpha = split_opacity(content)
        self._network = network
        self._recipe = recipe
        self._targets = targets
        self._photo = to_space(recipe, content)
        self._layers = {**recipe.content_layers, **recipe.style_layers}
        self._opacity = None if alpha is None else Opacity(alpha, self._layers)
        self._tiles = tiles(content.shape[2], content.shape[3], tile_px, self._layers)
        sizes = [tile.window_size for tile in self._tiles]
        self._arena = network.backend.arena(self._layers, sizes)
        self._content_features = (
            [self._tile_content_features(tile) for tile in self._tiles]
            if keeps_content_features(recipe, len(self._tiles))
            else None
        )

    def evaluate(self, image: Tensor, tv_smoothing: float = 0.0) -> tuple[Losses, Tensor]:
        """Return the losses of an image and the gradient of their total.

        Args:
            image: 1x3xHxW float32 in the recipe's space, of the content's size.
            tv_smoothing: Huber delta of an absolute total variation, in units of the recipe's
                space; 0: off. See `total_variation`.

        Returns:
            The weighted terms, and d total / d image, 1x3xHxW float32.
        """
        recipe = self._recipe
        image = image.detach()
        tv, gradient = total_variation(recipe.tv_loss, image, tv_smoothing)
        tv, gradient = tv * recipe.tv_weight, gradient.mul_(recipe.tv_weight)

        only_pass = self._forward(image, self._tiles[0]) if len(self._tiles) == 1 else None
        if only_pass is None:
            by_layer = picture_moments(
                self._network, recipe, image, self._tiles, self._opacity, self._arena
            )
        else:
            by_layer = {
                name: _layer_moments(
                    recipe,
                    name,
                    only_pass.core(name),
                    pixel_size(image),
                    self._weights(only_pass.tile, name),
                )
                for name in recipe.style_layers
            }
        style, style_grads = self._style_term(by_layer)

        content = torch.zeros_like(style)
        for index in range(len(self._tiles)):
            content += self._add_tile(image, index, style_grads, gradient, only_pass)

        return Losses(torch.stack([content + style + tv, content, style, tv])), gradient

    def _add_tile(
        self,
        image: Tensor,
        index: int,
        style_grads: Mapping[str, MomentsGrad],
        gradient: Tensor,
        tile_pass: _TilePass | None,
    ) -> Tensor:
        """Add a tile's contribution to the gradient; return its content term, a scalar.

        The activations of the tile are freed on return, before the next tile's forward pass.

        Args:
            image: 1x3xHxW, the whole image.
            index: The index of the tile in `self._tiles`.
            style_grads: The gradient of the style term with respect to each layer's moments.
            gradient: 1x3xHxW, of the whole image; changed in place.
            tile_pass: The tile's forward pass, if it has been run already.
        """
        tile = self._tiles[index]
        # The photo first: an arena has buffers for one pass at a time.
        photo = (
            self._content_features[index]
            if self._content_features
            else self._tile_content_features(tile)
        )
        tile_pass = tile_pass or self._forward(image, tile)
        content_term = self._content_term(tile_pass, photo)
        add_grad = partial(self._add_grad, tile_pass, photo, style_grads)
        tile.window(gradient).add_(tile_pass.pixel_grad(add_grad))
        return content_term

    def _forward(self, image: Tensor, tile: Tile) -> _TilePass:
        pixels = tile.window(image).detach().requires_grad_()
        features = layer_features(self._network, self._recipe, pixels, self._layers, self._arena)
        return _TilePass(tile, pixels, features, self._network.progress)

    def _style_term(self, by_layer: Mapping[str, Moments]) -> tuple[Tensor, dict[str, MomentsGrad]]:
        """Return the weighted style term and its gradient with respect to each layer's moments."""
        recipe = self._recipe
        weights = {name: recipe.style_weight * w for name, w in recipe.style_layers.items()}
        return total_style_loss(recipe.style_loss, by_layer, self._targets, weights)

    def _content_term(self, tile_pass: _TilePass, photo: Mapping[str, Tensor]) -> Tensor:
        """Return a tile's contribution to the weighted content term."""
        recipe = self._recipe
        terms = [
            content_loss(
                recipe.content_loss,
                tile_pass.core(name),
                photo[name],
                self._numel(name),
                self._weights(tile_pass.tile, name),
            )
            * (recipe.content_weight * weight)
            for name, weight in recipe.content_layers.items()
        ]
        return torch.stack(terms).sum()

    def _add_grad(
        self,
        tile_pass: _TilePass,
        photo: Mapping[str, Tensor],
        style_grads: Mapping[str, MomentsGrad],
        layer: str,
        gradient: Tensor,
    ) -> None:
        """Add the gradient of content and style terms w.r.t. a layer's features in a core."""
        recipe, features = self._recipe, tile_pass.core(layer)
        weights = self._weights(tile_pass.tile, layer)
        if layer in style_grads:
            style_grads[layer].add_feature_grad(features, weights, gradient)
        if layer in recipe.content_layers:
            weight = recipe.content_weight * recipe.content_layers[layer]
            numel = self._numel(layer)
            grad = content_grad(recipe.content_loss, features, photo[layer], numel, weights)
            gradient.add_(grad.to(gradient.dtype), alpha=weight)

    def _weights(self, tile: Tile, layer: str) -> Tensor | None:
        return None if self._opacity is None else self._opacity.weights(tile, layer)

    def _numel(self, layer: str) -> float:
        """Return a layer's number of elements over the whole image, weighted by opacity."""
        if self._opacity is not None:
            return channels_of(layer) * self._opacity.positions(layer)
        height, width = self._photo.shape[-2:]
        stride = stride_of(layer)
        return channels_of(layer) * (height // stride) * (width // stride)

    @torch.no_grad()
    def _tile_content_features(self, tile: Tile) -> dict[str, Tensor]:
        """Return the photo's content features in the core of a tile."""
        features = layer_features(
            self._network,
            self._recipe,
            tile.window(self._photo),
            self._recipe.content_layers,
            self._arena,
        )
        # Copied: the next pass overwrites the arena, and the halo is not needed.
        layout = layout_on(self._network.device)
        return {
            name: at_least_float32(tile.core(f, name)).clone(memory_format=layout)
            for name, f in features.items()
        }


MAX_CACHED_ELEMENTS_PER_PIXEL = 16
"""With several tiles, content features are cached only up to this many elements per pixel."""


def keeps_content_features(recipe: Recipe, tile_count: int) -> bool:
    """Return whether the photo's content features are cached instead of recomputed every step.

    The features of a single tile are small compared with the memory of a step. With several
    tiles they add up to those of the whole image: 8 elements per pixel at relu4_2, which is
    less than the optimiser's state, but 64 at relu1_1.
    """
    per_pixel = sum(channels_of(name) / stride_of(name) ** 2 for name in recipe.content_layers)
    return tile_count == 1 or per_pixel <= MAX_CACHED_ELEMENTS_PER_PIXEL

"""The function that is minimised: how far a picture is from its content and its style.

A picture is looked at in tiles; usually one tile is all of it. Style losses need the
moments of the *whole* picture, so that an evaluation takes two passes over the tiles: the
first sums up the moments; the second brings the slopes of the loss, with regard to the
moments and to the content features, back to the pixels. The result is that of one tile,
to rounding, in memory that grows with the tile. A single tile is passed through once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import torch
from torch import Tensor

from styled.engine.losses import (
    Moments,
    at_least_float32,
    by_position,
    content_loss,
    content_slope,
    moments,
    total_variation,
)
from styled.engine.opacity import Opacity, split_opacity
from styled.engine.style_losses import StyleTarget, style_loss, style_target
from styled.engine.tiling import Tile, stride_of, tiles
from styled.engine.vgg import (
    Odometer,
    Vgg19,
    channels_of,
    denormalize,
    layout_on,
    normalize,
)
from styled.engine.workplace import Workplace
from styled.recipes import LAYER_NAMES, Recipe

StyleTargets = Mapping[str, StyleTarget]


class Losses:
    """The value of the objective and its three weighted terms: total = content + style + tv.

    Attributes:
        on_device: The four as one tensor. As numbers they are read when they are first asked
            for: on a GPU that waits for all that is being computed.
    """

    __slots__ = ("_numbers", "on_device")

    def __init__(self, total: float, content: float, style: float, tv: float) -> None:
        """Hold four numbers."""
        self._numbers: list[float] | None = [total, content, style, tv]
        self.on_device = torch.tensor(self._numbers)

    @classmethod
    def still_on(cls, on_device: Tensor) -> Losses:
        """Hold what is still being computed: total, content, style and tv as one tensor."""
        losses = cls.__new__(cls)
        losses._numbers, losses.on_device = None, on_device
        return losses

    @property
    def total(self) -> float:
        """The value of the objective."""
        return self._read()[0]

    @property
    def content(self) -> float:
        """Its weighted content term."""
        return self._read()[1]

    @property
    def style(self) -> float:
        """Its weighted style term."""
        return self._read()[2]

    @property
    def tv(self) -> float:
        """Its weighted total variation."""
        return self._read()[3]

    def __eq__(self, other: object) -> bool:
        """Tell whether the numbers are the same."""
        return isinstance(other, Losses) and self._read() == other._read()

    def __hash__(self) -> int:
        """Return a digest of the numbers."""
        return hash(tuple(self._read()))

    def _read(self) -> list[float]:
        if self._numbers is None:
            self._numbers = self.on_device.tolist()
        return self._numbers


def to_space(recipe: Recipe, image: Tensor) -> Tensor:
    """Bring 1x3xHxW sRGB in [0, 1] to the space in which the recipe optimises."""
    return normalize(image) if recipe.space == "normalized" else image


def from_space(recipe: Recipe, image: Tensor) -> Tensor:
    """Bring 1x3xHxW from the space in which the recipe optimises to sRGB."""
    return denormalize(image) if recipe.space == "normalized" else image


def layer_features(
    network: Vgg19,
    recipe: Recipe,
    image: Tensor,
    layers: Mapping[str, float],
    workplace: Workplace | None = None,
) -> dict[str, Tensor]:
    """Return the features of 1x3xHxW in the recipe's space, as it has the network see it.

    In a workplace they are there until the next ones are. It has to be for just these layers where
    a gradient is wanted; otherwise they may be some of its own.
    """
    way_back = image.requires_grad and torch.is_grad_enabled()
    if workplace is not None and way_back and workplace.layers != frozenset(layers):
        raise ValueError("a workplace has no way back through fewer layers than its own")
    if recipe.normalize_input and recipe.space == "srgb":
        image = normalize(image)
    elif not recipe.normalize_input and recipe.space == "normalized":
        image = denormalize(image)
    rooms = workplace.rooms(*image.shape[-2:]) if workplace else {}
    return network.features(
        image, layers, pooling=recipe.pooling, first_padding=recipe.first_padding, rooms=rooms
    )


@torch.no_grad()
def picture_moments(
    network: Vgg19,
    recipe: Recipe,
    image: Tensor,
    cut: Sequence[Tile],
    opacity: Opacity | None = None,
    workplace: Workplace | None = None,
) -> dict[str, Moments]:
    """Return the moments of each style layer over 1x3xHxW in the recipe's space."""
    parts = [_tile_moments(network, recipe, image, tile, opacity, workplace) for tile in cut]
    return {name: reduce(add, (part[name] for part in parts)) for name in recipe.style_layers}


def _tile_moments(
    network: Vgg19,
    recipe: Recipe,
    image: Tensor,
    tile: Tile,
    opacity: Opacity | None,
    workplace: Workplace | None,
) -> dict[str, Moments]:
    features = layer_features(network, recipe, tile.window(image), recipe.style_layers, workplace)
    return {
        name: moments(tile.core(f, name), None if opacity is None else opacity.weights(tile, name))
        for name, f in features.items()
    }


@torch.no_grad()
def style_targets(
    network: Vgg19,
    recipe: Recipe,
    styles: Sequence[tuple[Tensor, float]],
    tile_px: int | None = None,
) -> StyleTargets:
    """Return what each style layer should come close to.

    Args:
        network: The resident network.
        recipe: Names the layers.
        styles: 1x3xHxW sRGB in [0, 1] of any size, or 1x4xHxW with opacity, with weights.
        tile_px: The longest edge of a tile; None: each image is looked at as a whole.
    """
    statistics: list[tuple[dict[str, Moments], float]] = []
    for image, weight in styles:
        cut = tiles(image.shape[2], image.shape[3], tile_px, recipe.style_layers)
        colors, alpha = split_opacity(image)
        opacity = None if alpha is None else Opacity(alpha, recipe.style_layers)
        found = picture_moments(network, recipe, to_space(recipe, colors), cut, opacity)
        statistics.append((found, weight))
    return {
        name: style_target(
            recipe.style_loss, [(by_layer[name], weight) for by_layer, weight in statistics]
        )
        for name in recipe.style_layers
    }


@dataclass(frozen=True, slots=True)
class _View:
    """What the network makes of one tile.

    Attributes:
        pixels: 1x3xhxw, the tile's window, to which gradients flow.
        features: Layer name -> 1xCxhxw, of the tile's window.
        odometer: Of the network.
    """

    tile: Tile
    pixels: Tensor
    features: dict[str, Tensor]
    odometer: Odometer

    def core(self, layer: str) -> Tensor:
        """Return the features of the tile's core as constants, in float32 or better."""
        return at_least_float32(self.tile.core(self.features[layer].detach(), layer))

    def to_pixels(self, add_slope: Callable[[str, Tensor], None]) -> Tensor:
        """Bring slopes back to the pixels.

        Args:
            add_slope: Adds the loss's slope by the core features of a layer to a tensor. It is
                asked when the way back has come to that layer, not before: of all that a step
                holds in memory, these slopes would be a quarter.
        """
        *shallower, deepest = sorted(self.features, key=LAYER_NAMES.index)

        def with_slope(layer: str, gradient: Tensor) -> Tensor:
            # In place: each layer is seen by the next alone, so that nobody else has this tensor.
            add_slope(layer, self.tile.core(gradient, layer))
            self.odometer.layers += 1
            return gradient

        # Hooks know the view, and the view the tensors that they hang on: left in place they
        # would keep all activations alive until the garbage collector comes by.
        hooks = [
            self.features[layer].register_hook(partial(with_slope, layer))  # type: ignore[no-untyped-call]  # torch's
            for layer in shallower
        ]
        try:
            start = with_slope(deepest, torch.zeros_like(self.features[deepest]))
            (gradient,) = torch.autograd.grad(self.features[deepest], self.pixels, start)
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
        """Fix what the result is compared with.

        Args:
            network: The resident network.
            recipe: Layers, weights and terms.
            content: 1x3xHxW sRGB in [0, 1], the photo at this scale.
            targets: The style's, from `style_targets`.
            tile_px: The longest edge of a tile, which bounds the memory; None: the picture
                is looked at as a whole.
        """
        content, alpha = split_opacity(content)
        self._network = network
        self._recipe = recipe
        self._targets = targets
        self._photo = to_space(recipe, content)
        self._layers = {**recipe.content_layers, **recipe.style_layers}
        self._opacity = None if alpha is None else Opacity(alpha, self._layers)
        self._tiles = tiles(content.shape[2], content.shape[3], tile_px, self._layers)
        self._workplace = workplace_for(network, self._layers, self._tiles)
        self._kept = (
            [self._content_at(tile) for tile in self._tiles]
            if keeps_content_features(recipe, len(self._tiles))
            else None
        )

    def evaluate(self, image: Tensor, rounding: float = 0.0) -> tuple[Losses, Tensor]:
        """Return the losses of a picture and their gradient.

        Args:
            image: 1x3xHxW float32 in the recipe's space, of the content's size.
            rounding: Of the kinks of an absolute total variation; see `total_variation`.

        Returns:
            The weighted terms, and d total / d image, 1x3xHxW float32.
        """
        recipe = self._recipe
        image = image.detach()
        tv, gradient = total_variation(recipe.tv_loss, image, rounding)
        tv, gradient = tv * recipe.tv_weight, gradient.mul_(recipe.tv_weight)

        whole = self._view(image, self._tiles[0]) if len(self._tiles) == 1 else None
        if whole is None:
            found = picture_moments(
                self._network, recipe, image, self._tiles, self._opacity, self._workplace
            )
        else:
            found = {
                name: moments(whole.core(name), self._weights(whole.tile, name))
                for name in recipe.style_layers
            }
        style, style_slopes = self._style(found)

        content = torch.zeros_like(style)
        for index in range(len(self._tiles)):
            content += self._descend(whole or image, index, style_slopes, gradient)

        return Losses.still_on(torch.stack([content + style + tv, content, style, tv])), gradient

    def _descend(
        self,
        seen: _View | Tensor,
        index: int,
        style_slopes: Mapping[str, _MomentsSlope],
        gradient: Tensor,
    ) -> Tensor:
        """Add what a tile adds to the gradient; return what it adds to the content term.

        One tile's activations are gone before those of the next are computed.
        """
        tile = self._tiles[index]
        # The photo first: a workplace has room for one pass at a time.
        photo = self._kept[index] if self._kept else self._content_at(tile)
        view = self._view(seen, tile) if isinstance(seen, Tensor) else seen
        share = self._content_share(view, photo)
        add_slope = partial(self._add_slope, view, photo, style_slopes)
        tile.window(gradient).add_(view.to_pixels(add_slope))
        return share

    def _view(self, image: Tensor, tile: Tile) -> _View:
        pixels = tile.window(image).detach().requires_grad_()
        features = layer_features(
            self._network, self._recipe, pixels, self._layers, self._workplace
        )
        return _View(tile, pixels, features, self._network.odometer)

    def _style(self, found: Mapping[str, Moments]) -> tuple[Tensor, dict[str, _MomentsSlope]]:
        """Return the weighted style term, and its slope by each layer's moments."""
        recipe = self._recipe
        terms, slopes = [], {}
        for name, weight in recipe.style_layers.items():
            mean, gram = found[name].mean.requires_grad_(), found[name].gram.requires_grad_()
            result = Moments(mean, gram, found[name].positions)
            term = style_loss(recipe.style_loss, result, self._targets[name])
            term = recipe.style_weight * weight * term
            by_mean, by_gram = torch.autograd.grad(term, (mean, gram), materialize_grads=True)
            terms.append(term.detach())
            slopes[name] = _MomentsSlope(by_mean / result.positions, by_gram + by_gram.T)
        return torch.stack(terms).sum(), slopes

    def _content_share(self, view: _View, photo: Mapping[str, Tensor]) -> Tensor:
        """Return what a tile adds to the weighted content term."""
        recipe = self._recipe
        shares = [
            content_loss(
                recipe.content_loss,
                view.core(name),
                photo[name],
                self._count(name),
                self._weights(view.tile, name),
            )
            * (recipe.content_weight * weight)
            for name, weight in recipe.content_layers.items()
        ]
        return torch.stack(shares).sum()

    def _add_slope(
        self,
        view: _View,
        photo: Mapping[str, Tensor],
        style_slopes: Mapping[str, _MomentsSlope],
        layer: str,
        gradient: Tensor,
    ) -> None:
        """Add the slope of content and style by a layer's features in a tile's core."""
        recipe, features = self._recipe, view.core(layer)
        counting = self._weights(view.tile, layer)
        if layer in style_slopes:
            style_slopes[layer].add_by_features(features, counting, gradient)
        if layer in recipe.content_layers:
            weight = recipe.content_weight * recipe.content_layers[layer]
            count = self._count(layer)
            slope = content_slope(recipe.content_loss, features, photo[layer], count, counting)
            gradient.add_(slope.to(gradient.dtype), alpha=weight)

    def _weights(self, tile: Tile, layer: str) -> Tensor | None:
        return None if self._opacity is None else self._opacity.weights(tile, layer)

    def _count(self, layer: str) -> float:
        """Return how many numbers a layer has over the whole picture that count."""
        if self._opacity is not None:
            return channels_of(layer) * self._opacity.positions(layer)
        height, width = self._photo.shape[-2:]
        stride = stride_of(layer)
        return channels_of(layer) * (height // stride) * (width // stride)

    @torch.no_grad()
    def _content_at(self, tile: Tile) -> dict[str, Tensor]:
        """Return the photo's content features in the core of a tile."""
        features = layer_features(
            self._network,
            self._recipe,
            tile.window(self._photo),
            self._recipe.content_layers,
            self._workplace,
        )
        # Copied: the next pass writes to the same place, and the halo is not wanted.
        layout = layout_on(self._network.device)
        return {
            name: at_least_float32(tile.core(f, name)).clone(memory_format=layout)
            for name, f in features.items()
        }


def workplace_for(network: Vgg19, layers: Collection[str], cut: Sequence[Tile]) -> Workplace | None:
    """Return memory for looking at each of some tiles; None where torch has it."""
    if not network.has_own_layers:
        return None
    sizes = [tile.window_size for tile in cut]
    return Workplace(layers, sizes)


KEPT_NUMBERS_PER_PIXEL = 16
"""How many content features for each pixel are kept from step to step if there are tiles."""


def keeps_content_features(recipe: Recipe, tile_count: int) -> bool:
    """Tell whether the photo's features are kept, or computed anew at every step.

    Those of one tile are small beside what a step needs. Those of many add up to the whole
    picture's, 8 numbers a pixel at relu4_2, which is less than the optimiser holds; but
    64 at relu1_1.
    """
    per_pixel = sum(channels_of(name) / stride_of(name) ** 2 for name in recipe.content_layers)
    return tile_count == 1 or per_pixel <= KEPT_NUMBERS_PER_PIXEL


@dataclass(frozen=True, slots=True)
class _MomentsSlope:
    """The slope of a loss with regard to the moments of a layer.

    Attributes:
        mean: C, by the mean, divided by the positions that it is over.
        gram: CxC, by the Gram matrix, plus its transpose.
    """

    mean: Tensor
    gram: Tensor

    def add_by_features(self, features: Tensor, weights: Tensor | None, gradient: Tensor) -> None:
        """Add the slope by 1xCxhxw features F to a gradient: that of F F^T is (S + S^T) F.

        A position that counts for less is moved by as much less.
        """
        rows, by_rows = by_position(features), gradient.permute(0, 2, 3, 1)
        if weights is None and gradient.dtype == rows.dtype and by_rows.is_contiguous():
            by_rows.flatten(0, 2).addmm_(rows, self.gram).add_(self.mean)
            return
        slope = torch.addmm(self.mean, rows, self.gram).view(by_rows.shape).permute(0, 3, 1, 2)
        if weights is not None:
            slope *= weights
        gradient.add_(slope.to(gradient.dtype))

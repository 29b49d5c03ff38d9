"""The function that is minimised: how far a picture is from its content and its style."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from styled.engine.losses import (
    Moments,
    at_least_float32,
    content_loss,
    moments,
    total_variation,
)
from styled.engine.style_losses import StyleTarget, style_loss, style_target
from styled.engine.vgg import Vgg19, denormalize, normalize
from styled.recipes import Recipe

StyleTargets = Mapping[str, StyleTarget]


@dataclass(frozen=True, slots=True)
class Losses:
    """The value of the objective and its three weighted terms: total = content + style + tv."""

    total: float
    content: float
    style: float
    tv: float


def to_space(recipe: Recipe, image: Tensor) -> Tensor:
    """Bring 1x3xHxW sRGB in [0, 1] to the space in which the recipe optimises."""
    return normalize(image) if recipe.space == "normalized" else image


def from_space(recipe: Recipe, image: Tensor) -> Tensor:
    """Bring 1x3xHxW from the space in which the recipe optimises to sRGB."""
    return denormalize(image) if recipe.space == "normalized" else image


def layer_features(
    network: Vgg19, recipe: Recipe, image: Tensor, layers: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return the features of 1x3xHxW in the recipe's space, as it has the network see it."""
    if recipe.normalize_input and recipe.space == "srgb":
        image = normalize(image)
    elif not recipe.normalize_input and recipe.space == "normalized":
        image = denormalize(image)
    return network.features(
        image, layers, pooling=recipe.pooling, first_padding=recipe.first_padding
    )


@torch.no_grad()
def style_targets(
    network: Vgg19, recipe: Recipe, styles: Sequence[tuple[Tensor, float]]
) -> StyleTargets:
    """Return what each style layer should come close to.

    Args:
        network: The resident network.
        recipe: Names the layers.
        styles: 1x3xHxW sRGB in [0, 1] of any size, with weights.
    """
    statistics: list[tuple[dict[str, Moments], float]] = []
    for image, weight in styles:
        seen = to_space(recipe, image)
        features = layer_features(network, recipe, seen, recipe.style_layers)
        statistics.append(({name: moments(f) for name, f in features.items()}, weight))
    return {
        name: style_target(
            recipe.style_loss, [(by_layer[name], weight) for by_layer, weight in statistics]
        )
        for name in recipe.style_layers
    }


class Objective:
    """The total loss of a recipe at one scale, with its gradient."""

    def __init__(
        self, network: Vgg19, recipe: Recipe, content: Tensor, targets: StyleTargets
    ) -> None:
        """Fix what the result is compared with.

        Args:
            network: The resident network.
            recipe: Layers, weights and terms.
            content: 1x3xHxW sRGB in [0, 1], the photo at this scale.
            targets: The style's, from `style_targets`.
        """
        self._network = network
        self._recipe = recipe
        self._targets = targets
        with torch.no_grad():
            seen = to_space(recipe, content)
            features = layer_features(network, recipe, seen, recipe.content_layers)
        self._content = {name: at_least_float32(f) for name, f in features.items()}

    def evaluate(self, image: Tensor) -> tuple[Losses, Tensor]:
        """Return the losses of a picture and their gradient.

        Args:
            image: 1x3xHxW float32 in the recipe's space, of the content's size.

        Returns:
            The weighted terms as numbers, and d total / d image, 1x3xHxW float32.
        """
        recipe = self._recipe
        image = image.detach().requires_grad_()
        layers = {**recipe.content_layers, **recipe.style_layers}
        features = layer_features(self._network, recipe, image, layers)

        content = recipe.content_weight * _sum(
            weight
            * content_loss(
                recipe.content_loss, at_least_float32(features[name]), self._content[name]
            )
            for name, weight in recipe.content_layers.items()
        )
        style = recipe.style_weight * _sum(
            weight * style_loss(recipe.style_loss, moments(features[name]), self._targets[name])
            for name, weight in recipe.style_layers.items()
        )
        tv = total_variation(recipe.tv_loss, image) * recipe.tv_weight
        total = content + style + tv

        (gradient,) = torch.autograd.grad(total, image)
        # One copy to the host for all four numbers: on a GPU each copy waits for the device.
        values = torch.stack([total, content, style, tv]).detach().tolist()
        return Losses(*values), gradient


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()

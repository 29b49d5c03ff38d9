"""The baseline for `pyramid`: a plain optimisation loop, as in the best public code.

After K. Crowson's style-transfer-pytorch (2021): the same objective; Adam at a rate of 0.02 with
betas of 0.9 and 0.99, whose moments are carried from scale to scale; iterates averaged with a
decay of 0.99; 1000 iterations at the first scale and 500 at each further one; matrix roots by
twelve Newton-Schulz iterations, and in the backward pass twelve of an iterative solution of the
Lyapunov equation. All in float32, with torch's autograd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from styled.engine.scales import pixel_size, plan_scales, resize, style_image_size
from styled.engine.vgg import Vgg19, normalize
from styled.engine_api import PixelSize
from styled.recipes import PYRAMID, Scales

FIRST_ITERATIONS, ITERATIONS = 1000, 500
RATE, BETAS, AVERAGE = 0.02, (0.9, 0.99), 0.99
ROUNDS = 12
RIDGE = 1e-4

Gaussian = tuple[Tensor, Tensor]
"""Mean and covariance of a layer's features."""


class _Root(Function):
    """The square root of a symmetric positive definite matrix, using only matrix products."""

    @staticmethod
    def forward(ctx: FunctionCtx, matrix: Tensor) -> Tensor:
        three = 3 * torch.eye(len(matrix), device=matrix.device)
        norm = matrix.norm()
        root, inverse = matrix / norm, three / 3
        for _ in range(ROUNDS):
            update = (three - inverse @ root) / 2
            root, inverse = root @ update, update @ inverse
        root = root * norm.sqrt()
        ctx.save_for_backward(root)
        return cast(Tensor, root)

    @staticmethod
    def backward(ctx: FunctionCtx, upstream: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors  # type: ignore[attr-defined]  # absent from torch's stub
        three = 3 * torch.eye(len(root), device=root.device)
        norm = root.norm()
        root, grad = root / norm, upstream / norm
        for _ in range(ROUNDS):
            square = root @ root
            grad = (grad @ (three - square) - root.T @ (root.T @ grad - grad @ root)) / 2
            root = root @ (three - square) / 2
        return cast(Tensor, grad / 2)


def _gaussian(features: Tensor) -> Gaussian:
    flat = features.flatten(2)[0]
    mean = flat.mean(dim=1)
    gram = flat @ flat.T / flat.shape[1]
    return mean, gram - torch.outer(mean, mean) + RIDGE * torch.eye(len(mean), device=flat.device)


def _distance(result: Gaussian, style: Gaussian, style_root: Tensor) -> Tensor:
    root = _Root.apply(style_root @ result[1] @ style_root)
    spread = torch.diagonal(result[1] + style[1] - 2 * root).mean()
    return (result[0] - style[0]).square().mean() + spread


def _variation(image: Tensor) -> Tensor:
    """Return half of that program's total variation; `PYRAMID.tv_weight` has the factor of two."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    centre = padded[..., 1:-1, 1:-1]
    right, below = padded[..., 1:-1, 2:] - centre, padded[..., 2:, 1:-1] - centre
    falling = padded[..., 1:, 1:] - padded[..., :-1, :-1]
    rising = padded[..., 1:, :-1] - padded[..., :-1, 1:]
    sides, diagonals = (
        first.square().mean() + second.square().mean()
        for first, second in ((right, below), (falling, rising))
    )
    return sides / 3 + diagonals / 12


def _features(network: Vgg19, image: Tensor) -> Mapping[str, Tensor]:
    layers = {**PYRAMID.content_layers, **PYRAMID.style_layers}
    return network.features(normalize(image), layers, first_padding=PYRAMID.first_padding)


def paint(network: Vgg19, photo: Tensor, painting: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Paint 1x3xHxW `photo`; after each iteration yield their number and the image."""
    height, width = photo.shape[-2:]
    image: Tensor | None = None
    first: Tensor | None = None
    second: Tensor | None = None
    count = 0
    for index, (w, h) in enumerate(plan_scales(Scales(), width, height)):  # from 128 px, by 2^0.5
        content = resize(photo, w, h)
        style_size = style_image_size(PYRAMID, PixelSize(w, h), pixel_size(painting))
        with torch.no_grad():
            content_target = {
                name: _features(network, content)[name] for name in PYRAMID.content_layers
            }
            style_features = _features(network, resize(painting, *style_size))
            styles = {name: _gaussian(style_features[name]) for name in PYRAMID.style_layers}
            roots = {name: _Root.apply(covariance) for name, (_, covariance) in styles.items()}
        image = content.clone() if image is None else resize(image, w, h).clamp(0, 1)
        image.requires_grad_()
        first = torch.zeros_like(content) if first is None else resize(first, w, h)
        second = torch.zeros_like(content) if second is None else resize(second, w, h).clamp(min=0)
        average, averaged = torch.zeros_like(content), 0
        for _ in range(ITERATIONS if index else FIRST_ITERATIONS):
            features = _features(network, image)
            terms = [
                weight * PYRAMID.content_weight * F.mse_loss(features[name], content_target[name])
                for name, weight in PYRAMID.content_layers.items()
            ]
            terms += [
                weight * _distance(_gaussian(features[name]), styles[name], roots[name])
                for name, weight in PYRAMID.style_layers.items()
            ]
            terms.append(PYRAMID.tv_weight * _variation(image))
            (gradient,) = torch.autograd.grad(torch.stack(terms).sum(), image)
            count += 1
            with torch.no_grad():
                first = BETAS[0] * first + (1 - BETAS[0]) * gradient
                second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
                spread = (second / (1 - BETAS[1] ** count)).sqrt() + 1e-8
                image -= RATE * first / (1 - BETAS[0] ** count) / spread
                image.clamp_(0, 1)
                average = AVERAGE * average + (1 - AVERAGE) * image
                averaged += 1
            yield count, average / (1 - AVERAGE**averaged)
        image = average / (1 - AVERAGE**averaged)

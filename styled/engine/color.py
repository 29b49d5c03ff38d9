"""Colours: bringing those of one picture to another, and keeping the photo's own.

Ways to keep colours follow Gatys et al., "Preserving Color in Neural Artistic Style
Transfer" (2016): match the style to the photo before painting (sections 4.1 and 5.1), or
take only luminance from the painting (section 5.2). It departs from them in matching the
result once more, so that it has the photo's colours in numbers and not only in spirit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from styled.engine.opacity import split_opacity, with_opacity
from styled.recipes import PreserveColor

# Of the largest; below it a direction in colour space counts as having no variance. A grey
# picture has one direction only, and rounding must not be blown up into colours.
_SMALLEST_VARIANCE = 1e-5

# ITU-R BT.601 luma, in which JPEG keeps pictures too.
_LUMA = (0.299, 0.587, 0.114)


def color_statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (3) and covariance (3x3) of the colours of 1x3xHxW, in float64.

    Of 1x4xHxW the last channel says how much each pixel counts.
    """
    colors, opacity = split_opacity(image)
    pixels = colors.flatten(2).squeeze(0).double()
    if opacity is None:
        mean = pixels.mean(dim=1, keepdim=True)
        centred = pixels - mean
        return mean.squeeze(1), centred @ centred.T / pixels.shape[1]
    weights = opacity.flatten().double()
    weights = weights / weights.sum().clamp(min=1e-9)
    mean = (pixels * weights).sum(dim=1, keepdim=True)
    centred = pixels - mean
    return mean.squeeze(1), (centred * weights) @ centred.T


def match_affine(image: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Give 1x3xHxW sRGB another mean and covariance of colours, within [0, 1].

    x -> S_t^1/2 S^-1/2 (x - mu) + mu_t. Directions in which the picture has no variance
    (a grey one has two) get none. The opacity of 1x4xHxW stays as it is.
    """
    own_mean, own_covariance = color_statistics(image)
    matrix = _root(covariance) @ _root(own_covariance, inverse=True)
    colors, opacity = split_opacity(image)
    pixels = colors.flatten(2).squeeze(0).double()
    matched = matrix @ (pixels - own_mean[:, None]) + mean[:, None]
    return with_opacity(matched.reshape(colors.shape).clamp(0, 1).to(image.dtype), opacity)


def match_histogram(image: Tensor, reference: Tensor) -> Tensor:
    """Give each channel of 1x3xHxW the distribution that it has in `reference`.

    Of 1x4xHxW those pixels count that are more opaque than not; the others stay as they are.
    """
    colors, opacity = split_opacity(image)
    reference, wanted_opacity = split_opacity(reference)
    own_counts, wanted_counts = _counting(opacity), _counting(wanted_opacity)
    result = colors.clone()
    for own, wanted, matched in zip(colors[0], reference[0], result[0], strict=True):
        order = own[own_counts].flatten().argsort(stable=True)
        levels = wanted[wanted_counts].flatten().sort().values
        # The k-th darkest of n pixels gets the value at the same share of the reference.
        shares = torch.linspace(0, len(levels) - 1, len(order), device=image.device)
        ranked = levels.new_empty(order.shape)
        ranked[order] = levels[shares.round().long()]
        matched[own_counts] = ranked.reshape(own[own_counts].shape)
    return with_opacity(result, opacity)


def _counting(opacity: Tensor | None) -> Tensor | slice:
    """Return an index of those pixels that count: all, if none of them is opaque enough."""
    if opacity is None or not bool((opacity > 0.5).any()):
        return slice(None)
    return opacity[0, 0] > 0.5


def take_luminance(colors: Tensor, luminance: Tensor) -> Tensor:
    """Return `colors` with the luminance of another picture of the same size, in [0, 1].

    Chroma, the differences of red and blue from luminance, is kept; where the new
    luminance leaves no room for it within [0, 1], it is scaled down, its hue unchanged.
    """
    weights = colors.new_tensor(_LUMA).view(1, 3, 1, 1)
    wanted = (luminance * weights).sum(dim=1, keepdim=True).clamp(0, 1)
    chroma = colors - (colors * weights).sum(dim=1, keepdim=True)
    room = torch.where(chroma > 0, 1 - wanted, wanted)
    scale = (room / chroma.abs().clamp(min=1e-6)).amin(dim=1, keepdim=True).clamp(max=1)
    return (wanted + chroma * scale).clamp(0, 1)


def recolored_styles(
    kind: PreserveColor, styles: Sequence[tuple[Tensor, float]], content: Tensor
) -> list[tuple[Tensor, float]]:
    """Return the styles in the photo's colours, where the way of keeping them asks for that."""
    if kind == "affine":
        target = color_statistics(content)
        return [(match_affine(image, *target), weight) for image, weight in styles]
    if kind == "histogram":
        return [(match_histogram(image, content), weight) for image, weight in styles]
    return list(styles)


def keep_colors(kind: PreserveColor, result: Tensor, content: Tensor) -> Tensor:
    """Return the result in the photo's colours.

    Args:
        kind: `none` returns it as it is; `luminance` takes only lightness from it;
            `histogram` gives each channel the photo's distribution; `affine` gives all
            three together the photo's mean and covariance.
        result: 1x3xHxW sRGB in [0, 1].
        content: The photo, of the same size, or 1x4xHxW with opacity.
    """
    colors, opacity = split_opacity(content)
    if kind == "luminance":
        return take_luminance(colors, result)
    if kind == "histogram":
        return match_histogram(with_opacity(result, opacity), content)[:, :3]
    if kind == "affine":
        matched = match_affine(with_opacity(result, opacity), *color_statistics(content))
        return matched[:, :3]
    return result


def in_style_colors(content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Return the photo with the mean and covariance of the styles' colours."""
    total = sum(weight for _, weight in styles)
    statistics = [(color_statistics(image), weight / total) for image, weight in styles]
    mean = torch.stack([m * w for (m, _), w in statistics]).sum(dim=0)
    covariance = torch.stack([c * w for (_, c), w in statistics]).sum(dim=0)
    return match_affine(content, mean, covariance)


def _root(covariance: Tensor, *, inverse: bool = False) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    present = values > _SMALLEST_VARIANCE * values[-1].clamp(min=1e-8)
    roots = values.clamp(min=0).sqrt()
    roots = torch.where(present, roots.reciprocal() if inverse else roots, torch.zeros_like(roots))
    root: Tensor = (vectors * roots) @ vectors.T
    return root

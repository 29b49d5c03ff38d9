"""Colour transfer between images, and preserving the photo's colours in the result.

The methods follow Gatys et al., "Preserving Color in Neural Artistic Style Transfer" (2016):
match the style's colours to the photo before painting (sections 4.1 and 5.1), or take only
luminance from the painting (section 5.2). Unlike the paper, the result is matched to the photo
once more, so that its colour statistics are exactly the photo's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from styled.engine.opacity import split_opacity, with_opacity
from styled.recipes import PreserveColor

# Relative to the largest variance. Below it a direction in colour space is treated as having no
# variance: in a grey image only one direction has any, and rounding errors in the other two must
# not be amplified into colours.
_SMALLEST_VARIANCE = 1e-5

# ITU-R BT.601 luma, as in JPEG.
_LUMA = (0.299, 0.587, 0.114)


def color_statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (3) and covariance (3x3) of the colours of 1x3xHxW, in float64.

    The fourth channel of 1x4xHxW is the weight of each pixel.
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
    """Transform the colours of 1x3xHxW sRGB to a given mean and covariance, clamped to [0, 1].

    x -> S_t^1/2 S^-1/2 (x - mu) + mu_t. Directions in which the image has no variance (a grey
    image has two) get none. The opacity of 1x4xHxW is unchanged.
    """
    own_mean, own_covariance = color_statistics(image)
    matrix = _root(covariance) @ _root(own_covariance, inverse=True)
    colors, opacity = split_opacity(image)
    pixels = colors.flatten(2).squeeze(0).double()
    matched = matrix @ (pixels - own_mean[:, None]) + mean[:, None]
    return with_opacity(matched.reshape(colors.shape).clamp(0, 1).to(image.dtype), opacity)


def match_histogram(image: Tensor, reference: Tensor) -> Tensor:
    """Match the histogram of each channel of 1x3xHxW to that of `reference`.

    In 1x4xHxW only pixels with an opacity above one half are used and changed.
    """
    colors, opacity = split_opacity(image)
    reference, reference_opacity = split_opacity(reference)
    own_mask, reference_mask = _opaque_pixels(opacity), _opaque_pixels(reference_opacity)
    result = colors.clone()
    for own, target, matched in zip(colors[0], reference[0], result[0], strict=True):
        order = own[own_mask].flatten().argsort(stable=True)
        levels = target[reference_mask].flatten().sort().values
        # The k-th darkest of n pixels gets the reference's value at the same quantile.
        ranks = torch.linspace(0, len(levels) - 1, len(order), device=image.device)
        ranked = levels.new_empty(order.shape)
        ranked[order] = levels[ranks.round().long()]
        matched[own_mask] = ranked.reshape(own[own_mask].shape)
    return with_opacity(result, opacity)


def _opaque_pixels(opacity: Tensor | None) -> Tensor | slice:
    """Return an index of the pixels with an opacity above one half; of all, if none has that."""
    if opacity is None or not bool((opacity > 0.5).any()):
        return slice(None)
    return opacity[0, 0] > 0.5


def take_luminance(colors: Tensor, luminance: Tensor) -> Tensor:
    """Return `colors` with the luminance of another image of the same size, in [0, 1].

    Chroma, the difference of each channel from luminance, is kept. Where the new luminance plus
    chroma would be outside [0, 1], chroma is scaled down; hue is unchanged.

    Args:
        colors: 1x3xHxW sRGB.
        luminance: 1x3xHxW sRGB; only its luminance is used.
    """
    weights = colors.new_tensor(_LUMA).view(1, 3, 1, 1)
    luma = (luminance * weights).sum(dim=1, keepdim=True).clamp(0, 1)
    chroma = colors - (colors * weights).sum(dim=1, keepdim=True)
    headroom = torch.where(chroma > 0, 1 - luma, luma)
    scale = (headroom / chroma.abs().clamp(min=1e-6)).amin(dim=1, keepdim=True).clamp(max=1)
    return (luma + chroma * scale).clamp(0, 1)


def recolored_styles(
    kind: PreserveColor, styles: Sequence[tuple[Tensor, float]], content: Tensor
) -> list[tuple[Tensor, float]]:
    """Return the styles, with the photo's colours if `kind` is `affine` or `histogram`."""
    if kind == "affine":
        target = color_statistics(content)
        return [(match_affine(image, *target), weight) for image, weight in styles]
    if kind == "histogram":
        return [(match_histogram(image, content), weight) for image, weight in styles]
    return list(styles)


def keep_colors(kind: PreserveColor, result: Tensor, content: Tensor) -> Tensor:
    """Return the result with the photo's colours.

    Args:
        kind: `none` returns the result unchanged; `luminance` combines its luminance with the
            photo's chroma; `histogram` matches the histogram of each channel to the photo's;
            `affine` matches the mean and covariance of the colours to the photo's.
        result: 1x3xHxW sRGB in [0, 1].
        content: The photo, 1x3xHxW of the same size, or 1x4xHxW with opacity.
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
    """Return the photo with the weighted mean of the styles' colour means and covariances."""
    total = sum(weight for _, weight in styles)
    statistics = [(color_statistics(image), weight / total) for image, weight in styles]
    mean = torch.stack([m * w for (m, _), w in statistics]).sum(dim=0)
    covariance = torch.stack([c * w for (_, c), w in statistics]).sum(dim=0)
    return match_affine(content, mean, covariance)


def _root(covariance: Tensor, *, inverse: bool = False) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    has_variance = values > _SMALLEST_VARIANCE * values[-1].clamp(min=1e-8)
    roots = values.clamp(min=0).sqrt()
    roots = torch.where(
        has_variance, roots.reciprocal() if inverse else roots, torch.zeros_like(roots)
    )
    root: Tensor = (vectors * roots) @ vectors.T
    return root

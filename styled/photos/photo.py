"""A decoded photo, and its conversion to a tensor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from styled.degradation import Degradation
from styled.photos.metadata import Metadata
from styled.photos.raster import Levels
from styled.recipes import Resample

Floats = NDArray[np.float32]

_MIN_OPACITY = 1 / 1024
"""Colours of lower opacity are replaced: they are invisible, and resampling destroys them."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded image, and the properties of its file.

    Attributes:
        image: Upright, mode RGB, sRGB, 8 bit. Where `alpha` is 0 its colours are meaningless.
        format: jpeg, png, tiff, webp, bmp, gif, avif, heic, jxl or raw.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        orientation: EXIF orientation of the file, 1..8.
        icc: The name of the colour profile: of the embedded one, or of what the file names.
        degraded: What was lost in decoding.
        alpha: Opacity of each pixel, mode L; None: all are opaque.
        deep: The same image in 16 bits, if the file has them: HxWx3, with alpha HxWx4.
        is_gray: Whether the file has grey levels only.
        profile: That profile, if the colours were converted by it.
        metadata: EXIF, XMP, IPTC and resolution of the file.
    """

    image: Image.Image
    format: str
    width: int
    height: int
    orientation: int
    icc: str | None
    degraded: tuple[Degradation, ...]
    alpha: Image.Image | None = None
    deep: Levels | None = None
    is_gray: bool = False
    profile: bytes | None = None
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def bits(self) -> int:
        """Bits per channel that are used: 8 or 16."""
        return 8 if self.deep is None else 16

    def without_pixels(self) -> Photo:
        """Return a description of this photo, for a process that does not decode or encode."""
        return replace(
            self, image=Image.new("RGB", (0, 0)), alpha=None, deep=None, profile=None,
            metadata=Metadata(),
        )  # fmt: skip

    def for_export(self) -> Photo:
        """Return this photo without its colours, which `export_image` does not use.

        If it has 16 bits, those stay: they tell its depth and its exact opacity.
        """
        return replace(self, image=Image.new("RGB", (0, 0)))

    def tensor(self, width: int, height: int, resample: Resample = "lanczos") -> torch.Tensor:
        """Return the image at `width` x `height` pixels: 1x3xHxW float32, sRGB in [0, 1].

        If it has transparent pixels: 1x4xHxW, whose last channel is opacity. Fully transparent
        pixels then have the colours of the pixels around them.

        `bilinear` gives the same bits as torchvision's Resize of a Pillow image.

        Raises:
            ValueError: A side is below 1.
        """
        if min(width, height) < 1:
            raise ValueError(f"a tensor of {width} x {height} pixels is not possible")
        if self.deep is not None:
            pixels = _to_tensor(_resize_in_float32(self.deep, (width, height), resample))
        elif self.alpha is not None:
            # Pillow weights colours by opacity too, but rounds to 8 bits, which spoils colours of
            # low opacity.
            levels = np.dstack([np.asarray(self.image), np.asarray(self.alpha)])
            pixels = _to_tensor(_resize_in_float32(levels, (width, height), resample))
        else:
            resized = _resize(self.image, (width, height), resample)
            pixels = _to_tensor(np.array(resized)).to(torch.float32).div_(255)
        return _fill_transparent_colors(pixels) if pixels.shape[1] == 4 else pixels

    def opacity(self, width: int, height: int) -> Floats | None:
        """Return opacity at `width` x `height` pixels: HxW in [0, 1]; None if all of it is 1."""
        if self.alpha is None:
            return None
        if self.deep is not None and self.deep.shape[2] == 4:
            plane = Image.fromarray(self.deep[..., 3].astype(np.float32) / 65535)
        else:
            plane = Image.fromarray(np.asarray(self.alpha, dtype=np.float32) / 255)
        return np.asarray(_resize(plane, (width, height), "lanczos")).clip(0, 1)


def _to_tensor(pixels: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def _resize(image: Image.Image, size: tuple[int, int], resample: Resample) -> Image.Image:
    if size == image.size:
        return image
    if resample == "bilinear":
        return image.resize(size, Image.Resampling.BILINEAR)
    if size[0] < image.width or size[1] < image.height:
        bicubic, lanczos = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
        # With a gap of 3 the coarse part of a large reduction is done by box averages, which is
        # several times faster, without a visible difference.
        return image.resize(size, bicubic if resample == "bicubic" else lanczos, reducing_gap=3.0)
    return image.resize(size, Image.Resampling.BICUBIC)  # Lanczos rings when enlarging


def _resize_in_float32(
    levels: Levels | NDArray[np.uint8], size: tuple[int, int], resample: Resample
) -> Floats:
    """Resize HxWxC levels to float32 in [0, 1], by Pillow, each channel in floating point."""
    channels, max_level = levels.shape[2], np.float32(np.iinfo(levels.dtype).max)
    result = np.empty((size[1], size[0], channels), dtype=np.float32)
    opacity = levels[..., 3].astype(np.float32) / max_level if channels == 4 else None
    if opacity is not None:
        result[..., 3] = np.asarray(_resize(Image.fromarray(opacity), size, resample))
    for channel in range(3):
        plane = levels[..., channel].astype(np.float32) / max_level
        if opacity is not None:
            plane *= opacity
        result[..., channel] = np.asarray(_resize(Image.fromarray(plane), size, resample))
        if opacity is not None:
            result[..., channel] /= np.maximum(result[..., 3], 1e-6)
    return result.clip(0, 1, out=result)


def _fill_transparent_colors(pixels: torch.Tensor) -> torch.Tensor:
    """Fill pixels of 1x4xHxW below `_MIN_OPACITY` smoothly with the nearest visible colours.

    The colours that a file has there are arbitrary, and the network's receptive fields reach
    across the edges of opaque areas. Colours are averaged over squares of 2, 4, 8... pixels,
    weighted by opacity, until each square has a colour; a pixel gets the colour of the smallest
    square that has one.
    """
    opacity = pixels[:, 3:]
    weight = torch.where(opacity > _MIN_OPACITY, opacity, 0)
    if bool((weight > 0).all()):
        return pixels
    pyramid = [torch.cat([pixels[:, :3] * weight, weight], dim=1)]
    while min(pyramid[-1].shape[-2:]) > 1 and not bool((pyramid[-1][:, 3:] > 0).all()):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True, count_include_pad=False))
    weighted = pyramid[-1]
    total = weighted[:, 3:].sum().clamp(min=1e-9)
    mean = (weighted[:, :3].sum(dim=(2, 3)) / total)[..., None, None]
    colors = mean.expand(-1, -1, *weighted.shape[-2:])
    for weighted in reversed(pyramid):
        colors = F.interpolate(colors, weighted.shape[-2:], mode="bilinear", align_corners=False)
        mean_opacity = weighted[:, 3:]
        colors = torch.where(
            mean_opacity > 0, weighted[:, :3] / mean_opacity.clamp(min=1e-9), colors
        )
    colors = torch.where(weight > 0, pixels[:, :3], colors)
    return torch.cat([colors, opacity], dim=1)

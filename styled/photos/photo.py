"""A decoded picture, and the numbers that the engine gets of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from styled.degradation import Degradation
from styled.photos.depth import Levels
from styled.photos.metadata import Metadata
from styled.recipes import Resample

Floats = NDArray[np.float32]

_FAINT = 1 / 1024
"""An opacity below which resampling leaves nothing of a colour, and nobody sees it."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded picture and what its file said about it.

    Attributes:
        image: Upright, mode RGB, sRGB, 8 bit. Where `alpha` is 0 its colours mean nothing.
        format: jpeg, png, tiff, webp, bmp, gif, avif or heic.
        width: Upright, in pixels.
        height: Likewise.
        orientation: EXIF orientation as found, 1..8.
        icc: The name of the embedded colour profile.
        degraded: What was lost on the way.
        alpha: How opaque each pixel is, mode L; None: all of it is.
        deep: The same in 16 bits where the file has them: HxWx3, with alpha HxWx4.
        is_gray: Whether the file has lightness alone.
        profile: The embedded profile, where the colours have been converted by it.
        metadata: What the file says about the photo besides its pixels.
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
        """Of each number in the file that are made use of: 8 or 16."""
        return 8 if self.deep is None else 16

    def tensor(self, width: int, height: int, resample: Resample = "lanczos") -> torch.Tensor:
        """Return the picture at `width` x `height` pixels: 1x3xHxW float32, sRGB in [0,1].

        Of a picture with transparent pixels it is 1x4xHxW, the last being opacity; fully
        transparent pixels then have the colours of what is around them.

        `bilinear` is what torchvision's Resize does to a Pillow image, to the last bit.

        Raises ValueError if a side is below 1.
        """
        if min(width, height) < 1:
            raise ValueError(f"a tensor of {width} x {height} pixels is not possible")
        if self.deep is not None:
            pixels = _as_tensor(_resized_finely(self.deep, (width, height), resample))
        elif self.alpha is not None:
            # Pillow weighs colours by opacity too, but rounds, which leaves little of the faint.
            levels = np.dstack([np.asarray(self.image), np.asarray(self.alpha)])
            pixels = _as_tensor(_resized_finely(levels, (width, height), resample))
        else:
            resized = _resized(self.image, (width, height), resample)
            pixels = _as_tensor(np.array(resized)).to(torch.float32).div_(255)
        return _with_colours_everywhere(pixels) if pixels.shape[1] == 4 else pixels

    def opacity(self, width: int, height: int) -> Floats | None:
        """Return HxW in [0, 1] at `width` x `height` pixels, None if all of it is opaque."""
        if self.alpha is None:
            return None
        if self.deep is not None and self.deep.shape[2] == 4:
            plane = Image.fromarray(self.deep[..., 3].astype(np.float32) / 65535)
        else:
            plane = Image.fromarray(np.asarray(self.alpha, dtype=np.float32) / 255)
        return np.asarray(_resized(plane, (width, height), "lanczos")).clip(0, 1)


def _as_tensor(pixels: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def _resized(image: Image.Image, size: tuple[int, int], resample: Resample) -> Image.Image:
    if size == image.size:
        return image
    if resample == "bilinear":
        return image.resize(size, Image.Resampling.BILINEAR)
    if size[0] < image.width or size[1] < image.height:
        # A gap of 3 makes box averages do the coarse part of a large reduction, which
        # is several times faster and can't be told apart.
        return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image.resize(size, Image.Resampling.BICUBIC)  # Lanczos would ring when enlarging


def _resized_finely(
    levels: Levels | NDArray[np.uint8], size: tuple[int, int], resample: Resample
) -> Floats:
    """Return HxWxC in [0, 1]; each channel goes through Pillow in floating point."""
    channels, top = levels.shape[2], np.float32(np.iinfo(levels.dtype).max)
    result = np.empty((size[1], size[0], channels), dtype=np.float32)
    opacity = levels[..., 3].astype(np.float32) / top if channels == 4 else None
    if opacity is not None:
        result[..., 3] = np.asarray(_resized(Image.fromarray(opacity), size, resample))
    for channel in range(3):
        plane = levels[..., channel].astype(np.float32) / top
        if opacity is not None:
            plane *= opacity
        result[..., channel] = np.asarray(_resized(Image.fromarray(plane), size, resample))
        if opacity is not None:
            result[..., channel] /= np.maximum(result[..., 3], 1e-6)
    return result.clip(0, 1, out=result)


def _with_colours_everywhere(pixels: torch.Tensor) -> torch.Tensor:
    """Give the all but transparent pixels of 1x4xHxW the colours nearest to them, smoothly.

    What lies there in a file is anybody's guess, and the network sees beyond edges. Colours
    are averaged over squares of 2, 4, 8... pixels, weighted by opacity, until all squares
    have some; a pixel takes those of the smallest.
    """
    opacity = pixels[:, 3:]
    seen = torch.where(opacity > _FAINT, opacity, 0)
    if bool((seen > 0).all()):
        return pixels
    ladder = [torch.cat([pixels[:, :3] * seen, seen], dim=1)]
    while min(ladder[-1].shape[-2:]) > 1 and not bool((ladder[-1][:, 3:] > 0).all()):
        ladder.append(F.avg_pool2d(ladder[-1], 2, ceil_mode=True, count_include_pad=False))
    weighted = ladder[-1]
    total = weighted[:, 3:].sum().clamp(min=1e-9)
    mean = (weighted[:, :3].sum(dim=(2, 3)) / total)[..., None, None]
    colours = mean.expand(-1, -1, *weighted.shape[-2:])
    for weighted in reversed(ladder):
        colours = F.interpolate(colours, weighted.shape[-2:], mode="bilinear", align_corners=False)
        known = weighted[:, 3:]
        colours = torch.where(known > 0, weighted[:, :3] / known.clamp(min=1e-9), colours)
    colours = torch.where(seen > 0, pixels[:, :3], colours)
    return torch.cat([colours, opacity], dim=1)

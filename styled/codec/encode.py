"""Encodes a painting as a file like its photo; `encode` is a pure function."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor

from styled import photos
from styled.codec.prepare import Prepared
from styled.config import OutputConfig
from styled.degradation import Degradation
from styled.engine.scales import resize
from styled.engine_api import Painted, PixelSize
from styled.sidecar import ResultInfo


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded result that is ready to be published.

    Attributes:
        image: The image in the file: 1x3xHxW, sRGB in [0, 1]. A tensor on the meta device, which
            has no data, if it was encoded on another machine.
        content: The photo, likewise: 1x3xHxW, or 1x4xHxW with opacity.
        size: The size of the image in the file.
        data: The bytes of the file.
        sha256: Of `data`, in hexadecimal.
        format: The name of the format, such as "jpeg".
        bits: Bits per channel: 8 or 16.
        color: Colour space that the file declares; None: it declares none.
        painted_size: Size at which it was painted, before details were added and it was resized.
        detail_steps: Optimisation steps at the photo's own size.
        degraded: What the file's format can't hold.
        thumbs: Encoded thumbnails of image and photo for the gallery; None: not made yet.
    """

    image: Tensor
    content: Tensor
    size: PixelSize
    data: bytes
    sha256: str
    format: str
    bits: int
    color: str | None
    painted_size: PixelSize
    detail_steps: int
    degraded: tuple[Degradation, ...]
    thumbs: tuple[bytes, bytes] | None = None

    def result_info(self, path: str, frames: str | None = None) -> ResultInfo:
        """Return the sidecar's entry for this file; `path` and `frames` are its published paths."""
        width, height = self.size
        is_painted_at_this_size = self.painted_size == self.size
        return ResultInfo(
            path=path,
            sha256=self.sha256,
            width=width,
            height=height,
            format=self.format,
            bits=self.bits,
            color=self.color,
            painted_width=None if is_painted_at_this_size else self.painted_size.width,
            painted_height=None if is_painted_at_this_size else self.painted_size.height,
            detail_steps=self.detail_steps,
            frames=frames,
        )


def encode(prepared: Prepared, painted: Painted, format: str, output: OutputConfig) -> Encoded:
    """Resize a painting to the result's size and encode it. A pure function, as `prepare` is.

    Raises:
        ConfigError: the image is larger than the format can hold.
        MemoryShortage: there is not enough memory now.
    """
    with photos.memory_shortage_at("encode the result"):
        image = painted.image
        height, width = image.shape[-2:]
        # Without detail steps, the image's own size is the painted size: a memory shortage may
        # have made it smaller.
        painted_size = prepared.painted_size if painted.detail_steps else None
        if prepared.result_size is not None:
            image = resize(image, *prepared.result_size)
        content = prepared.content
        if prepared.blend is not None:
            image, content = prepared.blend.over(image), prepared.blend.photo
        if output.grayscale == "keep" and prepared.input_file.photo.is_gray:
            image = photos.to_grayscale(image)
        options = photos.ExportOptions(
            output.quality, output.metadata, output.color, output.grayscale, output.bits
        )
        exported = photos.export_image(image, prepared.input_file.photo, format, options)
        return Encoded(
            image,
            content,
            PixelSize(image.shape[-1], image.shape[-2]),
            exported.data,
            hashlib.sha256(exported.data).hexdigest(),
            format,
            exported.bits,
            exported.icc,
            painted_size or PixelSize(width, height),
            painted.detail_steps,
            exported.degraded,
        )

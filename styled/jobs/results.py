"""What becomes of a painted picture before it is published: its size, its colours, its file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor

from styled import photos
from styled.config import OutputConfig
from styled.degradation import Degradation
from styled.engine.progress import Stylized
from styled.engine.scales import resize
from styled.jobs.preparation import Prepared
from styled.sidecar import ResultFacts


@dataclass(frozen=True, slots=True)
class Result:
    """A file that is ready to be published.

    Attributes:
        image: What is in it: 1x3xHxW, sRGB in [0, 1].
        data: Its bytes.
        degraded: What the photo had and the file has not.
    """

    image: Tensor
    data: bytes
    sha256: str
    format: str
    bits: int
    color: str | None
    painted_size: tuple[int, int]
    detail_steps: int
    degraded: tuple[Degradation, ...]

    def facts(self, path: str, frames: str | None = None) -> ResultFacts:
        """Describe it, once it is known where it lies."""
        height, width = self.image.shape[-2:]
        was_painted_so = self.painted_size == (width, height)
        return ResultFacts(
            path=path,
            sha256=self.sha256,
            width=width,
            height=height,
            format=self.format,
            bits=self.bits,
            color=self.color,
            painted_width=None if was_painted_so else self.painted_size[0],
            painted_height=None if was_painted_so else self.painted_size[1],
            detail_steps=self.detail_steps,
            frames=frames,
        )


def finished(prepared: Prepared, stylized: Stylized, format: str, output: OutputConfig) -> Result:
    """Bring a painting to its size and into a file.

    Raises:
        ConfigError: it is larger than the format can hold.
        MemoryShortage: there is not enough memory for that now.
    """
    with photos.memory_shortage_at("bring the result into its file"):
        return _finished(prepared, stylized, format, output)


def _finished(prepared: Prepared, stylized: Stylized, format: str, output: OutputConfig) -> Result:
    image = stylized.image
    height, width = image.shape[-2:]
    # It may have become smaller for lack of memory before it came to its details.
    painted_size = prepared.painted_size if stylized.detail_steps else None
    painted_size = painted_size or (width, height)
    if prepared.result_size is not None:
        image = resize(image, *prepared.result_size)
    if output.grayscale == "keep" and prepared.read.photo.is_gray:
        image = photos.in_gray(image)
    how = photos.Finish(
        output.quality, output.metadata, output.color, output.grayscale, output.bits
    )
    done = photos.finish(image, prepared.read.photo, format, how)
    sha256 = hashlib.sha256(done.data).hexdigest()
    return Result(
        image, done.data, sha256, format, done.bits, done.icc, painted_size,
        stylized.detail_steps, done.degraded,
    )  # fmt: skip

"""Decodes the images of a style, and keeps them for the next photos."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from styled import photos
from styled.codec.source_files import SourceFile, unusable
from styled.degradation import Degradation
from styled.engine.scales import style_image_size
from styled.engine_api import PixelSize
from styled.errors import (
    InputIncomplete,
    InputRejected,
    MemoryShortage,
    ResourceUnavailable,
    StyleUnavailable,
)
from styled.recipes import Recipe

MAX_BYTES = 32 << 20
"""Of the kept pictures together: the one of a 1600 px painting, or ten of 512 px."""


@dataclass(frozen=True, slots=True)
class PreparedStyle:
    """One of a style's images, decoded and resized for the engine.

    Attributes:
        sha256: Of the file.
        image: 1x3xHxW float32, sRGB in [0, 1]; shared between jobs, so it must not be changed.
        degraded: Degradations of decoding it.
    """

    path: Path
    sha256: str
    weight: float
    image: Tensor
    degraded: tuple[Degradation, ...]


class Proof(NamedTuple):
    """The soft proof that style images are brought through, and its profile's SHA-256."""

    transform: photos.SoftProof
    sha256: str


class _Key(NamedTuple):
    """What the pixels of a picture depend on."""

    file_sha256: str
    size: PixelSize
    resample: str
    proof_sha256: str | None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A decoded picture; `full_size` is that of its file."""

    image: Tensor
    full_size: PixelSize
    degraded: tuple[Degradation, ...]


class StylePictures:
    """Returns the images of styles; the last ones used are not decoded again. Thread-safe.

    Photos of one style come one after the other, and decoding a painting of 20 megapixels takes
    as long as decoding the photo.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Keep pictures of at most `max_bytes` together."""
        self._max_bytes = max_bytes
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def picture(
        self, style: SourceFile, recipe: Recipe, painted: PixelSize, *, max_pixels: int,
        proof: Proof | None,
    ) -> PreparedStyle:  # fmt: skip
        """Return an image of a style at the size for a painting.

        Args:
            style: The file.
            recipe: The style's.
            painted: Size of the painting.
            max_pixels: Maximum number of pixels of the file.
            proof: None: there is none.

        Raises:
            StyleUnavailable: the file is missing or can't be used.
            MemoryShortage: there is not enough memory now.
        """
        if isinstance(style.data, StyleUnavailable):
            raise style.data
        sha256 = hashlib.sha256(style.data).hexdigest()
        try:
            kept = self._picture(style.data, sha256, recipe, painted, max_pixels, proof)
        except MemoryShortage:
            raise
        except (InputRejected, InputIncomplete, ResourceUnavailable) as error:
            # An error of the style image must not reject the photo; other styles are not affected.
            raise unusable(style.path, error) from error
        return PreparedStyle(style.path, sha256, style.weight, kept.image, kept.degraded)

    def _picture(
        self, data: bytes, sha256: str, recipe: Recipe, painted: PixelSize, max_pixels: int,
        proof: Proof | None,
    ) -> _Kept:  # fmt: skip
        proof_sha256 = None if proof is None else proof.sha256
        full_size = self._full_size(sha256)
        if full_size is not None and prod(full_size) <= max_pixels:
            size = style_image_size(recipe, painted, full_size)
            kept = self._find(_Key(sha256, size, recipe.resample, proof_sha256))
            if kept is not None:
                return kept
        photo = photos.decode_photo(data, max_pixels=max_pixels)
        full_size = PixelSize(photo.width, photo.height)
        size = style_image_size(recipe, painted, full_size)
        image = photo.tensor(*size, recipe.resample)
        if proof is not None:
            image = proof.transform.applied(image)
        kept = _Kept(image, full_size, photo.degraded)
        self._keep(_Key(sha256, size, recipe.resample, proof_sha256), kept)
        return kept

    def _full_size(self, sha256: str) -> PixelSize | None:
        with self._lock:
            sizes = (k.full_size for key, k in self._kept.items() if key.file_sha256 == sha256)
            return next(sizes, None)

    def _find(self, key: _Key) -> _Kept | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: _Key, kept: _Kept) -> None:
        """Keep a picture that is small enough, and drop those that were not used for longest."""
        if kept.image.nbytes > self._max_bytes:
            return
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while sum(one.image.nbytes for one in self._kept.values()) > self._max_bytes:
                self._kept.popitem(last=False)

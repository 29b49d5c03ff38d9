"""Decoding photos and encoding results in the thread that asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they import torch
    from styled.codec.encode import Encoded
    from styled.codec.prepare import Prepared
    from styled.codec.source_files import SourceFiles
    from styled.codec.style_pictures import StylePictures
    from styled.config import OutputConfig
    from styled.engine_api import Painted
    from styled.recipes import Recipe


class LocalPhotoCodec:
    """Does it at once; `styled.cluster` has one that does it on other machines."""

    uses_own_memory = True

    def __init__(self) -> None:
        """Keep the style images of the last photos."""
        self._style_pictures: StylePictures | None = None

    def prepare(
        self, files: SourceFiles, recipe: Recipe, *, max_pixels: int, at_own_size: bool,
        paint_damaged: bool,
    ) -> Prepared:  # fmt: skip
        """Decode a photo and its style; see `styled.codec.prepare.prepare`."""
        from styled.codec.prepare import prepare
        from styled.codec.style_pictures import StylePictures

        if self._style_pictures is None:
            self._style_pictures = StylePictures()
        return prepare(
            files, recipe, max_pixels=max_pixels, at_own_size=at_own_size,
            paint_damaged=paint_damaged, style_pictures=self._style_pictures,
        )  # fmt: skip

    def encode(
        self, prepared: Prepared, painted: Painted, format: str, output: OutputConfig
    ) -> Encoded:
        """Encode a painting; see `styled.codec.encode.encode`."""
        from styled.codec.encode import encode

        return encode(prepared, painted, format, output)

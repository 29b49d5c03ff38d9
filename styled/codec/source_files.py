"""Reads the files that a job needs: the photo, the images of its style, its mask."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from styled import photos
from styled.config import Style
from styled.errors import (
    InputIncomplete,
    InputRejected,
    ResourceUnavailable,
    StyledError,
    StyleUnavailable,
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One of a style's files, not decoded yet: a painting, an initial image or a profile.

    Attributes:
        path: For messages and sidecars.
        data: Its bytes, or the error while reading it. `prepare` raises that error only after the
            photo was decoded, since errors of the photo take precedence.
    """

    path: Path
    weight: float
    data: bytes | StyleUnavailable


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The bytes of a photo and of all files that it is painted with.

    Attributes:
        mask: Where it is painted; None: everywhere.
        init: The initial image; None: as the recipe says.
        proof: The ICC profile that photo and style are converted to and back; None: none.
    """

    photo: bytes
    styles: tuple[SourceFile, ...]
    mask: bytes | None = None
    init: SourceFile | None = None
    proof: SourceFile | None = None


def read_source_files(photo_path: Path, style: Style, mask: Path | None = None) -> SourceFiles:
    """Read the files of a photo and its style, and its mask if there is one.

    Raises:
        FileNotFoundError: the photo is gone.
        InputRejected, InputIncomplete: the photo is not a regular file, or is empty.
        MemoryShortage, ResourceUnavailable: the photo can't be read now.
    """
    with photos.memory_shortage_at("read the photo and its style"):
        photo = photos.read_bytes(photo_path)
        styles = tuple(_read_style(one.path, one.weight) for one in style.images)
        return SourceFiles(
            photo,
            styles,
            None if mask is None else _read_mask(mask),
            None if style.init_image is None else _read_style(style.init_image, 1.0),
            None if style.proof is None else _read_style(style.proof, 1.0),
        )


def _read_mask(path: Path) -> bytes:
    try:
        return photos.read_bytes(path)
    except FileNotFoundError as error:  # not to be taken for that of the photo
        raise ResourceUnavailable(
            f"the mask {path} is gone", "the photo is read again in a moment, with what is there"
        ) from error


def _read_style(path: Path, weight: float) -> SourceFile:
    try:
        return SourceFile(path, weight, photos.read_bytes(path))
    except FileNotFoundError:
        return SourceFile(path, weight, _missing(path))
    except (InputRejected, InputIncomplete, ResourceUnavailable) as error:
        return SourceFile(path, weight, unusable(path, error))


def _missing(path: Path) -> StyleUnavailable:
    """Return the error for a style's file that does not exist."""
    return StyleUnavailable(
        f"the style's file {path} does not exist", "bring it back or change the configuration"
    )


def unusable(path: Path, error: StyledError) -> StyleUnavailable:
    """Return the error for a style's file that can't be read or decoded."""
    return StyleUnavailable(
        f"the style's file {path} can't be used: {error.message}",
        "replace it or change the configuration",
    )


def require_style(style: Style) -> None:
    """Check that all image files of a style exist, without reading them.

    Raises:
        StyleUnavailable: one is missing.
    """
    for path in style.files:
        if not os.path.exists(path):
            raise _missing(path)

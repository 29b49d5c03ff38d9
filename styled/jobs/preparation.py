"""From a claimed job to tensors: the photo read once, the style, the recipe."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath

from torch import Tensor

from styled import photos
from styled.config import Style
from styled.degradation import Degradation
from styled.engine.scales import style_picture_size, working_size
from styled.errors import (
    InputIncomplete,
    InputRejected,
    MemoryShortage,
    ResourceUnavailable,
    StyleUnavailable,
)
from styled.recipes import Recipe

_SUFFIXES = {
    "jpeg": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "tiff": {".tif", ".tiff"},
    "bmp": {".bmp", ".dib"},
    "heic": {".heic", ".heif", ".hif"},
}


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A picture file, as it was read.

    Attributes:
        sha256: Of its bytes.
        bytes: How many.
    """

    photo: photos.Photo
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class StylePicture:
    """One of a style's pictures, ready for the engine.

    Attributes:
        image: 1x3xHxW float32, sRGB in [0, 1].
    """

    path: Path
    sha256: str
    weight: float
    image: Tensor
    degraded: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that the engine needs.

    Attributes:
        content: 1x3xHxW float32, sRGB in [0, 1], or 1x4xHxW with opacity, at the size of the
            result.
        painted_size: Width and height at which it is painted, where that is less.
        result_size: Width and height that the result is brought to, where that is another
            size than the content's.
    """

    read: ReadFile
    content: Tensor
    styles: tuple[StylePicture, ...]
    recipe: Recipe
    painted_size: tuple[int, int] | None = None
    result_size: tuple[int, int] | None = None

    def weighted_styles(self) -> list[tuple[Tensor, float]]:
        """Return the style images with their weights."""
        return [(style.image, style.weight) for style in self.styles]


def prepare(
    photo_path: Path, style: Style, *, max_pixels: int, at_own_size: bool = False
) -> Prepared:
    """Read the photo and its style.

    Args:
        photo_path: The photo.
        style: The style, with its recipe.
        max_pixels: Of a picture file; more are refused.
        at_own_size: Whether the result is to be as large as the photo.

    Raises:
        FileNotFoundError: the photo is gone.
        InputRejected: the photo can't be done, ever.
        InputIncomplete: the photo ends too early.
        StyleUnavailable: a style image is missing or can't be used.
        MemoryShortage: there is not enough memory for it now.
        ResourceUnavailable: the photo can't be read now.
    """
    with photos.memory_shortage_at("read the photo and its style"):
        return _prepared(photo_path, style, max_pixels, at_own_size)


def _prepared(photo_path: Path, style: Style, max_pixels: int, at_own_size: bool) -> Prepared:
    read = read_picture(photo_path, max_pixels=max_pixels)
    own = read.photo.width, read.photo.height
    painted = width, height = working_size(style.recipe.size, *own)
    detailed = at_own_size and style.recipe.detail_steps > 0 and prod(own) > prod(painted)
    if detailed:
        width, height = own
    pictures = tuple(
        _style_picture(image.path, image.weight, style.recipe, (width, height), max_pixels)
        for image in style.images
    )
    content = read.photo.tensor(width, height, style.recipe.resample)
    return Prepared(
        read,
        content,
        pictures,
        style.recipe,
        painted_size=painted if detailed else None,
        result_size=own if at_own_size else None,
    )


def read_picture(path: Path, *, max_pixels: int) -> ReadFile:
    """Read and decode one file.

    Raises:
        FileNotFoundError, InputRejected, InputIncomplete, ResourceUnavailable: as `prepare`.
    """
    data = photos.read_bytes(path)
    photo = photos.decode(data, max_pixels=max_pixels)
    return ReadFile(photo, hashlib.sha256(data).hexdigest(), len(data))


def require_style(style: Style) -> None:
    """Do nothing if all images of a style are there; it takes no time to ask.

    Raises:
        StyleUnavailable: one is not.
    """
    for image in style.images:
        if not os.path.exists(image.path):
            raise StyleUnavailable(
                f"the style image {image.path} does not exist",
                "bring it back or change the configuration",
            )


def check_style(style: Style, *, max_pixels: int) -> Sequence[str]:
    """Return what is wrong with a style's pictures, in words; nothing if all is well."""
    problems = []
    for image in style.images:
        try:
            read_picture(image.path, max_pixels=max_pixels)
        except FileNotFoundError:
            problems.append(f"{image.path} does not exist")
        except (InputRejected, InputIncomplete, ResourceUnavailable) as error:
            problems.append(f"{image.path}: {error.message}")
    return problems


def _style_picture(
    path: Path, weight: float, recipe: Recipe, result: tuple[int, int], max_pixels: int
) -> StylePicture:
    try:
        read = read_picture(path, max_pixels=max_pixels)
        photo = read.photo
        size = style_picture_size(recipe, result, (photo.width, photo.height))
    except FileNotFoundError:
        raise StyleUnavailable(
            f"the style image {path} does not exist", "bring it back or change the configuration"
        ) from None
    except MemoryShortage:
        raise
    except (InputRejected, InputIncomplete, ResourceUnavailable) as error:
        # The photo is not to blame for its style, nor are other styles.
        raise StyleUnavailable(
            f"the style image {path} can't be used: {error.message}",
            "replace it or change the configuration",
        ) from error
    image = photo.tensor(*size, recipe.resample)
    return StylePicture(path, read.sha256, weight, image, photo.degraded)


def result_name(destination: str, configured_format: str, read: ReadFile) -> tuple[str, str]:
    """Return the result's path below the style's folder, and its format.

    A suffix that says what the file is stays as it is; any other is replaced.
    """
    result_format, suffix = photos.output_format(configured_format, read.photo.format)
    path = PurePosixPath(destination)
    stem, present = os.path.splitext(path.name)
    if present.lower() not in _SUFFIXES.get(result_format, {suffix}):
        path = path.with_name(stem + suffix)
    return str(path), result_format

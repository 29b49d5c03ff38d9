"""Decodes a photo and its style images to an engine's tensors; `prepare` is a pure function."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from styled import photos
from styled.codec.source_files import SourceFile, SourceFiles, unusable
from styled.codec.style_pictures import PreparedStyle, Proof, StylePictures
from styled.engine.scales import resize, working_size
from styled.engine_api import PaintTask, PixelSize
from styled.errors import (
    InputIncomplete,
    InputRejected,
    StyleUnavailable,
)
from styled.recipes import Recipe
from styled.sidecar import FileInfo


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """A decoded image file.

    Attributes:
        sha256: Of the file.
        size_bytes: Size of the file.
    """

    photo: photos.Photo
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Blend:
    """The photo that shows where its mask is not white.

    Attributes:
        mask: 1x1xHxW float32 at the size of the result, 1 where it is painted.
        photo: 1x3xHxW, or 1x4xHxW with the photo's own opacity: likewise.
    """

    mask: Tensor
    photo: Tensor

    def over(self, painting: Tensor) -> Tensor:
        """Return 1x3xHxW: the painting where the mask is white, the photo where it is black."""
        height, width = painting.shape[-2:]
        mask, photo = resize(self.mask, width, height), resize(self.photo, width, height)[:, :3]
        # Not interpolated where it is black: there the photo stays bit for bit.
        return torch.where(mask == 0, photo, torch.lerp(photo, painting, mask))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A photo and its style, decoded.

    Attributes:
        content: 1x3xHxW float32, sRGB in [0, 1], or 1x4xHxW with opacity, at the size of the
            result.
        painted_size: Size at which it is painted, if smaller than the content.
        result_size: Size to which the result is resized; None: it is not resized.
        blend: What stays of the photo; None: it has no mask.
        init: The initial image, 1x3xHxW float32, sRGB in [0, 1]; None: as the recipe says.
        init_info, proof_info: The files of initial image and soft proof, for the sidecar.
    """

    input_file: DecodedFile
    content: Tensor
    styles: tuple[PreparedStyle, ...]
    recipe: Recipe
    painted_size: PixelSize | None = None
    result_size: PixelSize | None = None
    blend: Blend | None = None
    init: Tensor | None = None
    init_info: FileInfo | None = None
    proof_info: FileInfo | None = None

    def loaded(self) -> Prepared:
        """Return this with its pixels, wherever they are; see `styled.cluster`.

        Raises:
            NodeLost: they were on a machine that is gone.
        """
        return self

    @property
    def pixels(self) -> int:
        """Number of pixels of the content or of the result, whichever has more."""
        height, width = self.content.shape[-2:]
        return int(max(width * height, prod(self.result_size or (0, 0))))

    def task(self, job_id: str) -> PaintTask:
        """Return the engine's task, with the default intervals of checkpoints and previews."""
        return PaintTask(
            job_id,
            self.content,
            tuple((style.image, style.weight) for style in self.styles),
            self.recipe,
            self.painted_size,
            self.init,
        )


def prepare(
    files: SourceFiles, recipe: Recipe, *, max_pixels: int, at_own_size: bool = False,
    paint_damaged: bool = False, style_pictures: StylePictures | None = None,
) -> Prepared:  # fmt: skip
    """Decode a photo and its style. A pure function: it may run in any thread or process.

    Args:
        files: From `read_source_files`.
        recipe: Of the style.
        max_pixels: Maximum number of pixels of an image file.
        at_own_size: Whether the result gets the size of the photo.
        paint_damaged: Whether a photo is accepted of which a part is missing.
        style_pictures: Those of earlier calls, which are not decoded again; None: decode all.

    Raises:
        InputRejected: the photo can never be painted; TooManyPixels: because of `max_pixels`.
        InputIncomplete: the photo ends too early.
        StyleUnavailable: a style image is missing or can't be used.
        MemoryShortage: there is not enough memory now.
    """
    with photos.memory_shortage_at("read the photo and its style"):
        read = decode(files.photo, max_pixels=max_pixels, paint_damaged=paint_damaged)
        photo_size = PixelSize(read.photo.width, read.photo.height)
        painted_size = size = PixelSize(*working_size(recipe.size, *photo_size))
        is_detailed = (
            at_own_size and recipe.detail_steps > 0 and prod(photo_size) > prod(painted_size)
        )
        if is_detailed:
            size = photo_size
        proof = None if files.proof is None else _soft_proof(files.proof)
        pictures = style_pictures or StylePictures(0)
        content, blend = read.photo.tensor(*size, recipe.resample), None
        if files.mask is not None:
            mask = photos.decode_mask(files.mask, read.photo, max_pixels=max_pixels)
            result = photo_size if at_own_size else size
            photo = content if result == size else read.photo.tensor(*result, recipe.resample)
            content = _only_where_painted(content, mask.tensor(*size))
            blend = Blend(mask.tensor(*result), photo)
        if proof is not None:
            content = proof.transform.applied(content)
        return Prepared(
            read,
            content=content,
            styles=tuple(
                pictures.picture(one, recipe, size, max_pixels=max_pixels, proof=proof)
                for one in files.styles
            ),
            recipe=recipe,
            painted_size=painted_size if is_detailed else None,
            result_size=photo_size if at_own_size else None,
            blend=blend,
            init=None if files.init is None else _initial(files.init, recipe, size, max_pixels),
            init_info=_file_info(files.init),
            proof_info=_file_info(files.proof),
        )


def _only_where_painted(content: Tensor, mask: Tensor) -> Tensor:
    """Return the photo with the opacity of its mask, 1x4xHxW.

    Raises:
        InputRejected: the mask is black all over.
    """
    opacity = mask if content.shape[1] == 3 else mask * content[:, 3:]
    if not bool((opacity > 0).any()):
        raise InputRejected(
            "the mask leaves nothing to paint: it is black wherever the photo is opaque",
            "white is painted, black stays the photo: invert it if it is the other way round",
        )
    return torch.cat([content[:, :3], opacity], dim=1)


def decode(data: bytes, *, max_pixels: int, paint_damaged: bool = False) -> DecodedFile:
    """Decode one image file.

    Raises:
        InputRejected, InputIncomplete, MemoryShortage: as `prepare`.
    """
    photo = photos.decode_photo(data, max_pixels=max_pixels, paint_damaged=paint_damaged)
    return DecodedFile(photo, hashlib.sha256(data).hexdigest(), len(data))


def _soft_proof(proof: SourceFile) -> Proof:
    if isinstance(proof.data, StyleUnavailable):
        raise proof.data
    try:
        return Proof(photos.SoftProof(proof.data), hashlib.sha256(proof.data).hexdigest())
    except InputRejected as error:
        raise unusable(proof.path, error) from error


def _file_info(file: SourceFile | None) -> FileInfo | None:
    if file is None or isinstance(file.data, StyleUnavailable):
        return None
    return FileInfo(path=str(file.path), sha256=hashlib.sha256(file.data).hexdigest())


def _initial(init: SourceFile, recipe: Recipe, size: PixelSize, max_pixels: int) -> Tensor:
    """Return the initial image, stretched to the size at which the photo is painted."""
    if isinstance(init.data, StyleUnavailable):
        raise init.data
    try:
        photo = decode(init.data, max_pixels=max_pixels).photo
    except (InputRejected, InputIncomplete) as error:
        raise unusable(init.path, error) from error
    return photo.tensor(*size, recipe.resample)[:, :3]

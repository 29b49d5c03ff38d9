"""Masks: greyscale pictures that say where a photo is painted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from styled.errors import InputIncomplete, InputRejected
from styled.photos.decode import decode_photo
from styled.photos.photo import Photo


@dataclass(frozen=True, slots=True)
class Mask:
    """A decoded mask: white is painted, black stays the photo, grey blends.

    Attributes:
        picture: Of any size; it is scaled to the photo.
        orientation: EXIF orientation to turn it by: 1, or that of its photo from 5 to 8.
    """

    picture: Photo
    orientation: int = 1

    def tensor(self, width: int, height: int) -> Tensor:
        """Return the mask at `width` x `height` pixels: 1x1xHxW float32, 1 where it is painted.

        Colours count by their mean, and transparent pixels as black. It is scaled bilinearly,
        so that areas that are black or white stay exactly so.
        """
        is_turned = self.orientation >= 5
        size = (height, width) if is_turned else (width, height)
        pixels = self.picture.tensor(*size, "bilinear")
        values = pixels[:, :3].mean(dim=1, keepdim=True)
        if pixels.shape[1] == 4:
            values = values * pixels[:, 3:]
        # A mean of three equal numbers may be off by a rounding error.
        values = torch.where(values > 1 - 1e-6, 1.0, values)
        return _turned(values, self.orientation) if is_turned else values


def decode_mask(data: bytes, photo: Photo, *, max_pixels: int) -> Mask:
    """Decode the mask of a photo.

    Its own EXIF orientation is applied. One that has none, and the size of the photo before the
    photo's orientation was applied, is turned like the photo.

    Raises:
        InputRejected: it can't be used; the message says why.
        MemoryShortage: there is not enough memory now.
    """
    try:
        picture = decode_photo(data, max_pixels=max_pixels, name="the mask")
    except InputIncomplete as error:
        raise InputRejected(error.message, *error.remedies) from error
    is_before = (picture.width, picture.height) == (photo.height, photo.width) != (
        photo.width, photo.height,
    )  # fmt: skip
    turns = photo.orientation >= 5 and picture.orientation == 1 and is_before
    return Mask(picture, photo.orientation if turns else 1)


def _turned(values: Tensor, orientation: int) -> Tensor:
    """Apply an EXIF orientation that exchanges width and height."""
    flips = {5: [], 6: [-1], 7: [-1, -2], 8: [-2]}[orientation]
    return values.transpose(-1, -2).flip(flips).contiguous()

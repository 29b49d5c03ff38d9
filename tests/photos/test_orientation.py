"""EXIF orientation: what the camera turned is turned back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from styled.photos import decode
from tests.photos.samples import EXACT, astronaut, pixels, png_chunk, saved

# The corners of an upright 40 x 32 picture, by what the camera stored for each orientation.
UPRIGHT = np.zeros((32, 40), dtype=np.uint8)
UPRIGHT[:16, :20], UPRIGHT[:16, 20:], UPRIGHT[16:, :20] = 60, 120, 180
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_comes_out_upright(orientation: int, format: str) -> None:
    """What the camera turned is turned back, and the number found is kept."""
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation])).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode(saved(stored, format, exif=exif, **EXACT.get(format, {})))
    assert (photo.width, photo.height, photo.orientation) == (40, 32, orientation)
    assert np.abs(pixels(photo)[..., 0] - UPRIGHT).max() <= 2
    assert photo.notes == ()


def test_an_orientation_after_the_pixels_is_found() -> None:
    """A PNG may keep its EXIF data behind its pixels."""
    data = saved(astronaut(), "PNG")
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    photo = decode(data[:-12] + png_chunk(b"eXIf", exif) + data[-12:])
    assert (photo.width, photo.height, photo.orientation) == (64, 96, 6)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_impossible_orientation_is_taken_for_upright(value: int) -> None:
    """A number outside 1..8 changes nothing."""
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode(saved(astronaut(), "JPEG", exif=exif)).orientation == 1


def test_damaged_exif_data_does_not_cost_the_photo() -> None:
    """Unreadable EXIF data is ignored and noted."""
    photo = decode(saved(astronaut(), "JPEG", exif=b"Exif\0\0nonsense"))
    assert photo.orientation == 1
    assert photo.notes == ("the EXIF data is damaged and was ignored",)

"""Masks: sizes, depths, colours, orientation and what can't be used."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from styled.errors import InputRejected
from styled.photos import Photo, decode_mask, decode_photo

HALF = np.zeros((48, 64), dtype=np.uint8)
HALF[:, 32:] = 255


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photo(orientation: int = 1, size: tuple[int, int] = (64, 48)) -> Photo:
    """Return a decoded photo; `size` is that of the file, before its orientation is applied."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return decode_photo(saved(Image.new("RGB", size, "teal"), "JPEG", exif=exif))


def mask_of(data: bytes, size: tuple[int, int] = (64, 48), orientation: int = 1) -> torch.Tensor:
    """Return a decoded mask at a size, as a matrix."""
    mask = decode_mask(data, photo(orientation), max_pixels=10**6)
    return mask.tensor(*size)[0, 0]


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "I;16", "RGBA", "LA"])
def test_white_is_one_and_black_is_zero(mode: str) -> None:
    """Exactly, in all modes; transparent pixels are black."""
    if mode == "I;16":
        image = Image.fromarray(HALF.astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image = Image.new(mode, (64, 48), "white")
        image.putalpha(Image.fromarray(HALF))
    else:
        image = Image.fromarray(HALF).convert(mode)
    values = mask_of(saved(image))
    assert values.shape == (48, 64)
    assert torch.equal(values, torch.from_numpy(HALF).float() / 255)


def test_sixteen_bits_have_fine_steps() -> None:
    """A ramp keeps more levels than 8 bits have."""
    ramp = np.tile(np.linspace(0, 65535, 640).astype(np.uint16), (48, 1))
    values = mask_of(saved(Image.fromarray(ramp)), (640, 48))
    assert len(set(values[0].tolist())) > 600


@pytest.mark.parametrize("size", [(640, 480), (16, 12), (100, 30)])
def test_any_size_is_scaled_to_the_photo(size: tuple[int, int]) -> None:
    """Bilinearly: what is far from an edge stays exactly black or white."""
    image = Image.fromarray(HALF).resize(size, Image.Resampling.NEAREST)
    if min(size) < 32:
        image = image.resize((size[0] * 4, size[1] * 4), Image.Resampling.NEAREST)
    values = mask_of(saved(image))
    assert float(values[:, :24].max()) == 0
    assert float(values[:, 40:].min()) == 1
    assert 0 <= float(values.min()) <= float(values.max()) <= 1


@pytest.mark.parametrize("orientation", range(5, 9))
def test_a_mask_as_large_as_the_file_is_turned_like_the_photo(orientation: int) -> None:
    """By the photo's orientation; one of the upright size, or with its own, is not."""
    corner = np.zeros((48, 64), dtype=np.uint8)
    corner[:24, :32] = 255
    image = Image.fromarray(corner)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.open(io.BytesIO(saved(image, exif=exif)))
    expected = np.asarray(ImageOps.exif_transpose(turned).convert("L"))
    upright = photo(orientation)
    assert (upright.width, upright.height) == (48, 64)
    for data in (
        saved(image),  # as the sensor saw it
        saved(image, exif=exif),  # likewise, and it says so
        saved(Image.fromarray(expected)),  # upright, as an editor shows the photo
    ):
        mask = decode_mask(data, upright, max_pixels=10**6)
        values = (mask.tensor(48, 64)[0, 0] * 255).round().to(torch.uint8).numpy()
        assert np.array_equal(values, expected)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the mask is empty"),
        (b"text", "the mask is not a picture"),
        (saved(Image.fromarray(HALF))[:60], "the mask ends too early"),
        (saved(Image.new("L", (2000, 1000))), "the mask is too large"),
    ],
)
def test_a_mask_that_can_not_be_used_is_named(data: bytes, reason: str) -> None:
    """In a rejection of the photo."""
    with pytest.raises(InputRejected) as caught:
        decode_mask(data, photo(), max_pixels=10**6)
    assert reason in caught.value.message

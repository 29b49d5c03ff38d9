"""Grey photos: painted in colour, or in grey if that is configured."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from styled.photos import ExportOptions, decode_photo, export_image
from tests.photos.icc import gamma, gray_profile
from tests.photos.samples import (
    astronaut,
    by_cjpeg,
    decoded,
    deep_png,
    needs_avif,
    needs_cjpeg,
    own_tensor,
    pixels,
)

KEEP = ExportOptions(grayscale="keep")


def colorful() -> torch.Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(4))


def mode_of(data: bytes) -> str:
    with Image.open(BytesIO(data)) as image:
        return image.mode


@pytest.mark.parametrize(
    ("mode", "format"),
    [("L", "JPEG"), ("L", "PNG"), ("L", "TIFF"), ("1", "PNG"), ("LA", "PNG"), ("F", "TIFF")],
)
def test_lightness_alone_is_grey(mode: str, format: str) -> None:
    """Every mode with one colour channel is grey; three equal channels are not."""
    assert decoded(astronaut().convert(mode), format).is_gray
    assert not decoded(astronaut().convert("L").convert("RGB"), format).is_gray


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff", "bmp"])
def test_a_grey_photo_stays_grey_where_asked(format: str) -> None:
    """The result has one channel: the painting's luma with the weights of BT.601."""
    photo = decoded(astronaut().convert("L"), "PNG")
    painting = colorful()
    data = export_image(painting, photo, format, KEEP).data
    assert mode_of(data) == "L"
    expected = painting[0].permute(1, 2, 0).numpy() @ np.array([0.299, 0.587, 0.114]) * 255
    with Image.open(BytesIO(data)) as image:
        found = np.asarray(image).astype(float)
    assert np.abs(found - expected).max() <= (25 if format == "jpeg" else 0.51)


@pytest.mark.parametrize("format", ["webp", "gif", "heic", pytest.param("avif", marks=needs_avif)])
def test_formats_without_grey_have_three_equal_channels(format: str) -> None:
    """In a format that can't have one channel, all three are the same."""
    photo = decoded(astronaut().convert("L"), "PNG")
    found = pixels(
        decode_photo(export_image(colorful(), photo, format, ExportOptions(grayscale="keep")).data)
    )
    assert np.ptp(found, axis=2).max() <= 3


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff", "webp"])
def test_a_grey_photo_is_painted_in_colours_otherwise(format: str) -> None:
    """By default the painting keeps its colours."""
    photo = decoded(astronaut().convert("L"), "PNG")
    data = export_image(colorful(), photo, format, ExportOptions()).data
    assert mode_of(data) == "RGB"
    assert np.ptp(pixels(decode_photo(data)), axis=2).mean() > 30


def test_a_photo_in_colours_is_not_made_grey() -> None:
    """`keep` makes results grey for grey photos only."""
    photo = decoded(astronaut(), "PNG")
    assert mode_of(export_image(colorful(), photo, "png", KEEP).data) == "RGB"


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_grey_of_16_bits_stays_so(format: str) -> None:
    """One channel of 16 bits, every level unchanged."""
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    photo = decode_photo(deep_png(levels))
    exported = export_image(own_tensor(photo), photo, format, KEEP)
    assert (exported.bits, exported.icc, exported.degraded) == (16, None, ())
    assert mode_of(exported.data) == "I;16"
    with Image.open(BytesIO(exported.data)) as image:
        assert np.array_equal(np.asarray(image), levels[..., 0])


def test_grey_with_opacity_stays_so() -> None:
    """A result in grey keeps its alpha channel."""
    image = astronaut().convert("LA")
    image.putalpha(Image.linear_gradient("L").resize((96, 64)))
    photo = decoded(image, "PNG")
    for format in ("png", "tiff"):
        data = export_image(own_tensor(photo), photo, format, KEEP).data
        assert mode_of(data) == "LA"
        result = decode_photo(data)
        assert result.alpha is not None
        assert photo.alpha is not None
        assert np.array_equal(np.asarray(result.alpha), np.asarray(photo.alpha))
        seen = np.asarray(photo.alpha) > 0
        assert np.abs(pixels(result) - pixels(photo))[seen].max() <= 1


@pytest.mark.parametrize("color", ["srgb", "input"])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_grey_of_16_bits_with_opacity_can_be_read_by_everybody(
    format: str, color: Literal["srgb", "input"]
) -> None:
    """Few programs read a TIFF of two 16-bit channels, so it gets four, and no grey profile."""
    levels = np.full((40, 40, 2), (30000, 40000), np.uint16)
    photo = decode_photo(deep_png(levels, gray_profile(gamma(1.0))))
    assert photo.deep is not None
    assert np.abs(photo.deep[5, 5] - (46322, 46322, 46322, 40000)).max() <= 2  # sRGB of 0.4578
    assert np.abs(pixels(photo)[5, 5] - 46322 / 257).max() <= 1
    exported = export_image(
        own_tensor(photo), photo, format, ExportOptions(grayscale="keep", color=color)
    )
    assert exported.bits == 16
    if format == "png":
        assert exported.data[24:26] == b"\x10\x04"  # 16 bits, grey with alpha
    else:
        assert mode_of(exported.data) == "RGBA"
    result = decode_photo(exported.data)
    assert result.degraded == ()
    assert result.deep is not None
    assert np.abs(result.deep.astype(int) - photo.deep).max() <= 3
    is_left_out = format == "tiff" and color == "input"
    assert len(exported.degraded) == is_left_out
    for degradation in exported.degraded:
        assert degradation.kind == "color"
        assert "does not go with this file format" in degradation.message


@needs_cjpeg
def test_a_jpeg_of_one_component_stays_one(tmp_path: Path) -> None:
    """A grey JPEG of another program gives a grey JPEG."""
    photo = decode_photo(by_cjpeg(tmp_path, "-grayscale", "-quality", "95"))
    assert photo.is_gray
    data = export_image(own_tensor(photo), photo, "jpeg", KEEP).data
    with Image.open(BytesIO(data)) as image:
        assert len(image.layer) == 1  # type: ignore[attr-defined]  # it is a JPEG
    assert np.abs(pixels(decode_photo(data)) - pixels(photo)).max() <= 12

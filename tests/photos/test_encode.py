"""Encoding a tensor as an image file."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from styled.errors import ConfigError
from styled.photos import ExportOptions, decode_photo, encode_image, export_image, output_format
from styled.photos.output_image import OutputImage
from styled.photos.png import save_png
from styled.photos.tiff import save_tiff
from tests.photos.icc import adobe_rgb_profile
from tests.photos.samples import (
    astronaut,
    by_cjpeg,
    content,
    decoded,
    deep_png,
    needs_avif,
    needs_cjpeg,
    own_tensor,
    pixels,
    saved,
)


def test_values_are_rounded_and_clamped() -> None:
    """Each value becomes the nearest of 256 levels, without overflow."""
    values = torch.tensor([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 7.0])
    image = Image.open(BytesIO(encode_image(values.expand(1, 3, 1, 6), "png")))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_pictures(dtype: torch.dtype) -> None:
    """Half and double precision give the same pixels, also for a tensor that requires grad."""
    tensor = torch.eye(40, dtype=dtype).expand(1, 3, 40, 40).clone().requires_grad_()
    image = Image.open(BytesIO(encode_image(tensor, "png")))
    assert np.array_equal(np.asarray(image)[..., 1], np.eye(40) * 255)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 40, 40),
        torch.zeros(2, 3, 40, 40),
        torch.zeros(1, 4, 40, 40),
        torch.zeros(1, 3, 0, 40),
        torch.zeros(1, 3, 40, 40, dtype=torch.uint8),
        torch.full((1, 3, 40, 40), float("nan")),
        torch.full((1, 3, 40, 40), float("inf")),
    ],
)
def test_what_is_no_picture_tensor_is_refused(tensor: torch.Tensor) -> None:
    """Wrong shapes, integers and values that are not finite raise ValueError."""
    with pytest.raises(ValueError, match="tensor"):
        encode_image(tensor, "png")


AVIF = pytest.param("avif", marks=needs_avif)
FORMATS = ["jpeg", "png", "tiff", "webp", "bmp", "gif", "heic", AVIF]


@pytest.mark.parametrize("format", ["png", "tiff", "bmp"])
def test_lossless_formats_give_back_the_same_pixels(format: str) -> None:
    """Encoding and decoding changes nothing."""
    assert torch.equal(decode_photo(encode_image(content(), format)).tensor(96, 64), content())


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_back_the_picture(format: str) -> None:
    """The decoded image is close to the original, with the right format and, if possible, sRGB."""
    photo = decode_photo(encode_image(content(), format))
    assert photo.format == format
    assert (photo.tensor(96, 64) - content()).abs().mean() < 0.02
    assert photo.icc == (None if format in ("bmp", "gif") else "sRGB built-in")
    assert photo.degraded == ()


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_pixels_give_the_same_bytes(format: str) -> None:
    """Encoding an image twice gives equal files."""
    assert encode_image(content(), format) == encode_image(content(), format)


def test_the_embedded_profile_has_no_date_of_its_own() -> None:
    """The profile's date is always the first of January 2000."""
    icc = Image.open(BytesIO(encode_image(content(), "png"))).info["icc_profile"]
    assert struct.unpack(">6H", icc[24:36]) == (2000, 1, 1, 0, 0, 0)
    assert int.from_bytes(icc[:4], "big") == len(icc)


def test_jpegs_keep_full_colour_resolution() -> None:
    """A JPEG is written progressively and in 4:4:4."""
    with Image.open(BytesIO(encode_image(content(), "jpeg"))) as image:
        assert image.info["progressive"]
        assert {component[1:3] for component in image.layer} == {(1, 1)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("quality", [90, 95, 100])
def test_noise_fits_into_a_jpeg(quality: int) -> None:
    """Black and white noise, the worst case for the encoder's buffer, is written completely."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 2, (1, 3, 256, 256), generator=generator).float()
    assert decode_photo(encode_image(noise, "jpeg", quality)).width == 256


def test_quality_decides_the_size() -> None:
    """A lower quality gives a smaller file."""
    for format in ("jpeg", "webp"):
        assert (
            len(encode_image(content(), format, 30)) < len(encode_image(content(), format, 95)) / 2
        )


def test_a_picture_that_the_format_cannot_hold_is_refused_with_a_remedy() -> None:
    """WebP edges hold at most 16383 pixels, and the message says what to do."""
    with pytest.raises(ConfigError, match="16384 x 1 pixels do not fit into a webp"):
        encode_image(torch.zeros(1, 3, 1, 16384), "webp")


def test_the_result_takes_the_inputs_format_or_the_configured_one() -> None:
    """`same` gives the input's format; a format is returned as it is; unknown names are refused."""
    assert output_format("same", "png") == ("png", ".png")
    assert output_format("jpeg", "png") == ("jpeg", ".jpg")
    assert output_format("same", "tiff") == ("tiff", ".tif")
    with pytest.raises(ValueError, match="unknown picture format 'psd'"):
        output_format("psd", "png")
    with pytest.raises(ValueError, match="unknown"):
        encode_image(content(), "psd")


# --- results of photos


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_painting_gives_the_same_bytes(format: str) -> None:
    """With metadata, opacity, a profile and 16 bits, two files of one painting are equal."""
    exif = Image.Exif()
    exif[0x010F], exif[0x8825] = "A camera", {1: "N", 2: (48.0, 8.0, 0.0)}
    exif[0x8769] = {0x9003: "2026:01:02 03:04:05", 0x829A: 0.004, 0x8827: 400}
    image = astronaut()
    image.putalpha(Image.linear_gradient("L").resize((96, 64)))
    options: dict[str, Any] = {"exif": exif, "icc_profile": adobe_rgb_profile(), "dpi": (300, 300)}
    data = saved(image, "PNG", **options)
    export_options = ExportOptions(color="input", bits=16)
    files = set()
    for _ in range(2):
        photo = decode_photo(data)
        files.add(export_image(own_tensor(photo), photo, format, export_options).data)
    assert len(files) == 1


@pytest.mark.parametrize("quality", [10, 50, 75, 90, 95, 100])
def test_a_jpegs_quality_is_that_of_the_reference_encoder(quality: int) -> None:
    """The quantisation tables are those of the standard, scaled as in its reference encoder."""
    photo = decoded(astronaut(), "PNG")
    data = export_image(own_tensor(photo), photo, "jpeg", ExportOptions(quality=quality)).data
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    with Image.open(BytesIO(data)) as image:
        tables = image.quantization  # type: ignore[attr-defined]  # it is a JPEG
        assert tables[0][0] == min(max((16 * scale + 50) // 100, 1), 255)  # ITU-T T.81, table K.1
        assert tables[1][0] == min(max((17 * scale + 50) // 100, 1), 255)  # K.2


@needs_cjpeg
def test_cjpeg_writes_the_same_tables(tmp_path: Path) -> None:
    """At quality 90 a result has the same quantisation tables as a file of cjpeg."""
    photo = decoded(astronaut(), "PNG")
    data = export_image(own_tensor(photo), photo, "jpeg", ExportOptions(quality=90)).data
    with (
        Image.open(BytesIO(data)) as image,
        Image.open(BytesIO(by_cjpeg(tmp_path, "-quality", "90"))) as other,
    ):
        tables, others = image.quantization, other.quantization  # type: ignore[attr-defined]
        assert tables == others


@pytest.mark.parametrize("kind", ["plain", "deep", "transparent"])
def test_a_finished_jpeg_keeps_full_colour_resolution(kind: str) -> None:
    """The JPEG of any photo is progressive and in 4:4:4."""
    image = astronaut()
    if kind == "transparent":
        image.putalpha(99)
    levels = np.asarray(astronaut()).astype(np.uint16) * 257
    photo = decode_photo(deep_png(levels) if kind == "deep" else saved(image, "PNG"))
    data = export_image(own_tensor(photo), photo, "jpeg", ExportOptions()).data
    with Image.open(BytesIO(data)) as result:
        assert result.info["progressive"]
        assert {part[1:3] for part in result.layer} == {(1, 1)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("format", ["heic", AVIF])
def test_modern_formats_keep_full_colour_resolution_too(format: str) -> None:
    """Red and blue stripes, one pixel wide, do not become violet."""
    stripes = torch.zeros(1, 3, 64, 96)
    stripes[:, 0, :, ::2], stripes[:, 2, :, 1::2] = 1, 1
    found = pixels(decode_photo(encode_image(stripes, format)))
    assert found[:, ::2, 0].mean() > 230
    assert found[:, ::2, 2].mean() < 25


def test_a_webp_keeps_the_colours_below_full_transparency() -> None:
    """The painting's colours are also stored where it is fully transparent."""
    image = astronaut()
    halves = np.repeat([[0, 255]], 48, axis=1).astype(np.uint8).repeat(64, 0)
    image.putalpha(Image.fromarray(halves))
    photo = decoded(image, "PNG")
    painting = decoded(astronaut(), "PNG").tensor(96, 64)
    result = decode_photo(export_image(painting, photo, "webp", ExportOptions(quality=100)).data)
    assert np.abs(pixels(result) - np.asarray(astronaut()))[:, :40].mean() < 6


@needs_cjpeg
@pytest.mark.parametrize(
    "options",
    [
        ("-progressive",),
        ("-sample", "2x2"),
        ("-sample", "1x1"),
        ("-sample", "2x1"),
        ("-restart", "1"),
        ("-optimize",),
        ("-rgb",),
        ("-arithmetic",),
    ],
    ids=" ".join,
)
def test_jpegs_of_the_reference_encoder_are_read(options: tuple[str, ...], tmp_path: Path) -> None:
    """Progressive, subsampled, with restarts, in RGB, arithmetic-coded: all decode correctly."""
    photo = decode_photo(by_cjpeg(tmp_path, "-quality", "95", *options))
    assert not photo.is_gray
    assert np.abs(pixels(photo) - np.asarray(astronaut())).mean() < 6
    assert photo.degraded == ()


@pytest.mark.parametrize("format", FORMATS)
def test_a_painting_may_be_larger_than_its_photo(format: str) -> None:
    """The file has the painting's size, not the photo's."""
    photo = decoded(astronaut(), "PNG")
    result = decode_photo(
        export_image(torch.rand(1, 3, 130, 190), photo, format, ExportOptions()).data
    )
    assert (result.width, result.height) == (190, 130)


@pytest.mark.parametrize("height", [1, 2, 3, 700])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_pngs_and_tiffs_that_styled_writes_itself_are_valid(mode: str, height: int) -> None:
    """Pillow reads 16-bit files of every height, whose first rows have nothing above them."""
    rng = np.random.default_rng(height)
    levels = rng.integers(0, 65536, (height, 401, len(mode)), dtype=np.uint16)
    for save in (save_png, save_tiff):
        with Image.open(BytesIO(save(OutputImage(levels, mode)))) as image:
            assert np.array_equal(np.asarray(image), levels >> 8)


def test_a_tiff_beyond_4_gb_is_refused_before_it_is_made() -> None:
    """An image too large for 32-bit offsets is a ConfigError with a remedy, and takes no memory."""
    levels = np.broadcast_to(np.zeros((1, 1, 3), np.uint16), (40_000, 20_000, 3))
    with pytest.raises(ConfigError, match="holds at most 4 GB") as caught:
        save_tiff(OutputImage(levels, "RGB"))
    assert "png" in str(caught.value)

"""From a tensor to the bytes of a file."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from styled.errors import ConfigError
from styled.photos import decode, encode, output_format
from tests.photos.samples import content, needs_avif


def test_values_are_rounded_and_clamped() -> None:
    """Each value goes to the nearest of 256 levels, and none wraps around."""
    values = torch.tensor([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 7.0])
    image = Image.open(BytesIO(encode(values.expand(1, 3, 1, 6), "png")))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_pictures(dtype: torch.dtype) -> None:
    """Half and double precision give the same black and white, from a graph as well."""
    tensor = torch.eye(40, dtype=dtype).expand(1, 3, 40, 40).clone().requires_grad_()
    image = Image.open(BytesIO(encode(tensor, "png")))
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
        encode(tensor, "png")


FORMATS = ["jpeg", "png", "tiff", "webp", "bmp", "gif", pytest.param("avif", marks=needs_avif)]


@pytest.mark.parametrize("format", ["png", "tiff", "bmp"])
def test_lossless_formats_give_back_the_same_pixels(format: str) -> None:
    """Encoding and decoding changes nothing."""
    assert torch.equal(decode(encode(content(), format)).tensor(96, 64), content())


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_back_the_picture(format: str) -> None:
    """What comes back is close, has the format's name and, where it can, says sRGB."""
    photo = decode(encode(content(), format))
    assert photo.format == format
    assert (photo.tensor(96, 64) - content()).abs().mean() < 0.02
    assert photo.icc == (None if format in ("bmp", "gif") else "sRGB built-in")
    assert photo.notes == ()


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_pixels_give_the_same_bytes(format: str) -> None:
    """Two files of one picture are equal."""
    assert encode(content(), format) == encode(content(), format)


def test_the_embedded_profile_has_no_date_of_its_own() -> None:
    """The profile says the first of January 2000, on whatever day it was written."""
    icc = Image.open(BytesIO(encode(content(), "png"))).info["icc_profile"]
    assert struct.unpack(">6H", icc[24:36]) == (2000, 1, 1, 0, 0, 0)
    assert int.from_bytes(icc[:4], "big") == len(icc)


def test_jpegs_keep_full_colour_resolution() -> None:
    """A JPEG is written progressively and in 4:4:4."""
    with Image.open(BytesIO(encode(content(), "jpeg"))) as image:
        assert image.info["progressive"]
        assert {component[1:3] for component in image.layer} == {(1, 1)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("quality", [90, 95, 100])
def test_noise_fits_into_a_jpeg(quality: int) -> None:
    """The worst case for an encoder's buffer, black and white noise, is written whole."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 2, (1, 3, 256, 256), generator=generator).float()
    assert decode(encode(noise, "jpeg", quality)).width == 256


def test_quality_decides_the_size() -> None:
    """A lower quality gives a smaller file."""
    for format in ("jpeg", "webp"):
        assert len(encode(content(), format, 30)) < len(encode(content(), format, 95)) / 2


def test_a_picture_that_the_format_cannot_hold_is_refused_with_a_remedy() -> None:
    """WebP ends at 16383 pixels, and the message says what to do."""
    with pytest.raises(ConfigError, match="16384 x 1 pixels do not fit into a webp"):
        encode(torch.zeros(1, 3, 1, 16384), "webp")


def test_the_result_takes_the_inputs_format_or_the_configured_one() -> None:
    """`same` follows the input; anything else is kept; unknown names are refused."""
    assert output_format("same", "png") == ("png", ".png")
    assert output_format("jpeg", "png") == ("jpeg", ".jpg")
    assert output_format("same", "tiff") == ("tiff", ".tif")
    with pytest.raises(ValueError, match="unknown picture format 'psd'"):
        output_format("psd", "png")
    with pytest.raises(ValueError, match="unknown"):
        encode(content(), "psd")

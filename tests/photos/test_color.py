"""Every colour space and mode that a file can have becomes sRGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from styled.degradation import Degradation
from styled.photos import decode_photo
from tests.photos.icc import adobe_rgb_profile, adobe_rgb_to_srgb, cmyk_profile, gamma, icc_profile
from tests.photos.samples import EXACT, astronaut, pixels, saved


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_wide_gamut_colours_become_srgb(format: str) -> None:
    """Adobe RGB levels become the sRGB levels of the same colour."""
    for color in [(100, 150, 100), (180, 60, 40), (128, 128, 128), (0, 255, 0)]:
        image = Image.new("RGB", (40, 40), color)
        icc = adobe_rgb_profile()
        photo = decode_photo(saved(image, format, icc_profile=icc, **EXACT.get(format, {})))
        assert np.abs(pixels(photo)[5, 5] - adobe_rgb_to_srgb(color)).max() <= 3
        assert photo.icc == "Made for a test"
        assert photo.degraded == ()


def test_a_gray_profile_is_applied() -> None:
    """Linear gray 128 is sRGB 188."""
    icc = icc_profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": gamma(1.0)})
    photo = decode_photo(saved(Image.new("L", (40, 40), 128), "PNG", icc_profile=icc))
    assert np.abs(pixels(photo)[5, 5] - 188).max() <= 1


def test_a_gray_picture_may_carry_an_rgb_profile() -> None:
    """The gray is read as equal red, green and blue."""
    photo = decode_photo(
        saved(Image.new("L", (40, 40), 90), "PNG", icc_profile=adobe_rgb_profile())
    )
    assert np.abs(pixels(photo)[5, 5] - adobe_rgb_to_srgb((90, 90, 90))).max() <= 2


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(format: str) -> None:
    """With a profile whose inks are all neutral, full cyan alone is a light gray."""
    image = Image.new("CMYK", (40, 40), (255, 0, 0, 0))
    photo = decode_photo(saved(image, format, icc_profile=cmyk_profile()))
    red, green, blue = pixels(photo)[5, 5]
    assert max(red, green, blue) - min(red, green, blue) <= 2
    assert 170 <= red <= 200  # L* = 75
    assert photo.degraded == ()


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_converted_and_noted(format: str) -> None:
    """Inks subtract their complementary colours; nothing is inverted."""
    for inks, rgb in [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 0, 0, 0), (0, 255, 255))]:
        photo = decode_photo(saved(Image.new("CMYK", (40, 40), inks), format, quality=100))
        assert np.abs(pixels(photo)[5, 5] - rgb).max() <= 2
        assert photo.degraded == (
            Degradation("color", "there is no colour profile, so CMYK was converted approximately"),
        )


def test_a_broken_profile_is_ignored_and_noted() -> None:
    """Bytes that are no profile leave the levels unchanged."""
    photo = decode_photo(saved(astronaut(), "PNG", icc_profile=b"not a profile" * 20))
    assert np.array_equal(pixels(photo), np.asarray(astronaut()))
    assert photo.icc is None
    assert photo.degraded == (
        Degradation("color", "the colour profile is damaged and was ignored"),
    )


@pytest.mark.parametrize("space", ["LAB", "XYZ"])
def test_a_profile_for_other_pixels_is_ignored_and_noted(space: Any) -> None:
    """A profile whose colour space is not the picture's changes nothing."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
    photo = decode_photo(saved(astronaut(), "PNG", icc_profile=icc))
    assert np.array_equal(pixels(photo), np.asarray(astronaut()))
    (degradation,) = photo.degraded
    assert degradation.kind == "color"
    assert "was ignored" in degradation.message


def test_a_profiles_name_is_printable() -> None:
    """Control characters in a profile's name do not reach logs or terminals."""
    icc = adobe_rgb_profile().replace(b"Made for a test", b"Made\x1b[31ma\x07test")
    assert decode_photo(saved(astronaut(), "PNG", icc_profile=icc)).icc == "Made[31matest"


def ramp(dtype: type[np.generic], top: float) -> np.ndarray:
    return np.tile(np.linspace(0, top, 256), (40, 1)).astype(dtype)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_and_not_clipped(format: str) -> None:
    """0..65535 becomes 0..255."""
    photo = decode_photo(saved(Image.fromarray(ramp(np.uint16, 65535)), format))
    assert np.array_equal(pixels(photo)[0, :, 0], np.arange(256))
    assert photo.degraded == ()


def test_16_bit_gray_is_rounded_to_the_nearest_level() -> None:
    """Half of one of 255 steps is between 128 and 129."""
    levels = np.tile(np.array([128, 129], np.uint16), (32, 16))
    photo = decode_photo(saved(Image.fromarray(levels), "PNG"))
    assert pixels(photo)[0, :2, 0].tolist() == [0, 1]


def test_16_bit_gray_where_zero_is_white_is_inverted() -> None:
    """Scans that store ink instead of light do not come out as negatives."""
    image = Image.fromarray(ramp(np.uint16, 65535))
    photo = decode_photo(saved(image, "TIFF", tiffinfo={262: 0}))
    assert np.array_equal(pixels(photo)[0, :, 0], np.arange(256)[::-1])


def test_big_endian_and_signed_16_bit_gray_are_read() -> None:
    """I;16B and I are scaled like I;16."""
    big = decode_photo(saved(Image.fromarray(ramp(np.uint16, 65535).astype(">u2")), "TIFF"))
    assert np.array_equal(pixels(big)[0, :, 0], np.arange(256))
    wide = decode_photo(saved(Image.fromarray(ramp(np.int32, 65535)), "TIFF"))
    assert np.array_equal(pixels(wide)[0, :, 0], np.arange(256))


def test_floating_point_gray_is_read() -> None:
    """Values in [0,1] are brightness; others are stretched, which is noted."""
    unit = decode_photo(saved(Image.fromarray(ramp(np.float32, 1)), "TIFF"))
    assert np.array_equal(pixels(unit)[0, :, 0], np.arange(256))
    assert unit.degraded == ()
    values = ramp(np.float32, 3000) - 1000
    values[1, 0] = np.nan
    other = decode_photo(saved(Image.fromarray(values), "TIFF"))
    assert np.array_equal(pixels(other)[0, :, 0], np.arange(256))
    assert other.degraded == (
        Degradation("bits", "brightness values from -1000 to 2000 were stretched"),
    )


def test_wide_integers_are_stretched_and_noted() -> None:
    """32-bit integers beyond 16 bits have no known white."""
    photo = decode_photo(saved(Image.fromarray(ramp(np.int32, 1e6)), "TIFF"))
    assert pixels(photo)[0, [0, 255], 0].tolist() == [0, 255]
    (degradation,) = photo.degraded
    assert degradation.kind == "bits"
    assert "stretched" in degradation.message


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr", "LAB"])
def test_opaque_modes_keep_their_colours(mode: str) -> None:
    """Every mode without transparency shows the same picture."""
    image = astronaut().convert(mode)
    photo = decode_photo(saved(image, "TIFF"))
    assert np.abs(pixels(photo) - np.asarray(image.convert("RGB")).astype(int)).max() <= 3
    assert photo.degraded == ()


def test_two_colours_are_black_and_white() -> None:
    """1-bit pixels become 0 and 255."""
    photo = decode_photo(saved(astronaut().convert("1"), "PNG"))
    assert set(np.unique(pixels(photo))) == {0, 255}

"""ICC profiles: exact conversion to sRGB, and export in the photo's own profile."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from styled.degradation import Degradation
from styled.photos import ExportOptions, decode_photo, export_image, vips
from styled.photos.color import SRGB, SRGB_PROFILE
from styled.photos.profiles import Profile, convert
from styled.photos.raster import Raster
from tests.photos.icc import (
    ADOBE_RGB_TO_XYZ,
    DISPLAY_P3_TO_XYZ,
    PROPHOTO_TO_XYZ,
    SRGB_CURVE,
    SRGB_TO_XYZ,
    adobe_rgb_profile,
    adobe_rgb_to_srgb,
    as_fixed,
    cmyk_profile,
    exact,
    exact_inverse,
    gamma,
    gray_profile,
    lut_profile,
    matrix_profile,
    parametric,
    points,
)
from tests.photos.samples import astronaut, decoded, deep_png, needs_avif, own_tensor, pixels

OWN = ExportOptions(color="input")


class Space(NamedTuple):
    """A colour space, as exact numbers and as a profile."""

    to_xyz: np.ndarray
    curve: tuple[float, ...]
    icc: bytes


def space(to_xyz: np.ndarray, *curve: float) -> Space:
    if len(curve) == 1:
        return Space(as_fixed_point(to_xyz), curve, matrix_profile(to_xyz, gamma(curve[0])))
    return Space(
        as_fixed_point(to_xyz), as_fixed(curve), matrix_profile(to_xyz, parametric(*curve))
    )


def as_fixed_point(values: np.ndarray) -> np.ndarray:
    """Return numbers rounded as in a file: to steps of 1/65536."""
    return np.asarray(np.round(values * 65536) / 65536)


SPACES = {
    "Adobe RGB": space(ADOBE_RGB_TO_XYZ, 2.19921875),
    "Display P3": space(DISPLAY_P3_TO_XYZ, *SRGB_CURVE),
    "ProPhoto": space(PROPHOTO_TO_XYZ, 1.80078125),
    "sRGB of another maker": space(SRGB_TO_XYZ, *SRGB_CURVE),
    "linear": space(SRGB_TO_XYZ, 1.0),
}
assert SRGB.matrix is not None
TRUE_SRGB = Space(SRGB.matrix, as_fixed(SRGB_CURVE), SRGB_PROFILE)


def convert_exactly(levels: np.ndarray, source: Space, target: Space) -> np.ndarray:
    """Convert levels to another space by the textbook formulas, in float64."""
    light = exact(source.curve, levels.astype(np.float64))
    light = light @ np.linalg.solve(target.to_xyz, source.to_xyz).T
    return exact_inverse(target.curve, light.clip(0, 1))


def inside_srgb(target: Space, darkest: float) -> np.ndarray:
    """Return 64x64x3 levels in `target` of colours inside sRGB, none darker than `darkest`."""
    rng = np.random.default_rng(7)
    return convert_exactly(rng.uniform(darkest, 0.98, (64, 64, 3)), TRUE_SRGB, target)


def random_levels() -> np.ndarray:
    rng = np.random.default_rng(3)
    levels = rng.uniform(0, 1, (96, 96, 3))
    levels[:32] **= 4  # many dark levels
    levels[0, :4] = [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0]]
    return np.asarray((levels * 65535).round() / 65535)


def as_16_bit(levels: np.ndarray) -> np.ndarray:
    return (levels * 65535).round().astype(np.uint16)


def as_8_bit(levels: np.ndarray) -> np.ndarray:
    return (levels * 255).round().astype(np.uint8)


@pytest.mark.parametrize("name", SPACES)
def test_sixteen_bits_are_converted_by_exact_maths(name: str) -> None:
    """Each level is within 2/65535 of the textbook formulas in double precision."""
    levels = random_levels()
    photo = decode_photo(deep_png(as_16_bit(levels), SPACES[name].icc))
    assert photo.deep is not None
    expected = convert_exactly(levels, SPACES[name], TRUE_SRGB) * 65535
    assert np.abs(photo.deep - expected).max() <= 2
    assert photo.icc == "Made for a test"
    assert photo.degraded == ()


@pytest.mark.parametrize("name", SPACES)
def test_both_ways_of_converting_agree(name: str) -> None:
    """Little CMS in 8 bits and the conversion in 16 bits agree within one level."""
    levels = as_8_bit(random_levels())
    icc = SPACES[name].icc
    photo = decode_photo(deep_png(levels.astype(np.uint16) * 257, icc))
    by_little_cms = ImageCms.profileToProfile(
        Image.fromarray(levels),
        ImageCms.ImageCmsProfile(BytesIO(icc)),
        ImageCms.ImageCmsProfile(BytesIO(SRGB_PROFILE)),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert by_little_cms is not None
    assert photo.deep is not None
    assert np.abs(photo.deep / 257 - np.asarray(by_little_cms)).max() <= 1
    assert np.abs(pixels(photo) - np.asarray(by_little_cms)).max() <= 1
    shallow = decoded(Image.fromarray(levels), "PNG", icc_profile=icc)
    assert np.array_equal(pixels(shallow), np.asarray(by_little_cms))


@pytest.mark.parametrize(
    "kind", ["points", "no points", "power", "with straight piece", "black at first", "above black",
             "five numbers more"]
)  # fmt: skip
def test_every_form_of_a_curve_is_read(kind: str) -> None:
    """Tables of points and formulas of one, three, four and seven parameters are as exact."""
    power, a, b, c, d = as_fixed(SRGB_CURVE)
    table = exact((power, a, b, c, d), np.linspace(0, 1, 4096))
    curve = {
        "points": points(table),
        "no points": points(np.array([])),
        "power": parametric(2.2),
        "with straight piece": parametric(power, a, b),
        "black at first": parametric(power, 1.0, -0.125),
        "above black": parametric(power, 1.0, -0.125, 0.0625),
        "five numbers more": parametric(power, a, b, c, d, 0.0, 0.0),
    }[kind]
    levels = random_levels()
    light = {
        "points": np.interp(levels, np.linspace(0, 1, 4096), np.round(table * 65535) / 65535),
        "no points": levels,
        "power": levels ** as_fixed((2.2,))[0],
        "with straight piece": (a * levels + b) ** power,
        "black at first": np.maximum(levels - 0.125, 0) ** power,
        "above black": np.maximum(levels - 0.125, 0) ** power + 0.0625,
        "five numbers more": exact((power, a, b, c, d), levels),
    }[kind]
    photo = decode_photo(deep_png(as_16_bit(levels), matrix_profile(SRGB_TO_XYZ, curve)))
    mixing = np.linalg.solve(TRUE_SRGB.to_xyz, as_fixed_point(SRGB_TO_XYZ))
    expected = exact_inverse(TRUE_SRGB.curve, (light @ mixing.T).clip(0, 1)) * 65535
    assert photo.deep is not None
    assert np.abs(photo.deep - expected).max() <= 2


@pytest.mark.parametrize("exponent", [1.0, 1.80078125, 2.19921875])
def test_grey_of_16_bits_is_converted_by_exact_maths(exponent: float) -> None:
    """Each level of a grey profile is within 2/65535 of the textbook formulas."""
    every = np.arange(65536).reshape(256, 256, 1)
    photo = decode_photo(deep_png(every.astype(np.uint16), gray_profile(gamma(exponent))))
    expected = exact_inverse(TRUE_SRGB.curve, (every / 65535) ** exponent) * 65535
    assert photo.deep is not None
    assert np.abs(photo.deep - expected).max() <= 2
    assert photo.is_gray


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("name", SPACES)
def test_a_photo_of_16_bits_comes_back_in_its_own_space(name: str, format: str) -> None:
    """Exported unpainted, the levels are within 3/65535 of the photo's, with its own profile."""
    levels = as_16_bit(inside_srgb(SPACES[name], 0.003))
    photo = decode_photo(deep_png(levels, SPACES[name].icc))
    exported = export_image(own_tensor(photo), photo, format, OWN)
    assert (exported.bits, exported.icc, exported.degraded) == (16, "Made for a test", ())
    assert profile_in(exported.data) == SPACES[name].icc
    assert np.abs(levels_in(exported.data, format) - levels).max() <= 3


def profile_in(data: bytes) -> bytes | None:
    with Image.open(BytesIO(data)) as image:
        profile: bytes | None = image.info.get("icc_profile")
        return profile


def levels_in(data: bytes, format: str) -> np.ndarray:
    """Return the 16-bit levels of a file, without applying its profile."""
    raster = vips.read(data, format)
    assert isinstance(raster, Raster)
    return raster.colors.astype(int)


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("name", SPACES)
def test_a_photo_of_8_bits_comes_back_in_its_own_space(name: str, format: str) -> None:
    """Exported unpainted, the levels are within 1/255 of the photo's, with its own profile."""
    levels = as_8_bit(inside_srgb(SPACES[name], 0.04))
    photo = decoded(Image.fromarray(levels), "PNG", icc_profile=SPACES[name].icc)
    exported = export_image(own_tensor(photo), photo, format, OWN)
    assert (exported.bits, exported.icc, exported.degraded) == (8, "Made for a test", ())
    assert profile_in(exported.data) == SPACES[name].icc
    if format in ("png", "tiff"):
        with Image.open(BytesIO(exported.data)) as image:
            # One 8-bit step of sRGB is more than one of linear light.
            most = 2 if name == "linear" else 1
            assert np.abs(np.asarray(image).astype(int) - levels).max() <= most


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff", "webp"])
def test_srgb_is_what_is_delivered_unless_asked_otherwise(format: str) -> None:
    """By default the painting of an Adobe RGB photo is in sRGB, with an sRGB profile."""
    photo = decoded(astronaut(), "PNG", icc_profile=SPACES["Adobe RGB"].icc)
    exported = export_image(own_tensor(photo), photo, format, ExportOptions())
    assert exported.icc == "sRGB"
    assert profile_in(exported.data) == SRGB_PROFILE


def test_colours_beyond_srgb_are_used_by_the_space_that_has_them() -> None:
    """The purest green of sRGB is converted to a less pure green of Adobe RGB."""
    photo = decoded(astronaut(), "PNG", icc_profile=SPACES["Adobe RGB"].icc)
    green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 64, 96)
    with Image.open(BytesIO(export_image(green, photo, "png", OWN).data)) as image:
        found = np.asarray(image)[5, 5]
    expected = convert_exactly(np.array([0.0, 1.0, 0.0]), TRUE_SRGB, SPACES["Adobe RGB"]) * 255
    assert np.abs(found - expected).max() <= 1
    assert found[0] > 100


# --- grey


@pytest.mark.parametrize("format", ["png", "tiff", "jpeg"])
@pytest.mark.parametrize("exponent", [1.80078125, 2.19921875])
def test_a_grey_photo_comes_back_in_its_own_grey(exponent: float, format: str) -> None:
    """One channel, the photo's own profile, and its levels within a tolerance of 1 or 2."""
    icc = gray_profile(gamma(exponent))
    levels = np.tile(np.arange(40, 256, dtype=np.uint8), (40, 1))
    photo = decoded(Image.fromarray(levels), "PNG", icc_profile=icc)
    options = ExportOptions(color="input", grayscale="keep", quality=100)
    exported = export_image(own_tensor(photo), photo, format, options)
    assert (exported.icc, exported.degraded) == ("Made for a test", ())
    assert profile_in(exported.data) == icc
    with Image.open(BytesIO(exported.data)) as image:
        assert image.mode == "L"
        tolerance = 2 if format == "jpeg" else 1
        assert np.abs(np.asarray(image).astype(int) - levels).max() <= tolerance


def test_a_grey_photo_of_16_bits_comes_back_in_its_own_grey() -> None:
    """All levels except the darkest are within 3/65535 of the photo's."""
    icc = gray_profile(gamma(2.19921875))
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    photo = decode_photo(deep_png(levels, icc))
    data = export_image(
        own_tensor(photo), photo, "png", ExportOptions(color="input", grayscale="keep")
    ).data
    assert profile_in(data) == icc
    with Image.open(BytesIO(data)) as image:
        assert image.mode == "I;16"
        found = np.asarray(image).astype(int)
    assert np.abs(found - levels[..., 0])[levels[..., 0] > 1000].max() <= 3


def test_a_grey_profile_does_not_go_with_colours() -> None:
    """A painting in colour of a photo with a grey profile is in sRGB, with a note."""
    icc = gray_profile(gamma(2.19921875))
    photo = decoded(astronaut().convert("L"), "PNG", icc_profile=icc)
    exported = export_image(torch.rand(1, 3, 64, 96), photo, "png", OWN)
    assert exported.icc == "sRGB"
    assert profile_in(exported.data) == SRGB_PROFILE
    message = "its colour profile, Made for a test, is for grey pictures: the painting is in sRGB"
    assert exported.degraded == (Degradation("color", message),)


@pytest.mark.parametrize("format", ["webp", "heic", pytest.param("avif", marks=needs_avif)])
def test_a_grey_profile_does_not_go_into_formats_without_grey(format: str) -> None:
    """If grey takes three channels, the painting is in sRGB, and so is its profile."""
    icc = gray_profile(gamma(1.0))
    photo = decoded(Image.new("L", (40, 40), 128), "PNG", icc_profile=icc)
    options = ExportOptions(color="input", grayscale="keep", quality=100)
    exported = export_image(own_tensor(photo), photo, format, options)
    assert exported.icc == "sRGB"
    (degradation,) = exported.degraded
    assert degradation.kind == "color"
    assert "does not go with this file format" in degradation.message
    result = decode_photo(exported.data)
    assert result.degraded == ()
    assert np.abs(pixels(result) - 188).max() <= 2


@pytest.mark.parametrize("format", ["bmp", "gif"])
def test_formats_without_profiles_get_srgb(format: str) -> None:
    """Without a profile levels are read as sRGB, so the painting is in sRGB, with a note."""
    photo = decoded(
        Image.new("RGB", (40, 40), (100, 150, 100)), "PNG", icc_profile=adobe_rgb_profile()
    )
    exported = export_image(own_tensor(photo), photo, format, OWN)
    assert exported.icc is None
    message = f"the painting is in sRGB: {format.upper()} files hold no colour profile"
    assert exported.degraded == (Degradation("color", message),)
    expected = adobe_rgb_to_srgb((100, 150, 100))
    assert np.abs(pixels(decode_photo(exported.data))[5, 5] - expected).max() <= 2


# --- CMYK


def installed_cmyk_profile() -> bytes:
    """Return a CMYK profile installed on this machine that converts in both directions."""
    for path in (
        "/usr/share/color/icc/ghostscript/default_cmyk.icc",
        "/usr/share/color/icc/ghostscript/ps_cmyk.icc",
        "/usr/share/ghostscript/iccprofiles/default_cmyk.icc",
    ):
        if Path(path).is_file():
            return Path(path).read_bytes()
    pytest.skip("no CMYK profile is installed (libgs-common)")


def cmyk_image() -> Image.Image:
    rng = np.random.default_rng(5)
    coarse = rng.integers(20, 160, (8, 12, 4), dtype=np.uint8)
    return Image.fromarray(coarse.repeat(8, 0).repeat(8, 1), "CMYK")


@pytest.mark.parametrize("format", ["jpeg", "tiff"])
def test_inks_come_back_as_inks(format: str) -> None:
    """A CMYK photo gives a CMYK painting with the same profile and the same colours."""
    icc = installed_cmyk_profile()
    photo = decoded(cmyk_image(), "TIFF", icc_profile=icc)
    exported = export_image(
        own_tensor(photo), photo, format, ExportOptions(color="input", quality=100)
    )
    assert exported.degraded == ()
    assert profile_in(exported.data) == icc
    with Image.open(BytesIO(exported.data)) as image:
        assert image.mode == "CMYK"
    reread = decode_photo(exported.data)
    assert reread.degraded == ()
    assert np.abs(pixels(reread) - pixels(photo)).mean() < 3


@pytest.mark.parametrize("format", ["png", "webp"])
def test_inks_do_not_go_into_formats_of_colours(format: str) -> None:
    """The painting of a CMYK photo is in sRGB in formats without CMYK, with a note."""
    photo = decoded(cmyk_image(), "TIFF", icc_profile=cmyk_profile())
    exported = export_image(own_tensor(photo), photo, format, OWN)
    assert profile_in(exported.data) == SRGB_PROFILE
    assert exported.icc == "sRGB"
    (degradation,) = exported.degraded
    assert degradation.kind == "color"
    assert degradation.message.startswith(
        "its colour profile, Made for a test, does not go with this file"
    )


def test_a_profile_that_leads_only_one_way_is_not_used_to_go_back() -> None:
    """With a profile that only converts from its CMYK, the painting is in sRGB, with a note."""
    photo = decoded(cmyk_image(), "TIFF", icc_profile=cmyk_profile())
    exported = export_image(own_tensor(photo), photo, "tiff", OWN)
    assert profile_in(exported.data) == SRGB_PROFILE
    (degradation,) = exported.degraded
    assert degradation.kind == "color"
    assert degradation.message.startswith(
        "its colour profile, Made for a test, can't be converted to"
    )


# --- damage


def test_sixteen_bits_with_a_profile_of_tables_stay_sixteen() -> None:
    """A profile of tables is applied in 16 bits, within 1/255 of what 8 bits give."""
    levels = random_levels()
    photo = decode_photo(deep_png(as_16_bit(levels), lut_profile()))
    assert (photo.bits, photo.icc, photo.degraded) == (16, "Made for a test", ())
    assert photo.deep is not None
    eight = decoded(Image.fromarray(as_8_bit(levels)), "PNG", icc_profile=lut_profile())
    assert np.abs(pixels(photo) - pixels(eight)).max() <= 1
    assert (photo.deep % 257 != 0).any()


@pytest.mark.parametrize("position", range(0, 600, 7))
def test_a_damaged_profile_never_stops_a_photo(position: int) -> None:
    """With any wrong byte in its profile, the photo is decoded and can be exported."""
    icc = bytearray(SPACES["Display P3"].icc)
    icc[position % len(icc)] ^= 0xFF
    photo = decode_photo(deep_png(as_16_bit(random_levels()), bytes(icc)))
    assert export_image(own_tensor(photo), photo, "png", OWN).data


def test_profiles_of_grey_and_of_colours_do_not_mix() -> None:
    """Converting one channel into three is refused."""
    gray = Profile.parse(gray_profile(gamma(2.2)))
    assert gray is not None
    with pytest.raises(ValueError, match="grey and colours"):
        convert(np.zeros((2, 2, 3), np.float32), SRGB, gray)


@pytest.mark.parametrize(
    "curve",
    [
        parametric(1.0, 0.0, 0.0),
        parametric(0.0),
        points(np.linspace(1, 0, 64)),
        points(np.full(64, 0.5)),
        b"curv\0\0\0\0\xff\xff\xff\xff\0\0",
        b"what\0\0\0\0\0\0\0\0",
        b"para\0\0\0\0\0\x09\0\0",
        b"",
    ],
)
def test_a_curve_that_makes_no_sense_is_no_profile(curve: bytes) -> None:
    """Flat, falling, too long and unknown curves are left to Little CMS."""
    assert Profile.parse(matrix_profile(SRGB_TO_XYZ, curve)) is None


def test_a_matrix_that_cannot_be_inverted_is_no_profile() -> None:
    """A profile with three equal primaries is left to Little CMS."""
    assert Profile.parse(matrix_profile(np.ones((3, 3)), gamma(2.2))) is None


def test_sizes_and_counts_beyond_the_end_are_no_profile() -> None:
    """A profile truncated anywhere gives None or a profile, never an exception."""
    icc = SPACES["Display P3"].icc
    found = [Profile.parse(icc[:length]) for length in range(len(icc))]
    assert found[100] is None
    assert found[-1] is None or found[-1].matrix is not None


@pytest.mark.parametrize(
    ("name", "expected"), [("sRGB of another maker", 1), ("Display P3", 65535), ("linear", 65535)]
)
def test_exif_says_srgb_where_the_result_is_srgb(name: str, expected: int) -> None:
    """The EXIF colour space follows the colours of the result, not the name of the profile."""
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF}
    photo = decoded(astronaut(), "JPEG", icc_profile=SPACES[name].icc, exif=exif)
    for options, value in [(OWN, expected), (ExportOptions(), 1)]:
        data = export_image(own_tensor(photo), photo, "jpeg", options).data
        with Image.open(BytesIO(data)) as image:
            assert image.getexif().get_ifd(0x8769)[0xA001] == value


def test_a_curve_that_is_flat_is_left_to_little_cms() -> None:
    """A gamma of zero can't be inverted."""
    assert Profile.parse(gray_profile(gamma(2.2))) is not None
    assert Profile.parse(gray_profile(gamma(0.0))) is None

"""Colours without an ICC profile: EXIF, PNG's cICP, gAMA and cHRM, AVIF's and HEIC's nclx; HDR."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from styled.photos import ExportOptions, Photo, decode_photo, export_image
from styled.photos.color import SRGB_PROFILE
from styled.photos.color_spaces import (
    ADOBE_RGB,
    ADOBE_RGB_SPACE,
    BT709,
    DISPLAY_P3,
    ColorSpace,
    of_code_points,
    xyz_matrix,
)
from styled.photos.hdr import DIFFUSE_WHITE, _decode_pq, hdr_to_srgb
from styled.photos.profiles import Profile
from tests.photos.icc import ADOBE_RGB_TO_XYZ, SRGB_TO_XYZ, adobe_rgb_profile, adobe_rgb_to_srgb
from tests.photos.samples import deep_png, needs_avif, own_tensor, pixels, png_chunk, saved

COLOR = (100, 180, 110)
FLAT = Image.new("RGB", (96, 64), COLOR)
P3_AS_SRGB = (65, 182, 102)
"""Of COLOR in Display P3, by CSS Color 4's formulae."""


def png_with(*chunks: bytes, image: Image.Image = FLAT) -> bytes:
    data = saved(image, "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def cicp(primaries: int, transfer: int) -> bytes:
    return png_chunk(b"cICP", bytes((primaries, transfer, 0, 1)))


def gama(value: float) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chrm(values: tuple[float, ...]) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in values)))


def is_color(photo: Photo, color: Any, within: int = 2) -> bool:
    return bool(np.abs(pixels(photo)[9, 9] - np.array(color)).max() <= within)


def exif_of(color_space: int, index: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    directory: dict[int, Any] = {0xA001: color_space}
    if index is not None:
        directory[0xA005] = {1: index.decode()}
    exif[0x8769] = directory
    return exif


@pytest.mark.parametrize(
    ("color_space", "index", "is_adobe"),
    [(0xFFFF, b"R03", True), (2, None, True), (1, b"R98", False), (0xFFFF, None, False)],
)
def test_adobe_rgb_by_exif(color_space: int, index: bytes | None, is_adobe: bool) -> None:
    """Cameras write Adobe RGB without a profile (DCF 2.0)."""
    data = saved(FLAT, "JPEG", quality=100, subsampling=0, exif=exif_of(color_space, index))
    photo = decode_photo(data)
    assert is_color(photo, adobe_rgb_to_srgb(COLOR) if is_adobe else COLOR)
    assert photo.icc == ("Adobe RGB (1998)" if is_adobe else None)
    assert photo.degraded == ()


def test_an_embedded_profile_counts_more_than_exif() -> None:
    """sRGB in the profile, Adobe RGB in EXIF."""
    exif = exif_of(0xFFFF, b"R03")
    data = saved(FLAT, "JPEG", quality=100, subsampling=0, exif=exif, icc_profile=SRGB_PROFILE)
    assert is_color(decode_photo(data), COLOR)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([cicp(12, 13)], P3_AS_SRGB),
        ([cicp(1, 13)], COLOR),
        ([cicp(2, 2)], COLOR),
        ([cicp(1, 8)], [round(255 * (1.055 * (v / 255) ** (1 / 2.4) - 0.055)) for v in COLOR]),
        ([cicp(12, 13), gama(1.0)], P3_AS_SRGB),
        ([gama(1 / 2.2), chrm(BT709)], COLOR),
        ([gama(1 / 2.2)], COLOR),
        ([gama(1.0)], [round(255 * (1.055 * (v / 255) ** (1 / 2.4) - 0.055)) for v in COLOR]),
        ([gama(0.45470), chrm(ADOBE_RGB)], adobe_rgb_to_srgb(COLOR)),
        ([chrm(DISPLAY_P3)], P3_AS_SRGB),
        ([png_chunk(b"sRGB", b"\0"), gama(1.0), chrm(ADOBE_RGB)], COLOR),
        ([gama(0.0)], COLOR),
        ([chrm((0.0,) * 8)], COLOR),
        ([chrm((0.3127, 0.329, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5))], COLOR),
    ],
    ids=[
        "P3", "sRGB", "unspecified", "linear", "cICP first", "sRGB by gAMA and cHRM", "gamma 2.2",
        "gamma 1", "Adobe RGB", "P3 by cHRM", "sRGB first", "gamma 0", "no primaries", "one point",
    ],
)  # fmt: skip
def test_spaces_that_a_png_names(chunks: list[bytes], expected: Any) -> None:
    """The order is that of the specification: cICP, iCCP, sRGB, gAMA and cHRM."""
    photo = decode_photo(png_with(*chunks))
    assert is_color(photo, expected)
    assert photo.degraded == ()


@needs_avif
@pytest.mark.parametrize(("primaries", "expected"), [(12, P3_AS_SRGB), (1, COLOR)])
def test_spaces_that_an_avif_names(primaries: int, expected: Any) -> None:
    """By nclx; Pillow writes sRGB, whose numbers are changed here."""
    data = saved(FLAT, "AVIF", quality=100, subsampling="4:4:4")
    at = data.index(b"colrnclx") + 8
    data = data[:at] + struct.pack(">H", primaries) + data[at + 2 :]
    assert is_color(decode_photo(data), expected, within=4)  # AVIF itself changes it by 1


def test_a_painting_can_keep_a_space_that_was_only_named() -> None:
    """With `output.color: input` it gets a profile, and the numbers of the photo."""
    photo = decode_photo(png_with(cicp(12, 13)))
    exported = export_image(own_tensor(photo), photo, "png", ExportOptions(color="input"))
    assert exported.icc == "Display P3"
    with Image.open(BytesIO(exported.data)) as image:
        assert np.abs(np.array(image.getpixel((9, 9))) - COLOR).max() <= 1


def test_profiles_agree_with_published_matrices() -> None:
    """Lindbloom's matrices for D50, and Little CMS' sRGB."""
    assert np.abs(xyz_matrix(ADOBE_RGB) - ADOBE_RGB_TO_XYZ).max() < 2e-4
    assert np.abs(xyz_matrix(BT709) - SRGB_TO_XYZ).max() < 2e-4
    own, other = Profile.parse(ADOBE_RGB_SPACE.icc_profile()), Profile.parse(adobe_rgb_profile())
    assert own is not None
    assert other is not None
    assert own.is_same_rgb_space(other)
    srgb = Profile.parse(ColorSpace("sRGB", BT709, "srgb").icc_profile())
    little_cms = Profile.parse(SRGB_PROFILE)
    assert srgb is not None
    assert little_cms is not None
    assert srgb.is_same_rgb_space(little_cms)


def test_little_cms_accepts_the_profiles() -> None:
    """For all primaries and curves."""
    for primaries in (1, 4, 5, 6, 7, 8, 9, 11, 12, 22):
        for transfer in (4, 5, 8, 13, 17):
            space = of_code_points(primaries, transfer)
            if space is not None:
                profile = ImageCms.ImageCmsProfile(BytesIO(space.icc_profile()))
                assert profile.profile.profile_description == space.name


# --- high dynamic range


def pq(nits: float) -> float:
    """Encode brightness (SMPTE ST 2084, equation 5.2)."""
    y = (nits / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)


def srgb(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def shown(nits: float) -> float:
    """Return the documented curve: brightness in cd/m2 to a level of the screen."""
    x = nits / 203
    return srgb(x if x <= 0.8 else 1 - 0.04 / (x - 0.6))


PQ = of_code_points(9, 16)
HLG = of_code_points(9, 18)


@pytest.mark.parametrize("nits", [0, 0.5, 5, 50, 150, 203, 400, 1000, 4000, 10_000])
def test_pq_is_brought_to_the_range_of_screens(nits: float) -> None:
    """Grey of a brightness becomes the level of the documented curve."""
    assert PQ is not None
    level = round(pq(nits) * 65535)
    levels = np.full((40, 40, 3), level, np.uint16)
    assert hdr_to_srgb(levels, PQ)[5, 5] == pytest.approx([shown(nits)] * 3, abs=2 / 255)


@pytest.mark.parametrize(("level", "nits"), [(0.0, 0), (0.5, 50.0), (0.75, 203.0), (1.0, 1000.0)])
def test_hlg_is_brought_to_the_range_of_screens(level: float, nits: float) -> None:
    """BT.2408: 75 % of HLG is diffuse white, on a screen of 1000 cd/m2."""
    assert HLG is not None
    levels = np.full((40, 40, 3), round(level * 65535), np.uint16)
    assert hdr_to_srgb(levels, HLG)[5, 5] == pytest.approx([shown(nits)] * 3, abs=3 / 255)


def test_bright_colours_keep_their_hue() -> None:
    """The curve scales all three channels alike."""
    assert PQ is not None
    space = ColorSpace("PQ in BT.709", BT709, "pq")
    levels = np.empty((40, 40, 3), np.uint16)
    levels[...] = [round(pq(n) * 65535) for n in (4000, 2000, 1000)]
    encoded = hdr_to_srgb(levels, space)[5, 5].astype(float)
    linear = ((encoded + 0.055) / 1.055) ** 2.4
    assert linear / linear[0] == pytest.approx([1, 0.5, 0.25], abs=0.01)


@pytest.mark.parametrize("bits", [8, 16])
def test_an_hdr_png_is_reported(bits: int) -> None:
    """Diffuse white is nearly white, and the note names HDR; 16 bits stay 16."""
    level = pq(203)
    if bits == 8:
        data = saved(Image.new("RGB", (96, 64), (round(level * 255),) * 3), "PNG")
    else:
        data = deep_png(np.full((64, 96, 3), round(level * 65535), np.uint16))
    photo = decode_photo(data[:33] + cicp(9, 16) + data[33:])
    assert photo.bits == bits
    assert pixels(photo).min() >= 240
    assert [note.kind for note in photo.degraded] == ["color"]
    assert "HDR" in photo.degraded[0].message


def test_a_gain_map_is_reported() -> None:
    """An HDR photo as phones write it is a JPEG in sRGB, with a map that is not used."""
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    photo = decode_photo(saved(FLAT, "JPEG", xmp=packet))
    assert ["gain map" in note.message for note in photo.degraded] == [True]
    assert b"hdrgm:Version" not in photo.metadata.xmp
    iso = b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)
    data = saved(FLAT, "JPEG")
    data = data[:2] + b"\xff\xe2" + struct.pack(">H", len(iso) + 2) + iso + data[2:]
    assert ["gain map" in note.message for note in decode_photo(data).degraded] == [True]


def test_the_perceptual_quantizer_is_that_of_its_standard() -> None:
    """ST 2084 gives the encoding, equation 5.2; decoding inverts it."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    nits = np.array([0.1, 1.0, 100.0, 1000.0, 10_000.0])
    power = (nits / 10_000) ** m1
    encoded = ((c1 + c2 * power) / (1 + c3 * power)) ** m2
    decoded = _decode_pq(encoded.astype(np.float64))
    assert decoded * DIFFUSE_WHITE == pytest.approx(nits, rel=1e-5)

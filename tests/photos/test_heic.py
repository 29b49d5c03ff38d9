"""HEIC, the photo format of phones, with and without pillow-heif."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from styled.errors import ConfigError, InputIncomplete, InputRejected
from styled.extras import install_command
from styled.photos import ExportOptions, decode_photo, encode_image, export_image, output_format
from styled.photos.formats import format_of
from tests.photos.icc import adobe_rgb_profile
from tests.photos.samples import REFUSALS, astronaut, own_tensor, pixels

pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")


def heic(image: Image.Image | None = None, **options: Any) -> bytes:
    file = BytesIO()
    heif = pillow_heif.from_pillow(image or astronaut())
    heif.save(file, **{"quality": 95, "chroma": 444, **options})
    return file.getvalue()


def deep_heic(bits: int) -> bytes:
    levels = np.zeros((64, 96, 3), np.uint16)
    levels[..., 0] = np.linspace(0, 65535, 96)
    heif = pillow_heif.from_bytes(mode="RGB;16", size=(96, 64), data=levels.tobytes())
    file = BytesIO()
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    heif.save(file, quality=90)
    return file.getvalue()


def test_a_heic_becomes_a_photo() -> None:
    """Pixels, format and size are right, and there is no note."""
    photo = decode_photo(heic())
    assert (photo.format, photo.width, photo.height, photo.bits) == ("heic", 96, 64, 8)
    assert np.abs(pixels(photo) - np.asarray(astronaut())).mean() < 3
    assert photo.degraded == ()


def test_same_means_heic() -> None:
    """With `same`, the result of a HEIC is a HEIC, with its own extension."""
    assert output_format("same", "heic") == ("heic", ".heic")
    photo = decode_photo(heic())
    result = decode_photo(export_image(own_tensor(photo), photo, "heic", ExportOptions()).data)
    assert result.format == "heic"
    assert np.abs(pixels(result) - pixels(photo)).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_telephones_orientation_comes_out_upright(orientation: int) -> None:
    """The orientation, which HEIC stores as a rotation of the container, is applied once only."""
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48], upright[:32, 48:], upright[32:, :48] = 60, 120, 180
    transposition = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = Image.fromarray(upright)
    if transposition is not None:
        stored = stored.transpose(Image.Transpose(transposition))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode_photo(heic(stored, exif=exif.tobytes()))
    assert (photo.width, photo.height) == (96, 64)
    assert np.abs(pixels(photo) - upright).mean() < 3


def test_metadata_passes_through_a_heic() -> None:
    """EXIF, GPS, XMP and the profile of a HEIC are in the JPEG that it is exported to."""
    exif = Image.Exif()
    exif[0x010F], exif[0x8825] = "A camera", {1: "N", 2: (48.0, 8.0, 0.0)}
    packet = b"<x:xmpmeta>hello</x:xmpmeta>"
    image = astronaut()
    image.info["icc_profile"] = adobe_rgb_profile()
    photo = decode_photo(heic(image, exif=exif.tobytes(), xmp=packet))
    assert photo.icc == "Made for a test"
    exported = export_image(own_tensor(photo), photo, "jpeg", ExportOptions(color="input"))
    with Image.open(BytesIO(exported.data)) as result:
        assert result.getexif()[0x010F] == "A camera"
        assert result.getexif().get_ifd(0x8825)[2] == (48.0, 8.0, 0.0)
        assert result.info["xmp"] == packet
        assert result.info["icc_profile"] == adobe_rgb_profile()
    again = decode_photo(
        export_image(own_tensor(photo), photo, "heic", ExportOptions(color="input")).data
    )
    assert again.profile == adobe_rgb_profile()
    assert again.metadata.xmp == packet


def test_opacity_passes_through_a_heic() -> None:
    """The alpha channel of a HEIC becomes that of the photo."""
    image = astronaut()
    image.putalpha(Image.linear_gradient("L").resize((96, 64)))
    photo = decode_photo(heic(image))
    assert photo.alpha is not None
    assert (
        np.abs(np.asarray(photo.alpha).astype(int) - np.asarray(image.getchannel("A"))).max() <= 4
    )


@pytest.mark.parametrize("bits", [10, 12])
def test_more_than_8_bits_are_kept(bits: int) -> None:
    """A HEIC of 10 or 12 bits is decoded in 16, and white is 65535."""
    photo = decode_photo(deep_heic(bits))
    assert (photo.bits, photo.degraded) == (16, ())


def test_the_size_limits_hold() -> None:
    """One pixel beyond the limit is refused, and so is an edge under 32."""
    data = heic()
    assert decode_photo(data, max_pixels=96 * 64).width == 96
    with pytest.raises(InputRejected, match="96 x 64 pixels; the limit is 6143"):
        decode_photo(data, max_pixels=96 * 64 - 1)
    with pytest.raises(InputRejected, match="too small: 31 x 40"):
        decode_photo(heic(astronaut(31, 40)))


def test_an_edge_that_a_heic_cannot_hold_is_refused() -> None:
    """HEIC edges hold at most 16384 pixels."""
    with pytest.raises(ConfigError, match="16385 x 1 pixels do not fit into a heic file"):
        encode_image(torch.zeros(1, 3, 1, 16385), "heic")


def test_a_cut_heic_is_incomplete() -> None:
    """A file cut at any 30th of its length, or within its first or last bytes, is incomplete."""
    data = heic()
    cuts = {len(data) * part // 30 for part in range(1, 30)} | {len(data) - 1, 1, 4, 8, 9, 11, 12}
    for cut in sorted(cuts):
        with pytest.raises(InputIncomplete):
            decode_photo(data[:cut])


def test_damage_in_a_heic_is_refused_or_read() -> None:
    """A wrong byte raises one of the refusals, or nothing."""
    data = heic(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0", xmp=b"<x/>")
    for position in range(0, min(len(data), 900), 3):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        try:
            photo = decode_photo(bytes(damaged), max_pixels=1_000_000)
        except REFUSALS:
            continue
        assert photo.image.mode == "RGB"


def test_without_pillow_heif_a_photo_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message names the package to install, and an alternative."""
    data = heic()
    monkeypatch.setattr("styled.photos.heic.pillow_heif", None)
    with pytest.raises(InputRejected, match="pillow-heif is not installed") as caught:
        decode_photo(data)
    assert install_command("pillow-heif") in str(caught.value)
    assert "JPEG" in str(caught.value)


@pytest.mark.parametrize(
    ("brands", "format"),
    [
        (b"heic" + b"\0\0\0\0" + b"mif1heic", "heic"),
        (b"heix" + b"\0\0\0\0" + b"mif1", "heic"),
        (b"mif1" + b"\0\0\0\0" + b"mif1heic", "heic"),
        (b"mif1" + b"\0\0\0\0" + b"mif1avifmiaf", "avif"),
        (b"mif1" + b"\0\0\0\0" + b"mif1miafMA1Bavif", "avif"),
        (b"msf1" + b"\0\0\0\0" + b"hevc", "heic"),
        (b"avif" + b"\0\0\0\0" + b"mif1heic", "avif"),
        (b"avis" + b"\0\0\0\0" + b"msf1", "avif"),
        (b"isom" + b"\0\0\0\0" + b"mp41", None),
        (b"qt  " + b"\0\0\0\0" + b"heic", None),
    ],
)
def test_brands_tell_heic_from_avif(brands: bytes, format: str | None) -> None:
    """The major brand decides; if it is neither format's, the first compatible brand that is."""
    box = (len(brands) + 8).to_bytes(4, "big") + b"ftyp" + brands
    assert format_of(box + bytes(64)) == format


def test_a_container_under_the_name_of_the_other_is_refused_in_words() -> None:
    """HEVC in a file with an AVIF brand is refused."""
    data = heic()
    with pytest.raises(InputRejected, match="can't be decoded as AVIF"):
        decode_photo(data[:8] + b"avif" + data[12:])

"""The format of a file is that of its content; formats that need an extra; BMP's bit fields."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from styled.errors import InputIncomplete, InputRejected
from styled.extras import install_command
from styled.photos import ExportOptions, decode_photo, export_image, jxl
from styled.photos.formats import format_of
from styled.photos.heif_boxes import boxes, heif_picture
from tests.photos.samples import (
    ASTRONAUT,
    astronaut,
    decoded,
    needs_avif,
    own_tensor,
    pixels,
    saved,
)

SCENE = np.ascontiguousarray(ASTRONAUT[:64, 150:246])


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def brands(data: bytes, *names: bytes) -> bytes:
    """Return a HEIF file with other brands; its first box keeps its length."""
    length = int.from_bytes(data[:4], "big")
    content = names[0] + bytes(4) + b"".join(names)
    padded = (content + names[-1] * 9)[: length - 8]
    return struct.pack(">I4s", length, b"ftyp") + padded + data[length:]


@needs_avif
@pytest.mark.parametrize("names", [(b"mif1", b"miaf"), (b"mif1",), (b"avif", b"mif1")])
def test_avif_is_known_by_its_codec(names: tuple[bytes, ...]) -> None:
    """Brands that HEIC and AVIF share tell nothing; the codec of the picture does."""
    data = brands(saved(astronaut(), "AVIF"), *names)
    assert format_of(data) == "avif"
    assert decode_photo(data).format == "avif"


@pytest.mark.parametrize("names", [(b"mif1", b"miaf"), (b"mif1",), (b"heic", b"mif1")])
def test_heic_is_known_by_its_codec(names: tuple[bytes, ...]) -> None:
    """The same for HEVC."""
    pillow_heif = pytest.importorskip("pillow_heif")
    file = BytesIO()
    pillow_heif.from_pillow(astronaut()).save(file)
    data = brands(file.getvalue(), *names)
    assert format_of(data) == "heic"
    assert decode_photo(data).format == "heic"


@pytest.mark.parametrize(("codec", "name"), [(b"vvcC", "VVC"), (b"j2kH", "JPEG 2000")])
def test_heif_of_another_codec_is_rejected_by_its_name(codec: bytes, name: str) -> None:
    """Not as a damaged AVIF."""
    properties = box(b"iprp", box(b"ipco", box(codec, bytes(20))))
    data = box(b"ftyp", b"mif1\0\0\0\0mif1") + box(b"meta", bytes(4) + properties)
    with pytest.raises(InputRejected, match=f"HEIF picture whose codec .*{name}"):
        decode_photo(data)


@pytest.mark.parametrize(
    ("properties", "bits"),
    [
        ([box(b"pixi", b"\0\0\0\0\3\x0a\x0a\x0a")], 10),
        ([box(b"pixi", b"\0\0\0\0\1\x08"), box(b"av1C", b"\x81\x20\x40\0")], 8),
        ([box(b"av1C", b"\x81\x20\x40\0")], 10),
        ([box(b"av1C", b"\x81\x40\x60\0")], 12),
        ([box(b"av1C", b"\x81\x20\0\0")], 8),
        ([], 8),
    ],
)
def test_the_bits_of_a_grid_are_those_of_its_tiles(properties: list[bytes], bits: int) -> None:
    """The main picture is a grid without a configuration of its own; pixi tells the bits, too."""
    content = box(b"ipco", b"".join(properties))
    content += box(b"ipma", b"\0\0\0\0\0\0\0\1\0\1\1\x81")  # item 1 has the first property
    meta = bytes(4) + box(b"pitm", b"\0\0\0\0\0\1") + box(b"iprp", content)
    data = box(b"ftyp", b"avif\0\0\0\0mif1") + box(b"meta", meta)
    picture = heif_picture(data)
    assert picture is not None
    assert picture.bits == bits


@needs_avif
def test_boxes_that_lead_nowhere_do_no_harm() -> None:
    """Any byte of the boxes may be wrong."""
    data = saved(astronaut(), "AVIF")
    end = data.index(b"mdat") - 4
    for position in range(end):
        for value in (0, 0xFF, data[position] ^ 1):
            heif_picture(data[:position] + bytes([value]) + data[position + 1 :])


@needs_avif
def test_a_crop_of_an_avif_is_applied() -> None:
    """The clean aperture (clap) of a picture cuts it: here to 40 x 32 of its 96 x 64 pixels."""
    data = saved(astronaut(), "AVIF", quality=100)
    aperture = box(b"clap", struct.pack(">8I", 40, 1, 32, 1, 0, 1, 0, 1))
    photo = decode_photo(with_property(data, aperture))
    assert (photo.width, photo.height) == (40, 32)


def with_property(data: bytes, content: bytes) -> bytes:
    """Return an AVIF of Pillow's with another property of its picture, the only item."""
    at = data.index(b"ipma") - 4
    (length,) = struct.unpack_from(">I", data, at)
    associations = bytearray(data[at : at + length])
    number = data.index(b"ipco") - 4
    (listed,) = struct.unpack_from(">I", data, number)
    count, position = 0, number + 8
    while position < number + listed:
        position += struct.unpack_from(">I", data, position)[0]
        count += 1
    associations[18] += 1  # the number of associations of the first item
    associations += bytes([0x80 | (count + 1)])
    struct.pack_into(">I", associations, 0, len(associations))
    added = len(content) + 1
    result = bytearray(
        data[: number + listed] + content + data[number + listed : at] + bytes(associations)
        + data[at + length :]
    )  # fmt: skip
    struct.pack_into(">I", result, number, listed + len(content))
    for kind in (b"iprp", b"meta"):
        start = data.index(kind) - 4
        (old,) = struct.unpack_from(">I", data, start)
        struct.pack_into(">I", result, start, old + added)
    # The picture's data has moved: iloc, version 0, has its offset as four bytes.
    location = data.index(b"iloc")
    mdat = data.index(b"mdat") + 4
    where = result.index(struct.pack(">I", mdat), location)
    struct.pack_into(">I", result, where, mdat + added)
    return bytes(result)


@pytest.mark.parametrize("garbage", [b"\0", b"\0\1\2\3", bytes(300)])
def test_a_jpeg_may_begin_with_garbage(garbage: bytes) -> None:
    """Between the first marker and the first segment."""
    data = saved(astronaut(), "JPEG")
    photo = decode_photo(data[:2] + garbage + data[2:])
    assert (photo.format, photo.degraded) == ("jpeg", ())


def test_a_bitmap_without_the_header_of_a_file_is_read() -> None:
    """A DIB, as it lies on the clipboard."""
    data = saved(astronaut(), "BMP")[14:]
    assert format_of(data) == "bmp"
    assert np.array_equal(pixels(decode_photo(data)), np.asarray(astronaut()))


# --- JPEG XL


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_jpeg_xl_is_read_and_written(mode: str) -> None:
    """With its extra, a photo gives a painting in the same format."""
    pytest.importorskip("pillow_jxl")
    image = astronaut().convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((96, 64)))
    photo = decode_photo(saved(image, "JXL", lossless=True))
    assert (photo.format, photo.width, photo.height, photo.degraded) == ("jxl", 96, 64, ())
    assert np.array_equal(pixels(photo), np.asarray(image.convert("RGB")))
    assert (photo.alpha is not None) == (mode == "RGBA")
    again = decode_photo(export_image(own_tensor(photo), photo, "jxl", ExportOptions()).data)
    assert again.format == "jxl"
    assert np.abs(pixels(again) - pixels(photo)).mean() < 4


@pytest.mark.parametrize(("width", "height"), [(32, 32), (40, 32), (64, 48), (96, 64), (333, 257)])
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(width: int, height: int) -> None:
    """In all forms of its header: multiples of 8, common ratios, and others."""
    pytest.importorskip("pillow_jxl")
    data = saved(Image.new("RGB", (width, height)), "JXL")
    assert jxl.size_of(data) == (width, height)
    with pytest.raises(InputRejected, match="the limit is 1000 pixels"):
        decode_photo(data, max_pixels=1000)


def test_without_its_package_a_jpeg_xl_is_rejected_with_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error names it."""
    pytest.importorskip("pillow_jxl")
    data = saved(astronaut(), "JXL")
    monkeypatch.setattr(jxl, "JXLImageFile", None)
    with pytest.raises(InputRejected, match="JPEG XL") as caught:
        decode_photo(data)
    assert any(install_command("pillow-jxl-plugin") in remedy for remedy in caught.value.remedies)


def test_a_cut_jpeg_xl_is_refused() -> None:
    """At any 20th of its length."""
    pytest.importorskip("pillow_jxl")
    data = saved(astronaut(), "JXL")
    for part in range(1, 20):
        with pytest.raises((InputRejected, InputIncomplete)):
            decode_photo(data[: len(data) * part // 20])


# --- BMP


def bmp(bits: int, masks: tuple[int, ...], words: np.ndarray, *, top_down: bool = False) -> bytes:
    """Return a BMP of bit fields: a header of version 5, and words of 16 or 32 bits."""
    height, width = words.shape
    stride = (width * bits // 8 + 3) & ~3
    rows = words.astype("<u2" if bits == 16 else "<u4").view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, stride - rows.shape[1])))
    body = (rows if top_down else rows[::-1]).tobytes()
    red, green, blue, alpha = (*masks, 0)[:4]
    header = struct.pack(
        "<IiiHHIIiiIIIIII", 124, width, -height if top_down else height, 1, bits, 3, len(body),
        2835, 2835, 0, 0, red, green, blue, alpha,
    ).ljust(124, b"\0")  # fmt: skip
    return b"BM" + struct.pack("<IHHI", 138 + len(body), 0, 0, 138) + header + body


def packed(*channels: tuple[int, int]) -> tuple[tuple[int, ...], np.ndarray]:
    """Return masks, and the scene in words; each channel has a width and a shift."""
    masks = tuple(((1 << width) - 1) << shift for width, shift in channels)
    words = np.zeros((64, 95), np.uint32)
    for index, (width, shift) in enumerate(channels):
        values = SCENE[:, :95, index] if index < 3 else np.full((64, 95), 255, np.uint8)
        words |= np.rint(values / 255 * ((1 << width) - 1)).astype(np.uint32) << shift
    return masks, words


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize(
    ("bits", "channels"),
    [
        (16, ((4, 8), (4, 4), (4, 0))),
        (16, ((4, 8), (4, 4), (4, 0), (4, 12))),
        (16, ((5, 11), (6, 5), (5, 0))),
        (16, ((5, 10), (5, 5), (5, 0))),
        (16, ((3, 5), (3, 2), (2, 0))),
        (32, ((8, 16), (8, 8), (8, 0))),
        (32, ((10, 20), (10, 10), (10, 0))),
        (32, ((8, 0), (8, 8), (8, 16), (8, 24))),
    ],
    ids=["444", "4444", "565", "555", "332", "888", "10-10-10", "RGBA"],
)
def test_bit_fields_of_a_bmp(bits: int, channels: Any, top_down: bool) -> None:
    """Each field's highest level is 255, whatever its width."""
    masks, words = packed(*channels)
    photo = decode_photo(bmp(bits, masks, words, top_down=top_down))
    step = 255 / ((1 << min(width for width, _ in channels[:3])) - 1)
    assert np.abs(pixels(photo) - SCENE[:, :95]).max() <= step / 2 + 8
    assert photo.alpha is None
    is_deep = max(width for width, _ in channels[:3]) > 8
    assert [note.kind for note in photo.degraded] == ["bits"] * is_deep


def test_an_alpha_channel_that_nobody_filled_is_opaque() -> None:
    """Screenshots have four bytes a pixel, and the last one is 0 everywhere."""
    masks, words = packed((8, 16), (8, 8), (8, 0))
    photo = decode_photo(bmp(32, (*masks, 0xFF000000), words))
    assert photo.alpha is None
    assert np.array_equal(pixels(photo), SCENE[:, :95])
    words[0, 0] |= 0xFF000000
    assert decode_photo(bmp(32, (*masks, 0xFF000000), words)).alpha is not None


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_bmp_that_lacks_rows_is_refused(cut: int) -> None:
    """Its header says how long it is."""
    masks, words = packed((4, 8), (4, 4), (4, 0))
    with pytest.raises(InputIncomplete):
        decode_photo(bmp(16, masks, words)[:-cut])


def test_deep_avif_and_heic_keep_their_bits() -> None:
    """Ten bits become sixteen, of which the highest level is 65535; the result says what it has."""
    pillow_heif = pytest.importorskip("pillow_heif")
    levels = np.full((64, 96, 3), 65535, np.uint16)
    file = BytesIO()
    pillow_heif.from_bytes("RGB;16", (96, 64), levels.tobytes()).save(file, quality=100)
    photo = decode_photo(file.getvalue())
    assert photo.bits == 16
    assert photo.deep is not None
    assert photo.deep.max() == 65535
    exported = export_image(own_tensor(photo), photo, "heic", ExportOptions())
    assert [note.message for note in exported.degraded] == [
        "more than 8 bits were rounded to 8: HEIC files are written in 8"
    ]
    assert decoded(astronaut(), "PNG").bits == 8


def test_a_long_box_needs_a_long_header() -> None:
    """A length of 64 bits follows the kind; without it there is no box."""
    whole = struct.pack(">I4sQ", 1, b"mdat", 20) + b"1234"
    assert list(boxes(whole, 0, len(whole))) == [(b"mdat", 16, 20)]
    for length in range(8, 16):
        assert list(boxes(whole[:length], 0, length)) == []

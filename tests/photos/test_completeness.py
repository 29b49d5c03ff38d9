"""Files that are not images, or are truncated."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from styled.errors import InputIncomplete, InputRejected
from styled.photos import decode_photo
from styled.photos.bmp import size_of
from styled.photos.completeness import is_truncated
from tests.photos.samples import (
    CUTTABLE,
    REFUSALS,
    astronaut,
    needs_avif,
    pixels,
    saved,
)


def test_an_empty_file_is_rejected() -> None:
    """The message for a file of zero bytes says that it is empty."""
    with pytest.raises(InputRejected, match="the file is empty"):
        decode_photo(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"Dear reader, I am a letter.\n" * 9,
        b"P6 64 64 255\n" + bytes(64 * 64 * 3),
        bytes(4096),
    ],
    ids=["text", "ppm", "zeros"],
)
def test_what_is_no_picture_is_rejected_with_the_formats_that_are(data: bytes) -> None:
    """For a text named .jpg and for unknown formats, the error names the supported formats."""
    with pytest.raises(InputRejected, match=r"letter\.jpg is not a picture") as caught:
        decode_photo(data, name="letter.jpg")
    assert any("JPEG" in remedy for remedy in caught.value.remedies)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n" * 9, "a PostScript document"),
        (b"%PDF-1.7\n" * 9, "a PDF document"),
        (b"8BPS\0\1" + bytes(99), "a Photoshop document"),
        (b"gimp xcf file" + bytes(99), "a GIMP document"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), "a JPEG 2000 picture"),
        (b"\0\0\0\x18ftypisom" + bytes(99), "a video"),
        (b"\0\0\0\x14ftypqt  " + bytes(99), "a video"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf" + bytes(99), "a HEIF picture whose codec"),
        (b"PK\3\4" + bytes(99), "a ZIP archive"),
    ],
)  # fmt: skip
def test_well_known_kinds_are_named(data: bytes, kind: str) -> None:
    """The error says in plain words what the file is, and what to do."""
    with pytest.raises(InputRejected, match=kind) as caught:
        decode_photo(data)
    assert caught.value.remedies


def test_a_text_that_starts_like_a_bitmap_is_not_waited_for() -> None:
    """A text that starts with the letters BM is rejected, not taken for an incomplete bitmap."""
    with pytest.raises(InputRejected):
        decode_photo(b"BMW photos, spring: all of them are in the other folder.\n" * 3)


@pytest.mark.parametrize(
    "start",
    [
        *(b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PN", b"GIF8", b"II*", b"RIFF\1\2", b"B"),
        *(b"\0\0", b"\0\0\0\x18ftyp", b"\0\0\0\x18ftyphe", b"\0\0\0\x18ftypmif"),
    ],
)
def test_the_first_bytes_of_a_picture_are_incomplete(start: bytes) -> None:
    """A file that is a prefix of a format's magic bytes may still be being copied."""
    with pytest.raises(InputIncomplete):
        decode_photo(start)


@pytest.mark.parametrize("kind", CUTTABLE)
def test_a_picture_cut_anywhere_is_painted_only_if_all_of_it_is_there(kind: str) -> None:
    """A file cut at any 50th of its length is incomplete; within its last bytes, it may be whole.

    Then it has the same pixels, and a note.
    """
    data = saved(astronaut(), **CUTTABLE[kind])
    whole = decode_photo(data)
    assert (whole.width, whole.degraded) == (96, ())
    cuts = {len(data) * part // 50 for part in range(50)} | {len(data) - n for n in range(1, 40)}
    for cut in sorted(cuts - {0}):
        try:
            photo = decode_photo(data[:cut])
        except InputIncomplete:
            continue
        assert cut > len(data) - _ENDS.get(kind, 0)
        assert [note.kind for note in photo.degraded] == ["damaged"]
        assert np.array_equal(pixels(photo), pixels(whole))


_ENDS = {"jpeg": 14, "progressive": 6, "png": 48, "gif": 8}
"""Bytes at the end of a file that the picture does not need: end markers, and bits to spare."""


@needs_avif
def test_a_cut_avif_is_never_painted() -> None:
    """An AVIF cut at any 20th of its length is refused."""
    data = saved(astronaut(), "AVIF")
    assert decode_photo(data).format == "avif"
    for part in range(1, 20):
        with pytest.raises(REFUSALS):
            decode_photo(data[: len(data) * part // 20])


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_picture_whose_end_is_still_zeros_is_incomplete(kind: str) -> None:
    """A copy that preallocates its space is incomplete until its end is written."""
    data = saved(astronaut(), **CUTTABLE[kind])
    half = len(data) // 2
    with pytest.raises(InputIncomplete):
        decode_photo(data[:half] + bytes(len(data) - half))


def test_an_offset_beyond_all_memory_is_only_refused() -> None:
    """A BigTIFF whose directory is at byte 2**64 - 1 is incomplete."""
    with pytest.raises(InputIncomplete):
        decode_photo(b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(99))


def test_a_thumbnail_does_not_pass_for_the_end_of_the_photo() -> None:
    """The end marker of a JPEG inside the EXIF data does not count."""
    inner = saved(astronaut(), "JPEG")
    data = saved(astronaut(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner
    data = data[:2] + segment + data[2:]
    assert decode_photo(data).width == 96
    with pytest.raises(InputIncomplete):
        decode_photo(data[:-30])


def jpeg_with(segments: bytes = b"", scans: int = 0) -> bytes:
    """Return a progressive JPEG with extra segments and `scans` repetitions of its last scan."""
    whole = saved(astronaut(), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:2] + segments + whole[2:-2] + last * scans + whole[-2:]


def test_a_jpeg_that_takes_for_ever_is_rejected_at_once() -> None:
    """No camera writes thousands of scans or EXIF segments, and each of them takes time."""
    exif = b"\xff\xe1\0\x0cExif\0\0MM\0*"
    xmp = b"\xff\xe1\0\x11http://ns.adobe"
    decode_photo(jpeg_with(exif * 100 + xmp * 1000))
    decode_photo(jpeg_with(scans=100))
    with pytest.raises(InputRejected, match="more than 100 EXIF segments"):
        decode_photo(jpeg_with(exif * 101))
    with pytest.raises(InputRejected, match="more than 200 scans"):
        decode_photo(jpeg_with(scans=200))


def test_a_jpeg_of_markers_alone_is_judged_at_once() -> None:
    """Restart markers take no time; other segments are counted."""
    decode_photo(jpeg_with(b"\xff\xfe\0\2" * 1000))
    with pytest.raises(InputRejected, match="segments"):
        decode_photo(jpeg_with(b"\xff\xfe\0\2" * 100_001))
    decode_photo(saved(astronaut(), "JPEG")[:-2] + b"\xff\xd0" * 10_000_000)


def test_what_follows_a_jpeg_does_not_count() -> None:
    """Motion photos have a video at their end, which may contain any bytes."""
    whole = jpeg_with()
    assert decode_photo(whole + b"\xff\xda\0\2" * 1000).width == 96


@pytest.mark.parametrize("size", [(0, 4), (-4, 4), (4, 0)])
def test_a_bmp_without_pixels_is_rejected(size: tuple[int, int]) -> None:
    """A negative height is allowed, and nothing else below one."""
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, 32, 3, 0, 0, 0, 0, 0)
    fields = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    data = b"BM" + struct.pack("<III", 14 + 52 + 64, 0, 14 + 52) + header + fields + bytes(64)
    with pytest.raises(ValueError, match="no size"):
        size_of(data)
    with pytest.raises(InputRejected):
        decode_photo(data)


@pytest.mark.parametrize("header_size", [12, 40, 52, 56, 64, 108, 124])
def test_every_bmp_says_how_long_it_is(header_size: int) -> None:
    """From OS/2's first header to Windows' fifth; other header sizes are not those of a BMP."""
    whole = b"BM" + struct.pack("<IIII", 200, 0, 60, header_size) + bytes(182)
    assert is_truncated(whole[:-1], "bmp")
    assert not is_truncated(whole, "bmp")
    assert not is_truncated(whole[:14] + struct.pack("<I", header_size + 1) + whole[18:-1], "bmp")

"""What is not a picture, or not all of one."""

from __future__ import annotations

import struct

import pytest

from styled.errors import InputIncomplete, InputRejected
from styled.photos import decode
from styled.photos.containers import is_cut
from tests.photos.samples import CUTTABLE, REFUSALS, astronaut, needs_avif, saved


def test_an_empty_file_is_rejected() -> None:
    """Zero bytes are called empty."""
    with pytest.raises(InputRejected, match="the file is empty"):
        decode(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"Dear reader, I am a letter.\n" * 9,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n" * 9,
        b"8BPS\0\1" + bytes(99),
        b"P6 64 64 255\n" + bytes(64 * 64 * 3),
        b"\0\0\0\x18ftypisom" + bytes(99),
        bytes(4096),
    ],
    ids=["text", "eps", "psd", "ppm", "film", "zeros"],
)
def test_what_is_no_picture_is_rejected_with_the_formats_that_are(data: bytes) -> None:
    """A text named .jpg, and formats that are kept out, name what can be read."""
    with pytest.raises(InputRejected, match=r"letter\.jpg is not a picture") as caught:
        decode(data, name="letter.jpg")
    assert any("JPEG" in remedy for remedy in caught.value.remedies)


def test_a_text_that_starts_like_a_bitmap_is_not_waited_for() -> None:
    """The two letters BM alone do not make a picture that is still arriving."""
    with pytest.raises(InputRejected):
        decode(b"BMW photos, spring: all of them are in the other folder.\n" * 3)


@pytest.mark.parametrize(
    "start",
    [
        *(b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PN", b"GIF8", b"II*", b"RIFF\1\2", b"B"),
        *(b"\0\0", b"\0\0\0\x18ftyp", b"\0\0\0\x18ftyphe", b"\0\0\0\x18ftypmif"),
    ],
)
def test_the_first_bytes_of_a_picture_are_incomplete(start: bytes) -> None:
    """A beginning that only the magic bytes give away may still be on its way."""
    with pytest.raises(InputIncomplete):
        decode(start)


@pytest.mark.parametrize("kind", CUTTABLE)
def test_a_picture_cut_anywhere_is_never_painted(kind: str) -> None:
    """Each 50th of its length, and each of the last bytes, is needed."""
    data = saved(astronaut(), **CUTTABLE[kind])
    assert decode(data).width == 96
    cuts = {len(data) * part // 50 for part in range(50)} | {len(data) - n for n in range(1, 40)}
    for cut in sorted(cuts - {0}):
        with pytest.raises(InputIncomplete):
            decode(data[:cut])


@needs_avif
def test_a_cut_avif_is_never_painted() -> None:
    """Each 20th of an AVIF's length is needed."""
    data = saved(astronaut(), "AVIF")
    assert decode(data).format == "avif"
    for part in range(1, 20):
        with pytest.raises(REFUSALS):
            decode(data[: len(data) * part // 20])


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_picture_whose_end_is_still_zeros_is_incomplete(kind: str) -> None:
    """A copy that reserves its space before it writes is waited for."""
    data = saved(astronaut(), **CUTTABLE[kind])
    half = len(data) // 2
    with pytest.raises(InputIncomplete):
        decode(data[:half] + bytes(len(data) - half))


def test_an_offset_beyond_all_memory_is_only_refused() -> None:
    """A BigTIFF whose directory lies at byte 2**64 - 1 is a file that ends too early."""
    with pytest.raises(InputIncomplete):
        decode(b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(99))


def test_a_thumbnail_does_not_pass_for_the_end_of_the_photo() -> None:
    """The end marker of a JPEG inside the EXIF data does not count."""
    inner = saved(astronaut(), "JPEG")
    data = saved(astronaut(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner
    data = data[:2] + segment + data[2:]
    assert decode(data).width == 96
    with pytest.raises(InputIncomplete):
        decode(data[:-2])


def jpeg_with(segments: bytes = b"", scans: int = 0) -> bytes:
    """Return a progressive JPEG with further segments, and its last scan so often again."""
    whole = saved(astronaut(), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:2] + segments + whole[2:-2] + last * scans + whole[-2:]


def test_a_jpeg_that_takes_for_ever_is_rejected_at_once() -> None:
    """Thousands of scans or EXIF segments: no camera writes such, and each costs time."""
    exif = b"\xff\xe1\0\x0cExif\0\0MM\0*"
    xmp = b"\xff\xe1\0\x11http://ns.adobe"
    decode(jpeg_with(exif * 100 + xmp * 1000))
    decode(jpeg_with(scans=100))
    with pytest.raises(InputRejected, match="more than 100 EXIF segments"):
        decode(jpeg_with(exif * 101))
    with pytest.raises(InputRejected, match="more than 200 scans"):
        decode(jpeg_with(scans=200))


def test_a_jpeg_of_markers_alone_is_judged_at_once() -> None:
    """Restart markers cost nothing, and other segments are counted."""
    decode(jpeg_with(b"\xff\xfe\0\2" * 1000))
    with pytest.raises(InputRejected, match="segments"):
        decode(jpeg_with(b"\xff\xfe\0\2" * 100_001))
    with pytest.raises(REFUSALS):
        decode(saved(astronaut(), "JPEG")[:-2] + b"\xff\xd0" * 10_000_000)


def test_what_follows_a_jpeg_does_not_count() -> None:
    """Motion photos have a film behind them, whose bytes may look like anything."""
    whole = jpeg_with()
    assert decode(whole + b"\xff\xda\0\2" * 1000).width == 96


@pytest.mark.parametrize("header_size", [12, 40, 52, 56, 64, 108, 124])
def test_every_bmp_says_how_long_it_is(header_size: int) -> None:
    """From OS/2's first header to Windows' fifth; other text that begins with BM is none."""
    whole = b"BM" + struct.pack("<IIII", 200, 0, 60, header_size) + bytes(182)
    assert is_cut(whole[:-1], "bmp")
    assert not is_cut(whole, "bmp")
    assert not is_cut(whole[:14] + struct.pack("<I", header_size + 1) + whole[18:-1], "bmp")

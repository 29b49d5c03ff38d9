"""Damaged pictures are rejected or painted; those that lack only their end are painted."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from styled.errors import InputIncomplete, InputRejected
from styled.photos import decode_photo
from styled.photos.completeness import is_truncated
from tests.photos.samples import ASTRONAUT, CUTTABLE, astronaut, pixels, png_chunk, saved

LARGE = Image.fromarray(np.ascontiguousarray(ASTRONAUT[:256, :256]))
END = b"\xff\xd9"


def whole_note(data: bytes) -> list[str]:
    return [note.message for note in decode_photo(data).degraded]


LACKS_ITS_END = ["the file ends too early, but all of the picture is there"]


def cut_before_end(data: bytes) -> bytes:
    """Return a JPEG whose data ends in the middle and whose end marker follows at once."""
    start = data.index(b"\xff\xda")
    return data[: start + (len(data) - start) // 2] + END


def without_last_scans(data: bytes) -> bytes:
    """Return a progressive JPEG that lacks its last three scans."""
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    tables = data.rfind(b"\xff\xc4", 0, scans[-3])
    return data[: tables if tables > scans[-4] else scans[-3]] + END


def with_a_gap(data: bytes) -> bytes:
    """Return a JPEG whose data lacks a part in the middle."""
    start = data.index(b"\xff\xda")
    middle = start + (len(data) - start) // 2
    return data[:middle] + data[middle + len(data) // 10 :]


DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "half": (lambda: cut_before_end(saved(LARGE, "JPEG")), "ends too early"),
    "half of a progressive one": (
        lambda: cut_before_end(saved(LARGE, "JPEG", progressive=True)), "ends too early|missing",
    ),
    "without its last scans": (
        lambda: without_last_scans(saved(LARGE, "JPEG", progressive=True)), "scans are missing",
    ),
    "a gap": (
        lambda: with_a_gap(saved(LARGE, "JPEG", restart_marker_rows=1)), "is wrong|too early",
    ),
}  # fmt: skip


def tiff_with_a_gap() -> bytes:
    """Return a TIFF that is compressed as JPEG, whose data ends in the middle of a strip."""
    data = saved(LARGE, "TIFF", compression="jpeg")
    at = data.index(b"\xff\xda") + 8000
    return data[:at] + END + bytes(2000) + data[at + 2002 :]


DAMAGED["a TIFF"] = (tiff_with_a_gap, "missing or wrong")


def test_a_whole_tiff_that_is_compressed_as_jpeg_is_painted() -> None:
    """Also with fields that libtiff warns of."""
    for fields in ({}, {65_000: "unknown to libtiff"}):
        photo = decode_photo(saved(LARGE, "TIFF", compression="jpeg", tiffinfo=fields))
        assert photo.degraded == ()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_jpeg_is_rejected(name: str) -> None:
    """Decoders show grey, or blocks of wrong colours, and say nothing."""
    make, words = DAMAGED[name]
    with pytest.raises(InputRejected, match=f"is damaged: .*({words})") as caught:
        decode_photo(make())
    assert any("intake.damaged" in remedy for remedy in caught.value.remedies)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_jpeg_is_painted_if_that_is_wanted(name: str) -> None:
    """The first rows are there, and there is a note."""
    make, _ = DAMAGED[name]
    photo = decode_photo(make(), paint_damaged=True)
    assert (photo.width, photo.height) == LARGE.size
    assert [note.kind for note in photo.degraded] == ["damaged"]
    rows = 8 if name == "a TIFF" else 64
    assert np.abs(pixels(photo)[:rows] - np.asarray(LARGE)[:rows]).mean() < 12


def test_damage_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """The reason names it; the library's own warnings, which name no file, are not logged."""
    with pytest.raises(InputRejected):
        decode_photo(cut_before_end(saved(LARGE, "JPEG")))
    assert not caplog.messages


@pytest.mark.parametrize("kind", CUTTABLE)
def test_half_a_file_is_painted_if_that_is_wanted(kind: str) -> None:
    """Of every format that can be read in part; the others stay incomplete."""
    data = saved(astronaut(), **CUTTABLE[kind])
    data = data[: len(data) * 3 // 4]
    with pytest.raises(InputIncomplete):
        decode_photo(data)
    try:
        photo = decode_photo(data, paint_damaged=True)
    except InputIncomplete:
        assert kind in NOT_IN_PART
        return
    assert kind not in NOT_IN_PART
    assert [note.kind for note in photo.degraded] == ["damaged"]
    assert "painted as far as it goes" in photo.degraded[0].message
    rows = slice(-8, None) if kind == "bmp" else slice(0, 8)  # BMP begins at the bottom
    assert np.abs(pixels(photo)[rows] - np.asarray(astronaut())[rows]).mean() < 40


NOT_IN_PART = {"tiff-lzw", "tiff-deflate", "webp", "webp-lossless"}
"""Libraries refuse these if a part is missing, or their header comes last."""


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("trailer", [b"", b"SEFH\0\0\0\1 a phone's trailer", bytes(3000)])
def test_a_jpeg_without_its_end_marker_is_painted(trailer: bytes, progressive: bool) -> None:
    """The file looks incomplete, so it is waited for; but all of the picture is there."""
    whole = saved(LARGE, "JPEG", progressive=progressive)
    data = whole[:-2] + trailer
    assert is_truncated(data, "jpeg")
    assert whole_note(data) == LACKS_ITS_END
    assert np.array_equal(pixels(decode_photo(data)), pixels(decode_photo(whole)))


def test_a_gif_without_its_trailer_is_painted() -> None:
    """Only the last byte is missing."""
    data = saved(astronaut(), "GIF")[:-1]
    assert is_truncated(data, "gif")
    assert whole_note(data) == LACKS_ITS_END


def test_a_png_without_its_last_chunk_is_painted() -> None:
    """The compressed data is whole."""
    data = saved(astronaut(), "PNG")[:-12]
    assert is_truncated(data, "png")
    assert whole_note(data) == LACKS_ITS_END
    assert np.array_equal(pixels(decode_photo(data)), np.asarray(astronaut()))


def test_a_tiff_with_too_large_a_byte_count_is_painted() -> None:
    """All pixels are there."""
    data = bytearray(saved(astronaut(), "TIFF"))
    field = struct.pack("<HHI", 279, 4, 1)
    at = data.index(field) + len(field)
    struct.pack_into("<I", data, at, struct.unpack_from("<I", data, at)[0] + 4096)
    assert is_truncated(bytes(data), "tiff")
    assert whole_note(bytes(data)) == LACKS_ITS_END


def test_a_tiff_field_outside_of_the_file_costs_only_that_field() -> None:
    """A description whose offset is beyond the end is left out, which is said."""
    data = bytearray(saved(astronaut(), "TIFF", description="A description of some length"))
    at = data.index(struct.pack("<HH", 270, 2)) + 8
    struct.pack_into("<I", data, at, 10**6)
    photo = decode_photo(bytes(data))
    assert [note.kind for note in photo.degraded] == ["metadata", "damaged"]
    assert np.array_equal(pixels(photo), np.asarray(astronaut()))


def test_a_wrong_checksum_of_pixels_is_damage_and_of_texts_is_not() -> None:
    """PNG: a text chunk can't cost the picture."""
    data = saved(astronaut(), "PNG")
    text = bytearray(png_chunk(b"tEXt", b"Title\0A title"))
    text[-1] ^= 0xFF
    photo = decode_photo(data[:33] + bytes(text) + data[33:])
    assert photo.degraded == ()
    assert photo.metadata.texts == (("Title", "A title"),)
    wrong = bytearray(data)
    wrong[-17] ^= 0xFF
    with pytest.raises(InputRejected, match="is damaged: the checksum of its data is wrong"):
        decode_photo(bytes(wrong))
    notes = decode_photo(bytes(wrong), paint_damaged=True).degraded
    assert [note.kind for note in notes] == ["damaged"]


def test_harmless_warnings_of_the_decoder_are_no_damage() -> None:
    """Bytes between segments, as some cameras write them, do not touch the picture."""
    data = saved(LARGE, "JPEG")
    at = data.index(b"\xff\xdb")
    photo = decode_photo(data[:at] + bytes(7) + data[at:])
    assert photo.degraded == ()

"""Kinds of TIFF that cameras, scanners and editors write: depths, inks, planes, pages, raws."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from styled.errors import InputIncomplete, InputRejected
from styled.extras import install_command
from styled.photos import Photo, decode_photo, raw
from styled.photos.formats import format_of
from tests.photos.samples import ASTRONAUT, pixels
from tests.photos.tiffs import Page, tiff

SCENE = np.ascontiguousarray(ASTRONAUT[:64, 150:246])
SCENE16 = SCENE.astype(np.uint16) * 257
SMALL = np.full((48, 72, 3), 200, np.uint8)
REDUCED = {254: (4, [1])}
FULL = {254: (4, [0])}


def is_scene(photo: Photo, within: int = 1) -> bool:
    return bool(np.abs(pixels(photo) - SCENE).max() <= within)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_byte_order_and_arrangement(bits: int, planar: bool, order: str, big: bool) -> None:
    """TIFF and BigTIFF of both byte orders, channels together or in planes, 8 and 16 bits."""
    levels = SCENE if bits == 8 else SCENE16
    photo = decode_photo(tiff(Page(levels, planar=planar), order=order, big=big))
    assert (photo.format, photo.bits, photo.degraded) == ("tiff", bits, ())
    assert is_scene(photo, 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_inks(bits: int, alpha: bool, planar: bool, order: str) -> None:
    """CMYK without a profile is read by the plain formula, with and without alpha."""
    ink = np.concatenate([255 - SCENE, np.zeros((64, 96, 1), np.uint8)], axis=2)
    if alpha:
        ink = np.concatenate([ink, np.full((64, 96, 1), 255, np.uint8)], axis=2)
    levels = ink if bits == 8 else ink.astype(np.uint16) * 257
    photo = decode_photo(tiff(Page(levels, planar=planar), order=order))
    assert photo.bits == bits
    assert [note.kind for note in photo.degraded] == ["color"]
    assert photo.alpha is None
    assert is_scene(photo)


def test_transparent_inks() -> None:
    """The alpha channel of CMYK becomes that of the photo."""
    ink = np.zeros((64, 96, 5), np.uint8)
    ink[:, :48, 4] = 255
    photo = decode_photo(tiff(Page(ink)))
    assert photo.alpha is not None
    assert np.array_equal(np.asarray(photo.alpha), ink[..., 4])


@pytest.mark.parametrize("order", ["<", ">"])
def test_gray_of_16_bits_with_alpha(order: str) -> None:
    """All bits of grey and alpha are kept."""
    levels = np.zeros((64, 96, 2), np.uint16)
    levels[..., 0] = np.arange(96) * 600
    levels[..., 1] = 40000
    photo = decode_photo(tiff(Page(levels), order=order))
    assert (photo.bits, photo.is_gray, photo.degraded) == (16, True, ())
    assert photo.deep is not None
    assert np.array_equal(photo.deep[..., 0], levels[..., 0])
    assert np.array_equal(photo.deep[..., 3], levels[..., 1])


@pytest.mark.parametrize(
    ("levels", "expected", "notes"),
    [
        (np.linspace(0.20, 0.21, 96, dtype=np.float32), np.linspace(0.20, 0.21, 96) * 65535, []),
        (np.arange(96, dtype=np.uint32) * 600, np.arange(96) * 600, []),
        (np.arange(96, dtype=np.uint32) << 24, np.linspace(0, 65535, 96), ["bits"]),
        (np.arange(-48, 48, dtype=np.int16), np.linspace(0, 65535, 96), ["bits"]),
        (np.linspace(-1, 3, 96, dtype=np.float32), np.linspace(0, 65535, 96), ["bits"]),
    ],
    ids=["float", "uint32", "large uint32", "signed", "float beyond 1"],
)
def test_numbers_of_other_types(levels: np.ndarray, expected: np.ndarray, notes: list[str]) -> None:
    """All levels are kept in 16 bits; those beyond the usual range are stretched, and said."""
    photo = decode_photo(tiff(Page(np.tile(levels, (64, 1)))))
    assert photo.bits == 16
    assert photo.deep is not None
    assert np.abs(photo.deep[5, :, 0] - expected).max() <= 1
    assert [note.kind for note in photo.degraded] == notes


def test_colours_in_floating_point() -> None:
    """Colours from 0 to 1 are levels of the screen."""
    photo = decode_photo(tiff(Page((SCENE / 255).astype(np.float32))))
    assert (photo.bits, photo.degraded) == (16, ())
    assert is_scene(photo, 0)


def test_lab_of_16_bits() -> None:
    """L, a, b of 16 bits (ICC, TIFF 6.0 section 23): grey has neither a nor b."""
    lab = np.zeros((64, 96, 3), np.int16)
    lab[..., 0] = np.int16(32767 // 2)  # L = 50, of 16 bits with sign
    levels = lab.astype(np.uint16) * np.array([2, 1, 1], np.uint16)
    photo = decode_photo(tiff(Page(levels, {262: (3, [8])})))
    assert photo.bits == 16
    assert np.abs(pixels(photo)[5, 5] - 119).max() <= 1  # sRGB of L = 50


def test_what_nobody_reads_is_named_in_words() -> None:
    """The error names depth, kind and compression, and what to save instead."""
    with pytest.raises(InputRejected, match="3 channels of 64 bits, floating point") as caught:
        decode_photo(tiff(Page((SCENE / 255).astype(np.float64))))
    assert any("16 bits" in remedy for remedy in caught.value.remedies)


def test_a_claim_of_many_channels_is_no_lack_of_memory() -> None:
    """The file is refused; it would wait for memory for ever otherwise."""
    with pytest.raises((InputRejected, InputIncomplete)):
        decode_photo(tiff(Page(SCENE16, {277: (3, [65535]), 278: (4, [2**31])})))


def test_a_picture_in_a_sub_directory_is_used() -> None:
    """A first page that calls itself a reduced copy is not painted if there is the full picture."""
    photo = decode_photo(tiff(Page(SMALL, REDUCED, children=(Page(SCENE, FULL),))))
    assert ((photo.width, photo.height), photo.degraded) == ((96, 64), ())
    assert is_scene(photo, 0)


def test_a_picture_on_the_second_page_is_used() -> None:
    """A thumbnail on the first page is not `the first of several pages`."""
    photo = decode_photo(tiff(Page(SMALL, REDUCED), Page(SCENE, FULL)))
    assert (photo.width, photo.degraded) == (96, ())


def test_reduced_copies_behind_the_picture_are_not_pages() -> None:
    """A pyramid of copies, and a mask, are no further pages; a second picture is."""
    mask = Page(np.zeros((64, 96), np.uint8), {254: (4, [4]), 262: (3, [4])})
    photo = decode_photo(tiff(Page(SCENE, children=(Page(SMALL, REDUCED),)), mask))
    assert (photo.width, photo.degraded) == (96, ())
    photo = decode_photo(tiff(Page(SCENE), Page(SCENE)))
    assert [note.message for note in photo.degraded] == ["only the first of several pages was used"]


def test_that_only_a_reduced_copy_is_painted_is_reported() -> None:
    """A file with nothing but a thumbnail gives that, with a note of its size."""
    photo = decode_photo(tiff(Page(SMALL, REDUCED)))
    assert [note.kind for note in photo.degraded] == ["frames"]
    assert "72 x 48" in photo.degraded[0].message


# --- raw photos


def sensor() -> np.ndarray:
    """Return what a sensor with red, green, green and blue pixels sees of the scene, 12 bits."""
    scene = np.repeat(np.repeat(SCENE, 4, axis=0), 4, axis=1).astype(np.uint16) * 16
    levels = np.empty(scene.shape[:2], np.uint16)
    for y, x, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        levels[y::2, x::2] = scene[y::2, x::2, channel]
    return levels


CFA = {
    254: (4, [0]),
    262: (3, [32803]),
    33421: (3, [2, 2]),
    33422: (1, [0, 1, 1, 2]),
    50717: (4, [4095]),
}  # fmt: skip
DNG = {
    **REDUCED,
    50706: (1, [1, 4, 0, 0]),
    50708: (2, [*b"A camera\0"]),
    271: (2, [*b"A maker\0"]),
    272: (2, [*b"A camera\0"]),
}  # fmt: skip


def dng(order: str = "<") -> bytes:
    """Return a raw photo with a thumbnail on its first page, as cameras write them."""
    return tiff(Page(SMALL, DNG, children=(Page(sensor(), CFA),)), order=order)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_raw_photo_is_developed(order: str) -> None:
    """It is painted at full size, in 16 bits, and never from its thumbnail."""
    photo = decode_photo(dng(order))
    assert (photo.format, photo.width, photo.height, photo.bits) == ("raw", 384, 256, 16)
    assert photo.degraded == ()
    assert photo.metadata.exif.image[271].data == b"A maker\0"
    # The scene is there: bright where it is bright.
    small = pixels(photo)[2::4, 2::4].mean(axis=2)
    assert np.corrcoef(small.ravel(), SCENE.mean(axis=2).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("cut", [1, 1000, 100_000])
def test_a_cut_raw_photo_is_never_painted_black(cut: int) -> None:
    """LibRaw fills what is missing with black, and raises nothing."""
    data = tiff(Page(SMALL, DNG, children=()), Page(sensor(), CFA))
    photo = decode_photo(data)
    assert photo.degraded == ()
    # The sensor's data is moved behind the directories, so that it can be cut.
    strips = data.index(sensor().tobytes())
    moved = bytearray(data + sensor().tobytes())
    at = moved.rindex(struct.pack("<HHI", 273, 4, 1)) + 8
    assert struct.unpack_from("<I", moved, at) == (strips,)
    struct.pack_into("<I", moved, at, len(data))
    assert np.array_equal(pixels(decode_photo(bytes(moved))), pixels(photo))
    with pytest.raises(InputIncomplete):
        decode_photo(bytes(moved[:-cut]))


def test_a_raw_photo_without_data_is_damaged() -> None:
    """Metadata tools cut the data out of raw photos, and leave the counts."""
    empty = Page(np.zeros_like(sensor()), CFA)
    with pytest.raises(InputRejected, match="is damaged: part of its data is missing or wrong"):
        decode_photo(tiff(Page(SMALL, DNG), empty))
    photo = decode_photo(tiff(Page(SMALL, DNG), empty), paint_damaged=True)
    assert [note.kind for note in photo.degraded] == ["damaged"]


def test_without_rawpy_a_raw_photo_is_rejected_by_that_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says that it is a raw photo, and names the extra."""
    monkeypatch.setattr(raw, "rawpy", None)
    with pytest.raises(InputRejected, match="raw photo") as caught:
        decode_photo(dng())
    assert any(install_command("rawpy") in remedy for remedy in caught.value.remedies)


@pytest.mark.parametrize(
    "start",
    [
        b"II*\0\x10\0\0\0CR\2\0",
        b"\0\0\0\x18ftypcrx " + bytes(12),
        b"FUJIFILMCCD-RAW 0201",
        b"IIRO\x08\0\0\0" + bytes(8),
        b"IIU\0\x08\0\0\0" + bytes(8),
        b"FOVb" + bytes(12),
        b"\0MRM" + bytes(12),
        b"II\x1a\0\0\0HEAPCCDR",
    ],
)
def test_raw_photos_of_other_makers_are_known(start: bytes) -> None:
    """What LibRaw can't read is rejected as a raw photo, not as a damaged TIFF."""
    data = start + bytes(4000)
    assert format_of(data) == "raw"
    with pytest.raises(InputRejected, match=r"raw|RAW"):
        decode_photo(data)


@pytest.mark.parametrize("photometric", [32803, 34892])
def test_sensor_data_on_the_first_page_is_raw(photometric: int) -> None:
    """Some cameras have no thumbnail in front; linear raws have no pattern."""
    fields = {**CFA, 262: (3, [photometric])}
    assert format_of(tiff(Page(sensor(), fields))) == "raw"

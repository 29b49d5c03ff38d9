"""Files to tensors and back: every file becomes a photo or a plain refusal, nothing else."""

from __future__ import annotations

import os
import socket
import struct
import threading
import tracemalloc
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from styled.errors import ConfigError, InputIncomplete, InputRejected, ResourceUnavailable
from styled.photos import Photo, decode, encode, output_format, read_bytes, to_image

REFUSALS = (InputRejected, InputIncomplete)
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow lacks AVIF")


# How to save without visible loss.
EXACT: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 100, "subsampling": 0},
}


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


ASTRONAUT: np.ndarray = skimage.data.astronaut()  # type: ignore[no-untyped-call]


def astronaut(width: int = 96, height: int = 64) -> Image.Image:
    return Image.fromarray(ASTRONAUT[:height, 150 : 150 + width])


def pixels(photo: Photo) -> np.ndarray:
    return np.asarray(photo.image).astype(int)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


# --- ICC profiles made by hand: a header, a tag table and the tags (ICC.1:2001-04)


def icc_profile(device: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    description = b"Made for a test\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(description)) + description + bytes(78),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        **tags,
    }
    position = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", position + len(body), len(content))
        body += padded
    header = (
        struct.pack(
            ">I4sI4s4s4s", position + len(body), b"\0\0\0\0", 0x02400000, device, space, pcs
        )
        + struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
        + b"acsp"
        + bytes(28)
        + struct.pack(">3i", 63190, 65536, 54061)
    )
    return header.ljust(128, b"\0") + table + body


def xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in (x, y, z)))


def gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


# Columns: red, green, blue primaries as XYZ relative to D50.
ADOBE_RGB_TO_XYZ = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def adobe_rgb_profile() -> bytes:
    primaries = zip((b"rXYZ", b"gXYZ", b"bXYZ"), ADOBE_RGB_TO_XYZ.T, strict=True)
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.19921875))
    tags = {name: xyz(*column) for name, column in primaries} | curves
    return icc_profile(b"mntr", b"RGB ", b"XYZ ", tags)


def adobe_rgb_to_srgb(rgb: tuple[int, int, int]) -> np.ndarray:
    linear = (np.array(rgb) / 255) ** 2.19921875
    linear = np.clip(np.linalg.inv(SRGB_TO_XYZ) @ ADOBE_RGB_TO_XYZ @ linear, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(curved * 255)


def cmyk_profile() -> bytes:
    """A press whose every ink is neutral: each takes away a quarter of the lightness."""
    corners = b"".join(
        bytes((round(255 * (1 - bin(inks).count("1") / 4)), 128, 128)) for inks in range(16)
    )
    identity = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + identity * 4 + corners + identity * 3
    return icc_profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut, b"A2B1": lut})


# --- reading files


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    """All bytes of a regular file come back."""
    (tmp_path / "a").write_bytes(b"0123")
    assert read_bytes(tmp_path / "a") == b"0123"


def test_a_missing_file_stays_a_file_not_found_error(tmp_path: Path) -> None:
    """A file that is gone, alone or with its folder, raises FileNotFoundError."""
    (tmp_path / "a").write_bytes(b"")
    for gone in ("b", "b/c", "a/c"):
        with pytest.raises(FileNotFoundError):
            read_bytes(tmp_path / gone)


def test_a_file_over_the_limit_is_rejected(tmp_path: Path) -> None:
    """A file of exactly the limit is read, one byte more is rejected."""
    (tmp_path / "a").write_bytes(bytes(10))
    assert len(read_bytes(tmp_path / "a", limit_bytes=10)) == 10
    with pytest.raises(InputRejected, match="larger than 9 bytes"):
        read_bytes(tmp_path / "a", limit_bytes=9)


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "symlink", "dangling", "device"])
def test_what_is_not_a_regular_file_is_rejected_without_waiting(kind: str, tmp_path: Path) -> None:
    """FIFOs, sockets, folders, links and devices are refused at once."""
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to(__file__ if kind == "symlink" else tmp_path / "nowhere")
    with pytest.raises(InputRejected, match="not a regular file"):
        read_bytes(path)


@pytest.mark.parametrize("kind", ["fifo", "symlink", "folder"])
def test_a_file_that_is_swapped_after_the_first_look_is_still_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The open file decides, not what was there a moment before."""
    regular = tmp_path / "regular"
    regular.write_bytes(b"x")
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(regular)
    before = regular.stat()
    monkeypatch.setattr(Path, "lstat", lambda self: before)
    with pytest.raises(InputRejected, match="not a regular file"):
        read_bytes(path)


@pytest.mark.parametrize("number", [13, 5, 116])
def test_a_failing_system_is_not_blamed_on_the_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EACCES, EIO and ESTALE become ResourceUnavailable with the path and the system's words."""
    path = tmp_path / "a"
    path.write_bytes(b"x")

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ResourceUnavailable) as caught:
        read_bytes(path)
    assert str(path) in caught.value.message
    assert os.strerror(number) in caught.value.message


def test_a_name_that_is_not_utf_8_is_shown_escaped(tmp_path: Path) -> None:
    """Messages about such a file can be printed and logged."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    path.mkdir()
    with pytest.raises(InputRejected, match=r"caf\\xe9"):
        read_bytes(path)


# --- what is not a picture, or not all of one


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
        b"\0\0\0\x18ftypheic" + bytes(99),
        bytes(4096),
    ],
    ids=["text", "eps", "psd", "ppm", "heic", "zeros"],
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
    [b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PN", b"GIF8", b"II*", b"RIFF\1\2", b"B", b"\0\0"],
)
def test_the_first_bytes_of_a_picture_are_incomplete(start: bytes) -> None:
    """A beginning that only the magic bytes give away may still be on its way."""
    with pytest.raises(InputIncomplete):
        decode(start)


CUTTABLE: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"},
    "progressive": {"format": "JPEG", "progressive": True},
    "png": {"format": "PNG"},
    "tiff": {"format": "TIFF"},
    "tiff-lzw": {"format": "TIFF", "compression": "tiff_lzw"},
    "tiff-deflate": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    "bigtiff": {"format": "TIFF", "big_tiff": True},
    "webp": {"format": "WEBP"},
    "webp-lossless": {"format": "WEBP", "lossless": True},
    "bmp": {"format": "BMP"},
    "gif": {"format": "GIF"},
}


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


def test_damage_inside_a_whole_file_is_rejected_with_the_cause() -> None:
    """A checksum that does not fit is damage, not something to wait for."""
    data = bytearray(saved(astronaut(), "PNG"))
    data[30] ^= 0xFF  # in the header's checksum
    with pytest.raises(InputRejected, match=r"can't be decoded as PNG: .*checksum"):
        decode(bytes(data))


def test_an_unknown_compression_is_rejected_in_words() -> None:
    """A bare number in Pillow's exception becomes part of a sentence."""
    data = saved(astronaut(), "TIFF")
    field = struct.pack("<HHI", 259, 3, 1)
    at = data.index(field) + len(field)
    with pytest.raises(InputRejected, match="it holds the unknown value 777"):
        decode(data[:at] + struct.pack("<H", 777) + data[at + 2 :])


def test_an_edge_under_32_pixels_is_rejected() -> None:
    """32 pixels are enough, 31 are not."""
    assert decode(saved(astronaut(32, 40), "PNG")).width == 32
    with pytest.raises(InputRejected, match="31 x 40"):
        decode(saved(astronaut(31, 40), "PNG"))


# --- bombs


@pytest.mark.parametrize(
    "rest", [b"", png_chunk(b"IDAT", bytes(99)), png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")]
)
def test_a_bomb_is_known_from_its_header(rest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """60000 x 60000 pixels are refused before any memory is reserved for them."""
    monkeypatch.setattr("PIL.Image.core.new", lambda *_: pytest.fail("pixels were decoded"))
    tracemalloc.start()
    try:
        with pytest.raises(InputRejected) as caught:
            decode(png_header(60000, 60000) + rest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    for part in ("60000 x 60000", "200000000", "intake.max_pixels"):
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", CUTTABLE)
def test_the_limit_holds_for_every_format(kind: str) -> None:
    """A picture of exactly the limit is read, one pixel less is refused."""
    data = saved(astronaut(), **CUTTABLE[kind])
    assert decode(data, max_pixels=96 * 64).width == 96
    with pytest.raises(InputRejected, match=r"96 x 64 pixels; the limit is 6143"):
        decode(data, max_pixels=96 * 64 - 1)


@pytest.mark.parametrize("kind", CUTTABLE)
def test_pillows_own_limit_does_not_get_in_the_way(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configured limit decides, and Pillow's is back afterwards."""
    data = saved(astronaut(), **CUTTABLE[kind])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(data, max_pixels=10_000).width == 96
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_with_different_limits_do_not_disturb_each_other() -> None:
    """Each call keeps to its own limit, and the process's settings survive."""
    data = saved(astronaut(), "PNG")
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    wrong: list[str] = []

    def work(max_pixels: int, accepted: bool) -> None:
        for _ in range(20):
            try:
                decode(data, max_pixels=max_pixels)
            except InputRejected:
                if accepted:
                    wrong.append("refused")
            else:
                if not accepted:
                    wrong.append("accepted")

    threads = [
        threading.Thread(target=work, args=(limits, limits > 6144)) for limits in (100, 9000) * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert limit == Image.MAX_IMAGE_PIXELS
    assert list(warnings.filters) == filters


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_bomb_inside_a_text_or_profile_is_refused(kind: bytes) -> None:
    """A few kilobytes that unpack to 64 MiB never do."""
    packed = zlib.compress(bytes(64 * 1024**2))
    content = b"Title\0\1\0\0\0" + packed if kind == b"iTXt" else b"Title\0\0" + packed
    data = saved(astronaut(), "PNG")
    data = data[:33] + png_chunk(kind, content) + data[33:]
    tracemalloc.start()
    try:
        with pytest.raises(InputRejected, match="too large"):
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024**2


# --- hostile bytes


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"", *(b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0")])
)
def test_random_bytes_are_only_ever_refused(data: bytes, magic: bytes) -> None:
    """Nothing but a refusal comes out of noise, with or without magic bytes."""
    with pytest.raises(REFUSALS):
        decode(magic + data)


VALID = [saved(astronaut(40, 36), **options) for options in CUTTABLE.values()] + [
    saved(astronaut(40, 36), "PNG", icc_profile=adobe_rgb_profile()),
    saved(astronaut(40, 36).convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
    saved(astronaut(40, 36).quantize(16), "PNG", transparency=b"\0\x80\xff"),
    saved(astronaut(40, 36), "GIF", save_all=True, append_images=[astronaut(40, 36).rotate(9)]),
    saved(astronaut(40, 36), "WEBP", save_all=True, append_images=[astronaut(40, 36).rotate(9)]),
    *([saved(astronaut(40, 36), "AVIF")] if features.check("avif") else []),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Flipped bytes in a valid file never raise anything but a refusal."""
    damaged = bytearray(data.draw(st.sampled_from(VALID)))
    # Most structure is near the start.
    reach = data.draw(st.sampled_from([64, 700, len(damaged)]))
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, reach - 1), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        damaged[position % len(damaged)] = value
    try:
        photo = decode(bytes(damaged), max_pixels=1_000_000)
    except REFUSALS:
        return
    assert photo.image.mode == "RGB"
    assert photo.image.size == (photo.width, photo.height)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), MemoryError(), RecursionError("deep"), AssertionError(), zlib.error("z")],
)
def test_whatever_pillow_raises_becomes_a_refusal_with_a_cause(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any exception of the decoder turns into words."""

    def fail(*_: object) -> None:
        raise error

    data = saved(astronaut(), "BMP")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(InputRejected, match=r"can't be decoded as BMP: .+"):
        decode(data)


def test_pillows_warnings_stay_inside() -> None:
    """A malformed multi-picture index is read as a plain JPEG, in silence."""
    data = saved(astronaut(), "JPEG")
    segment = b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0"
    data = data[:2] + b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data).format == "jpeg"


# --- orientation

# The corners of an upright 40 x 32 picture, by what the camera stored for each orientation.
UPRIGHT = np.zeros((32, 40), dtype=np.uint8)
UPRIGHT[:16, :20], UPRIGHT[:16, 20:], UPRIGHT[16:, :20] = 60, 120, 180
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_comes_out_upright(orientation: int, format: str) -> None:
    """What the camera turned is turned back, and the number found is kept."""
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation])).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode(saved(stored, format, exif=exif, **EXACT.get(format, {})))
    assert (photo.width, photo.height, photo.orientation) == (40, 32, orientation)
    assert np.abs(pixels(photo)[..., 0] - UPRIGHT).max() <= 2
    assert photo.notes == ()


def test_an_orientation_after_the_pixels_is_found() -> None:
    """A PNG may keep its EXIF data behind its pixels."""
    data = saved(astronaut(), "PNG")
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    photo = decode(data[:-12] + png_chunk(b"eXIf", exif) + data[-12:])
    assert (photo.width, photo.height, photo.orientation) == (64, 96, 6)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_impossible_orientation_is_taken_for_upright(value: int) -> None:
    """A number outside 1..8 changes nothing."""
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode(saved(astronaut(), "JPEG", exif=exif)).orientation == 1


def test_damaged_exif_data_does_not_cost_the_photo() -> None:
    """Unreadable EXIF data is ignored and noted."""
    photo = decode(saved(astronaut(), "JPEG", exif=b"Exif\0\0nonsense"))
    assert photo.orientation == 1
    assert photo.notes == ("the EXIF data is damaged and was ignored",)


# --- colour


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_wide_gamut_colours_become_srgb(format: str) -> None:
    """Adobe RGB numbers come out as the sRGB numbers of the same colour."""
    for colour in [(100, 150, 100), (180, 60, 40), (128, 128, 128), (0, 255, 0)]:
        image = Image.new("RGB", (40, 40), colour)
        icc = adobe_rgb_profile()
        photo = decode(saved(image, format, icc_profile=icc, **EXACT.get(format, {})))
        assert np.abs(pixels(photo)[5, 5] - adobe_rgb_to_srgb(colour)).max() <= 3
        assert photo.icc == "Made for a test"
        assert photo.notes == ()


def test_a_gray_profile_is_applied() -> None:
    """Linear gray 128 is sRGB 188."""
    icc = icc_profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": gamma(1.0)})
    photo = decode(saved(Image.new("L", (40, 40), 128), "PNG", icc_profile=icc))
    assert np.abs(pixels(photo)[5, 5] - 188).max() <= 1


def test_a_gray_picture_may_carry_an_rgb_profile() -> None:
    """The gray is read as equal red, green and blue."""
    photo = decode(saved(Image.new("L", (40, 40), 90), "PNG", icc_profile=adobe_rgb_profile()))
    assert np.abs(pixels(photo)[5, 5] - adobe_rgb_to_srgb((90, 90, 90))).max() <= 2


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(format: str) -> None:
    """On a press whose inks are all neutral, full cyan alone is a light gray."""
    image = Image.new("CMYK", (40, 40), (255, 0, 0, 0))
    photo = decode(saved(image, format, icc_profile=cmyk_profile()))
    red, green, blue = pixels(photo)[5, 5]
    assert max(red, green, blue) - min(red, green, blue) <= 2
    assert 170 <= red <= 200  # L* = 75
    assert photo.notes == ()


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_converted_and_noted(format: str) -> None:
    """Inks take away their complements; nothing is inverted."""
    for inks, rgb in [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 0, 0, 0), (0, 255, 255))]:
        photo = decode(saved(Image.new("CMYK", (40, 40), inks), format, quality=100))
        assert np.abs(pixels(photo)[5, 5] - rgb).max() <= 2
        assert photo.notes == ("there is no colour profile, so CMYK was converted approximately",)


def test_a_broken_profile_is_ignored_and_noted() -> None:
    """Bytes that are no profile leave the numbers as they are."""
    photo = decode(saved(astronaut(), "PNG", icc_profile=b"not a profile" * 20))
    assert np.array_equal(pixels(photo), np.asarray(astronaut()))
    assert photo.icc is None
    assert photo.notes == ("the colour profile is damaged and was ignored",)


@pytest.mark.parametrize("space", ["LAB", "XYZ"])
def test_a_profile_for_other_pixels_is_ignored_and_noted(space: Any) -> None:
    """A profile whose colour space is not the picture's changes nothing."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
    photo = decode(saved(astronaut(), "PNG", icc_profile=icc))
    assert np.array_equal(pixels(photo), np.asarray(astronaut()))
    assert "was ignored" in photo.notes[0]


def test_a_profiles_name_is_printable() -> None:
    """Control characters in a profile's name do not reach logs or terminals."""
    icc = adobe_rgb_profile().replace(b"Made for a test", b"Made\x1b[31ma\x07test")
    assert decode(saved(astronaut(), "PNG", icc_profile=icc)).icc == "Made[31matest"


# --- modes


def ramp(dtype: type[np.generic], top: float) -> np.ndarray:
    return np.tile(np.linspace(0, top, 256), (40, 1)).astype(dtype)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_and_not_clipped(format: str) -> None:
    """0..65535 becomes 0..255."""
    photo = decode(saved(Image.fromarray(ramp(np.uint16, 65535)), format))
    assert np.array_equal(pixels(photo)[0, :, 0], np.arange(256))
    assert photo.notes == ()


def test_16_bit_gray_where_zero_is_white_is_inverted() -> None:
    """Scans that store ink instead of light do not come out as negatives."""
    image = Image.fromarray(ramp(np.uint16, 65535))
    photo = decode(saved(image, "TIFF", tiffinfo={262: 0}))
    assert np.array_equal(pixels(photo)[0, :, 0], np.arange(256)[::-1])


def test_big_endian_and_signed_16_bit_gray_are_read() -> None:
    """I;16B and I are scaled like I;16."""
    big = decode(saved(Image.fromarray(ramp(np.uint16, 65535).astype(">u2")), "TIFF"))
    assert np.array_equal(pixels(big)[0, :, 0], np.arange(256))
    wide = decode(saved(Image.fromarray(ramp(np.int32, 65535)), "TIFF"))
    assert np.array_equal(pixels(wide)[0, :, 0], np.arange(256))


def test_a_transparent_16_bit_level_is_placed_on_white() -> None:
    """A PNG may call one of its 65536 levels transparent."""
    levels = np.full((40, 40), 1000, np.uint16)
    levels[:, 20:] = 1001  # the same after scaling to 8 bits
    photo = decode(saved(Image.fromarray(levels), "PNG", transparency=1001))
    assert pixels(photo)[5, 5].tolist() == [4, 4, 4]
    assert pixels(photo)[5, 25].tolist() == [255, 255, 255]
    assert photo.notes == ("transparency was placed on white",)


def test_floating_point_gray_is_read() -> None:
    """Values in [0,1] are brightness; others are stretched, which is noted."""
    unit = decode(saved(Image.fromarray(ramp(np.float32, 1)), "TIFF"))
    assert np.array_equal(pixels(unit)[0, :, 0], np.arange(256))
    assert unit.notes == ()
    values = ramp(np.float32, 3000) - 1000
    values[1, 0] = np.nan
    other = decode(saved(Image.fromarray(values), "TIFF"))
    assert np.array_equal(pixels(other)[0, :, 0], np.arange(256))
    assert other.notes == ("brightness values from -1000 to 2000 were stretched to 8 bits",)


def test_wide_integers_are_stretched_and_noted() -> None:
    """32-bit integers beyond 16 bits have no known white."""
    photo = decode(saved(Image.fromarray(ramp(np.int32, 1e6)), "TIFF"))
    assert pixels(photo)[0, [0, 255], 0].tolist() == [0, 255]
    assert "stretched" in photo.notes[0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr", "LAB"])
def test_opaque_modes_keep_their_colours(mode: str) -> None:
    """Every mode without transparency shows the same picture."""
    image = astronaut().convert(mode)
    photo = decode(saved(image, "TIFF"))
    assert np.abs(pixels(photo) - np.asarray(image.convert("RGB")).astype(int)).max() <= 3
    assert photo.notes == ()


def test_two_colours_are_black_and_white() -> None:
    """1-bit pixels become 0 and 255."""
    photo = decode(saved(astronaut().convert("1"), "PNG"))
    assert set(np.unique(pixels(photo))) == {0, 255}


@pytest.mark.parametrize(("mode", "format"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
def test_transparency_is_placed_on_white(mode: str, format: str) -> None:
    """Half-transparent black is middle gray, fully transparent is white."""
    image = Image.new(mode, (64, 40), (0, 0, 0, 128)[: 4 if mode == "RGBA" else 2])
    image.putalpha(
        Image.fromarray(np.repeat([[0, 128]], 32, axis=1).astype(np.uint8).repeat(40, 0))
    )
    photo = decode(saved(image, format, **EXACT.get(format, {})))
    assert pixels(photo)[5, 5].tolist() == [255] * 3
    assert np.abs(pixels(photo)[5, 40] - 127).max() <= 1
    assert photo.notes == ("transparency was placed on white",)


def test_an_opaque_alpha_channel_is_nothing_to_note() -> None:
    """Only transparency that shows is reported."""
    assert decode(saved(astronaut().convert("RGBA"), "PNG")).notes == ()


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_entries_are_white(transparency: int | bytes, format: str) -> None:
    """One index or a table of alphas: the entry shows white."""
    image = Image.new("P", (64, 40))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (32, 0, 64, 40))
    photo = decode(saved(image, format, transparency=1 if format == "GIF" else transparency))
    assert pixels(photo)[5, 5].tolist() == [200, 0, 0]
    assert pixels(photo)[5, 40].tolist() == [255] * 3
    assert photo.notes == ("transparency was placed on white",)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "MPO"])
def test_only_the_first_frame_is_used_and_noted(format: str) -> None:
    """An animation, or a JPEG with several pictures, gives its first one."""
    frames = [Image.new("RGB", (40, 40), (80 * n, 0, 0)) for n in range(3)]
    photo = decode(saved(frames[0], format, save_all=True, append_images=frames[1:]))
    assert pixels(photo).max() <= 2
    assert photo.notes == ("only the first of 3 frames was used",)
    assert photo.format == {"MPO": "jpeg"}.get(format, format.lower())


def test_only_the_first_page_of_a_tiff_is_used_and_noted() -> None:
    """A TIFF with several pages gives its first one."""
    frames = [Image.new("RGB", (40, 40), (80 * n, 0, 0)) for n in range(3)]
    photo = decode(saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    assert pixels(photo).max() == 0
    assert photo.notes == ("only the first of several pages was used",)


def test_a_photo_carries_no_metadata_of_its_file() -> None:
    """Profiles and EXIF data do not travel on with the pixels."""
    data = saved(astronaut(), "JPEG", icc_profile=adobe_rgb_profile(), comment=b"private")
    assert decode(data).image.info == {}


# --- tensors


def test_the_tensor_at_its_own_size_is_the_pixels() -> None:
    """1x3xHxW float32 in [0,1], with no resampling."""
    tensor = decode(saved(astronaut(), "PNG")).tensor(96, 64)
    assert tensor.shape == (1, 3, 64, 96)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    expected = torch.from_numpy(np.asarray(astronaut()).copy()).permute(2, 0, 1)[None] / 255
    assert torch.equal(tensor, expected)


@pytest.mark.parametrize(("width", "height"), [(24, 16), (300, 200), (200, 20), (30, 90)])
def test_the_tensor_has_the_size_that_was_asked_for(width: int, height: int) -> None:
    """Smaller, larger and both at once keep the mean brightness and the range."""
    photo = decode(saved(astronaut(), "PNG"))
    tensor = photo.tensor(width, height)
    assert tensor.shape == (1, 3, height, width)
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    assert abs(tensor.mean() - photo.tensor(96, 64).mean()) < 0.02


def test_a_tensor_without_pixels_is_refused() -> None:
    """A side below 1 is a ValueError."""
    with pytest.raises(ValueError, match="0 x 10 pixels"):
        decode(saved(astronaut(), "PNG")).tensor(0, 10)


def test_values_are_rounded_and_clamped() -> None:
    """Each value goes to the nearest of 256 levels, and none wraps around."""
    values = torch.tensor([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 7.0])
    image = to_image(values.expand(1, 3, 1, 6))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_pictures(dtype: torch.dtype) -> None:
    """Half and double precision give the same black and white, from a graph as well."""
    tensor = torch.eye(40, dtype=dtype).expand(1, 3, 40, 40).clone().requires_grad_()
    assert np.array_equal(np.asarray(to_image(tensor))[..., 1], np.eye(40) * 255)


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
        to_image(tensor)


# --- encoding

FORMATS = ["jpeg", "png", "tiff", "webp", "bmp", "gif", pytest.param("avif", marks=needs_avif)]


def content() -> torch.Tensor:
    return decode(saved(astronaut(), "PNG")).tensor(96, 64)


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

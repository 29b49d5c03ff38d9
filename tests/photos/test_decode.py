"""Decoding: size limits, decompression bombs, frames and threads."""

from __future__ import annotations

import struct
import threading
import tracemalloc
import warnings
import zlib

import pytest
from PIL import Image

from styled.degradation import Degradation
from styled.errors import InputRejected
from styled.photos import decode_photo
from tests.photos.icc import adobe_rgb_profile
from tests.photos.samples import CUTTABLE, astronaut, pixels, png_chunk, png_header, saved


def test_damage_inside_a_whole_file_is_rejected_with_the_cause() -> None:
    """A wrong checksum is damage; the file is not taken for incomplete."""
    data = bytearray(saved(astronaut(), "PNG"))
    data[30] ^= 0xFF  # in the header's checksum
    with pytest.raises(InputRejected, match=r"is damaged: .*checksum"):
        decode_photo(bytes(data))


def test_an_unknown_compression_is_rejected_in_words() -> None:
    """A bare number in Pillow's exception becomes part of a sentence."""
    data = saved(astronaut(), "TIFF")
    field = struct.pack("<HHI", 259, 3, 1)
    at = data.index(field) + len(field)
    with pytest.raises(InputRejected, match="it holds the unknown value 777"):
        decode_photo(data[:at] + struct.pack("<H", 777) + data[at + 2 :])


def test_an_edge_under_32_pixels_is_rejected() -> None:
    """32 pixels are enough, 31 are not."""
    assert decode_photo(saved(astronaut(32, 40), "PNG")).width == 32
    with pytest.raises(InputRejected, match="31 x 40"):
        decode_photo(saved(astronaut(31, 40), "PNG"))


@pytest.mark.parametrize(
    "rest", [b"", png_chunk(b"IDAT", bytes(99)), png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")]
)
def test_a_bomb_is_known_from_its_header(rest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """60000 x 60000 pixels are refused before any memory is reserved for them."""
    monkeypatch.setattr("PIL.Image.core.new", lambda *_: pytest.fail("pixels were decoded"))
    tracemalloc.start()
    try:
        with pytest.raises(InputRejected) as caught:
            decode_photo(png_header(60000, 60000) + rest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    for part in ("60000 x 60000", "200000000", "intake.max_pixels"):
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", CUTTABLE)
def test_the_limit_holds_for_every_format(kind: str) -> None:
    """An image of exactly the limit is read; with a limit of one pixel less it is refused."""
    data = saved(astronaut(), **CUTTABLE[kind])
    assert decode_photo(data, max_pixels=96 * 64).width == 96
    with pytest.raises(InputRejected, match=r"96 x 64 pixels; the limit is 6143"):
        decode_photo(data, max_pixels=96 * 64 - 1)


@pytest.mark.parametrize("kind", CUTTABLE)
def test_pillows_own_limit_does_not_get_in_the_way(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configured limit applies, and Pillow's is restored afterwards."""
    data = saved(astronaut(), **CUTTABLE[kind])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_photo(data, max_pixels=10_000).width == 96
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_with_different_limits_do_not_disturb_each_other() -> None:
    """Each call applies its own limit, and the process-wide settings are restored."""
    data = saved(astronaut(), "PNG")
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    wrong: list[str] = []

    def work(max_pixels: int, accepted: bool) -> None:
        for _ in range(20):
            try:
                decode_photo(data, max_pixels=max_pixels)
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
def test_a_bomb_inside_a_text_or_profile_is_left_out(kind: bytes) -> None:
    """A few kilobytes that would unpack to 64 MiB are not unpacked; the photo is painted."""
    packed = zlib.compress(bytes(64 * 1024**2))
    content = b"Title\0\1\0\0\0" + packed if kind == b"iTXt" else b"Title\0\0" + packed
    data = saved(astronaut(), "PNG")
    data = data[:33] + png_chunk(kind, content) + data[33:]
    tracemalloc.start()
    try:
        photo = decode_photo(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1024**2
    assert [note.kind for note in photo.degraded] == ["color" if kind == b"iCCP" else "metadata"]


def test_pillows_warnings_stay_inside() -> None:
    """A JPEG with a malformed multi-picture index is read as a plain JPEG, without warnings."""
    data = saved(astronaut(), "JPEG")
    segment = b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0"
    data = data[:2] + b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_photo(data).format == "jpeg"


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "MPO"])
def test_only_the_first_frame_is_used_and_noted(format: str) -> None:
    """The first frame of an animation, or of a JPEG with several images, is used."""
    frames = [Image.new("RGB", (40, 40), (80 * n, 0, 0)) for n in range(3)]
    photo = decode_photo(saved(frames[0], format, save_all=True, append_images=frames[1:]))
    assert pixels(photo).max() <= 2
    assert photo.degraded == (Degradation("frames", "only the first of 3 frames was used"),)
    assert photo.format == {"MPO": "jpeg"}.get(format, format.lower())


def test_only_the_first_page_of_a_tiff_is_used_and_noted() -> None:
    """The first page of a TIFF with several pages is used."""
    frames = [Image.new("RGB", (40, 40), (80 * n, 0, 0)) for n in range(3)]
    photo = decode_photo(saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    assert pixels(photo).max() == 0
    assert photo.degraded == (Degradation("frames", "only the first of several pages was used"),)


def test_a_photo_carries_no_metadata_of_its_file() -> None:
    """Profiles and EXIF data are not attached to the decoded image."""
    data = saved(astronaut(), "JPEG", icc_profile=adobe_rgb_profile(), comment=b"private")
    assert decode_photo(data).image.info == {}

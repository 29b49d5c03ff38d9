"""Random and damaged files: decoding raises nothing but a refusal."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from styled.degradation import Degradation
from styled.errors import InputRejected
from styled.photos import ExportOptions, decode_photo, export_image
from styled.photos.output_image import OutputImage
from styled.photos.tiff import save_tiff
from tests.photos.icc import adobe_rgb_profile, cmyk_profile
from tests.photos.samples import CUTTABLE, REFUSALS, astronaut, deep_png, png_chunk, saved


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"", *(b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0")])
)
def test_random_bytes_are_only_ever_refused(data: bytes, magic: bytes) -> None:
    """Random bytes are always refused, with or without magic bytes."""
    with pytest.raises(REFUSALS):
        decode_photo(magic + data)


def exif_with_everything() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x9C9B] = 6, "A camera", "Titel".encode("utf-16-le")
    exif[0x8769] = {0x9003: "2026:01:01 00:00:00", 0x829A: 0.004, 0x927C: b"note" * 9}
    exif[0x8825] = {0: b"\2\3\0\0", 1: "N", 2: (48.0, 8.0, 0.0)}
    return exif


VALID = [saved(astronaut(40, 36), **options) for options in CUTTABLE.values()] + [
    saved(astronaut(40, 36), "PNG", icc_profile=adobe_rgb_profile()),
    saved(astronaut(40, 36).convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
    saved(astronaut(40, 36).quantize(16), "PNG", transparency=b"\0\x80\xff"),
    saved(astronaut(40, 36), "GIF", save_all=True, append_images=[astronaut(40, 36).rotate(9)]),
    saved(astronaut(40, 36), "WEBP", save_all=True, append_images=[astronaut(40, 36).rotate(9)]),
    *([saved(astronaut(40, 36), "AVIF")] if features.check("avif") else []),
]


# Images with more than 8-bit colours: 16 bits, alpha, profiles, metadata.
LEVELS = np.arange(40 * 36 * 4, dtype=np.uint16).reshape(36, 40, 4) * 11
VALID += [
    deep_png(LEVELS[..., :1]),
    deep_png(LEVELS[..., :2]),
    deep_png(LEVELS[..., :3], adobe_rgb_profile()),
    deep_png(LEVELS),
    save_tiff(OutputImage(LEVELS[..., :3], "RGB", adobe_rgb_profile())),
    save_tiff(OutputImage(LEVELS, "RGBA")),
    saved(astronaut(40, 36), "JPEG", exif=exif_with_everything(), xmp=b"<x/>", dpi=(72, 72)),
    saved(astronaut(40, 36), "TIFF", exif=exif_with_everything(), tiffinfo={33723: b"\x1c\2"}),
    saved(astronaut(40, 36), "PNG", exif=exif_with_everything()),
]
EXPORT_OPTIONS = [
    ExportOptions(),
    ExportOptions(metadata="strip", bits=16),
    ExportOptions(color="input", grayscale="keep"),
    ExportOptions(color="input", bits=16),
]


def decode_own(data: bytes) -> tuple[int, int]:
    with Image.open(BytesIO(data)) as image:
        image.load()
        return image.size


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Flipped bytes in a valid file never raise anything but a refusal."""
    damaged = bytearray(data.draw(st.sampled_from(VALID)))
    # Most structure is near the start.
    max_position = data.draw(st.sampled_from([64, 700, len(damaged)]))
    for position, value in data.draw(
        st.lists(
            st.tuples(st.integers(0, max_position - 1), st.integers(0, 255)), min_size=1, max_size=6
        )
    ):
        damaged[position % len(damaged)] = value
    try:
        photo = decode_photo(bytes(damaged), max_pixels=1_000_000)
    except REFUSALS:
        return
    assert photo.image.mode == "RGB"
    assert photo.image.size == (photo.width, photo.height)
    if photo.alpha is not None:
        assert photo.alpha.size == photo.image.size
    if photo.deep is not None:
        channels = 3 if photo.alpha is None else 4
        assert photo.deep.shape == (photo.height, photo.width, channels)
    tensor = photo.tensor(24, 20)
    format = data.draw(st.sampled_from(["jpeg", "png", "tiff", "webp", "bmp", "gif"]))
    options = data.draw(st.sampled_from(EXPORT_OPTIONS))
    assert decode_own(export_image(tensor[:, :3], photo, format, options).data) == (24, 20)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), RecursionError("deep"), AssertionError(), zlib.error("z")],
)
def test_whatever_pillow_raises_becomes_a_refusal_with_a_cause(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any exception of the decoder becomes an InputRejected with a cause."""

    def fail(*_: object) -> None:
        raise error

    data = saved(astronaut(), "BMP")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(InputRejected, match=r"can't be decoded as BMP: .+"):
        decode_photo(data)


# --- EXIF data


def jpeg_with_exif(payload: bytes) -> bytes:
    """Return a JPEG with an EXIF segment of any content."""
    plain = saved(astronaut(40, 36), "JPEG")
    content = (b"Exif\0\0" + payload)[:65_000]
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + plain[2:]


def decode_and_export(data: bytes) -> None:
    """Decode a file, and export it in several formats; only a refusal may be raised."""
    try:
        photo = decode_photo(data)
    except REFUSALS:
        return
    for format in ("jpeg", "png", "tiff", "webp"):
        exported = export_image(photo.tensor(24, 20)[:, :3], photo, format, ExportOptions())
        assert decode_own(exported.data) == (24, 20)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_noise_for_exif_data_never_stops_a_photo(noise: bytes, header: bytes) -> None:
    """With any EXIF data, a JPEG is refused, or decoded and can be exported."""
    decode_and_export(jpeg_with_exif(header + noise))


TAGS = [0x010E, 0x010F, 0x0112, 0x011A, 0x0131, 0x013B, 0x8298, 0x8769, 0x8825, 0x9286, 0x927C,
        0xA002, 0xA005, 0x9C9B, 0x4746, 0x02BC, 0x83BB, 0x0001, 0x0002, 0x829A, 0xA432]  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from("<>"),
    st.lists(
        st.tuples(
            st.sampled_from(TAGS) | st.integers(0, 65535),
            st.integers(0, 14),
            st.sampled_from([0, 1, 2, 4, 17, 65535, 2**31, 2**32 - 1]),
            # Offsets to the header, to the directory itself, into its entries, beyond the end.
            st.sampled_from([0, 1, 6, 8, 10, 26, 38, 80, 2**31, 2**32 - 1])
            | st.binary(min_size=4, max_size=4),
        ),
        max_size=12,
    ),
    st.binary(max_size=60),
)
def test_exif_directories_of_any_entries_never_stop_a_photo(
    order: str, entries: list[tuple[int, int, int, int | bytes]], rest: bytes
) -> None:
    """Wrong types, huge counts and directories that refer to themselves do no harm."""
    payload = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        payload += struct.pack(order + "HHI", tag, kind, count)
        payload += value if isinstance(value, bytes) else struct.pack(order + "I", value)
    decode_and_export(jpeg_with_exif(payload + bytes(4) + rest))


def test_a_directory_that_leads_to_itself_ends() -> None:
    """EXIF and GPS directories at the offset of the main one are read once."""
    entries = struct.pack(">HHII", 0x8769, 4, 1, 8) + struct.pack(">HHII", 0x8825, 4, 1, 8)
    payload = b"MM\0*\0\0\0\x08\0\2" + entries + struct.pack(">I", 8)
    decode_and_export(jpeg_with_exif(payload))


def test_damaged_exif_is_noted_and_left_out() -> None:
    """The painting of a photo with unreadable EXIF data has none of it."""
    photo = decode_photo(jpeg_with_exif(b"nonsense"))
    assert photo.degraded == (Degradation("metadata", "the EXIF data is damaged and was left out"),)
    data = export_image(photo.tensor(40, 36), photo, "jpeg", ExportOptions()).data
    assert b"nonsense" not in data


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\niptc\n", b"\niptc\n 12\nzz", b"\niptc\n 12\n3842494d0404"),
        b"\niptc\n 4\n3842494d04040",
    ],
)
def test_damaged_iptc_in_a_png_is_passed_over(text: bytes) -> None:
    """A photo with invalid IPTC text is decoded without IPTC."""
    data = saved(astronaut(), "PNG")
    chunk = png_chunk(b"tEXt", b"Raw profile type iptc\0" + text)
    assert decode_photo(data[:33] + chunk + data[33:]).metadata.iptc == b""

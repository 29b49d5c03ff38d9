"""PNG: texts and profiles never cost the picture, in all forms that programs write them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from styled.photos import ExportOptions, decode_photo, export_image
from styled.photos.color import SRGB_PROFILE
from styled.photos.iptc import photoshop_resource
from styled.photos.png_chunks import has_all_pixels
from tests.photos.samples import (
    astronaut,
    converted,
    needs_convert,
    needs_exiftool,
    pixels,
    png_chunk,
    run,
    saved,
)

RECORDS = b"\x1c\x02\x05\0\5Title\x1c\x02\x74\0\x08(c) Test"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Label="Blue" xmp:Rating="4"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
EXIF = b"MM\0*\0\0\0\x08\0\1\1\x0f\0\2\0\0\0\x04Abc\0\0\0\0\0"


def png_with(*chunks: bytes) -> bytes:
    data = saved(astronaut(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def raw_profile(kind: str, content: bytes, *, packed: bool) -> bytes:
    """Return a text chunk as ImageMagick writes it: name, length, lines of hex digits."""
    digits = content.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = f"\n{kind}\n{len(content):8}\n{lines}\n".encode()
    key = f"Raw profile type {kind}\0".encode()
    return png_chunk(b"zTXt", key + b"\0" + zlib.compress(text)) if packed else png_chunk(
        b"tEXt", key + text
    )  # fmt: skip


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("iptc", RECORDS),
        ("iptc", photoshop_resource(RECORDS)),
        ("8bim", photoshop_resource(b"") + photoshop_resource(RECORDS)),
    ],
)
def test_iptc_in_all_its_forms(kind: str, content: bytes, packed: bool) -> None:
    """With Photoshop's resources around it and without."""
    if kind == "8bim":
        content = b"8BIM\4\x0b\0\0\0\0\0\2ab" + photoshop_resource(RECORDS)
    photo = decode_photo(png_with(raw_profile(kind, content, packed=packed)))
    assert photo.metadata.iptc == RECORDS
    assert photo.degraded == ()


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        png_chunk(b"tEXt", b"XML:com.adobe.xmp\0" + XMP),
        raw_profile("xmp", XMP, packed=True),
        raw_profile("APP1", b"http://ns.adobe.com/xap/1.0/\0" + XMP, packed=False),
    ],
    ids=["plain", "compressed", "text", "ImageMagick's", "APP1"],
)
def test_xmp_in_all_its_forms(chunk: bytes) -> None:
    """As the specification has it, and as ImageMagick and exiftool write it."""
    assert decode_photo(png_with(chunk)).metadata.xmp == XMP


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", EXIF),
        raw_profile("exif", b"Exif\0\0" + EXIF, packed=True),
        raw_profile("APP1", b"Exif\0\0" + EXIF, packed=True),
    ],
)
def test_exif_in_all_its_forms(chunk: bytes) -> None:
    """In its own chunk and as text."""
    assert decode_photo(png_with(chunk)).metadata.exif.image[271].data == b"Abc\0"


@needs_convert
@needs_exiftool
def test_imagemagicks_png_keeps_its_metadata(tmp_path: Path) -> None:
    """A JPEG with XMP and IPTC that ImageMagick turned into a PNG, painted."""
    source = tmp_path / "a.jpg"
    source.write_bytes(saved(astronaut(), "JPEG", xmp=XMP))
    run("exiftool", "-q", "-overwrite_original", "-IPTC:ObjectName=Title", source)
    photo = decode_photo(converted(source, tmp_path / "a.png"))
    exported = export_image(torch.rand(1, 3, 48, 48), photo, "png", ExportOptions())
    (tmp_path / "b.png").write_bytes(exported.data)
    tags = run("exiftool", "-s3", "-XMP:Label", "-XMP:Rating", "-IPTC:ObjectName",
               tmp_path / "b.png")  # fmt: skip
    assert tags.split() == ["Blue", "4", "Title"]


@pytest.mark.parametrize(
    ("chunk", "kinds"),
    [
        (png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000)), []),
        (png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 20_000_000)), ["metadata"]),
        (png_chunk(b"zTXt", b"Comment\0\0not compressed"), ["metadata"]),
        (png_chunk(b"iTXt", b"Comment\0\1\0\0\0not compressed"), ["metadata"]),
        (png_chunk(b"tEXt", b"no separator"), []),
        (png_chunk(b"tEXt", b""), []),
        (png_chunk(b"eXIf", b"nonsense"), ["metadata"]),
        (png_chunk(b"iCCP", b"name\0\0nonsense"), ["color"]),
        (png_chunk(b"iCCP", b"name\0\0" + zlib.compress(b"x" * 20_000_000)), ["color"]),
        (png_chunk(b"pHYs", b"12"), []),
        (png_chunk(b"cICP", b""), []),
        (png_chunk(b"gAMA", b"1"), []),
        (png_chunk(b"cHRM", b"1"), []),
        (png_chunk(b"tIME", b"x" * 9) + png_chunk(b"bKGD", b"") + png_chunk(b"xxXx", b"?"), []),
    ],
)
def test_damaged_chunks_never_cost_the_picture(chunk: bytes, kinds: list[str]) -> None:
    """Oversized, damaged or odd chunks leave all pixels as they are."""
    photo = decode_photo(png_with(chunk))
    assert np.array_equal(pixels(photo), np.asarray(astronaut()))
    assert [note.kind for note in photo.degraded] == kinds


def test_a_profile_of_more_than_a_megabyte_is_used() -> None:
    """Profiles of printers have that size."""
    profile = SRGB_PROFILE + np.random.default_rng(1).bytes(1_400_000)
    photo = decode_photo(saved(astronaut(), "PNG", icc_profile=profile))
    assert photo.icc == "sRGB built-in"
    assert photo.degraded == ()


def test_texts_of_people_are_kept_in_a_png() -> None:
    """Title and author, in Latin-1 and beyond it; other formats say that they have none."""
    texts = (("Title", "Größe"), ("Author", "Ż"))
    latin = png_chunk(b"tEXt", b"Title\0Gr\xf6\xdfe")
    wide = png_chunk(b"iTXt", b"Author\0\0\0\0\0" + "Ż".encode())
    photo = decode_photo(png_with(latin, wide, png_chunk(b"tEXt", b"Software\0Another")))
    assert photo.metadata.texts == texts
    exported = export_image(torch.rand(1, 3, 48, 48), photo, "png", ExportOptions())
    assert decode_photo(exported.data).metadata.texts == texts
    exported = export_image(torch.rand(1, 3, 48, 48), photo, "jpeg", ExportOptions())
    assert [note.kind for note in exported.degraded] == ["metadata"]


def test_a_comment_of_a_jpeg_is_kept_in_a_jpeg() -> None:
    """Other formats say that they have none."""
    photo = decode_photo(saved(astronaut(), "JPEG", comment=b"A comment"))
    exported = export_image(torch.rand(1, 3, 48, 48), photo, "jpeg", ExportOptions())
    assert decode_photo(exported.data).metadata.comment == b"A comment"
    exported = export_image(torch.rand(1, 3, 48, 48), photo, "webp", ExportOptions())
    assert [note.message for note in exported.degraded] == [
        "the comment was left out: WEBP files have none"
    ]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1), (9, 7), (16, 16)])
def test_an_interlaced_png_has_all_its_passes(size: tuple[int, int]) -> None:
    """The last row of the last pass is missed, too; the passes are counted pixel by pixel."""
    width, height = size
    passes = np.array(
        [
            [1, 6, 4, 6, 2, 6, 4, 6],
            [7] * 8,
            [5, 6, 5, 6, 5, 6, 5, 6],
            [7] * 8,
            [3, 6, 4, 6, 3, 6, 4, 6],
            [7] * 8,
            [5, 6, 5, 6, 5, 6, 5, 6],
            [7] * 8,
        ]
    )  # the standard's figure, chapter 8.2
    pattern = np.tile(passes, (2, 2))[:height, :width]
    rows = [(pattern == number).sum(axis=1) for number in range(1, 8)]
    count = sum(int(columns + 1) for each in rows for columns in each if columns)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    for missing, is_whole in ((0, True), (1, False)):
        data = png_chunk(b"IDAT", zlib.compress(bytes(count - missing)))
        assert has_all_pixels(b"\x89PNG\r\n\x1a\n" + header + data) is is_whole

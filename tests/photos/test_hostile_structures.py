"""Structures of files that decoders mistake, or that cost more than they should."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from styled.errors import InputIncomplete, InputRejected
from styled.photos import ExportOptions, decode_photo, export_image
from styled.photos.raster import unpremultiplied
from styled.photos.tiff_tags import TiffReader

NOISE = (np.random.default_rng(0).random((64, 64, 3)) * 255).astype(np.uint8)
IMAGE = Image.fromarray(NOISE)


def encoded(format: str, **options: Any) -> bytes:
    """Return the picture as a file."""
    buffer = BytesIO()
    IMAGE.save(buffer, format, **options)
    return buffer.getvalue()


def tiff(*entries: tuple[int, int, int, bytes], content: bytes = b"") -> bytes:
    """Return a TIFF structure with one directory, whose entries have 4 bytes as value or offset.

    Content lies at byte 8.
    """
    directory = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    return head + content + struct.pack("<H", len(entries)) + directory + bytes(4)


def short(number: int) -> bytes:
    """Return the value of an entry of 16 bits."""
    return struct.pack("<HH", number, 0)


def long(number: int) -> bytes:
    """Return the value of an entry of 32 bits."""
    return struct.pack("<I", number)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def with_chunks(data: bytes, chunks: bytes) -> bytes:
    """Return a PNG with chunks after its header."""
    return data[:33] + chunks + data[33:]


def exported(data: bytes, format: str) -> bytes:
    """Return the file of a black painting of a photo."""
    photo = decode_photo(data)
    painting = torch.zeros(1, 3, photo.height, photo.width)
    return export_image(painting, photo, format, ExportOptions()).data


def xmp(*, depth: int = 0, text: str = "", attributes: str = "") -> bytes:
    """Return an XMP packet with an orientation and a property that is nested."""
    nested = "<a:b>" * depth + text + "</a:b>" * depth
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:a="http://a/"'
        ' xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
        f' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" {attributes}>{nested}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_of_jpeg_tiles_may_have_an_orientation(orientation: int) -> None:
    """Its directory stays sorted: libtiff's warning about that would be taken for damage."""
    buffer = BytesIO()
    IMAGE.crop((0, 0, 64, 32)).save(buffer, "TIFF", compression="jpeg", tiffinfo={274: orientation})
    photo = decode_photo(buffer.getvalue())
    assert (photo.width, photo.height) == ((64, 32) if orientation == 1 else (32, 64))


@pytest.mark.parametrize("format", ["tiff", "png", "jpeg"])
def test_no_pixels_of_a_small_tiff_get_into_the_painting(format: str) -> None:
    """Nor do they make its EXIF data too long."""
    data = encoded("TIFF", tiffinfo={315: "Somebody"})
    painting = exported(data, format)
    assert NOISE.tobytes()[1000:1200] not in painting
    assert Image.open(BytesIO(painting)).getexif()[315] == "Somebody"


def test_fields_that_share_bytes_cost_little_memory() -> None:
    """Thousands of fields may claim the same megabyte."""
    entries = [(1000 + n, 7, 1_000_000, struct.pack("<I", 100)) for n in range(4000)]
    data = encoded("PNG", exif=tiff(*entries).ljust(1_000_200, b"\1"))
    tracemalloc.start()
    try:
        decode_photo(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60_000_000


@pytest.mark.parametrize(
    "data",
    [
        b"II+\0\x08\0\0\0",
        tiff(
            (254, 11, 1, struct.pack("<f", float("inf"))),
            (256, 3, 1, struct.pack("<HH", 64, 0)),
            (257, 3, 1, struct.pack("<HH", 64, 0)),
        ),
    ],
    ids=["short BigTIFF", "infinity"],
)
def test_a_hostile_directory_is_rejected(data: bytes) -> None:
    """It raises no error of another kind."""
    with pytest.raises((InputRejected, InputIncomplete)):
        decode_photo(data)


def test_an_infinite_orientation_is_none() -> None:
    """Damaged metadata does not reject the photo."""
    entry = (274, 11, 1, struct.pack("<f", float("inf")))
    assert decode_photo(encoded("JPEG", exif=b"Exif\0\0" + tiff(entry))).orientation == 1


def test_deeply_nested_xmp_is_left_out() -> None:
    """It is damaged: no program writes it, and walking through it would exceed Python's stack."""
    photo = decode_photo(encoded("JPEG", xmp=xmp(depth=3000, text="Orientation")))
    assert [one.kind for one in photo.degraded] == ["metadata"]
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp(depth=3000, text="x" * 50_000).decode())
    assert exported(encoded("PNG", pnginfo=info), "jpeg")


def test_line_breaks_in_xmp_attributes_stay() -> None:
    """They are written as references, since parsers read them as blanks otherwise."""
    packet = xmp(attributes='tiff:Orientation="6" photoshop:Instructions="one&#xA;two&#x9;three"')
    painting = Image.open(BytesIO(exported(encoded("JPEG", xmp=packet), "jpeg")))
    assert b"one&#10;two&#9;three" in painting.info["xmp"]


def test_a_tiff_that_lacks_strips_is_damaged() -> None:
    """Decoders would show black in their place."""
    buffer = BytesIO()
    tifffile.imwrite(buffer, NOISE, photometric="rgb")
    data = bytearray(buffer.getvalue())
    reader = TiffReader(bytes(data))
    entry = reader.read(reader.first_offset).entries[257]
    struct.pack_into("<HII", data, entry + 2, 4, 1, 128)  # it says 128 rows and has 64
    with pytest.raises((InputRejected, InputIncomplete), match="missing"):
        decode_photo(bytes(data))


def tiled_tiff(tile_width: int, tile_height: int, content: bytes) -> bytes:
    """Return a TIFF of 64 x 64 grey pixels in a single tile."""
    packed = zlib.compress(content)
    return tiff(
        (256, 3, 1, short(64)), (257, 3, 1, short(64)), (258, 3, 1, short(8)),
        (259, 3, 1, short(8)), (262, 3, 1, short(1)), (277, 3, 1, short(1)),
        (322, 4, 1, long(tile_width)), (323, 4, 1, long(tile_height)), (324, 4, 1, long(8)),
        (325, 4, 1, long(len(packed))), content=packed,
    )  # fmt: skip


@pytest.mark.parametrize("size", [(32752, 65520), (4096, 4112)])
def test_a_tiff_with_tiles_that_are_far_too_large_is_rejected_at_once(
    size: tuple[int, int],
) -> None:
    """Decoders make room for a whole tile."""
    with pytest.raises(InputRejected, match=f"{size[0]} x {size[1]}"):
        decode_photo(tiled_tiff(*size, bytes(4096)))


def test_tiles_of_16_megapixels_may_be_larger_than_the_picture() -> None:
    """Some programs write tiles of one size for all pictures."""
    photo = decode_photo(tiled_tiff(4096, 4096, bytes([77]) * 4096**2))
    assert (photo.width, photo.height) == (64, 64)
    assert (np.asarray(photo.image) == 77).all()


@pytest.mark.parametrize(("thumbnail", "picture"), [(None, 6), (6, 1), (6, None)])
def test_the_orientation_is_that_of_the_painted_page(
    thumbnail: int | None, picture: int | None
) -> None:
    """A thumbnail's is used only if the picture has none."""
    wide, buffer = NOISE[:48], BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for pixels, orientation, kind in ((wide[::2, ::2], thumbnail, 1), (wide, picture, 0)):
            tags = [] if orientation is None else [(274, "H", 1, orientation, True)]
            writer.write(pixels, photometric="rgb", subfiletype=kind, extratags=tags)
    photo = decode_photo(buffer.getvalue())
    is_turned = (picture or thumbnail) == 6
    assert (photo.width, photo.height) == ((48, 64) if is_turned else (64, 48))


@pytest.mark.parametrize("kind", [b"sRGB", b"gAMA"])
def test_a_png_that_names_srgb_is_not_adobe_rgb(kind: bytes) -> None:
    """What a converter writes counts more than the camera's EXIF data, which it has copied."""
    exif = Image.Exif()
    exif.get_ifd(34665)[40961] = 65535
    exif.get_ifd(34665)[40965] = {1: "R03"}
    content = b"\0" if kind == b"sRGB" else struct.pack(">I", 45455)
    data = with_chunks(encoded("PNG", exif=exif.tobytes()), chunk(kind, content))
    assert np.array_equal(np.asarray(decode_photo(data).image), NOISE)


@pytest.mark.parametrize(("bits", "level"), [(2, 2), (4, 5), (8, 77)])
def test_the_transparent_level_of_a_grey_png_is_scaled_like_its_levels(
    bits: int, level: int
) -> None:
    """Levels of 2 and 4 bits are widened to 8."""
    first = bytes([level << (8 - bits)])  # the first pixel; all others are 0
    row = b"\0" + first + bytes(64 * bits // 8 - 1)
    header = struct.pack(">IIBBBBB", 64, 64, bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", header), chunk(b"tRNS", struct.pack(">H", level)),
            chunk(b"IDAT", zlib.compress(row * 64)), chunk(b"IEND", b""),
        )
    )  # fmt: skip
    photo = decode_photo(data)
    assert photo.alpha is not None
    alpha = np.asarray(photo.alpha)
    assert not alpha[:, 0].any()
    assert alpha[:, 1:].all()


def test_thousands_of_photoshop_segments_take_no_quadratic_time() -> None:
    """They are joined once."""
    content = b"Photoshop 3.0\0" + b"8BIM\x03\xe8\0\0" + struct.pack(">I", 1000) + bytes(1000)
    segment = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
    data = encoded("JPEG")
    times = []
    for count in (2_000, 16_000):
        start = time.process_time()
        decode_photo(data[:2] + segment * count + data[2:])
        times.append(time.process_time() - start)
    assert times[1] < 30 * max(times[0], 0.02)


def test_texts_that_are_too_long_cost_no_more_than_their_budget() -> None:
    """Each unpacks to more than is accepted; together they would take minutes."""
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes((8 << 20) + 10), 9))
    start = time.process_time()
    photo = decode_photo(with_chunks(encoded("PNG"), text * 400))
    assert time.process_time() - start < 3
    assert [one.kind for one in photo.degraded] == ["metadata"]


def test_a_jpeg_xl_that_was_a_jpeg_is_upright() -> None:
    """The decoder restores the JPEG file, and does not turn it."""
    pytest.importorskip("pillow_jxl")
    exif = Image.Exif()
    exif[274] = 6
    wide = IMAGE.crop((0, 0, 64, 32))
    buffer = BytesIO()
    wide.save(buffer, "JPEG", exif=exif.tobytes())
    encoder = __import__("pillow_jxl").Encoder(
        mode="RGB", lossless=True, quality=1.0, decoding_speed=0, effort=3, use_container=True,
        use_original_profile=False,
    )  # fmt: skip
    data = bytes(encoder(buffer.getvalue(), 64, 32, jpeg_encode=True))
    photo = decode_photo(data)
    assert (photo.width, photo.height) == (32, 64)


@pytest.mark.parametrize("bits", [8, 16])
def test_lab_has_its_opacity(bits: int) -> None:
    """libvips hands it out as signed numbers."""
    levels = np.zeros((64, 64, 4), np.uint8 if bits == 8 else np.uint16)
    levels[..., 0] = 2 ** (bits - 1)
    levels[:32, :, 3] = 2**bits - 1
    levels[32:, :, 3] = 2 ** (bits - 1)
    buffer = BytesIO()
    tifffile.imwrite(buffer, levels, photometric="cielab", extrasamples=["unassalpha"])
    alpha = np.asarray(decode_photo(buffer.getvalue()).alpha).astype(float)
    assert alpha[:32].min() == alpha.max()
    assert alpha[32:].max() / alpha.max() == pytest.approx(0.5, abs=0.01)


def test_premultiplied_colours_are_divided_by_their_opacity() -> None:
    """Where nothing is opaque, no colour is known."""
    alpha = np.array([[65535, 32768, 0, 6554]], np.uint16)
    colors = np.full((1, 4, 3), 40_000, np.uint16)
    premultiplied = (colors * (alpha[..., None] / 65535) + 0.5).astype(np.uint16)
    restored = unpremultiplied(premultiplied, alpha).astype(int)
    assert np.abs(restored - [[[40_000], [40_000], [0], [40_000]]]).max() <= 5


def test_signed_levels_are_stretched() -> None:
    """The lowest is black, not in the middle."""
    levels = np.tile(np.linspace(-128, 127, 64).astype(np.int8), (64, 1))
    buffer = BytesIO()
    tifffile.imwrite(buffer, levels, photometric="minisblack")
    photo = decode_photo(buffer.getvalue())
    row = photo.tensor(64, 64, "lanczos")[0, 0, 0]
    assert (row.diff() >= 0).all()
    assert (float(row[0]), float(row[-1])) == (0.0, 1.0)
    assert [one.kind for one in photo.degraded] == ["bits"]


@pytest.mark.parametrize("bits", [8, 10])
def test_colours_of_an_avif_that_are_premultiplied(tmp_path: Path, bits: int) -> None:
    """They are what they were before, also with more than 8 bits."""
    if shutil.which("avifenc") is None:
        pytest.skip("avifenc is not installed")
    Image.new("RGBA", (64, 64), (187, 176, 169, 128)).save(tmp_path / "a.png")
    command = ["avifenc", "-d", str(bits), "--premultiply", "--min", "0", "--max", "4", "-s", "9"]
    subprocess.run([*command, tmp_path / "a.png", tmp_path / "a.avif"], check=True, timeout=60,
                   capture_output=True)  # fmt: skip
    pixel = decode_photo((tmp_path / "a.avif").read_bytes()).tensor(64, 64, "lanczos")[0, :, 9, 9]
    assert (pixel * 255).tolist() == pytest.approx([187, 176, 169, 128], abs=3)


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_channel_of_unknown_use_is_no_opacity(dtype: type, layout: str) -> None:
    """However the channels are laid out."""
    levels: NDArray[Any] = np.full((64, 64, 4), 200, dtype)
    levels[..., 3] = 9
    if layout == "separate":
        levels = np.moveaxis(levels, 2, 0)
    buffer = BytesIO()
    tifffile.imwrite(buffer, levels, photometric="rgb", extrasamples=["unspecified"],
                     planarconfig=layout)  # fmt: skip
    assert decode_photo(buffer.getvalue()).alpha is None

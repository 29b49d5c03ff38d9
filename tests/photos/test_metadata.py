"""Metadata of a photo is copied to its painting, as exiftool reads it."""

from __future__ import annotations

import functools
import json
import tempfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from styled import __version__
from styled.degradation import Degradation
from styled.photos import ExportOptions, Photo, decode_photo, export_image
from styled.photos.metadata import Metadata
from tests.photos.samples import (
    astronaut,
    decoded,
    needs_avif,
    needs_exiftool,
    own_tensor,
    png_chunk,
    run,
    saved,
)

KEEP = ExportOptions()
STRIP = ExportOptions(metadata="strip")

WITH_EXIF = [
    *("jpeg", "png", "tiff", "webp", "heic"),
    pytest.param("avif", marks=needs_avif),
]

EXIF = {
    "IFD0:Make": "Nikon",
    "IFD0:Model": "D850",
    "IFD0:Artist": "Jörg Müller",
    "IFD0:Copyright": "© 2026 Jörg Müller",
    "IFD0:ImageDescription": "Ein schöner Berg",
    "IFD0:ModifyDate": "2026:02:03 10:11:12",
    "IFD0:XPTitle": "Größe",
    "IFD0:Rating": 4,
    "ExifIFD:ExposureTime": "1/250",
    "ExifIFD:FNumber": 2.8,
    "ExifIFD:ISO": 400,
    "ExifIFD:ExposureCompensation": "-1/3",
    "ExifIFD:FocalLength": "50.0 mm",
    "ExifIFD:LensModel": "50mm f/1.8",
    "ExifIFD:LensInfo": "18-200mm f/?",
    "ExifIFD:DateTimeOriginal": "2026:01:02 03:04:05",
    "ExifIFD:OffsetTimeOriginal": "+02:00",
    "ExifIFD:SubSecTimeOriginal": 12,
    "ExifIFD:UserComment": "Grüße",
    "ExifIFD:ExifVersion": "0232",
    "ExifIFD:SceneType": "Directly photographed",
}
GPS = {
    "GPS:GPSLatitude": 48.1372,
    "GPS:GPSLatitudeRef": "North",
    "GPS:GPSLongitude": 11.5755,
    "GPS:GPSLongitudeRef": "East",
    "GPS:GPSAltitude": "520 m",
    "GPS:GPSDateStamp": "2026:01:02",
    "GPS:GPSProcessingMethod": "GPS",
    "GPS:GPSMapDatum": "WGS-84",
}
XMP = {
    "XMP-dc:Title": "Über den Wolken",
    "XMP-xmp:Label": "Rot",
}
IPTC = {
    "IPTC:Keywords": ["Berg", "See"],
    "IPTC:By-line": "Jörg Müller",
    "IPTC:CopyrightNotice": "© 2026 Jörg Müller",
    "IPTC:Caption-Abstract": "Ein schöner Berg",
}
NUMBERS = ("GPS:GPSLatitude", "GPS:GPSLongitude")


def read_by_exiftool(data: bytes, folder: Path) -> dict[str, Any]:
    """Return the tags that exiftool reads in a file, by group and name."""
    path = folder / "told"
    path.write_bytes(data)
    output = run("exiftool", "-j", "-G1", "-a", "-c", "%+.4f", "-IPTC:all", "-all", path)
    tags: dict[str, Any] = json.loads(output)[0]
    return tags


def select(tags: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Return the tags that are expected; degrees are converted to numbers."""
    selected = {name: tags.get(name) for name in expected}
    for name in set(NUMBERS) & set(selected):
        selected[name] = abs(float(str(selected[name]).split()[0]))
    return selected


@functools.cache
def with_metadata(format: str) -> bytes:
    """Return a file in a format, with all metadata written by exiftool."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"photo.{format}"
        path.write_bytes(saved(astronaut(), format.upper(), dpi=(300, 240)))
        (folder / "thumbnail.jpg").write_bytes(saved(astronaut(32, 32), "JPEG"))
        values = [
            f"-{key}={item}"
            for key, value in (EXIF | GPS | XMP | IPTC).items()
            for item in (value if isinstance(value, list) else [value])
        ]
        options = ["-IPTC:CodedCharacterSet=UTF8", "-InteropIFD:InteropIndex=R98"]
        options += ["-IFD0:Software=Another program", "-IFD0:Orientation#=6"]
        options += ["-ExifIFD:ColorSpace#=65535", "-ExifIFD:ExifImageWidth=4711"]
        if format == "jpeg":
            options += [f"-ThumbnailImage<={folder / 'thumbnail.jpg'}"]
        run("exiftool", "-q", "-m", "-overwrite_original", *values, *options, path)
        return path.read_bytes()


def export_painting(
    photo: Photo, format: str, options: ExportOptions = KEEP
) -> tuple[bytes, tuple[Degradation, ...]]:
    """Export a painting of half the photo's size; return its file and its degradations."""
    exported = export_image(torch.rand(1, 3, 48, 32), photo, format, options)
    return exported.data, exported.degraded


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
@pytest.mark.parametrize("source", ["jpeg", "png", "tiff"])
def test_exif_gps_and_xmp_go_over(source: str, target: str, tmp_path: Path) -> None:
    """Camera, author, rights, exposure, dates, place and title are in the painting's file."""
    photo = decode_photo(with_metadata(source))
    assert photo.orientation == 6
    data, degraded = export_painting(photo, target)
    tags, expected = read_by_exiftool(data, tmp_path), EXIF | GPS | XMP
    assert select(tags, expected) == expected
    without_iptc = target in ("webp", "avif", "heic")
    message = f"IPTC data was left out: {target.upper()} files have none"
    assert degraded == ((Degradation("metadata", message),) if without_iptc else ())


@needs_exiftool
@pytest.mark.parametrize("target", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("source", ["jpeg", "png", "tiff"])
def test_iptc_goes_over(source: str, target: str, tmp_path: Path) -> None:
    """Keywords, author and rights are in each format that supports IPTC."""
    data, _ = export_painting(decode_photo(with_metadata(source)), target)
    assert select(read_by_exiftool(data, tmp_path), IPTC) == IPTC


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
def test_metadata_about_pixels_is_that_of_the_painting(target: str, tmp_path: Path) -> None:
    """Size, colour space, orientation and program are the painting's; there is no thumbnail."""
    data, _ = export_painting(decode_photo(with_metadata("jpeg")), target)
    tags = read_by_exiftool(data, tmp_path)
    assert tags["ExifIFD:ExifImageWidth"] == 32
    assert tags["ExifIFD:ExifImageHeight"] == 48
    assert tags["ExifIFD:ColorSpace"] == "sRGB"
    assert tags["IFD0:Software"] == f"styled {__version__}"
    assert tags.get("IFD0:Orientation", "Horizontal (normal)") == "Horizontal (normal)"
    assert not [name for name in tags if "Thumbnail" in name or name.startswith("IFD1")]
    assert str(tags["InteropIFD:InteropIndex"]).startswith("R98")  # sRGB


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
@pytest.mark.parametrize("source", ["jpeg", "tiff"])
def test_the_exif_directories_are_well_formed(source: str, target: str, tmp_path: Path) -> None:
    """exiftool reports no error in offsets, types or order that the photo did not have."""
    (tmp_path / "a").write_bytes(export_painting(decode_photo(with_metadata(source)), target)[0])
    output = run("exiftool", "-validate", "-warning", "-error", "-a", "-S", tmp_path / "a")
    harmless = (
        "Validate:",  # the number of warnings
        "Non-standard IFD0 tag 0x4746 Rating",  # the photo has it too
        "UNICODE text",  # the photo has it too
        "YCbCrPositioning",  # for files of cameras, not for 4:4:4 images
        "IPTC-NAA",  # as Photoshop writes it
        "not allowed in TIFF",
        "GPSProcessingMethod",
        "tag 0x0103 Compression",  # Deflate is newer than the specification
    )
    assert [line for line in output.splitlines() if not any(h in line for h in harmless)] == []


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
def test_resolution_is_kept(target: str, tmp_path: Path) -> None:
    """The painting has 300 and 240 dots per inch, like the photo."""
    tags = read_by_exiftool(
        export_painting(decode_photo(with_metadata("jpeg")), target)[0], tmp_path
    )
    assert tags["IFD0:XResolution"] == pytest.approx(300, abs=0.01)
    assert tags["IFD0:YResolution"] == pytest.approx(240, abs=0.01)
    assert tags["IFD0:ResolutionUnit"] == "inches"
    if target == "jpeg":
        assert (tags["JFIF:XResolution"], tags["JFIF:YResolution"]) == (300, 240)
    if target == "png":
        assert tags["PNG-pHYs:PixelsPerUnitX"] == round(300 / 0.0254)


SECRETS = (
    *(b"Nikon", b"J\xc3\xb6rg M", b"J\xf6rg M", b"WGS-84", b"Wolken", b"ner Berg", b"2026:01"),
)
"""Five bytes and more: compressed pixels contain any three or four bytes now and then."""


@needs_exiftool
@pytest.mark.parametrize("target", [*WITH_EXIF, "bmp", "gif"])
@pytest.mark.parametrize("source", ["jpeg", "png", "tiff"])
def test_strip_leaves_only_the_program(source: str, target: str, tmp_path: Path) -> None:
    """No place, name or date is anywhere in the bytes, and EXIF has `Software` only."""
    data, degraded = export_painting(decode_photo(with_metadata(source)), target, STRIP)
    assert degraded == ()
    for secret in SECRETS:
        assert secret not in data
    tags = read_by_exiftool(data, tmp_path)
    personal = ("GPS:", "XMP-", "IPTC", "ExifIFD:", "Photoshop:", "Composite:GPS")
    assert not [name for name in tags if name.startswith(personal)]
    if target not in ("bmp", "gif"):
        assert tags["IFD0:Software"] == f"styled {__version__}"
    structure = {"ImageWidth", "ImageHeight", "BitsPerSample", "Compression", "StripOffsets",
                 "PhotometricInterpretation", "SamplesPerPixel", "RowsPerStrip", "Predictor",
                 "StripByteCounts"}  # fmt: skip
    ifd0_names = {name.removeprefix("IFD0:") for name in tags if name.startswith("IFD0:")}
    assert ifd0_names - structure <= {"Software"}


@needs_exiftool
@pytest.mark.parametrize("target", ["bmp", "gif"])
def test_formats_without_metadata_say_so(target: str) -> None:
    """BMP and GIF support no metadata, and there is a note for each loss."""
    _, degraded = export_painting(decode_photo(with_metadata("jpeg")), target)
    assert degraded == tuple(
        Degradation("metadata", f"{kind} data was left out: {target.upper()} files have none")
        for kind in ("EXIF", "XMP", "IPTC")
    )


@needs_exiftool
@pytest.mark.parametrize("source", ["webp", "heic", pytest.param("avif", marks=needs_avif)])
def test_what_a_result_says_is_read_again(source: str, tmp_path: Path) -> None:
    """A result that is painted again passes on its metadata, from every format."""
    first, _ = export_painting(decode_photo(with_metadata("jpeg")), source)
    photo = decode_photo(first)
    exported = export_image(own_tensor(photo), photo, "jpeg", KEEP)
    tags, expected = read_by_exiftool(exported.data, tmp_path), EXIF | GPS | XMP
    assert select(tags, expected) == expected
    assert exported.degraded == ()


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "webp", "heic"])
def test_a_photo_that_says_nothing_gives_a_painting_that_names_its_program(target: str) -> None:
    """The painting of a photo without metadata has only `Software` in EXIF."""
    data, degraded = export_painting(decoded(astronaut(), "PNG"), target)
    reread = decode_photo(data)
    assert degraded == ()
    assert reread.metadata.xmp == b""
    assert reread.metadata.iptc == b""
    assert f"styled {__version__}".encode() in data


# --- too long


def with_maker_note(length: int) -> Photo:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif[0x8769] = {0x927C: b"note" * (length // 4), 0x9003: "2026:01:02 03:04:05"}
    return decoded(astronaut(), "PNG", exif=exif)


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "webp"])
def test_a_makers_note_that_is_too_long_for_a_jpeg_is_left_out(target: str) -> None:
    """The other EXIF data stays, and other formats can hold the maker's note too."""
    data, degraded = export_painting(with_maker_note(70_000), target)
    with Image.open(BytesIO(data)) as image:
        detail = image.getexif().get_ifd(0x8769)
    assert detail[0x9003] == "2026:01:02 03:04:05"
    if target == "jpeg":
        assert 0x927C not in detail
        assert degraded == (
            Degradation("metadata", "the EXIF entry MakerNote is too long and was left out"),
        )
    else:
        assert detail[0x927C] == b"note" * 17_500
        assert degraded == ()


def test_a_makers_note_that_fits_stays() -> None:
    """60 kB fit into a JPEG."""
    data, degraded = export_painting(with_maker_note(60_000), "jpeg")
    with Image.open(BytesIO(data)) as image:
        assert len(image.getexif().get_ifd(0x8769)[0x927C]) == 60_000
    assert degraded == ()


def test_exif_that_is_too_long_otherwise_is_left_out_whole() -> None:
    """A description of 70 kB can't be in a JPEG; `Software` is."""
    exif = Image.Exif()
    exif[0x010E] = "long" * 17_500
    photo = decoded(astronaut(), "PNG", exif=exif)
    data, degraded = export_painting(photo, "jpeg")
    assert degraded == (Degradation("metadata", "the EXIF data is too long and was left out"),)
    with Image.open(BytesIO(data)) as image:
        assert dict(image.getexif()) == {0x0131: f"styled {__version__}"}


def test_xmp_that_is_too_long_for_a_jpeg_is_left_out() -> None:
    """A packet of 70 kB fits into a PNG, but not into a JPEG."""
    packet = b"<x:xmpmeta>" + b" " * 70_000 + b"</x:xmpmeta>"
    photo = decoded(astronaut(), "WEBP", xmp=packet)
    data, degraded = export_painting(photo, "jpeg")
    assert degraded == (
        Degradation("metadata", f"XMP data of {len(packet)} bytes was left out: it is too long"),
    )
    assert decode_photo(data).metadata.xmp == b""
    assert decode_photo(export_painting(photo, "png")[0]).metadata.xmp == packet


# --- orientation in XMP


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "webp", "heic"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            b'<rdf:Description xmlns:t="%s" t:Orientation="6" t:Make="A"/>',
            b'<rdf:Description xmlns:t="%s" t:Orientation="1" t:Make="A"/>',
        ),
        (
            b'<rdf:Description xmlns:t="%s"><t:Orientation> 5 </t:Orientation></rdf:Description>',
            b'<rdf:Description xmlns:t="%s"><t:Orientation>1</t:Orientation></rdf:Description>',
        ),
    ],
)
def test_xmp_says_that_the_painting_is_upright(before: bytes, after: bytes, target: str) -> None:
    """As an attribute and as an element, the orientation becomes 1 and nothing else changes."""
    packet = (
        b'<?xpacket begin="" id="W5M0"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">%s</rdf:RDF>'
        b'</x:xmpmeta><?xpacket end="w"?>'
    )
    before, after = (packet % (text % b"http://ns.adobe.com/tiff/1.0/") for text in (before, after))
    photo = decoded(astronaut(), "JPEG", xmp=before)
    data, _ = export_painting(photo, target)
    assert decode_photo(data).metadata.xmp == after
    assert before not in data


@pytest.mark.parametrize("source", ["PNG", "TIFF", "WEBP"])
def test_xmp_is_found_in_every_format(source: str) -> None:
    """PNG, TIFF and WebP each store XMP in a different place."""
    packet = b"<x:xmpmeta>hello</x:xmpmeta>"
    if source == "PNG":
        chunk = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
        data = saved(astronaut(), "PNG")
        data = data[:33] + chunk + data[33:]
    elif source == "TIFF":
        data = saved(astronaut(), "TIFF", tiffinfo={700: packet})
    else:
        data = saved(astronaut(), source, xmp=packet)
    assert decode_photo(data).metadata.xmp == packet


@pytest.mark.parametrize("dpi", [(0, 0), (1e9, 1e9), (0.5, 300)])
def test_a_resolution_that_makes_no_sense_is_dropped(dpi: tuple[float, float]) -> None:
    """A resolution near zero, or of a million dots per inch and more, is not copied."""
    assert decoded(astronaut(), "TIFF", dpi=dpi).metadata.dpi is None


@pytest.mark.parametrize(("length", "kept"), [(499_000, True), (501_000, False)])
def test_a_png_never_holds_more_iptc_than_can_be_read_back(length: int, kept: bool) -> None:
    """Longer IPTC data is left out, so that the result can be decoded again."""
    records = b"\x1c\x02\x78" + bytes(length - 3)
    photo = replace(decode_photo(saved(astronaut(), "PNG")), metadata=Metadata(iptc=records))
    exported = export_image(own_tensor(photo), photo, "png", ExportOptions())
    reread = decode_photo(exported.data)
    assert bool(reread.metadata.iptc) is kept
    assert [degradation.kind for degradation in exported.degraded] == ["metadata"] * (not kept)

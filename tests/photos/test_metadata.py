"""What a photo's file says goes over to the painting, as exiftool reads it."""

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
from styled.photos import Finish, Photo, decode, finish
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

KEEP = Finish()
STRIP = Finish(metadata="strip")

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


def told(data: bytes, folder: Path) -> dict[str, Any]:
    """Return what exiftool reads in a file, by group and name."""
    path = folder / "told"
    path.write_bytes(data)
    said = run("exiftool", "-j", "-G1", "-a", "-c", "%+.4f", "-IPTC:all", "-all", path)
    facts: dict[str, Any] = json.loads(said)[0]
    return facts


def excerpt(facts: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return of some facts those that are wanted, degrees as numbers."""
    found = {name: facts.get(name) for name in wanted}
    for name in set(NUMBERS) & set(found):
        found[name] = abs(float(str(found[name]).split()[0]))
    return found


@functools.cache
def described(format: str) -> bytes:
    """Return a 16-bit TIFF or PNG, or a JPEG, of which exiftool has written all metadata."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"photo.{format}"
        path.write_bytes(saved(astronaut(), format.upper(), dpi=(300, 240)))
        (folder / "thumbnail.jpg").write_bytes(saved(astronaut(32, 32), "JPEG"))
        values = [
            f"-{key}={each}"
            for key, value in (EXIF | GPS | XMP | IPTC).items()
            for each in (value if isinstance(value, list) else [value])
        ]
        options = ["-IPTC:CodedCharacterSet=UTF8", "-InteropIFD:InteropIndex=R98"]
        options += ["-IFD0:Software=Another program", "-IFD0:Orientation#=6"]
        options += ["-ExifIFD:ColorSpace#=65535", "-ExifIFD:ExifImageWidth=4711"]
        if format == "jpeg":
            options += [f"-ThumbnailImage<={folder / 'thumbnail.jpg'}"]
        run("exiftool", "-q", "-m", "-overwrite_original", *values, *options, path)
        return path.read_bytes()


def painted(photo: Photo, format: str, how: Finish = KEEP) -> tuple[bytes, tuple[Degradation, ...]]:
    """Return the file of a painting half as large as a photo, and what it lacks."""
    finished = finish(torch.rand(1, 3, 48, 32), photo, format, how)
    return finished.data, finished.degraded


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
@pytest.mark.parametrize("source", ["jpeg", "png", "tiff"])
def test_exif_gps_and_xmp_go_over(source: str, target: str, tmp_path: Path) -> None:
    """Camera, author, rights, exposure, dates, place and title are in the painting's file."""
    photo = decode(described(source))
    assert photo.orientation == 6
    data, degraded = painted(photo, target)
    facts, wanted = told(data, tmp_path), EXIF | GPS | XMP
    assert excerpt(facts, wanted) == wanted
    without_iptc = target in ("webp", "avif", "heic")
    message = f"IPTC data was left out: {target.upper()} files have none"
    assert degraded == ((Degradation("metadata", message),) if without_iptc else ())


@needs_exiftool
@pytest.mark.parametrize("target", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("source", ["jpeg", "png", "tiff"])
def test_iptc_goes_over(source: str, target: str, tmp_path: Path) -> None:
    """Keywords, author and rights of newsrooms are in each format that has a place for them."""
    data, _ = painted(decode(described(source)), target)
    assert excerpt(told(data, tmp_path), IPTC) == IPTC


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
def test_what_is_said_about_the_pixels_is_true_of_the_painting(target: str, tmp_path: Path) -> None:
    """Size, colour space, orientation and program are the result's, and there is no thumbnail."""
    data, _ = painted(decode(described("jpeg")), target)
    facts = told(data, tmp_path)
    assert facts["ExifIFD:ExifImageWidth"] == 32
    assert facts["ExifIFD:ExifImageHeight"] == 48
    assert facts["ExifIFD:ColorSpace"] == "sRGB"
    assert facts["IFD0:Software"] == f"styled {__version__}"
    assert facts.get("IFD0:Orientation", "Horizontal (normal)") == "Horizontal (normal)"
    assert not [name for name in facts if "Thumbnail" in name or name.startswith("IFD1")]
    assert not [name for name in facts if name.startswith("InteropIFD")]


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
@pytest.mark.parametrize("source", ["jpeg", "tiff"])
def test_the_exif_directories_are_well_formed(source: str, target: str, tmp_path: Path) -> None:
    """exiftool finds no fault with offsets, types and order that the photo had not."""
    (tmp_path / "a").write_bytes(painted(decode(described(source)), target)[0])
    said = run("exiftool", "-validate", "-warning", "-error", "-a", "-S", tmp_path / "a")
    harmless = (
        "Validate:",  # how many there are
        "Non-standard IFD0 tag 0x4746 Rating",  # which the photo had
        "UNICODE text",  # likewise
        "YCbCrPositioning",  # of a camera's, not of a 4:4:4 picture
        "IPTC-NAA",  # as Photoshop writes it
        "not allowed in TIFF",
        "GPSProcessingMethod",
        "tag 0x0103 Compression",  # Deflate is younger than the specification
    )
    assert [line for line in said.splitlines() if not any(h in line for h in harmless)] == []


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
def test_resolution_is_kept(target: str, tmp_path: Path) -> None:
    """300 and 240 dots per inch are what the painting has too."""
    facts = told(painted(decode(described("jpeg")), target)[0], tmp_path)
    assert facts["IFD0:XResolution"] == pytest.approx(300, abs=0.01)
    assert facts["IFD0:YResolution"] == pytest.approx(240, abs=0.01)
    assert facts["IFD0:ResolutionUnit"] == "inches"
    if target == "jpeg":
        assert (facts["JFIF:XResolution"], facts["JFIF:YResolution"]) == (300, 240)
    if target == "png":
        assert facts["PNG-pHYs:PixelsPerUnitX"] == round(300 / 0.0254)


SECRETS = (
    *(b"Nikon", b"D850", b"J\xc3\xb6rg", b"J\xf6rg", b"GPS", b"WGS-84", b"Wolken", b"Berg"),
    b"2026:01",
)


@needs_exiftool
@pytest.mark.parametrize("target", [*WITH_EXIF, "bmp", "gif"])
@pytest.mark.parametrize("source", ["jpeg", "png", "tiff"])
def test_strip_leaves_only_the_program(source: str, target: str, tmp_path: Path) -> None:
    """No place, name or date is anywhere in the bytes, and EXIF holds `Software` alone."""
    data, degraded = painted(decode(described(source)), target, STRIP)
    assert degraded == ()
    for secret in SECRETS:
        assert secret not in data
    facts = told(data, tmp_path)
    personal = ("GPS:", "XMP-", "IPTC", "ExifIFD:", "Photoshop:", "Composite:GPS")
    assert not [name for name in facts if name.startswith(personal)]
    if target not in ("bmp", "gif"):
        assert facts["IFD0:Software"] == f"styled {__version__}"
    structure = {"ImageWidth", "ImageHeight", "BitsPerSample", "Compression", "StripOffsets",
                 "PhotometricInterpretation", "SamplesPerPixel", "RowsPerStrip", "Predictor",
                 "StripByteCounts"}  # fmt: skip
    described_by = {name.removeprefix("IFD0:") for name in facts if name.startswith("IFD0:")}
    assert described_by - structure <= {"Software"}


@needs_exiftool
@pytest.mark.parametrize("target", ["bmp", "gif"])
def test_formats_without_metadata_say_so(target: str) -> None:
    """A BMP and a GIF have no place for any of it, and each loss is a note."""
    _, degraded = painted(decode(described("jpeg")), target)
    assert degraded == tuple(
        Degradation("metadata", f"{kind} data was left out: {target.upper()} files have none")
        for kind in ("EXIF", "XMP", "IPTC")
    )


@needs_exiftool
@pytest.mark.parametrize("source", ["webp", "heic", pytest.param("avif", marks=needs_avif)])
def test_what_a_result_says_is_read_again(source: str, tmp_path: Path) -> None:
    """A result that is painted once more passes on what it had, from every format."""
    first, _ = painted(decode(described("jpeg")), source)
    photo = decode(first)
    finished = finish(own_tensor(photo), photo, "jpeg", KEEP)
    facts, wanted = told(finished.data, tmp_path), EXIF | GPS | XMP
    assert excerpt(facts, wanted) == wanted
    assert finished.degraded == ()


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "webp", "heic"])
def test_a_photo_that_says_nothing_gives_a_painting_that_names_its_program(target: str) -> None:
    """EXIF of a picture without any is `Software` alone."""
    data, degraded = painted(decoded(astronaut(), "PNG"), target)
    again = decode(data)
    assert degraded == ()
    assert again.metadata.xmp == b""
    assert again.metadata.iptc == b""
    assert f"styled {__version__}".encode() in data


# --- too long


def with_maker_note(length: int) -> Photo:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif[0x8769] = {0x927C: b"note" * (length // 4), 0x9003: "2026:01:02 03:04:05"}
    return decoded(astronaut(), "PNG", exif=exif)


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "webp"])
def test_a_makers_note_that_is_too_long_for_a_jpeg_is_left_out(target: str) -> None:
    """Everything else of its EXIF data stays, and other formats have room for it."""
    data, degraded = painted(with_maker_note(70_000), target)
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
    data, degraded = painted(with_maker_note(60_000), "jpeg")
    with Image.open(BytesIO(data)) as image:
        assert len(image.getexif().get_ifd(0x8769)[0x927C]) == 60_000
    assert degraded == ()


def test_exif_that_is_too_long_otherwise_is_left_out_whole() -> None:
    """A description of 70 kB can't be in a JPEG; `Software` is."""
    exif = Image.Exif()
    exif[0x010E] = "long" * 17_500
    photo = decoded(astronaut(), "PNG", exif=exif)
    data, degraded = painted(photo, "jpeg")
    assert degraded == (Degradation("metadata", "the EXIF data is too long and was left out"),)
    with Image.open(BytesIO(data)) as image:
        assert dict(image.getexif()) == {0x0131: f"styled {__version__}"}


def test_xmp_that_is_too_long_for_a_jpeg_is_left_out() -> None:
    """A packet of 70 kB goes into a PNG, but not into a JPEG."""
    packet = b"<x:xmpmeta>" + b" " * 70_000 + b"</x:xmpmeta>"
    photo = decoded(astronaut(), "WEBP", xmp=packet)
    data, degraded = painted(photo, "jpeg")
    assert degraded == (
        Degradation("metadata", f"XMP data of {len(packet)} bytes was left out: it is too long"),
    )
    assert decode(data).metadata.xmp == b""
    assert decode(painted(photo, "png")[0]).metadata.xmp == packet


# --- orientation in XMP


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "webp", "heic"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'<rdf:Description tiff:Orientation="6"/>', b'<rdf:Description tiff:Orientation="1"/>'),
        (
            b"<rdf:li tiff:Orientation = '8'/>",
            b"<rdf:li tiff:Orientation = '1'/>",
        ),
        (b"<tiff:Orientation>3</tiff:Orientation>", b"<tiff:Orientation>1</tiff:Orientation>"),
        (b"<tiff:Orientation> 5 </tiff:Orientation>", b"<tiff:Orientation>1</tiff:Orientation>"),
    ],
)
def test_xmp_is_told_that_the_painting_is_upright(before: bytes, after: bytes, target: str) -> None:
    """As an attribute and as an element, the orientation becomes 1 and nothing else changes."""
    packet = b"<x:xmpmeta>6 %s 6</x:xmpmeta>"
    photo = decoded(astronaut(), "JPEG", xmp=packet % before)
    data, _ = painted(photo, target)
    assert decode(data).metadata.xmp == packet % after
    assert before not in data


@pytest.mark.parametrize("source", ["PNG", "TIFF", "WEBP"])
def test_xmp_is_found_in_every_format(source: str) -> None:
    """PNG, TIFF and WebP each have another place for it."""
    packet = b"<x:xmpmeta>hello</x:xmpmeta>"
    if source == "PNG":
        chunk = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
        data = saved(astronaut(), "PNG")
        data = data[:33] + chunk + data[33:]
    elif source == "TIFF":
        data = saved(astronaut(), "TIFF", tiffinfo={700: packet})
    else:
        data = saved(astronaut(), source, xmp=packet)
    assert decode(data).metadata.xmp == packet


@pytest.mark.parametrize("dpi", [(0, 0), (1e9, 1e9), (0.5, 300)])
def test_a_resolution_that_makes_no_sense_is_dropped(dpi: tuple[float, float]) -> None:
    """Nothing, or a million dots in an inch, is not passed on."""
    assert decoded(astronaut(), "TIFF", dpi=dpi).metadata.dpi is None


@pytest.mark.parametrize(("length", "kept"), [(499_000, True), (501_000, False)])
def test_a_png_never_holds_more_iptc_than_can_be_read_back(length: int, kept: bool) -> None:
    """The result can be dropped in again."""
    records = b"\x1c\x02\x78" + bytes(length - 3)
    photo = replace(decode(saved(astronaut(), "PNG")), metadata=Metadata(iptc=records))
    done = finish(own_tensor(photo), photo, "png", Finish())
    again = decode(done.data)
    assert bool(again.metadata.iptc) is kept
    assert [degradation.kind for degradation in done.degraded] == ["metadata"] * (not kept)

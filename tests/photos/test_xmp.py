"""XMP: claims that are not true of a painting are removed; long packets go in two parts."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
import torch
from PIL import Image

from styled.photos import ExportOptions, decode_photo, export_image
from styled.photos.file_metadata import Info, read_file_metadata
from styled.photos.jpeg import xmp_segments
from styled.photos.xmp import XmpDamaged, split_xmp, xmp_of_painting
from tests.photos.samples import astronaut, needs_exiftool, run, saved

NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
}


def packet(attributes: str = "", elements: str = "") -> bytes:
    declared = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in NAMESPACES.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        f'  <rdf:Description rdf:about="" {declared} {attributes}>{elements}</rdf:Description>\n'
        ' </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
    ).encode()


UNTRUE_ATTRIBUTES = [
    'tiff:ImageWidth="960"', 'tiff:ImageLength="640"', 'exif:PixelXDimension="960"',
    'exif:PixelYDimension="640"', 'exif:ColorSpace="65535"', 'photoshop:ICCProfile="Adobe RGB"',
    'GCamera:MotionPhoto="1"', 'GCamera:MicroVideoOffset="184"', 'hdrgm:Version="1.0"',
    'HDRGainMap:HDRGainMapVersion="65536"', 'GDepth:Format="RangeInverse"',
    'GPano:FullPanoWidthPixels="9000"', 'tiff:Compression="1"',
]  # fmt: skip
UNTRUE_ELEMENTS = [
    "<xmp:Thumbnails><rdf:Alt><rdf:li>secret</rdf:li></rdf:Alt></xmp:Thumbnails>",
    "<Container:Directory><rdf:Seq><rdf:li>video/mp4</rdf:li></rdf:Seq></Container:Directory>",
    "<exif:PixelXDimension>960</exif:PixelXDimension>",
]
TRUE = ['xmp:Label="Blue"', 'xmp:Rating="4"', 'GPano:ProjectionType="equirectangular"',
        'GCamera:BurstID="7"', 'tiff:Make="A maker"', 'exif:FNumber="28/10"']  # fmt: skip


@pytest.mark.parametrize("attribute", UNTRUE_ATTRIBUTES)
def test_untrue_attributes_go_and_all_others_stay(attribute: str) -> None:
    """Sizes, encoding, and what else lies in the photo's file."""
    cleaned = xmp_of_painting(packet(f"{attribute} {' '.join(TRUE)}"))
    assert attribute.encode() not in cleaned
    for kept in TRUE:
        assert kept.encode() in cleaned


@pytest.mark.parametrize("element", UNTRUE_ELEMENTS)
def test_untrue_elements_go_and_all_others_stay(element: str) -> None:
    """Thumbnails and directories of items."""
    title = "<dc:title><rdf:Alt><rdf:li>Über</rdf:li></rdf:Alt></dc:title>"
    cleaned = xmp_of_painting(packet(elements=element + title))
    assert element.split(">")[0].encode() not in cleaned
    assert title.encode() in cleaned
    assert cleaned.endswith(b'<?xpacket end="w"?>')


def test_a_packet_with_nothing_untrue_keeps_its_bytes() -> None:
    """Not even white space changes; a damaged one is nobody's business either."""
    for text in (packet(" ".join(TRUE)), b"<x:xmpmeta>not well-formed"):
        assert xmp_of_painting(text) == text


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "byte order mark"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_packets_are_brought_to_utf8(encoding: str, mark: str) -> None:
    """As TIFF files may have them; the XML declaration, which names the encoding, is left out."""
    kept = packet('xmp:Label="Bl\u00fc"')
    declaration = f'<?xml version="1.0" encoding="{encoding[:6].upper()}" standalone="yes"?>'
    wide = (mark + declaration + kept.decode() + "\0").encode(encoding) + b"\0"
    assert xmp_of_painting(wide) == kept
    wide = (mark + packet('xmp:Label="Bl\u00fc" tiff:ImageWidth="960"').decode()).encode(encoding)
    cleaned = xmp_of_painting(wide).decode()
    assert "Bl\u00fc" in cleaned
    assert "ImageWidth" not in cleaned
    damaged = wide + "\ud800".encode(encoding, "surrogatepass")
    with pytest.raises(XmpDamaged):
        xmp_of_painting(damaged)


@needs_exiftool
@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
def test_a_wide_packet_of_a_tiff_reaches_the_painting(format: str, tmp_path: Path) -> None:
    """Other programs read it there, and a gain map in it is reported."""
    wide = packet('xmp:Label="Bl\u00fc" hdrgm:Version="1.0"').decode().encode("utf-16-le")
    photo = decode_photo(saved(astronaut(), "TIFF", tiffinfo={700: wide}))
    assert any("gain map" in note.message for note in photo.degraded)
    exported = export_image(torch.rand(1, 3, 48, 48), photo, format, ExportOptions())
    path = tmp_path / f"painting.{format}"
    path.write_bytes(exported.data)
    assert "Bl\u00fc" in run("exiftool", "-charset", "utf8", "-XMP-xmp:Label", str(path))


def test_faces_are_kept_unless_the_photo_was_turned() -> None:
    """Their positions are relative to the picture as it lies in its file."""
    faces = '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList/></mwg-rs:Regions>'
    assert faces.encode() in xmp_of_painting(packet(elements=faces))
    assert b"mwg-rs:Regions " not in xmp_of_painting(packet(elements=faces), is_turned=True)


@pytest.mark.parametrize("orientation", [1, 6])
def test_faces_go_also_if_the_decoder_has_turned_the_photo(orientation: int) -> None:
    """As those of HEIC, JPEG XL and camera raws do: the orientation that is left is 1."""
    faces = '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList/></mwg-rs:Regions>'
    exif = Image.Exif()
    exif[0x0112] = orientation
    info: Info = {"exif": exif.tobytes(), "xmp": packet(elements=faces)}
    side = read_file_metadata(b"", "jxl", info, decoder_applies_orientation=True)
    assert side.orientation == 1
    assert (b"mwg-rs:Regions " in side.metadata.xmp) == (orientation == 1)


@pytest.mark.parametrize(
    "hostile",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]><x tiff:ImageWidth="1"/>',
        b"<a>" * 100_000 + b"ImageWidth",
        b"<a>" * 5000 + b"ImageWidth",
        b"<x ImageWidth",
        "<x ImageWidth".encode("utf-16"),
        ("<?xml " + " " * 1_000_000 + "<a>" * 30_000 + "ImageWidth").encode("utf-16"),
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]><x ImageWidth="&a;"/>'.encode("utf-16-be"),
        b"<x ImageWidth='1'>\0</x>",
    ],
    ids=["entities", "elements", "depth", "cut", "utf-16", "blanks", "utf-16 entities", "zeros"],
)
def test_hostile_packets_are_refused(hostile: bytes) -> None:
    """A packet that may hold untrue claims and can't be read is left out."""
    with pytest.raises(XmpDamaged):
        xmp_of_painting(hostile)


def two_parts() -> tuple[bytes, bytes]:
    """Return a packet and its second part, as Adobe's programs write them."""
    second = packet("", "<photoshop:Instructions>second part</photoshop:Instructions>")
    guid = hashlib.md5(second, usedforsecurity=False).hexdigest().upper()
    return packet(f'xmp:Label="Blue" xmpNote:HasExtendedXMP="{guid}"'), second


def jpeg_with(segments: bytes) -> bytes:
    data = saved(astronaut(), "JPEG")
    return data[:2] + segments + data[2:]


def test_the_second_part_is_joined() -> None:
    """Both parts are in the painting, and nothing refers to a second part any more."""
    photo = decode_photo(jpeg_with(xmp_segments(*two_parts())))
    assert photo.degraded == ()
    assert b"second part" in photo.metadata.xmp
    assert b'xmp:Label="Blue"' in photo.metadata.xmp
    assert b"HasExtendedXMP=" not in photo.metadata.xmp


def test_a_second_part_with_entities_is_refused() -> None:
    """In UTF-16 as well, where they are not seen as bytes."""
    first, _ = two_parts()
    second = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]><x>&a;</x>'
    for data in (second.encode(), second.encode("utf-16-be"), second.encode("utf-16")):
        with pytest.raises(XmpDamaged):
            xmp_of_painting(first, data)


def test_a_missing_second_part_is_reported() -> None:
    """The first one is kept, without the reference."""
    first, _ = two_parts()
    photo = decode_photo(jpeg_with(xmp_segments(first, b"")))
    assert ["second part" in note.message for note in photo.degraded] == [True]
    assert b'xmp:Label="Blue"' in photo.metadata.xmp
    assert b"HasExtendedXMP=" not in photo.metadata.xmp


def long_packet(length: int) -> bytes:
    text = "abcdefgh" * (length // 8)
    return packet(
        'xmp:Label="Blue"', f"<photoshop:Instructions>{text}</photoshop:Instructions>"
        "<photoshop:City>Wien</photoshop:City>",
    )  # fmt: skip


@needs_exiftool
@pytest.mark.parametrize("length", [1000, 70_000, 300_000])
def test_long_packets_go_into_a_jpeg_in_two_parts(length: int, tmp_path: Path) -> None:
    """A segment has 64 kB; another program reads both parts."""
    photo = decode_photo(saved(astronaut(), "WEBP", xmp=long_packet(length)))
    exported = export_image(torch.rand(1, 3, 48, 48), photo, "jpeg", ExportOptions())
    assert exported.degraded == ()
    path = tmp_path / "painting.jpg"
    path.write_bytes(exported.data)
    output = run("exiftool", "-s", "-s", "-s", "-XMP:Label", "-XMP:City", "-XMP:Instructions", path)
    label, city, instructions = output.splitlines()
    assert (label, city, len(instructions)) == ("Blue", "Wien", length // 8 * 8)
    again = decode_photo(exported.data).metadata.xmp
    assert instructions.encode() in again


def test_the_second_part_has_the_long_properties_alone() -> None:
    """What is an attribute stays in the first part, and the resource is named in both."""
    first, second = split_xmp(long_packet(70_000), 65_400)
    for short in (b"Blue", b"Wien"):
        assert (first.count(short), second.count(short)) == (1, 0)
    assert (first.count(b"Instructions>"), second.count(b"Instructions>")) == (0, 2)
    assert (first.count(b"rdf:about"), second.count(b"rdf:about")) == (1, 1)


def test_what_cannot_be_split_is_refused() -> None:
    """Attributes stay in the first part."""
    with pytest.raises(XmpDamaged):
        split_xmp(packet(f'xmp:Label="{"x" * 70_000}"'), 65_400)


def test_a_claimed_length_is_not_believed() -> None:
    """A second part that says it is 4 GB long, in one segment of a few bytes, is left out."""
    first, _ = two_parts()
    guid = b"0" * 32
    first = first.replace(first[first.index(b'HasExtendedXMP="') + 16 :][:32], guid)
    body = b"http://ns.adobe.com/xmp/extension/\0" + guid + struct.pack(">II", 2**32 - 1, 0) + b"x"
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    photo = decode_photo(jpeg_with(xmp_segments(first, b"") + segment))
    assert [note.kind for note in photo.degraded] == ["metadata"]

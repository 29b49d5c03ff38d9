"""Tells the format of a file by its content, never by its name."""

from __future__ import annotations

from styled.photos.file_view import ByteSource
from styled.photos.heif_boxes import CODECS, heif_picture
from styled.photos.tiff_pages import find_picture
from styled.photos.tiff_tags import TiffReader

READABLE = (
    "styled reads JPEG, PNG, TIFF, WebP, AVIF, BMP and GIF; with its extras also HEIC, JPEG XL "
    "and the raw photos of cameras."
)

# The magic bytes of each format; "?" stands for any byte.
_MAGICS: tuple[tuple[str, bytes], ...] = (
    ("jpeg", b"\xff\xd8"),
    ("png", b"\x89PNG\r\n\x1a\n"),
    ("raw", b"II*\0????CR\2"),  # Canon CR2
    ("tiff", b"II*\0"),
    ("tiff", b"MM\0*"),
    ("tiff", b"II+\0"),
    ("tiff", b"MM\0+"),
    ("webp", b"RIFF????WEBP"),
    ("gif", b"GIF87a"),
    ("gif", b"GIF89a"),
    ("avif", b"\0\0\0?ftypavif"),
    ("avif", b"\0\0\0?ftypavis"),
    ("raw", b"FUJIFILMCCD-RAW "),
    ("raw", b"IIRO"),  # Olympus
    ("raw", b"IIRS"),
    ("raw", b"MMOR"),
    ("raw", b"IIU\0"),  # Panasonic
    ("raw", b"II\x1a\0\0\0HEAPCCDR"),  # Canon CRW
    ("raw", b"\0MRM"),  # Minolta
    ("raw", b"FOVb"),  # Sigma
    ("jxl", b"\xff\x0a"),
    ("jxl", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("bmp", b"BM"),
    ("bmp", b"\x28\0\0\0????????\1\0"),  # a DIB: without the header of a file
)

# Pictures that are not read: what they are, what to do.
_OTHER_PICTURES: tuple[tuple[bytes, str, str], ...] = (
    (b"8BPS", "a Photoshop document", "Export it as a TIFF, PNG or JPEG."),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", "Save it as a TIFF, PNG or JPEG."),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", "Save it as a TIFF, PNG or JPEG."),
    (b"II\xbc", "a JPEG XR picture", "Save it as a TIFF, PNG or JPEG."),
    (b"gimp xcf", "a GIMP document", "Export it as a TIFF, PNG or JPEG."),
    (b"v/1\1", "an OpenEXR picture", "Save it as a 16-bit TIFF or PNG."),
    (b"#?RADIANCE", "a Radiance HDR picture", "Save it as a 16-bit TIFF or PNG."),
    (b"DDS ", "a texture (DDS)", "Save it as a PNG."),
    (b"\0\0\1\0", "an icon", "Save it as a PNG."),
    (b"<svg", "a drawing (SVG)", "Export it as a PNG."),
)

# Other files that people drop here.
_OTHER_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF", "a PDF document", "Export the page or the picture in it as a PNG or JPEG."),
    (b"%!PS", "a PostScript document", "Export it as a PNG or JPEG."),
    (b"\xc5\xd0\xd3\xc6", "a PostScript document", "Export it as a PNG or JPEG."),
    (b"\x1aE\xdf\xa3", "a video", "Save one frame of it as a JPEG or PNG."),
    (b"RIFF????AVI ", "a video", "Save one frame of it as a JPEG or PNG."),
    (b"PK\3\4", "a ZIP archive", "Unpack it, and drop the pictures in it here."),
    (b"Rar!", "a RAR archive", "Unpack it, and drop the pictures in it here."),
    (b"7z\xbc\xaf", "a 7-Zip archive", "Unpack it, and drop the pictures in it here."),
)
_VIDEO_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V ", b"avc1", b"3gp4", b"3gp5")

_BMP_HEADER_BYTES = 26

# HEIC and AVIF share a container. It begins with its major brand and its compatible brands.
_HEIF_BRANDS = frozenset({b"mif1", b"msf1", b"miaf", b"mif2", b"heif", b"1pic"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_CANON_CR3 = b"crx "
_ALL_BRANDS = _HEIF_BRANDS | _HEIC_BRANDS | _AVIF_BRANDS
_MAX_BRANDS = 32


def format_of(data: ByteSource) -> str | None:
    """Return jpeg, png, tiff, webp, gif, avif, heic, bmp, jxl or raw; None for all else."""
    if data[4:8] == b"ftyp" and len(data) >= 12:
        return "raw" if data[8:12] == _CANON_CR3 else _heif_format(data)
    for name, magic in _MAGICS:
        if len(data) >= len(magic) and _matches(data, magic):
            return "raw" if name == "tiff" and _is_raw_tiff(data) else name
    return None


def is_picture(data: ByteSource) -> bool:
    """Return whether `data` is a picture, of a format that is read or of another one."""
    format = format_of(data)
    if format == "bmp" and b"\0" not in data[:_BMP_HEADER_BYTES]:
        format = None  # a text that begins with BM
    return (
        format is not None
        or (data[4:8] == b"ftyp" and data[8:12] in _ALL_BRANDS)
        or any(len(data) >= len(magic) and _matches(data, magic) for magic, _, _ in _OTHER_PICTURES)
    )


def _is_raw_tiff(data: ByteSource) -> bool:
    """Return whether the picture of a TIFF is what a camera's sensor saw: DNG, NEF, ARW, PEF..."""
    try:
        picture = find_picture(TiffReader(data, layout_only=True))
    except ValueError:
        return False
    return picture is not None and picture.is_raw


def _heif_format(data: ByteSource) -> str | None:
    length = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MAX_BRANDS)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, length, 4))]
    if brands[0] not in _ALL_BRANDS:
        return None
    for brand in brands:
        if brand in _AVIF_BRANDS:
            return "avif"
        if brand in _HEIC_BRANDS:
            return "heic"
    picture = heif_picture(data)
    if picture is None:  # not there yet
        return "heic"
    return next((name for kind, name in CODECS.items() if kind in picture.codecs), None)


def other_kind_of(data: bytes) -> tuple[str, str] | None:
    """Return what a file is that can't be read, and what to do about it; None if it is unknown."""
    for magic, kind, remedy in (*_OTHER_PICTURES, *_OTHER_FILES):
        if len(data) >= len(magic) and _matches(data, magic):
            return kind, remedy
    if data[4:8] != b"ftyp":
        return None
    if data[8:12] in _VIDEO_BRANDS:
        return "a video", "Save one frame of it as a JPEG or PNG."
    if data[8:12] not in _ALL_BRANDS:
        return None
    picture = heif_picture(data)
    kinds = picture.codecs if picture is not None else frozenset()
    names = sorted(_CODEC_NAMES.get(kind, kind.decode("latin-1")) for kind in kinds)
    return (
        f"a HEIF picture whose codec can't be read here ({', '.join(names) or 'unknown'})",
        "Save it as a JPEG, or as HEIC or AVIF.",
    )


_CODEC_NAMES = {b"vvcC": "VVC", b"avcC": "AVC", b"j2kH": "JPEG 2000", b"jpgC": "JPEG",
                b"uncC": "uncompressed", b"evcC": "EVC"}  # fmt: skip


def could_become_picture(data: bytes) -> bool:
    """Return whether `data` is so short that more bytes could complete a format's magic."""
    if data[4:8] == b"ftyp" and len(data) < 12:
        return any(brand.startswith(data[8:]) for brand in _ALL_BRANDS)
    return any(len(data) < len(magic) and _matches(data, magic) for _, magic in _MAGICS)


def _matches(data: ByteSource, magic: bytes) -> bool:
    head = data[: len(magic)]
    return all(expected in (byte, ord("?")) for byte, expected in zip(head, magic, strict=False))

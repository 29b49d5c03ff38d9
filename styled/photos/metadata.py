"""Metadata that goes from a photo to its painting: EXIF with GPS, XMP, IPTC, resolution, texts.

A painting gets all metadata of its photo, except what would no longer be true. docs/guide.md lists
what that is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from styled import __version__
from styled.degradation import Degradation
from styled.photos import exif as exif_data
from styled.photos.exif import Exif

SOFTWARE = f"styled {__version__}"


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata that is copied from a photo to its painting.

    Attributes:
        exif: EXIF data, without what describes the photo's file.
        xmp: The XMP packet.
        iptc: IPTC-IIM records.
        photoshop: Photoshop's resources about rights and links.
        dpi: Dots per inch, horizontally and vertically; None: the photo has no resolution.
        comment: The comment of a JPEG.
        texts: Keys and texts of a PNG.
        is_turned: Whether the photo was turned upright.
    """

    exif: Exif = field(default_factory=Exif)
    xmp: bytes = b""
    iptc: bytes = b""
    photoshop: bytes = b""
    dpi: tuple[float, float] | None = None
    comment: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()
    is_turned: bool = False


def exif_for_painting(
    metadata: Metadata, size: tuple[int, int], *, srgb: bool, adobe_rgb: bool = False,
    max_bytes: int | None = None,
) -> tuple[Exif, list[Degradation]]:  # fmt: skip
    """Return EXIF data for a painting, and a note for each thing that had to be left out.

    Args:
        metadata: The photo's metadata.
        size: Width and height of the painting in pixels.
        srgb: Whether the painting is in sRGB.
        adobe_rgb: Whether it is in Adobe RGB.
        max_bytes: Most bytes of EXIF data that the file can hold; None: any number.
    """
    degraded: list[Degradation] = []

    def left_out(what: str) -> None:
        degraded.append(Degradation("metadata", f"{what} and was left out"))

    exif = exif_data.exif_of_painting(
        metadata.exif, size, software=SOFTWARE, srgb=srgb, adobe_rgb=adobe_rgb, dpi=metadata.dpi,
        is_turned=metadata.is_turned,
    )  # fmt: skip
    offset = exif_data.maker_note_offset(exif)
    if offset is not None and not 8 <= offset <= exif_data.MAX_MAKER_NOTE_OFFSET:
        exif = exif_data.without(exif, exif_data.MAKER_NOTE)
        left_out("the MakerNote would have to lie where the file has no place for it")
    for tag, name in ((exif_data.MAKER_NOTE, "MakerNote"), (exif_data.USER_COMMENT, "UserComment")):
        if tag in exif.photo and not _fits(exif, max_bytes):
            exif = exif_data.without(exif, tag)
            left_out(f"the EXIF entry {name} is too long")
    if not _fits(exif, max_bytes):
        exif = exif_data.exif_of_painting(
            Exif(), size, software=SOFTWARE, srgb=srgb, adobe_rgb=adobe_rgb, dpi=metadata.dpi,
            is_turned=False,
        )  # fmt: skip
        left_out("the EXIF data is too long")
    return exif, degraded


def _fits(exif: Exif, max_bytes: int | None) -> bool:
    return max_bytes is None or len(exif_data.to_bytes(exif)) <= max_bytes

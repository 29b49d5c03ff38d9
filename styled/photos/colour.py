"""Any pixel that Pillow can decode, as 8-bit sRGB on white.

A picture passes through four steps, each a function below: deeper brightness values become
8 bit, transparency is set apart, the colour profile is applied, and the colours are placed
on white. Every step that loses something says so in a note.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

_TIFF_WHITE_IS_ZERO = 0
_MAX_NAME_LENGTH = 120
_DAMAGED_PROFILE = "the colour profile is damaged and was ignored"

# ICC colour space signature -> the mode that the pixels must be in.
_MODE_OF_SPACE: Mapping[str, str] = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


def _srgb_profile() -> bytes:
    """Return Little CMS' sRGB profile with a fixed creation date."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # ICC.1 7.2: bytes 24 to 35 of the header are the date and time. The same pixels must
    # give the same file on every day.
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


SRGB_PROFILE = _srgb_profile()


def to_srgb(image: Image.Image) -> tuple[Image.Image, str | None, list[str]]:
    """Convert a decoded picture of any mode to 8-bit sRGB.

    Returns the picture (mode RGB, without metadata), the name of its colour profile (None:
    it has none, or it is unreadable) and one note for each thing that was lost.
    """
    shallow, depth_notes = _eight_bit(image)
    colours, alpha = _set_alpha_apart(shallow)
    rgb, profile_name, profile_notes = _apply_profile(colours, image.info)
    notes = [*depth_notes, *profile_notes]
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
        notes.append("transparency was placed on white")
    rgb.info = {}
    return rgb, profile_name, notes


def _eight_bit(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Scale brightness values of more than 8 bits to 8; Pillow would clip them."""
    if image.mode.startswith("I;16"):
        return _from_16_bit(image, np.asarray(image)), []
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() >= 0 and values.max() <= 65535:
            return _from_16_bit(image, values), []
        return _stretched(values)
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
        if values.min() >= 0 and values.max() <= 1:
            return Image.fromarray((values * 255 + 0.5).astype(np.uint8)), []
        return _stretched(values)
    return image, []


def _from_16_bit(image: Image.Image, levels: np.ndarray) -> Image.Image:
    """Scale HxW levels to mode L, or LA where one level stands for transparency."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    top = 4095 if 12 in np.atleast_1d(tags.get(BITSPERSAMPLE, 0)) else 65535
    table = np.minimum((np.arange(65536) * 255 + top // 2) // top, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC_INTERPRETATION) == _TIFF_WHITE_IS_ZERO:
        table = 255 - table  # Pillow inverts only up to 8 bits
    gray = Image.fromarray(table[levels])
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return gray
    opaque = Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (gray, opaque))


def _stretched(values: np.ndarray) -> tuple[Image.Image, list[str]]:
    """Map the darkest of HxW values to black and the brightest to white."""
    low, high = float(values.min()), float(values.max())
    scale = 255 / (high - low) if high > low else 0.0
    gray = ((values.astype(np.float64) - low) * scale + 0.5).astype(np.uint8)
    note = f"brightness values from {low:g} to {high:g} were stretched to 8 bits"
    return Image.fromarray(gray), [note]


def _set_alpha_apart(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours (mode L, RGB, CMYK or LAB) and the opacity (L; None: all opaque)."""
    is_gray = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        if image.mode in ("L", "RGB", "CMYK", "LAB"):
            return image.copy(), None
        return image.convert("L" if is_gray else "RGB"), None
    straight = image.convert("LA") if image.mode == "La" else image
    rgba = straight.convert("RGBA")
    alpha = rgba.getchannel("A")
    is_opaque = alpha.getextrema() == (255, 255)
    return rgba.convert("L" if is_gray else "RGB"), None if is_opaque else alpha


def _apply_profile(
    colours: Image.Image, info: Mapping[str | tuple[int, int], object]
) -> tuple[Image.Image, str | None, list[str]]:
    """Convert to sRGB by the embedded ICC profile, or plainly where none can be used."""
    if "icc_profile" not in info:
        notes = []
        if colours.mode == "CMYK":
            notes.append("there is no colour profile, so CMYK was converted approximately")
        return colours.convert("RGB"), None, notes
    icc = info["icc_profile"]
    if not isinstance(icc, bytes):  # Pillow could not put its pieces together
        return colours.convert("RGB"), None, [_DAMAGED_PROFILE]
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        name = _printable(profile.profile.profile_description or "unnamed")
        space = profile.profile.xcolor_space.strip()
        wanted = _MODE_OF_SPACE.get(space)
        if wanted == "RGB" and colours.mode == "L":
            colours = colours.convert("RGB")
        if wanted != colours.mode:
            note = f"the colour profile is for {_printable(space)} pixels and was ignored"
            return colours.convert("RGB"), name, [note]
        if icc == SRGB_PROFILE:
            return colours, name, []
        return _transformed(colours, profile), name, []
    except (ImageCms.PyCMSError, OSError, ValueError):
        return colours.convert("RGB"), None, [_DAMAGED_PROFILE]


def _transformed(colours: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.ImageCmsProfile(BytesIO(SRGB_PROFILE)),
        colours.mode,
        "RGB",
        # What photo editors do by default: in-gamut colours stay, black stays black.
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return transform.apply(colours)


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:_MAX_NAME_LENGTH].strip()

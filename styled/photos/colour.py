"""Any pixel that Pillow can decode, as sRGB: in 8 bits always, in 16 where the file has them.

A picture passes through three steps, each a function below: deeper brightness values become
8 bit, opacity is set apart, and the colour profile is applied. What has 16 bits goes the
same way once more in full. Every step that loses something says so in a note.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from styled.degradation import Degradation
from styled.photos.depth import Levels
from styled.photos.profiles import Profile, convert

_TIFF_WHITE_IS_ZERO = 0
_MAX_NAME_LENGTH = 120
_DAMAGED_PROFILE = Degradation("color", "the colour profile is damaged and was ignored")

# ICC colour space signature -> the mode that the pixels must be in.
_MODE_OF_SPACE: Mapping[str, str] = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


def _srgb_profile() -> bytes:
    """Return Little CMS' sRGB profile with a fixed creation date."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # ICC.1 7.2: bytes 24 to 35 of the header are the date and time. The same pixels must
    # give the same file on every day.
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


SRGB_PROFILE = _srgb_profile()


def _srgb() -> Profile:
    profile = Profile.parse(SRGB_PROFILE)
    assert profile is not None, "Little CMS describes sRGB by a matrix"
    return profile


SRGB = _srgb()
SRGB_GRAY = Profile(SRGB.curves[:1], None)

_BAND_PIXELS = 1 << 20


@dataclass(frozen=True, slots=True)
class Colours:
    """The pixels of a picture in sRGB, without metadata; see `Photo` for the fields."""

    image: Image.Image
    alpha: Image.Image | None
    deep: Levels | None
    is_gray: bool
    icc: str | None
    profile: bytes | None
    degraded: list[Degradation]


def to_srgb(image: Image.Image, deep: Levels | None = None) -> Colours:
    """Convert a decoded picture of any mode to sRGB.

    Args:
        image: As Pillow has loaded it.
        deep: From `read_deep`: the same in 16 bits, with opacity if it has four channels or
            two; None: there are none, or the picture is of one channel, where Pillow keeps
            them itself.
    """
    info = image.info
    is_gray = image.mode in _GRAY_MODES or (deep is not None and deep.shape[2] == 2)
    if deep is None and image.mode.startswith("I;16"):
        deep = _deep_gray(image, np.asarray(image))
    shallow, degraded = _eight_bit(image)
    if deep is not None and deep.shape[2] == 2:
        shallow = shallow.convert("LA")  # which Pillow opens as RGBA
    colours, alpha = _set_alpha_apart(shallow)
    transparent = info.get("transparency")
    if deep is not None and deep.shape[2] == 3 and isinstance(transparent, tuple):
        # Pillow looks for a colour of 16 bits among those of 8.
        deep = _with_one_transparent(deep, transparent)
        opacity = Image.fromarray((deep[..., 3] >> 8).astype(np.uint8))
        alpha = None if opacity.getextrema() == (255, 255) else opacity
    applied = _apply_profile(colours, info)
    applied.image.info = {}  # of what may be `image` itself
    degraded += applied.degraded
    if deep is not None:
        deep = _deep_srgb(deep, applied, info)
        if deep is None:
            degraded.append(
                Degradation(
                    "bits", "of its 16 bits 8 were used: its colour profile is made of tables"
                )
            )
        elif alpha is None:
            deep = deep[..., :3]
    return Colours(applied.image, alpha, deep, is_gray, applied.icc, applied.profile, degraded)


_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})


def _deep_gray(image: Image.Image, levels: np.ndarray) -> Levels:
    """Return HxWx1 in the full range of 16 bits, HxWx2 where one level is transparent."""
    top, is_inverted = _sixteen_bit_scale(image)
    full = np.minimum(levels.astype(np.uint32) * 65535 // top, 65535).astype(np.uint16)
    if is_inverted:
        full = 65535 - full
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return full[..., None]
    return np.stack([full, np.where(levels == transparent, 0, 65535).astype(np.uint16)], axis=-1)


def _with_one_transparent(colours: Levels, transparent: tuple[int, ...]) -> Levels:
    """Return HxWx3 with opacity: none where it has a certain colour."""
    opaque = (colours != np.array(transparent, dtype=np.uint16)).any(axis=-1)
    return np.concatenate([colours, np.where(opaque, 65535, 0)[..., None]], axis=2).astype(
        np.uint16
    )


def _deep_srgb(
    deep: Levels, applied: _Applied, info: Mapping[str | tuple[int, int], object]
) -> Levels | None:
    """Return HxWx3, or 4 with opacity, in sRGB; None if that takes tables."""
    colours, opacity = (
        (deep[..., :3], deep[..., 3:]) if deep.shape[2] > 2 else (deep[..., :1], deep[..., 1:])
    )
    if applied.profile is not None and applied.profile != SRGB_PROFILE:
        profile = Profile.parse(applied.profile)
        if profile is None:
            return None
        if colours.shape[2] == 1 and not profile.is_gray:
            colours = np.repeat(colours, 3, axis=2)
        if profile.is_gray and colours.shape[2] == 3:
            return None
        target = SRGB_GRAY if profile.is_gray else SRGB
        colours = _converted(colours, profile, target)
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    return np.concatenate([colours, opacity], axis=2) if opacity.shape[2] else colours


def _converted(levels: Levels, source: Profile, target: Profile) -> Levels:
    result = np.empty_like(levels)
    rows = max(1, _BAND_PIXELS // levels.shape[1])
    for top in range(0, len(levels), rows):
        band = levels[top : top + rows].astype(np.float32) / np.float32(65535)
        wanted = convert(band, source, target) * 65535 + 0.5
        result[top : top + rows] = wanted.astype(np.uint16)
    return result


def _eight_bit(image: Image.Image) -> tuple[Image.Image, list[Degradation]]:
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
    top, is_inverted = _sixteen_bit_scale(image)
    table = np.minimum((np.arange(65536) * 255 + top // 2) // top, 255).astype(np.uint8)
    if is_inverted:
        table = 255 - table
    gray = Image.fromarray(table[levels])
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return gray
    opaque = Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (gray, opaque))


def _sixteen_bit_scale(image: Image.Image) -> tuple[int, bool]:
    """Return the highest level, and whether it stands for black."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    top = 4095 if 12 in np.atleast_1d(tags.get(BITSPERSAMPLE, 0)) else 65535
    # Pillow inverts only up to 8 bits.
    return top, tags.get(PHOTOMETRIC_INTERPRETATION) == _TIFF_WHITE_IS_ZERO


def _stretched(values: np.ndarray) -> tuple[Image.Image, list[Degradation]]:
    """Map the darkest of HxW values to black and the brightest to white."""
    low, high = float(values.min()), float(values.max())
    scale = 255 / (high - low) if high > low else 0.0
    gray = ((values.astype(np.float64) - low) * scale + 0.5).astype(np.uint8)
    message = f"brightness values from {low:g} to {high:g} were stretched to 8 bits"
    return Image.fromarray(gray), [Degradation("bits", message)]


def _set_alpha_apart(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours (mode L, RGB, CMYK or LAB) and the opacity (L; None: all opaque)."""
    is_gray = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        if image.mode in ("L", "RGB", "CMYK", "LAB"):
            # A copy of 24 megapixels takes a third of the time in which they are decoded. Other
            # formats than JPEG hold on to the bytes of their file, which may be many.
            return image if type(image) is JpegImageFile else image.copy(), None
        return image.convert("L" if is_gray else "RGB"), None
    straight = image.convert("LA") if image.mode == "La" else image
    rgba = straight.convert("RGBA")
    alpha = rgba.getchannel("A")
    is_opaque = alpha.getextrema() == (255, 255)
    return rgba.convert("L" if is_gray else "RGB"), None if is_opaque else alpha


@dataclass(frozen=True, slots=True)
class _Applied:
    """What a colour profile has made of a picture; the profile only if it was used."""

    image: Image.Image
    icc: str | None = None
    degraded: tuple[Degradation, ...] = ()
    profile: bytes | None = None


def _apply_profile(colours: Image.Image, info: Mapping[str | tuple[int, int], object]) -> _Applied:
    """Convert to sRGB by the embedded ICC profile, or plainly where none can be used."""
    if "icc_profile" not in info:
        message = "there is no colour profile, so CMYK was converted approximately"
        degraded = (Degradation("color", message),) if colours.mode == "CMYK" else ()
        return _Applied(_rgb(colours), degraded=degraded)
    icc = info["icc_profile"]
    if not isinstance(icc, bytes):  # Pillow could not put its pieces together
        return _Applied(_rgb(colours), degraded=(_DAMAGED_PROFILE,))
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        name = _printable(profile.profile.profile_description or "unnamed")
        space = profile.profile.xcolor_space.strip()
        wanted = _MODE_OF_SPACE.get(space)
        if wanted == "RGB" and colours.mode == "L":
            colours = colours.convert("RGB")
        if wanted != colours.mode:
            message = f"the colour profile is for {_printable(space)} pixels and was ignored"
            return _Applied(_rgb(colours), name, (Degradation("color", message),))
        if icc == SRGB_PROFILE:
            return _Applied(colours, name, profile=icc)
        return _Applied(_transformed(colours, profile), name, profile=icc)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return _Applied(_rgb(colours), degraded=(_DAMAGED_PROFILE,))


def _rgb(colours: Image.Image) -> Image.Image:
    # Pillow would copy what is RGB already.
    return colours if colours.mode == "RGB" else colours.convert("RGB")


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

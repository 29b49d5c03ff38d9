"""Converts decoded images of any Pillow mode to sRGB: in 8 bits, and in 16 if the file has them.

An image passes through three steps, each a function below: levels of more than 8 bits are
scaled to 8, the alpha channel is split off, and the colour profile is applied. 16-bit images
go through the same steps a second time at full depth. Every step that loses information
returns a `Degradation`.
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
from styled.photos.profiles import Profile, convert
from styled.photos.sixteen_bit import Levels

_TIFF_WHITE_IS_ZERO = 0
_MAX_NAME_LENGTH = 120
_DAMAGED_PROFILE = Degradation("color", "the colour profile is damaged and was ignored")

# ICC colour space signature -> the Pillow mode that the pixels must have.
_MODES_BY_COLOR_SPACE: Mapping[str, str] = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


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
class SrgbImage:
    """Pixels of an image in sRGB, without metadata; see `Photo` for the fields."""

    image: Image.Image
    alpha: Image.Image | None
    deep: Levels | None
    is_gray: bool
    icc: str | None
    profile: bytes | None
    degraded: list[Degradation]


def to_srgb(image: Image.Image, deep: Levels | None = None) -> SrgbImage:
    """Convert a decoded image of any mode to sRGB.

    Args:
        image: An image that Pillow has loaded.
        deep: The same image in 16 bits, from `read_sixteen_bit`; with two or four channels the
            last one is alpha. None if the image has no 16-bit levels, or has one channel, for
            which Pillow itself keeps all 16 bits.
    """
    info = image.info
    is_gray = image.mode in _GRAY_MODES or (deep is not None and deep.shape[2] == 2)
    if deep is None and image.mode.startswith("I;16"):
        deep = _scale_sixteen_bit_gray(image, np.asarray(image))
    eight_bit, degraded = _to_eight_bit(image)
    if deep is not None and deep.shape[2] == 2:
        eight_bit = eight_bit.convert("LA")  # Pillow opens 16-bit LA as RGBA
    colors, alpha = _split_alpha(eight_bit)
    transparent = info.get("transparency")
    if deep is not None and deep.shape[2] == 3 and isinstance(transparent, tuple):
        # Pillow compares the transparent colour, which has 16 bits, with 8-bit pixels, so the
        # alpha channel is made from the 16-bit levels.
        deep = _add_color_key_alpha(deep, transparent)
        opacity = Image.fromarray((deep[..., 3] >> 8).astype(np.uint8))
        alpha = None if opacity.getextrema() == (255, 255) else opacity
    profiled = _apply_profile(colors, info)
    profiled.image.info = {}  # removes the metadata; may be the same object as `image`
    degraded += profiled.degraded
    if deep is not None:
        deep = _sixteen_bit_to_srgb(deep, profiled, info)
        if deep is None:
            degraded.append(
                Degradation(
                    "bits", "of its 16 bits 8 were used: its colour profile is made of tables"
                )
            )
        elif alpha is None:
            deep = deep[..., :3]
    return SrgbImage(profiled.image, alpha, deep, is_gray, profiled.icc, profiled.profile, degraded)


_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})


def _scale_sixteen_bit_gray(image: Image.Image, levels: np.ndarray) -> Levels:
    """Scale HxW levels to HxWx1 in the full 16-bit range; HxWx2 if one level is transparent."""
    max_level, is_inverted = _sixteen_bit_range(image)
    full = np.minimum(levels.astype(np.uint32) * 65535 // max_level, 65535).astype(np.uint16)
    if is_inverted:
        full = 65535 - full
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return full[..., None]
    return np.stack([full, np.where(levels == transparent, 0, 65535).astype(np.uint16)], axis=-1)


def _add_color_key_alpha(colors: Levels, transparent: tuple[int, ...]) -> Levels:
    """Return HxWx4: the HxWx3 levels with an alpha of 0 where they equal the transparent colour."""
    opaque = (colors != np.array(transparent, dtype=np.uint16)).any(axis=-1)
    return np.concatenate([colors, np.where(opaque, 65535, 0)[..., None]], axis=2).astype(np.uint16)


def _sixteen_bit_to_srgb(
    deep: Levels, profiled: _ProfileResult, info: Mapping[str | tuple[int, int], object]
) -> Levels | None:
    """Return HxWx3 in sRGB, HxWx4 with alpha; None if the profile can't be applied in 16 bits."""
    colors, opacity = (
        (deep[..., :3], deep[..., 3:]) if deep.shape[2] > 2 else (deep[..., :1], deep[..., 1:])
    )
    if profiled.profile is not None and profiled.profile != SRGB_PROFILE:
        profile = Profile.parse(profiled.profile)
        if profile is None:
            return None
        if colors.shape[2] == 1 and not profile.is_gray:
            colors = np.repeat(colors, 3, axis=2)
        if profile.is_gray and colors.shape[2] == 3:
            return None
        target = SRGB_GRAY if profile.is_gray else SRGB
        colors = _convert_in_bands(colors, profile, target)
    if colors.shape[2] == 1:
        colors = np.repeat(colors, 3, axis=2)
    return np.concatenate([colors, opacity], axis=2) if opacity.shape[2] else colors


def _convert_in_bands(levels: Levels, source: Profile, target: Profile) -> Levels:
    result = np.empty_like(levels)
    rows = max(1, _BAND_PIXELS // levels.shape[1])
    for top in range(0, len(levels), rows):
        band = levels[top : top + rows].astype(np.float32) / np.float32(65535)
        scaled = convert(band, source, target) * 65535 + 0.5
        result[top : top + rows] = scaled.astype(np.uint16)
    return result


def _to_eight_bit(image: Image.Image) -> tuple[Image.Image, list[Degradation]]:
    """Scale levels of more than 8 bits to 8; Pillow would clip them."""
    if image.mode.startswith("I;16"):
        return _gray_to_eight_bit(image, np.asarray(image)), []
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() >= 0 and values.max() <= 65535:
            return _gray_to_eight_bit(image, values), []
        return _stretch_to_eight_bit(values)
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
        if values.min() >= 0 and values.max() <= 1:
            return Image.fromarray((values * 255 + 0.5).astype(np.uint8)), []
        return _stretch_to_eight_bit(values)
    return image, []


def _gray_to_eight_bit(image: Image.Image, levels: np.ndarray) -> Image.Image:
    """Scale HxW levels to mode L, or to LA if one level is transparent."""
    max_level, is_inverted = _sixteen_bit_range(image)
    table = np.minimum((np.arange(65536) * 255 + max_level // 2) // max_level, 255).astype(np.uint8)
    if is_inverted:
        table = 255 - table
    gray = Image.fromarray(table[levels])
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return gray
    opaque = Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (gray, opaque))


def _sixteen_bit_range(image: Image.Image) -> tuple[int, bool]:
    """Return the highest level, and whether it means black."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    max_level = 4095 if 12 in np.atleast_1d(tags.get(BITSPERSAMPLE, 0)) else 65535
    # Pillow itself inverts WhiteIsZero images only up to 8 bits.
    return max_level, tags.get(PHOTOMETRIC_INTERPRETATION) == _TIFF_WHITE_IS_ZERO


def _stretch_to_eight_bit(values: np.ndarray) -> tuple[Image.Image, list[Degradation]]:
    """Map the lowest of HxW values to black and the highest to white."""
    low, high = float(values.min()), float(values.max())
    scale = 255 / (high - low) if high > low else 0.0
    gray = ((values.astype(np.float64) - low) * scale + 0.5).astype(np.uint8)
    message = f"brightness values from {low:g} to {high:g} were stretched to 8 bits"
    return Image.fromarray(gray), [Degradation("bits", message)]


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours (mode L, RGB, CMYK or LAB) and the alpha channel (L; None: all opaque)."""
    is_gray = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        if image.mode in ("L", "RGB", "CMYK", "LAB"):
            # JPEG is not copied: copying 24 megapixels takes a third of the time of decoding
            # them. Images of other formats keep the bytes of their file, which may be many, in
            # memory; a copy does not.
            return image if type(image) is JpegImageFile else image.copy(), None
        return image.convert("L" if is_gray else "RGB"), None
    straight = image.convert("LA") if image.mode == "La" else image
    rgba = straight.convert("RGBA")
    alpha = rgba.getchannel("A")
    is_opaque = alpha.getextrema() == (255, 255)
    return rgba.convert("L" if is_gray else "RGB"), None if is_opaque else alpha


@dataclass(frozen=True, slots=True)
class _ProfileResult:
    """An image after its profile was applied: RGB, sRGB. `profile` is None if it was not used."""

    image: Image.Image
    icc: str | None = None
    degraded: tuple[Degradation, ...] = ()
    profile: bytes | None = None


def _apply_profile(
    colors: Image.Image, info: Mapping[str | tuple[int, int], object]
) -> _ProfileResult:
    """Convert to sRGB by the embedded ICC profile, or by Pillow's default if none can be used."""
    if "icc_profile" not in info:
        message = "there is no colour profile, so CMYK was converted approximately"
        degraded = (Degradation("color", message),) if colors.mode == "CMYK" else ()
        return _ProfileResult(_to_rgb(colors), degraded=degraded)
    icc = info["icc_profile"]
    if not isinstance(icc, bytes):  # Pillow could not join its segments
        return _ProfileResult(_to_rgb(colors), degraded=(_DAMAGED_PROFILE,))
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        name = _printable(profile.profile.profile_description or "unnamed")
        space = profile.profile.xcolor_space.strip()
        required_mode = _MODES_BY_COLOR_SPACE.get(space)
        if required_mode == "RGB" and colors.mode == "L":
            colors = colors.convert("RGB")
        if required_mode != colors.mode:
            message = f"the colour profile is for {_printable(space)} pixels and was ignored"
            return _ProfileResult(_to_rgb(colors), name, (Degradation("color", message),))
        if icc == SRGB_PROFILE:
            return _ProfileResult(colors, name, profile=icc)
        return _ProfileResult(_apply_transform(colors, profile), name, profile=icc)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return _ProfileResult(_to_rgb(colors), degraded=(_DAMAGED_PROFILE,))


def _to_rgb(colors: Image.Image) -> Image.Image:
    # `convert` would copy an image that is RGB already.
    return colors if colors.mode == "RGB" else colors.convert("RGB")


def _apply_transform(colors: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.ImageCmsProfile(BytesIO(SRGB_PROFILE)),
        colors.mode,
        "RGB",
        # The default of photo editors: in-gamut colours stay, black stays black.
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return transform.apply(colors)


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:_MAX_NAME_LENGTH].strip()

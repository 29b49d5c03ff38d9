"""Converts decoded images to sRGB: in 8 bits, and in 16 if the file has more than 8.

The colours are separated from the alpha channel, and converted by the colour profile of the file.
Every step that loses information returns a `Degradation`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile

from styled.degradation import Degradation
from styled.photos import vips
from styled.photos.color_spaces import ColorSpace
from styled.photos.hdr import hdr_to_srgb
from styled.photos.profiles import Profile, convert
from styled.photos.raster import Levels, Raster

_MAX_NAME_LENGTH = 120
_DAMAGED_PROFILE = Degradation("color", "the colour profile is damaged and was ignored")
_NO_CMYK_PROFILE = Degradation(
    "color", "there is no colour profile, so CMYK was converted approximately"
)

# ICC colour space signature -> the Pillow mode that the pixels must have.
_MODES_BY_COLOR_SPACE: Mapping[str, str] = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_SPACES_BY_SIGNATURE: Mapping[bytes, str] = {b"RGB ": "rgb", b"GRAY": "gray", b"CMYK": "cmyk"}


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

_BAND_ROWS = 256


@dataclass(frozen=True, slots=True)
class SrgbImage:
    """Pixels of an image in sRGB, without metadata; see `Photo` for the fields."""

    image: Image.Image
    alpha: Image.Image | None
    deep: Levels | None
    is_gray: bool
    icc: str | None
    profile: bytes | None
    degraded: tuple[Degradation, ...]


def image_to_srgb(
    image: Image.Image, icc: bytes | None, alpha: Image.Image | None = None
) -> SrgbImage:
    """Convert an 8-bit image to sRGB.

    Args:
        image: An image that Pillow has loaded, of any mode of 8 bits or fewer.
        icc: Its colour profile; None: it has none; b"": a damaged one.
        alpha: Opacity, if the image has a mode without it.
    """
    is_gray = image.mode in _GRAY_MODES
    colors, own_alpha = _split_alpha(image)
    alpha = alpha if alpha is not None else own_alpha
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    converted = _apply_profile(colors, icc)
    converted.image.info = {}  # removes the metadata; may be the same object as `image`
    return SrgbImage(
        converted.image, alpha, None, is_gray, converted.icc, converted.profile, converted.degraded
    )


def raster_to_srgb(raster: Raster, icc: bytes | None) -> SrgbImage:
    """Convert levels of more than 8 bits to sRGB.

    Args:
        raster: The levels.
        icc: Their colour profile; None: they have none; b"": a damaged one.
    """
    colors, name, profile, degraded = _convert_raster(raster, None if raster.is_srgb else icc)
    if colors.shape[2] == 1:
        colors = np.repeat(colors, 3, axis=2)
    return _deep_image(colors, raster, name, profile, degraded)


def hdr_image_to_srgb(
    pixels: Image.Image | Raster, space: ColorSpace, alpha: Image.Image | None = None
) -> SrgbImage:
    """Convert an image of high dynamic range to sRGB.

    Args:
        pixels: The image, in 8 bits or more.
        space: Its colour space.
        alpha: Opacity of an image in 8 bits.
    """
    message = f"it is HDR ({space.name}): brightness above that of paper was compressed"
    degraded = (Degradation("color", message),)
    if isinstance(pixels, Raster):
        colors = pixels.colors
        if colors.shape[2] == 1:
            colors = np.repeat(colors, 3, axis=2)
        deep = _quantized(hdr_to_srgb(colors[..., :3], space), 65535, np.uint16)
        return _deep_image(deep, pixels, None, None, degraded)
    is_gray = pixels.mode in _GRAY_MODES
    plain, own_alpha = _split_alpha(pixels)
    levels = np.asarray(_to_rgb(plain))
    image = Image.fromarray(_quantized(hdr_to_srgb(levels, space), 255, np.uint8))
    return SrgbImage(image, alpha or own_alpha, None, is_gray, None, None, degraded)


_GRAY_MODES = frozenset({"1", "L", "LA", "La"})


def _quantized(levels: NDArray[np.float32], highest: int, dtype: Any) -> NDArray[Any]:
    return (levels * highest + 0.5).clip(0, highest).astype(dtype)


def _deep_image(
    colors: Levels, raster: Raster, name: str | None, profile: bytes | None,
    degraded: tuple[Degradation, ...],
) -> SrgbImage:  # fmt: skip
    """Return HxWx3 levels in sRGB with the alpha channel of their raster, also in 8 bits."""
    alpha = raster.alpha
    if alpha is not None and (alpha == 65535).all():
        alpha = None
    deep = colors if alpha is None else np.dstack([colors, alpha])
    return SrgbImage(
        Image.fromarray(_to_eight_bit(colors)),
        None if alpha is None else Image.fromarray(_to_eight_bit(alpha)),
        deep, raster.space == "gray", name, profile, degraded,
    )  # fmt: skip


def _to_eight_bit(levels: Levels) -> NDArray[np.uint8]:
    result = np.empty(levels.shape, dtype=np.uint8)
    for top in range(0, len(levels), _BAND_ROWS):
        band = levels[top : top + _BAND_ROWS].astype(np.uint32)
        result[top : top + _BAND_ROWS] = (band * 255 + 32767) // 65535
    return result


def _convert_raster(
    raster: Raster, icc: bytes | None
) -> tuple[Levels, str | None, bytes | None, tuple[Degradation, ...]]:
    """Return HxWx1 or HxWx3 in sRGB, name and bytes of the profile that was used, and notes."""
    colors = raster.colors
    if not icc:
        degraded = () if icc is None else (_DAMAGED_PROFILE,)
        if raster.space == "cmyk":
            degraded = (*degraded, _NO_CMYK_PROFILE)
        return _without_profile(raster), None, None, degraded
    name = _name_of(icc)
    if name is None:
        return _without_profile(raster), None, None, (_DAMAGED_PROFILE,)
    space = _SPACES_BY_SIGNATURE.get(icc[16:20])
    if space == "rgb" and raster.space == "gray":
        colors = np.repeat(colors, 3, axis=2)
    elif space != raster.space:
        described = _cleaned_name(icc[16:20].decode("latin-1"))
        message = f"the colour profile is for {described} pixels and was ignored"
        degraded = (Degradation("color", message),)
        return _without_profile(raster), name, None, degraded
    if icc == SRGB_PROFILE:
        return colors, name, icc, ()
    profile = Profile.parse(icc)
    if profile is not None:
        target = SRGB_GRAY if profile.is_gray else SRGB
        return _convert_in_bands(colors, profile, target), name, icc, ()
    try:
        actual_space = "rgb" if space == "rgb" else raster.space
        return vips.apply_profile(colors, actual_space, icc), name, icc, ()
    except vips.Error:
        return _without_profile(raster), None, None, (_DAMAGED_PROFILE,)


def _without_profile(raster: Raster) -> Levels:
    """Return the colours as they are; CMYK by the plain formula."""
    if raster.space != "cmyk":
        return raster.colors
    result = np.empty((*raster.colors.shape[:2], 3), dtype=np.uint16)
    for top in range(0, len(result), _BAND_ROWS):
        ink = raster.colors[top : top + _BAND_ROWS].astype(np.float32) / np.float32(65535)
        light = (1 - ink[..., :3]) * (1 - ink[..., 3:])
        result[top : top + _BAND_ROWS] = _quantized(light, 65535, np.uint16)
    return result


def _convert_in_bands(levels: Levels, source: Profile, target: Profile) -> Levels:
    result = np.empty_like(levels)
    for top in range(0, len(levels), _BAND_ROWS):
        band = levels[top : top + _BAND_ROWS].astype(np.float32) / np.float32(65535)
        result[top : top + _BAND_ROWS] = _quantized(convert(band, source, target), 65535, np.uint16)
    return result


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours (mode L, RGB, CMYK or LAB) and the alpha channel (L; None: all opaque)."""
    is_gray = image.mode in _GRAY_MODES
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


def _apply_profile(colors: Image.Image, icc: bytes | None) -> _ProfileResult:
    """Convert to sRGB by an ICC profile, or by Pillow's default if none can be used."""
    if icc is None:
        degraded = (_NO_CMYK_PROFILE,) if colors.mode == "CMYK" else ()
        return _ProfileResult(_to_rgb(colors), degraded=degraded)
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        name = _cleaned_name(profile.profile.profile_description or "unnamed")
        space = profile.profile.xcolor_space.strip()
        required_mode = _MODES_BY_COLOR_SPACE.get(space)
        if required_mode == "RGB" and colors.mode == "L":
            colors = colors.convert("RGB")
        if required_mode != colors.mode:
            message = f"the colour profile is for {_cleaned_name(space)} pixels and was ignored"
            return _ProfileResult(_to_rgb(colors), name, (Degradation("color", message),))
        if icc == SRGB_PROFILE:
            return _ProfileResult(colors, name, profile=icc)
        return _ProfileResult(_apply_transform(colors, profile), name, profile=icc)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return _ProfileResult(_to_rgb(colors), degraded=(_DAMAGED_PROFILE,))


def _name_of(icc: bytes) -> str | None:
    """Return the name of a profile, None if it is damaged."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        return _cleaned_name(profile.profile.profile_description or "unnamed")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


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


def _cleaned_name(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:_MAX_NAME_LENGTH].strip()

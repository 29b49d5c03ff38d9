"""From a painting to a file as its photographer expects it: like the photo, where asked."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

from styled.degradation import Degradation
from styled.photos.colour import SRGB, SRGB_GRAY, SRGB_PROFILE
from styled.photos.metadata import Metadata, painted_exif
from styled.photos.photo import Photo
from styled.photos.picture import Picture
from styled.photos.profiles import Profile, convert
from styled.photos.saving import (
    DEEP_FORMATS,
    EXIF_FORMATS,
    EXTENSIONS,
    IPTC_FORMATS,
    LONGEST_EXIF,
    LONGEST_IPTC,
    LONGEST_XMP,
    MODES,
    UNREAD_DEEP_MODES,
    save,
)

Floats = NDArray[np.float32]

# ITU-R BT.601, as the engine keeps luminance.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

_BAND_PIXELS = 1 << 20


@dataclass(frozen=True, slots=True)
class Finish:
    """How results are saved.

    Attributes:
        quality: 1..100, of formats that lose something.
        metadata: Whether to take over EXIF, GPS, XMP, IPTC and resolution.
        color: Whether to deliver in sRGB, or in the photo's own colour space.
        grayscale: Whether the result of a grey photo is painted in colours, or stays grey.
        bits: 8 or 16; `same`: as many as the photo has. 16 only where the format has them.
    """

    quality: int = 95
    metadata: Literal["keep", "strip"] = "keep"
    color: Literal["srgb", "input"] = "srgb"
    grayscale: Literal["color", "keep"] = "color"
    bits: Literal["same", 8, 16] = "same"


@dataclass(frozen=True, slots=True)
class Finished:
    """A file's bytes, and what is in them.

    Attributes:
        data: The file.
        bits: Of each number: 8 or 16.
        icc: The name of the colour space; None: the format has no place for a profile.
        degraded: What the photo had and the file has not.
    """

    data: bytes
    bits: int
    icc: str | None
    degraded: tuple[Degradation, ...]


def finish(tensor: torch.Tensor, photo: Photo, format: str, how: Finish) -> Finished:
    """Save a painting of `photo`.

    Args:
        tensor: 1x3xHxW, sRGB in [0, 1]; it may have another size than the photo.
        photo: What it is a painting of.
        format: One of `EXTENSIONS`.
        how: What is asked for.

    Raises:
        ConfigError: it is larger than the format can hold.
        ValueError: the tensor is of another shape, or not finite.
    """
    degraded: list[Degradation] = []
    deep = _is_deep(photo, format, how, degraded)
    modes = MODES[format] - (UNREAD_DEEP_MODES.get(format, frozenset()) if deep else frozenset())
    levels = to_floats(tensor)
    height, width = levels.shape[:2]
    opacity = photo.opacity(width, height)
    if opacity is not None and not any(mode.endswith("A") for mode in modes):
        levels = levels * opacity[..., None] + (1 - opacity[..., None])
        opacity = None
        message = f"transparency was placed on white: {format.upper()} files have none"
        degraded.append(Degradation("transparency", message))
    if how.grayscale == "keep" and photo.is_gray:
        levels = (levels @ _LUMA)[..., None]

    colours = _Colours(levels, "sRGB", SRGB_PROFILE)
    if how.color == "input" and photo.profile is not None:
        if format in _WITHOUT_PROFILE:
            message = f"the painting is in sRGB: {format.upper()} files hold no colour profile"
            degraded.append(Degradation("color", message))
        else:
            colours = _in_colours_of(photo, colours, modes, opacity is not None, degraded)
    levels, icc_name = colours.levels, colours.name
    icc = None if format in _WITHOUT_PROFILE else colours.icc
    if levels.shape[2] == 1:
        if _gray_mode(opacity is not None) not in modes:
            levels = np.repeat(levels, 3, axis=2)
        elif icc == SRGB_PROFILE:
            icc = None  # it is for colours; grey without one has the same curve
    if opacity is not None:
        levels = np.concatenate([levels, opacity[..., None]], axis=2)

    metadata = photo.metadata if how.metadata == "keep" else Metadata()
    picture = Picture(
        levels=_rounded(levels, np.uint16 if deep else np.uint8),
        mode="CMYK" if colours.is_cmyk else _MODE_OF_CHANNELS[levels.shape[2]],
        icc=icc,
        exif=_exif(metadata, format, (width, height), _is_srgb(colours.icc), degraded),
        xmp=_fitting(metadata.xmp, "XMP", format, EXIF_FORMATS, LONGEST_XMP, degraded),
        iptc=_fitting(metadata.iptc, "IPTC", format, IPTC_FORMATS, LONGEST_IPTC, degraded),
        dpi=metadata.dpi,
    )
    data = save(picture, format, how.quality)
    return Finished(data, 16 if deep else 8, icc_name if icc else None, tuple(degraded))


_MODE_OF_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_WITHOUT_PROFILE = frozenset({"bmp", "gif"})


@dataclass(frozen=True, slots=True)
class _Colours:
    """HxWxC in [0, 1] and the profile that they are in."""

    levels: Floats
    name: str
    icc: bytes

    @property
    def is_cmyk(self) -> bool:
        return bool(self.levels.shape[2] == 4)


def _in_colours_of(
    photo: Photo, srgb: _Colours, modes: set[str], has_opacity: bool, degraded: list[Degradation]
) -> _Colours:
    """Return a painting in the colour space of its photo, as far as the file can be in it."""
    icc, name, levels = photo.profile or b"", photo.icc or "unnamed", srgb.levels
    space, is_gray = icc[16:20], levels.shape[2] == 1
    kept = f"its colour profile, {name},"
    if space == b"GRAY" and not is_gray:
        message = f"{kept} is for grey pictures: the painting is in sRGB"
        degraded.append(Degradation("color", message))
        return srgb
    is_for_other_modes = space not in (b"GRAY", b"RGB ") and (
        "CMYK" not in modes or has_opacity or is_gray
    )
    if is_for_other_modes or (space == b"GRAY" and _gray_mode(has_opacity) not in modes):
        message = f"{kept} does not go with this file format: the painting is in sRGB"
        degraded.append(Degradation("color", message))
        return srgb
    if is_gray and space == b"RGB ":
        levels = np.repeat(levels, 3, axis=2)
    profile = Profile.parse(icc)
    if profile is not None:
        source = SRGB_GRAY if profile.is_gray else SRGB
        return _Colours(convert(levels, source, profile), name, icc)
    try:
        return _Colours(_by_tables(levels, icc, "CMYK" if space == b"CMYK" else "RGB"), name, icc)
    except (ImageCms.PyCMSError, OSError, ValueError):
        # Many profiles of scanners lead only one way: from them.
        message = f"{kept} can't be converted to: the painting is in sRGB"
        degraded.append(Degradation("color", message))
        return srgb


def _by_tables(levels: Floats, icc: bytes, mode: str) -> Floats:
    """Convert HxWx3 from sRGB by a profile made of tables, in 8 bits."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(BytesIO(SRGB_PROFILE)),
        ImageCms.ImageCmsProfile(BytesIO(icc)),
        "RGB",
        mode,
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    converted = transform.apply(Image.fromarray(_rounded(levels, np.uint8)))
    return np.asarray(converted, dtype=np.float32) / np.float32(255)


def _gray_mode(has_opacity: bool) -> str:
    return "LA" if has_opacity else "L"


def _is_srgb(icc: bytes) -> bool:
    """Return whether a profile describes sRGB, whoever has made it."""
    profile = Profile.parse(icc)
    return profile is not None and profile.is_like(SRGB)


def _is_deep(photo: Photo, format: str, how: Finish, degraded: list[Degradation]) -> bool:
    wanted: int = photo.bits if how.bits == "same" else how.bits
    if wanted == 16 and format not in DEEP_FORMATS:
        message = f"16 bits were rounded to 8: {format.upper()} files have no more"
        degraded.append(Degradation("bits", message))
        return False
    return wanted == 16


def _exif(
    metadata: Metadata, format: str, size: tuple[int, int], srgb: bool, degraded: list[Degradation]
) -> Image.Exif | None:
    if format not in EXIF_FORMATS:
        if metadata.exif:
            message = f"EXIF data was left out: {format.upper()} files have none"
            degraded.append(Degradation("metadata", message))
        return None
    exif, left_out = painted_exif(metadata, size, srgb=srgb, longest=LONGEST_EXIF.get(format))
    degraded += left_out
    return exif


def _fitting(
    data: bytes, name: str, format: str, formats: frozenset[str], longest: dict[str, int],
    degraded: list[Degradation],
) -> bytes:  # fmt: skip
    """Return metadata if a file of this format has room for it, and note it if not."""
    if data and format not in formats:
        message = f"{name} data was left out: {format.upper()} files have none"
        degraded.append(Degradation("metadata", message))
    elif len(data) > longest.get(format, len(data)):
        message = f"{name} data of {len(data)} bytes was left out: it is too long"
        degraded.append(Degradation("metadata", message))
    else:
        return data
    return b""


def in_gray(tensor: torch.Tensor) -> torch.Tensor:
    """Return 1x3xHxW in shades of grey, by the lightness that `finish` keeps of it."""
    weights = tensor.new_tensor(_LUMA.tolist()).view(1, 3, 1, 1)
    return (tensor * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1).contiguous()


def to_floats(tensor: torch.Tensor) -> Floats:
    """Return a 1x3xHxW floating-point tensor in [0, 1] as HxWx3; what lies outside is cut off.

    Raises:
        ValueError: it has another shape or type, or values that are not finite.
    """
    shape = tuple(tensor.shape)
    if len(shape) != 4 or shape[:2] != (1, 3) or 0 in shape or not tensor.is_floating_point():
        raise ValueError(
            f"expected a 1x3xHxW floating-point tensor, got {'x'.join(map(str, shape))} "
            f"of {tensor.dtype}"
        )
    pixels = tensor.detach()[0].to("cpu", torch.float32)
    if not torch.isfinite(pixels).all():
        raise ValueError("the tensor holds values that are not finite")
    return pixels.clamp(0, 1).permute(1, 2, 0).contiguous().numpy()


def _rounded(levels: Floats, to: type[np.uint8 | np.uint16]) -> NDArray[Any]:
    top = np.float32(np.iinfo(to).max)
    result = np.empty(levels.shape, dtype=to)
    rows = max(1, _BAND_PIXELS // levels.shape[1])
    for start in range(0, len(levels), rows):
        result[start : start + rows] = levels[start : start + rows] * top + np.float32(0.5)
    return result


def encode(tensor: torch.Tensor, format: str, quality: int = 95) -> bytes:
    """Save a 1x3xHxW tensor, sRGB in [0,1], that is nobody's photo.

    `quality` (1..100) matters to jpeg, webp, avif and heic. All but bmp and gif carry an sRGB
    profile. Raises ValueError for an unknown format or a wrong tensor, ConfigError if the
    picture is larger than the format can hold.
    """
    output_format(format, format)
    icc = None if format in _WITHOUT_PROFILE else SRGB_PROFILE
    return save(Picture(_rounded(to_floats(tensor), np.uint8), "RGB", icc), format, quality)


def output_format(configured: str, input_format: str) -> tuple[str, str]:
    """Return the result's format and file name extension (with its dot).

    `configured` is a format, or `same` for that of the input. Raises ValueError for an
    unknown one.
    """
    chosen = input_format if configured == "same" else configured
    if chosen not in EXTENSIONS:
        raise ValueError(f"unknown picture format {chosen!r}: expected {', '.join(EXTENSIONS)}")
    return chosen, EXTENSIONS[chosen]

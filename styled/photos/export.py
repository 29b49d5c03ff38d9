"""Exports a painting to an image file, with the properties of its photo where configured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

from styled.degradation import Degradation
from styled.photos.color import SRGB, SRGB_GRAY, SRGB_PROFILE
from styled.photos.color_spaces import ADOBE_RGB_SPACE
from styled.photos.encode import (
    EXIF_FORMATS,
    EXTENSIONS,
    IPTC_FORMATS,
    MAX_COMMENT_BYTES,
    MAX_EXIF_BYTES,
    MAX_IPTC_BYTES,
    MAX_PHOTOSHOP_BYTES,
    MAX_XMP_SEGMENT_BYTES,
    MODES,
    SIXTEEN_BIT_FORMATS,
    UNREADABLE_SIXTEEN_BIT_MODES,
    save,
)
from styled.photos.exif import Exif
from styled.photos.metadata import Metadata, exif_for_painting
from styled.photos.output_image import OutputImage
from styled.photos.photo import Photo
from styled.photos.profiles import Profile, convert
from styled.photos.xmp import XmpDamaged, split_xmp

Floats = NDArray[np.float32]

# ITU-R BT.601, as the engine keeps luminance.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

_BAND_PIXELS = 1 << 20


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How results are saved.

    Attributes:
        quality: 1..100, for lossy formats.
        metadata: Whether to copy EXIF, GPS, XMP, IPTC and resolution from the photo.
        color: Whether the result is in sRGB or in the photo's own colour space.
        grayscale: Whether the result of a grey photo is in colour or stays grey.
        bits: 8 or 16; `same`: as many as the photo has. 16 only if the format supports it.
    """

    quality: int = 95
    metadata: Literal["keep", "strip"] = "keep"
    color: Literal["srgb", "input"] = "srgb"
    grayscale: Literal["color", "keep"] = "color"
    bits: Literal["same", 8, 16] = "same"


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """An encoded image file.

    Attributes:
        data: The bytes of the file.
        bits: Bits per channel: 8 or 16.
        icc: The name of the embedded colour profile; None: there is none.
        degraded: What the photo had and the file lacks.
    """

    data: bytes
    bits: int
    icc: str | None
    degraded: tuple[Degradation, ...]


def export_image(
    tensor: torch.Tensor, photo: Photo, format: str, options: ExportOptions
) -> ExportedImage:
    """Encode a painting of `photo`.

    Args:
        tensor: The painting: 1x3xHxW, sRGB in [0, 1]. Its size may differ from the photo's.
        photo: The photo that was painted.
        format: One of `EXTENSIONS`.
        options: How to save it.

    Raises:
        ConfigError: The painting is larger than the format can hold.
        ValueError: The tensor has another shape, or values that are not finite.
    """
    degraded: list[Degradation] = []
    deep = _is_sixteen_bit(photo, format, options, degraded)
    modes = MODES[format] - (
        UNREADABLE_SIXTEEN_BIT_MODES.get(format, frozenset()) if deep else frozenset()
    )
    levels = to_floats(tensor)
    height, width = levels.shape[:2]
    opacity = photo.opacity(width, height)
    if opacity is not None and not any(mode.endswith("A") for mode in modes):
        levels = levels * opacity[..., None] + (1 - opacity[..., None])
        opacity = None
        message = f"transparency was placed on white: {format.upper()} files have none"
        degraded.append(Degradation("transparency", message))
    if options.grayscale == "keep" and photo.is_gray:
        levels = (levels @ _LUMA)[..., None]

    profiled = _ProfiledPixels(levels, "sRGB", SRGB_PROFILE)
    if options.color == "input" and photo.profile is not None:
        if format in _FORMATS_WITHOUT_PROFILE:
            message = f"the painting is in sRGB: {format.upper()} files hold no colour profile"
            degraded.append(Degradation("color", message))
        else:
            profiled = _to_photo_profile(photo, profiled, modes, opacity is not None, degraded)
    levels, icc_name = profiled.levels, profiled.name
    icc = None if format in _FORMATS_WITHOUT_PROFILE else profiled.icc
    if levels.shape[2] == 1:
        if _gray_mode(opacity is not None) not in modes:
            levels = np.repeat(levels, 3, axis=2)
        elif icc == SRGB_PROFILE:
            icc = None  # an RGB profile; grey without one has the same curve
    if opacity is not None:
        levels = np.concatenate([levels, opacity[..., None]], axis=2)

    metadata = photo.metadata if options.metadata == "keep" else Metadata()
    exif = _exif(metadata, format, (width, height), profiled.icc, degraded)
    xmp, xmp_extension = _xmp(metadata, format, degraded)
    picture = OutputImage(
        levels=_quantize(levels, np.uint16 if deep else np.uint8),
        mode="CMYK" if profiled.is_cmyk else _MODES_BY_CHANNELS[levels.shape[2]],
        icc=icc,
        exif=exif,
        xmp=xmp,
        xmp_extension=xmp_extension,
        iptc=_metadata_if_it_fits(
            metadata.iptc, "IPTC", format, IPTC_FORMATS, MAX_IPTC_BYTES, degraded
        ),
        photoshop=metadata.photoshop if len(metadata.photoshop) < MAX_PHOTOSHOP_BYTES else b"",
        dpi=metadata.dpi,
        comment=_comment(metadata, format, degraded),
        texts=_texts(metadata, format, degraded),
    )
    data = save(picture, format, options.quality)
    return ExportedImage(data, 16 if deep else 8, icc_name if icc else None, tuple(degraded))


_MODES_BY_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_FORMATS_WITHOUT_PROFILE = frozenset({"bmp", "gif", "jxl"})


@dataclass(frozen=True, slots=True)
class _ProfiledPixels:
    """HxWxC levels in [0, 1] and the ICC profile of their colour space."""

    levels: Floats
    name: str
    icc: bytes

    @property
    def is_cmyk(self) -> bool:
        return bool(self.levels.shape[2] == 4)


def _to_photo_profile(
    photo: Photo,
    srgb: _ProfiledPixels,
    modes: set[str],
    has_opacity: bool,
    degraded: list[Degradation],
) -> _ProfiledPixels:
    """Convert a painting to its photo's profile; it stays sRGB, with a note, if the file can't."""
    icc, name, levels = photo.profile or b"", photo.icc or "unnamed", srgb.levels
    space, is_gray = icc[16:20], levels.shape[2] == 1
    prefix = f"its colour profile, {name},"
    if space == b"GRAY" and not is_gray:
        message = f"{prefix} is for grey pictures: the painting is in sRGB"
        degraded.append(Degradation("color", message))
        return srgb
    needs_other_mode = space not in (b"GRAY", b"RGB ") and (
        "CMYK" not in modes or has_opacity or is_gray
    )
    if needs_other_mode or (space == b"GRAY" and _gray_mode(has_opacity) not in modes):
        message = f"{prefix} does not go with this file format: the painting is in sRGB"
        degraded.append(Degradation("color", message))
        return srgb
    if is_gray and space == b"RGB ":
        levels = np.repeat(levels, 3, axis=2)
    profile = Profile.parse(icc)
    if profile is not None:
        source = SRGB_GRAY if profile.is_gray else SRGB
        return _ProfiledPixels(convert(levels, source, profile), name, icc)
    try:
        return _ProfiledPixels(
            _convert_by_tables(levels, icc, "CMYK" if space == b"CMYK" else "RGB"), name, icc
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        # Many scanner profiles convert from their colour space only, not to it.
        message = f"{prefix} can't be converted to: the painting is in sRGB"
        degraded.append(Degradation("color", message))
        return srgb


def _convert_by_tables(levels: Floats, icc: bytes, mode: str) -> Floats:
    """Convert HxWx3 levels from sRGB to a profile made of tables, in 8 bits."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(BytesIO(SRGB_PROFILE)),
        ImageCms.ImageCmsProfile(BytesIO(icc)),
        "RGB",
        mode,
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    converted = transform.apply(Image.fromarray(_quantize(levels, np.uint8)))
    return np.asarray(converted, dtype=np.float32) / np.float32(255)


def _gray_mode(has_opacity: bool) -> str:
    return "LA" if has_opacity else "L"


_ADOBE_RGB = Profile.parse(ADOBE_RGB_SPACE.icc_profile())


_parsed = lru_cache(maxsize=4)(Profile.parse)


def _is_like(icc: bytes, other: Profile | None) -> bool:
    """Return whether a profile describes the same space as another one, whoever made it."""
    profile = _parsed(icc)
    return profile is not None and other is not None and profile.is_same_rgb_space(other)


_DEEPER_FORMATS = frozenset({"heic", "avif", "jxl"})
"""Formats that can hold more than 8 bits, which are not written here."""


def _is_sixteen_bit(
    photo: Photo, format: str, options: ExportOptions, degraded: list[Degradation]
) -> bool:
    bits: int = photo.bits if options.bits == "same" else options.bits
    if bits == 16 and format not in SIXTEEN_BIT_FORMATS:
        reason = "are written in 8" if format in _DEEPER_FORMATS else "have no more"
        message = f"more than 8 bits were rounded to 8: {format.upper()} files {reason}"
        degraded.append(Degradation("bits", message))
        return False
    return bits == 16


def _exif(
    metadata: Metadata, format: str, size: tuple[int, int], icc: bytes, degraded: list[Degradation]
) -> Exif | None:
    if format not in EXIF_FORMATS:
        if metadata.exif:
            message = f"EXIF data was left out: {format.upper()} files have none"
            degraded.append(Degradation("metadata", message))
        return None
    exif, notes = exif_for_painting(
        metadata, size, srgb=_is_like(icc, SRGB), adobe_rgb=_is_like(icc, _ADOBE_RGB),
        max_bytes=MAX_EXIF_BYTES.get(format),
    )  # fmt: skip
    degraded += notes
    return exif


def _xmp(metadata: Metadata, format: str, degraded: list[Degradation]) -> tuple[bytes, bytes]:
    """Return the XMP packet, and for a JPEG what of it does not fit into one segment."""
    xmp = _metadata_if_it_fits(metadata.xmp, "XMP", format, EXIF_FORMATS, {}, degraded)
    if format != "jpeg":
        return xmp, b""
    try:
        return split_xmp(xmp, MAX_XMP_SEGMENT_BYTES)
    except XmpDamaged:
        message = f"XMP data of {len(xmp)} bytes was left out: it is too long"
        degraded.append(Degradation("metadata", message))
        return b"", b""


def _comment(metadata: Metadata, format: str, degraded: list[Degradation]) -> bytes:
    if not metadata.comment:
        return b""
    if format == "jpeg" and len(metadata.comment) <= MAX_COMMENT_BYTES:
        return metadata.comment
    message = f"the comment was left out: {format.upper()} files have none"
    degraded.append(Degradation("metadata", message))
    return b""


def _texts(
    metadata: Metadata, format: str, degraded: list[Degradation]
) -> tuple[tuple[str, str], ...]:
    if metadata.texts and format != "png":
        message = f"the texts of the PNG were left out: {format.upper()} files have none"
        degraded.append(Degradation("metadata", message))
        return ()
    return metadata.texts


def _metadata_if_it_fits(
    data: bytes, name: str, format: str, formats: frozenset[str], max_bytes: dict[str, int],
    degraded: list[Degradation],
) -> bytes:  # fmt: skip
    """Return metadata if it fits into a file of this format; else add a note and return b''."""
    if data and format not in formats:
        message = f"{name} data was left out: {format.upper()} files have none"
        degraded.append(Degradation("metadata", message))
    elif len(data) > max_bytes.get(format, len(data)):
        message = f"{name} data of {len(data)} bytes was left out: it is too long"
        degraded.append(Degradation("metadata", message))
    else:
        return data
    return b""


def to_grayscale(tensor: torch.Tensor) -> torch.Tensor:
    """Return 1x3xHxW in grey, with the luma weights that `export_image` uses for grey results."""
    weights = tensor.new_tensor(_LUMA.tolist()).view(1, 3, 1, 1)
    return (tensor * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1).contiguous()


def to_floats(tensor: torch.Tensor) -> Floats:
    """Convert a 1x3xHxW floating-point tensor to HxWx3, clamped to [0, 1].

    Raises:
        ValueError: It has another shape or dtype, or values that are not finite.
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


def _quantize(levels: Floats, dtype: type[np.uint8 | np.uint16]) -> NDArray[Any]:
    max_level = np.float32(np.iinfo(dtype).max)
    result = np.empty(levels.shape, dtype=dtype)
    rows = max(1, _BAND_PIXELS // levels.shape[1])
    for start in range(0, len(levels), rows):
        result[start : start + rows] = levels[start : start + rows] * max_level + np.float32(0.5)
    return result


def encode_image(tensor: torch.Tensor, format: str, quality: int = 95) -> bytes:
    """Encode a tensor that belongs to no photo, in 8 bits and without metadata.

    All formats but bmp and gif get an sRGB profile.

    Args:
        tensor: 1x3xHxW, sRGB in [0, 1].
        format: One of `EXTENSIONS`.
        quality: 1..100, for jpeg, webp, avif and heic.

    Raises:
        ValueError: The format is unknown, or the tensor is invalid.
        ConfigError: The image is larger than the format can hold.
    """
    output_format(format, format)
    icc = None if format in _FORMATS_WITHOUT_PROFILE else SRGB_PROFILE
    return save(OutputImage(_quantize(to_floats(tensor), np.uint8), "RGB", icc), format, quality)


_RESULT_OF = {"raw": "tiff"}  # nothing of its 16 bits is lost


def output_format(configured: str, input_format: str) -> tuple[str, str]:
    """Return the result's format and file name extension (with its dot).

    Args:
        configured: A format, or `same` for that of the input, which for raw photos is tiff.
        input_format: The format of the input.

    Raises:
        ValueError: The format is unknown.
    """
    chosen = _RESULT_OF.get(input_format, input_format) if configured == "same" else configured
    if chosen not in EXTENSIONS:
        raise ValueError(f"unknown picture format {chosen!r}: expected {', '.join(EXTENSIONS)}")
    return chosen, EXTENSIONS[chosen]

"""Reads the pixels of a file: by Pillow, and what Pillow can't read by libvips or other packages.

Files are passed to the decoders named here only. Pillow's registry has dozens more, among them EPS,
which runs Ghostscript; that of libvips has ImageMagick.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from styled.degradation import Degradation
from styled.errors import StyledError
from styled.photos import bmp, heic, jpeg, jxl, raw, vips
from styled.photos.exif import ORIENTATION
from styled.photos.file_metadata import FileMetadata, Info, read_file_metadata
from styled.photos.heif_boxes import heif_picture
from styled.photos.limits import Limits
from styled.photos.png_chunks import has_all_pixels, read_chunks
from styled.photos.raster import Raster, to_sixteen_bit, unpremultiplied
from styled.photos.shortage import can_be_allocated, is_memory_shortage
from styled.photos.tiff_pages import (
    COMPRESSION,
    PHOTOMETRIC,
    describe,
    find_picture,
    has_all_parts,
    require_plausible_tiles,
)
from styled.photos.tiff_tags import SHORT, Directory, TiffReader

_BITS_PER_SAMPLE, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 338, 339
_LOG_L, _JPEG = 32844, 7
_WHITE_IS_ZERO, _SIGNED, _FLOATING_POINT, _UNSPECIFIED_SAMPLE = 0, 2, 3, 0
_END_OF_PNG = b"\0\0\0\0IEND\xae\x42\x60\x82"


class Damaged(Exception):
    """Part of the picture is missing or wrong; the message says what, as a clause."""


class Unreadable(Exception):
    """A picture can't be read; the message says of what kind it is, the cause why."""


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """A file that is to be read.

    Attributes:
        data: Its bytes.
        is_truncated: Whether it ends before the end that its structure declares.
        tolerant: Whether damaged pictures are read as far as they can be decoded.
        limits: Checks the size.
    """

    data: bytes
    is_truncated: bool
    tolerant: bool
    limits: Limits


@dataclass(frozen=True, slots=True)
class Decoded:
    """The decoded pixels of a file.

    Orientation and colour space are those of the file, unless the decoder has applied them already,
    which `file_metadata` then says.

    Attributes:
        pixels: A loaded image of 8 bits per channel, or a raster of 16.
        alpha: Opacity, if the mode of `pixels` has none (CMYK).
        file_metadata: Metadata, orientation and colour profile.
        degraded: What was lost.
    """

    pixels: Image.Image | Raster
    alpha: Image.Image | None = None
    file_metadata: FileMetadata = field(default_factory=FileMetadata)
    degraded: tuple[Degradation, ...] = ()


def read_picture(source: EncodedFile, format: str) -> Decoded:
    """Read a file of a known format.

    Raises:
        StyledError: The size is not acceptable, a package for this format is missing, or there is
            too little memory now.
        Damaged: Part of the picture is missing, and `source.tolerant` is false.
        Exception: Of any other type, if the file is not valid.
    """
    return _READERS[format](source)


def _read_jpeg(source: EncodedFile) -> Decoded:
    data = jpeg.repaired(source.data)
    if source.is_truncated:
        data = jpeg.with_end_marker(data)
    try:
        image = JpegImagePlugin.jpeg_factory(BytesIO(data))  # including MPO: several images
        size, info = image.size, image.info
    except Exception as error:  # noqa: BLE001  # Pillow may raise nearly any type
        size, info = vips.size_of(data, "jpeg"), {}
        source.limits.check(size)
        decoded = _by_vips(source, data, "jpeg", instead_of=error)
        return replace(decoded, file_metadata=read_file_metadata(data, "jpeg", info))
    source.limits.check(size)
    damage = None if source.tolerant else vips.damage_of_jpeg(data) or jpeg.missing_scans(data)
    if damage is not None:
        raise Damaged(damage)
    return replace(_by_pillow(image), file_metadata=read_file_metadata(data, "jpeg", info))


def _read_png(source: EncodedFile) -> Decoded:
    chunks = read_chunks(source.data)
    header = chunks.picture[8:33]
    if header[4:8] != b"IHDR" or len(header) < 25:
        raise ValueError("its header is missing")
    source.limits.check(struct.unpack_from(">II", header, 8))
    if chunks.is_damaged and not source.tolerant:
        raise Damaged("the checksum of its data is wrong")
    picture = chunks.picture
    if source.is_truncated:
        if not source.tolerant and not has_all_pixels(picture):
            raise Damaged("its data ends too early")
        picture += _END_OF_PNG
    file_metadata = read_file_metadata(source.data, "png", {}, chunks=chunks)
    if chunks.bit_depth == 16:
        return replace(_by_vips(source, picture, "png"), file_metadata=file_metadata)
    try:
        image = PngImagePlugin.PngImageFile(BytesIO(picture))
        level = image.info.get("transparency")
        if image.mode == "L" and chunks.bit_depth < 8 and isinstance(level, int):
            # Pillow scales the levels to 8 bits, but not the one that is transparent.
            image.info["transparency"] = level * 255 // (2**chunks.bit_depth - 1)
        decoded = _by_pillow(image)
    except Exception as error:  # noqa: BLE001  # Pillow may raise nearly any type
        decoded = _by_vips(source, picture, "png", instead_of=error)
    return replace(decoded, file_metadata=file_metadata)


def _read_tiff(source: EncodedFile) -> Decoded:
    reader = TiffReader(source.data)
    picture = find_picture(reader)
    if picture is None:
        raise ValueError("it holds no picture")
    source.limits.check(picture.size)
    directory = picture.directory
    notes = []
    if picture.has_more_pages:
        notes.append(Degradation("frames", "only the first of several pages was used"))
    if picture.is_reduced:
        width, height = picture.size
        message = f"the file holds only a reduced copy of the picture, of {width} x {height} pixels"
        notes.append(Degradation("frames", message))
    try:
        decoded = _tiff_pixels(source, reader, directory)
    except Exception as error:
        is_named = isinstance(error, StyledError | Damaged)
        if is_named or source.is_truncated or is_memory_shortage(error):
            raise
        raise Unreadable(describe(directory)) from error
    file_metadata = read_file_metadata(source.data, "tiff", {})
    return replace(decoded, file_metadata=file_metadata, degraded=(*notes, *decoded.degraded))


def _tiff_pixels(source: EncodedFile, reader: TiffReader, directory: Directory) -> Decoded:
    if directory.number(PHOTOMETRIC) == _LOG_L:
        raise ValueError("its brightness is logarithmic (LogL)")
    if not source.tolerant and not has_all_parts(directory):
        raise Damaged("part of its data is missing")
    require_plausible_tiles(directory)
    data = _with_only(source.data, reader, directory)
    if directory.number(COMPRESSION) == _JPEG and not source.tolerant:
        damage = vips.damage_of_tiff(data)
        if damage is not None:
            raise Damaged(damage)
    kinds = directory.numbers(_SAMPLE_FORMAT)
    is_unusual = _FLOATING_POINT in kinds or _SIGNED in kinds
    if max(directory.numbers(_BITS_PER_SAMPLE), default=1) > 8 or is_unusual:
        return _tiff_by_vips(source, data, directory)
    try:
        return _by_pillow(TiffImagePlugin.TiffImageFile(BytesIO(data)))
    except Exception as error:  # noqa: BLE001  # Pillow may raise nearly any type
        return _without_unspecified(_by_vips(source, data, "tiff", instead_of=error), directory)


def _without_unspecified(decoded: Decoded, directory: Directory) -> Decoded:
    """Return a picture without the channel that libvips takes for opacity if its use is unknown."""
    if directory.numbers(_EXTRA_SAMPLES)[:1] != (_UNSPECIFIED_SAMPLE,):
        return decoded
    pixels = decoded.pixels
    if isinstance(pixels, Raster):
        return replace(decoded, pixels=replace(pixels, alpha=None))
    without = {"RGBA": "RGB", "LA": "L"}.get(pixels.mode)
    return replace(decoded, pixels=pixels.convert(without) if without else pixels, alpha=None)


def _with_only(data: bytes, reader: TiffReader, directory: Directory) -> bytes:
    """Return a TIFF whose only page is the given directory, without its orientation."""
    is_alone = reader.first_offset == directory.offset and not directory.next_offset
    if is_alone and ORIENTATION not in directory:
        return data
    result = bytearray(data)
    layout = reader.order + reader.word
    struct.pack_into(layout, result, reader.word_bytes, directory.offset)
    if directory.end + reader.word_bytes <= len(result):
        struct.pack_into(layout, result, directory.end, 0)
    if ORIENTATION in directory:  # Pillow would turn the picture, libvips would not
        entry = directory.entries[ORIENTATION]
        struct.pack_into(f"{reader.order}HH{reader.word}", result, entry, ORIENTATION, SHORT, 1)
        struct.pack_into(f"{reader.order}H", result, entry + 4 + reader.word_bytes, 1)
    return bytes(result)


def _tiff_by_vips(source: EncodedFile, data: bytes, directory: Directory) -> Decoded:
    try:
        decoded = _by_vips(source, data, "tiff")
    except vips.Error as error:
        if source.is_truncated or is_memory_shortage(error):
            raise
        try:  # 12 bits, for example
            image = TiffImagePlugin.TiffImageFile(BytesIO(data))
            image.load()
            if image.mode in ("RGB", "RGBA", "CMYK"):
                bits = int(directory.numbers(_BITS_PER_SAMPLE)[0])
                note = Degradation("bits", f"only 8 of its {bits} bits were used")
                return Decoded(image, degraded=(note,))
            levels = _raster_of(image)
            return Decoded(levels, degraded=levels.degraded)
        except Exception:  # noqa: BLE001  # as above; the first error tells more
            raise error from None
    return _without_unspecified(decoded, directory)


def _raster_of(image: Image.Image) -> Raster:
    """Return the levels of a TIFF that Pillow reads with more than 8 bits: grey of 12, 16, 32."""
    if not image.mode.startswith(("I", "F")):
        raise ValueError(f"unknown levels of mode {image.mode}")
    tags = getattr(image, "tag_v2", {})
    levels = np.asarray(image)
    if 12 in np.atleast_1d(tags.get(_BITS_PER_SAMPLE, 0)):
        levels = np.minimum(levels.astype(np.uint32) * 65535 // 4095, 65535).astype(np.uint16)
    colors, notes = to_sixteen_bit(levels)
    if tags.get(PHOTOMETRIC) == _WHITE_IS_ZERO:
        colors = 65535 - colors
    return Raster(colors[..., None], "gray", degraded=notes)


def _read_avif(source: EncodedFile) -> Decoded:
    picture = heif_picture(source.data)
    is_deep = picture is not None and picture.bits > 8
    # libavif does not crop the picture to its clean aperture.
    is_cropped = picture is not None and picture.find_property(b"clap") is not None
    info: Info = {}
    notes: tuple[Degradation, ...] = ()
    try:
        image = AvifImagePlugin.AvifImageFile(BytesIO(source.data))
        source.limits.check(image.size)
        if not (is_deep or is_cropped):
            file_metadata = read_file_metadata(source.data, "avif", image.info)
            return replace(_by_pillow(image), file_metadata=file_metadata)
        info, notes = image.info, _ignored_frames(image)
    except StyledError:
        raise
    except Exception as error:  # noqa: BLE001  # libavif is stricter: it insists on its brand
        source.limits.check(vips.size_of(source.data, "avif"))
        decoded = _by_vips(source, source.data, "avif", instead_of=error)
    else:
        decoded = _by_vips(source, source.data, "avif")
    raster = decoded.pixels
    is_premultiplied = picture is not None and picture.is_premultiplied
    if is_premultiplied and isinstance(raster, Raster) and raster.alpha is not None:
        colors = unpremultiplied(raster.colors, raster.alpha)
        decoded = replace(decoded, pixels=replace(raster, colors=colors))
    # libheif turns the picture upright.
    file_metadata = read_file_metadata(source.data, "avif", info, decoder_applies_orientation=True)
    return replace(decoded, file_metadata=file_metadata, degraded=(*notes, *decoded.degraded))


def _read_heic(source: EncodedFile) -> Decoded:
    heif = heic.open_heic(source.data)
    source.limits.check(heif.size)
    file_metadata = read_file_metadata(
        source.data, "heic", heif.info, decoder_applies_orientation=True
    )
    return Decoded(heif.load(), file_metadata=file_metadata, degraded=heif.degraded)


def _read_webp(source: EncodedFile) -> Decoded:
    # Pillow allocates memory for the whole image when it opens a WebP.
    pixels = min(_webp_pixels(source.data), source.limits.max_pixels)
    source.limits.expect(pixels)
    image = WebPImagePlugin.WebPImageFile(BytesIO(source.data))
    source.limits.check(image.size)
    return replace(
        _by_pillow(image), file_metadata=read_file_metadata(source.data, "webp", image.info)
    )


def _webp_pixels(data: bytes) -> int:
    """Return the number of pixels that the first chunk of a WebP declares (RFC 9649), else 0."""
    kind, first = data[12:16], data[20:30]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(first[at : at + 3], "little") for at in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(first[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(first[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    else:
        return 0
    return width * height


def _read_gif(source: EncodedFile) -> Decoded:
    image = GifImagePlugin.GifImageFile(BytesIO(source.data))
    source.limits.check(image.size)
    image.load()
    file_metadata = read_file_metadata(source.data, "gif", image.info)
    frames: tuple[Degradation, ...] = ()
    with suppress(Exception):  # a later frame may be damaged
        frames = _ignored_frames(GifImagePlugin.GifImageFile(BytesIO(source.data)))
    return Decoded(image, file_metadata=file_metadata, degraded=frames)


def _read_bmp(source: EncodedFile) -> Decoded:
    notes: tuple[Degradation, ...] = ()
    try:
        reader = BmpImagePlugin.BmpImageFile if source.data[:2] == b"BM" else _DIB
        image: Image.Image = reader(BytesIO(source.data))
        source.limits.check(image.size)
        image.load()
    except OSError as error:
        if "bitfields" not in str(error):
            raise
        source.limits.check(bmp.size_of(source.data))
        image, bits = bmp.read_bitfields(source.data)
        if bits > 8:
            notes = (Degradation("bits", f"only 8 of its {bits} bits were used"),)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        # Programs without support for transparency leave the channel at zero.
        image = image.convert("RGB")
    file_metadata = read_file_metadata(source.data, "bmp", image.info)
    return Decoded(image, file_metadata=file_metadata, degraded=notes)


_DIB = BmpImagePlugin.DibImageFile  # without the BITMAPFILEHEADER


def _read_raw(source: EncodedFile) -> Decoded:
    raster, damage = raw.develop(source.data, source.limits)
    if source.is_truncated and damage is None:  # LibRaw does not notice everything
        damage = "its data ends too early"
    if damage is not None and not source.tolerant:
        raise Damaged(damage)
    file_metadata = read_file_metadata(source.data, "raw", {}, decoder_applies_orientation=True)
    return Decoded(raster, file_metadata=file_metadata)


def _read_jxl(source: EncodedFile) -> Decoded:
    source.limits.check(jxl.size_of(source.data))
    image, is_upright, notes = jxl.open_jxl(source.data)
    file_metadata = read_file_metadata(
        source.data, "jxl", image.info, decoder_applies_orientation=is_upright
    )
    return Decoded(image, file_metadata=file_metadata, degraded=notes)


_READERS: dict[str, Callable[[EncodedFile], Decoded]] = {
    "jpeg": _read_jpeg,
    "png": _read_png,
    "tiff": _read_tiff,
    "webp": _read_webp,
    "bmp": _read_bmp,
    "gif": _read_gif,
    "avif": _read_avif,
    "heic": _read_heic,
    "raw": _read_raw,
    "jxl": _read_jxl,
}


def _by_pillow(image: ImageFile.ImageFile) -> Decoded:
    frames = _ignored_frames(image)
    image.load()
    return Decoded(image, degraded=frames)


def _by_vips(
    source: EncodedFile, data: bytes, format: str, *, instead_of: Exception | None = None
) -> Decoded:
    """Read a picture by libvips.

    Args:
        source: The file.
        data: The bytes that libvips is given.
        format: The format.
        instead_of: The error of the decoder that failed first. It is raised if libvips fails too;
            and at once for a truncated file (but for TIFF), a size that is not acceptable, or a
            lack of memory.
    """
    if instead_of is not None and (
        (source.is_truncated and format != "tiff")  # libtiff alone notices what is missing
        or isinstance(instead_of, StyledError | Image.DecompressionBombError)
        or is_memory_shortage(instead_of)
    ):
        raise instead_of
    source.limits.require_memory()
    try:
        levels = vips.read(data, format, tolerant=source.tolerant)
    except vips.Error as error:
        if is_memory_shortage(error) and can_be_allocated(source.limits.needed_bytes):
            raise ValueError("it asks for more memory than a picture of its size takes") from None
        raise instead_of or error from None
    if isinstance(levels, Raster):
        return Decoded(levels, degraded=levels.degraded)
    channels = levels.shape[2]
    alpha = None
    if channels == 5:
        alpha = Image.fromarray(np.ascontiguousarray(levels[..., 4]))
        levels = levels[..., :4]
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA", 5: "CMYK"}[channels]
    pixels = levels[..., 0] if channels == 1 else levels
    return Decoded(Image.fromarray(np.ascontiguousarray(pixels), mode), alpha=alpha)


def _ignored_frames(image: ImageFile.ImageFile) -> tuple[Degradation, ...]:
    frames: int = getattr(image, "n_frames", 1)
    if isinstance(image, TiffImagePlugin.TiffImageFile) or frames < 2:
        return ()
    return (Degradation("frames", f"only the first of {frames} frames was used"),)

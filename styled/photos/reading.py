"""From a path to a `Photo`: upright, RGB, 8 bit, sRGB. Nothing in a file can crash this."""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
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
from PIL.ExifTags import Base

from styled.errors import InputIncomplete, InputRejected, ResourceUnavailable, StyledError
from styled.photos.colour import to_srgb
from styled.photos.containers import could_become_picture, excess_in, format_of, is_cut
from styled.recipes import Resample

MIN_EDGE_PX = 32
DEFAULT_MAX_PIXELS = 200_000_000
DEFAULT_LIMIT_BYTES = 2 * 1024**3
_MAX_CAUSE_LENGTH = 200
_READABLE = "styled reads JPEG, PNG, TIFF, WebP, AVIF, BMP and GIF."

# Only these readers ever see a file. Pillow's own registry holds dozens more, among them
# EPS, which runs Ghostscript.
_READERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "jpeg": JpegImagePlugin.jpeg_factory,  # MPO, the JPEG with several pictures, included
    "png": PngImagePlugin.PngImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}

# EXIF 2.3, orientation: what makes a picture upright.
_UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded picture and what its file said about it."""

    image: Image.Image  # upright, mode RGB, sRGB
    format: str  # jpeg | png | tiff | webp | bmp | gif | avif
    width: int  # upright, in pixels
    height: int
    orientation: int  # EXIF orientation as found, 1..8
    icc: str | None  # name of the embedded colour profile
    notes: tuple[str, ...]  # what was lost on the way, in plain words

    def tensor(self, width: int, height: int, resample: Resample = "lanczos") -> torch.Tensor:
        """Return the picture at `width` x `height` pixels: 1x3xHxW float32, sRGB in [0,1].

        `bilinear` is what torchvision's Resize does to a Pillow image, to the last bit.

        Raises ValueError if a side is below 1.
        """
        if min(width, height) < 1:
            raise ValueError(f"a tensor of {width} x {height} pixels is not possible")
        image = self.image
        if (width, height) != image.size:
            if resample == "bilinear":
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            elif width < image.width or height < image.height:
                # A gap of 3 makes box averages do the coarse part of a large reduction, which
                # is several times faster and can't be told apart.
                image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
            else:  # Lanczos would ring when enlarging
                image = image.resize((width, height), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        return pixels.contiguous().to(torch.float32).div_(255)


def read_bytes(path: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> bytes:
    """Read a whole regular file; never wait, never follow a symbolic link.

    Raises InputRejected if it is not a regular file or larger than `limit_bytes`,
    FileNotFoundError if it is gone, ResourceUnavailable if the system can't read it.
    """
    try:
        # The look beforehand spares devices and FIFOs, where opening alone has effects;
        # the look at the open file is the one that can't be fooled.
        _require_regular(path.lstat(), path)
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            _require_regular(status, path)
            data = file.read() if status.st_size <= limit_bytes else b""
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:  # its folder was replaced by a file
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # it changed in between
            raise _not_regular(path) from error
        raise ResourceUnavailable(
            f"{_shown(path)} can't be read: {error.strerror} (errno {error.errno})",
            "Check the permissions, the disk and the mount.",
        ) from error
    if max(status.st_size, len(data)) > limit_bytes:
        raise InputRejected(
            f"{_shown(path)} is larger than {limit_bytes:,} bytes, the most that is read",
            "Save the picture smaller, for example as a JPEG.",
        )
    return data


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, name: str = "the file") -> Photo:
    """Decode the bytes of a picture file, of which the first frame is used.

    Raises InputRejected if it can never be decoded, InputIncomplete if it ends too early;
    nothing else, whatever the bytes are. `name` is what messages call the file.
    """
    if not data:
        raise InputRejected(f"{name} is empty", "Copy it again.")
    found = format_of(data)
    if found is None:
        if could_become_picture(data):
            raise _incomplete(name)
        raise InputRejected(f"{name} is not a picture that styled can read", _READABLE)
    excess = excess_in(data, found)
    if excess is not None:
        raise InputRejected(
            f"{name} has {excess}, which no camera or editor writes",
            "Open it in an image editor and save it again.",
        )
    cut = is_cut(data, found)
    try:
        with _pillow_set_up(max_pixels), _quiet_libraries(found):
            return _decode(data, found, cut, max_pixels, name)
    except StyledError:
        raise
    except Image.DecompressionBombError as error:
        # Found by Pillow while opening: a WebP, or a GIF whose frame exceeds its canvas.
        raise _too_large(name, "the header claims more pixels", max_pixels) from error
    except Exception as error:
        # The one place where anything is caught: on damaged or hostile bytes Pillow raises
        # nearly every built-in type (OSError, SyntaxError, struct.error, KeyError,
        # AssertionError, MemoryError...), which all mean that this input can't be decoded.
        if cut or "image file is truncated" in str(error):
            raise _incomplete(name) from error
        raise InputRejected(
            f"{name} can't be decoded as {found.upper()}: {_cause(error)}",
            "Open it in an image editor and save it again.",
        ) from error


def _decode(data: bytes, found: str, cut: bool, max_pixels: int, name: str) -> Photo:
    if found == "png":
        # Pillow opens a PNG where its pixels begin; a bomb is known from its first bytes.
        _check_size(struct.unpack_from(">II", data, 16), max_pixels, name)
    image = _READERS[found](BytesIO(data))
    _check_size(image.size, max_pixels, name)
    if cut:
        raise _incomplete(name)
    frame_notes = _frame_notes(image)
    if found != "tiff":
        image.load()  # the EXIF data of a PNG may follow its pixels
    orientation, exif_notes = _orientation(image)
    image.load()  # turns a TIFF upright and forgets its orientation
    rgb, icc, colour_notes = to_srgb(image)
    if found != "tiff" and orientation in _UPRIGHT_BY:
        rgb = rgb.transpose(_UPRIGHT_BY[orientation])
    notes = (*frame_notes, *exif_notes, *colour_notes)
    return Photo(rgb, found, rgb.width, rgb.height, orientation, icc, notes)


_PILLOW_LOCK = threading.Lock()


@contextmanager
def _pillow_set_up(max_pixels: int) -> Iterator[None]:
    """Let Pillow accept up to `max_pixels`, and keep its warnings to itself.

    Both are settings of the process, so one thread at a time changes them and puts them
    back. Another user of Pillow is never left without a limit or with a lower one.
    """
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        before = Image.MAX_IMAGE_PIXELS
        if before is not None:
            # Pillow refuses what exceeds twice its limit.
            Image.MAX_IMAGE_PIXELS = max(before, (max_pixels + 1) // 2)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _quiet_libraries(found: str) -> Iterator[None]:
    """Keep what libtiff writes to standard error by itself out of the log while it decodes.

    It writes a line for each damaged row. This too is a setting of the process, and its own
    log goes elsewhere.
    """
    if found != "tiff":
        yield
        return
    with ExitStack() as opened:
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            opened.callback(os.close, nowhere)
            kept = os.dup(_STANDARD_ERROR)
        except OSError:  # there is none, or no file may be opened any more
            yield
            return
        os.dup2(nowhere, _STANDARD_ERROR)
    try:
        yield
    finally:
        os.dup2(kept, _STANDARD_ERROR)
        os.close(kept)


_STANDARD_ERROR = 2


def _check_size(size: tuple[int, ...], max_pixels: int, name: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise _too_large(name, f"{width} x {height} pixels", max_pixels)
    if min(width, height) < MIN_EDGE_PX:
        raise InputRejected(
            f"{name} is too small: {width} x {height} pixels",
            f"Each edge needs at least {MIN_EDGE_PX} pixels.",
        )


def _frame_notes(image: ImageFile.ImageFile) -> list[str]:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Not counted: a hostile chain of pages can take hours to walk.
        return ["only the first of several pages was used"] if image.is_animated else []
    frames: int = getattr(image, "n_frames", 1)
    return [f"only the first of {frames} frames was used"] if frames > 1 else []


def _orientation(image: ImageFile.ImageFile) -> tuple[int, list[str]]:
    """Return the EXIF orientation, 1 where there is none or it makes no sense."""
    try:
        exif = image.getexif()
        if not exif and "exif" in image.info:
            # The JPEG reader has looked for the resolution already and hidden what it met.
            exif = Image.Exif()
            exif.load(image.info["exif"])
        value = exif.get(Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return 1, ["the EXIF data is damaged and was ignored"]
    return (value, []) if value in range(1, 9) else (1, [])


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _require_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(path)


def _not_regular(path: Path) -> InputRejected:
    return InputRejected(
        f"{_shown(path)} is not a regular file, so it was not read",
        "Put a copy of the picture there, not a link, a folder or a device.",
    )


def _too_large(name: str, size: str, max_pixels: int) -> InputRejected:
    return InputRejected(
        f"{name} is too large: {size}; the limit is {max_pixels} pixels",
        "Save it smaller, or raise `intake.max_pixels` in the configuration.",
    )


def _incomplete(name: str) -> InputIncomplete:
    return InputIncomplete(
        f"{name} ends too early: part of the picture is missing",
        "If it is not still being copied, copy it again.",
    )


def _cause(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    text = "".join(c for c in str(error) if c.isprintable())[:_MAX_CAUSE_LENGTH]
    if text and not any(c.isalpha() for c in text):  # a KeyError's bare number
        return f"it holds the unknown value {text}"
    return text or type(error).__name__


def _shown(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")

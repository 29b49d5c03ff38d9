"""JPEG XL: read and written by pillow-jxl-plugin, if that is installed.

Source of the header: ISO/IEC 18181-1 (codestream), 18181-2 (container).
"""

from __future__ import annotations

import warnings
from io import BytesIO

from PIL import Image

from styled.degradation import Degradation
from styled.errors import ConfigError, InputRejected
from styled.extras import install_command
from styled.photos.heif_boxes import boxes
from styled.photos.output_image import OutputImage

try:
    from pillow_jxl.JpegXLImagePlugin import JXLImageFile
except ImportError:
    JXLImageFile = None  # type: ignore[assignment,misc]  # checked below

_PACKAGE = "pillow-jxl-plugin"
_NOT_INSTALLED = f"the package {_PACKAGE} is not installed"
_SIGNATURE = b"\xff\x0a"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_HEADER_BYTES = 64


class _Bits:
    """Reads bits, the least significant first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        if count > self._left:
            raise ValueError("its header ends too early")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return value

    def edge(self) -> int:
        return 1 + self.read((9, 13, 18, 30)[self.read(2)])


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels; the decoder tells them only with all pixels.

    Raises:
        ValueError: The header is invalid.
    """
    bits = _header(data)
    is_small = bits.read(1)
    height = 8 * (1 + bits.read(5)) if is_small else bits.edge()
    ratio = bits.read(3)
    if ratio:
        top, bottom = _RATIOS[ratio]
        return height * top // bottom, height
    return (8 * (1 + bits.read(5)) if is_small else bits.edge()), height


def bits_of(data: bytes) -> int:
    """Return the bits per channel; 8 if the header does not say.

    Raises:
        ValueError: The header is invalid.
    """
    bits = _header(data)
    is_small = bits.read(1)
    _ = bits.read(5) if is_small else bits.edge()
    if not bits.read(3):
        _ = bits.read(5) if is_small else bits.edge()
    if bits.read(1):  # all_default
        return 8
    if bits.read(1):  # extra fields: their sizes vary
        bits.read(3)  # orientation
        if bits.read(1) or bits.read(1) or bits.read(1):  # intrinsic size, preview, animation
            return 8
    is_float = bits.read(1)
    choice = bits.read(2)
    sizes = (32, 16, 24) if is_float else (8, 10, 12)
    return sizes[choice] if choice < 3 else 1 + bits.read(6)


def _header(data: bytes) -> _Bits:
    if data[:2] != _SIGNATURE:
        for kind, start, end in boxes(data, 0, len(data)):
            if kind in (b"jxlc", b"jxlp"):
                data = data[start + (4 if kind == b"jxlp" else 0) : end]
                break
    if data[:2] != _SIGNATURE:
        raise ValueError("it has no codestream")
    return _Bits(data[2:_HEADER_BYTES])


def open_jxl(data: bytes) -> tuple[Image.Image, bool, tuple[Degradation, ...]]:
    """Decode a JPEG XL file to an image in 8 bits.

    Returns:
        The image; whether it is upright, which it is unless the file was made of a JPEG file that
        the decoder restores; and what was lost.

    Raises:
        InputRejected: pillow-jxl-plugin is not installed.
    """
    if JXLImageFile is None:
        raise InputRejected(
            f"JPEG XL pictures can't be read here: {_NOT_INSTALLED}",
            f"{install_command(_PACKAGE)}, restart styled, and drop the photo once more.",
            "Or save the photo as a JPEG or PNG.",
        )
    bits = bits_of(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Image.Image = JXLImageFile(BytesIO(data))
        image.load()
    is_upright = not getattr(image, "jpeg", False)
    message = f"only 8 of its {bits} bits were used"
    return image, is_upright, ((Degradation("bits", message),) if bits > 8 else ())


def save_jxl(picture: OutputImage, quality: int) -> bytes:
    """Return the bytes of a JPEG XL file, in sRGB.

    Raises:
        ConfigError: pillow-jxl-plugin is not installed.
    """
    if JXLImageFile is None:
        raise ConfigError(
            f"JPEG XL pictures can't be written here: {_NOT_INSTALLED}", install_command(_PACKAGE)
        )
    file = BytesIO()
    options = picture.save_options()
    metadata = {key: options[key] for key in ("exif", "xmp") if key in options}
    picture.image().save(file, "JXL", quality=quality, **metadata)
    return file.getvalue()

"""HEIC, the photo format of phones: read and written by pillow-heif, if that is installed."""

from __future__ import annotations

from io import BytesIO

from PIL import ImageFile

from styled.errors import ConfigError, InputRejected
from styled.photos.output_image import OutputImage

try:
    import pillow_heif
    from pillow_heif.as_plugin import HeifImageFile
except ImportError:
    pillow_heif = None  # type: ignore[assignment]  # checked below

_NOT_INSTALLED = "the package pillow-heif is not installed"


def open_heic(file: BytesIO) -> ImageFile.ImageFile:
    """Open a HEIC file.

    Raises:
        InputRejected: pillow-heif is not installed.
    """
    if pillow_heif is None:
        raise InputRejected(
            f"HEIC pictures can't be read here: {_NOT_INSTALLED}",
            "pip install 'styled[heif]', restart styled, and drop the photo once more.",
            "Or save the photo as a JPEG.",
        )
    image: ImageFile.ImageFile = HeifImageFile(file)  # type: ignore[no-untyped-call]  # untyped package
    return image


def save_heic(picture: OutputImage, quality: int) -> bytes:
    """Return the bytes of a HEIC file.

    Raises:
        ConfigError: pillow-heif is not installed.
    """
    if pillow_heif is None:
        raise ConfigError(
            f"HEIC pictures can't be written here: {_NOT_INSTALLED}", "pip install 'styled[heif]'"
        )
    file = BytesIO()
    heif = pillow_heif.from_pillow(picture.image())
    options = {key: value for key, value in picture.save_options().items() if key != "dpi"}
    icc = options.pop("icc_profile", None)
    if icc is not None:
        heif[0].info["icc_profile"] = icc
    heif.save(file, quality=quality, chroma=444, **options)
    return file.getvalue()

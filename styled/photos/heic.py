"""HEIC, the photos of telephones: read and written by pillow-heif where that is installed."""

from __future__ import annotations

from io import BytesIO

from PIL import ImageFile

from styled.errors import ConfigError, InputRejected
from styled.photos.picture import Picture

try:
    import pillow_heif
    from pillow_heif.as_plugin import HeifImageFile
except ImportError:
    pillow_heif = None  # type: ignore[assignment]  # which is asked for below

_ABSENT = "the package pillow-heif is not installed"


def open_heic(file: BytesIO) -> ImageFile.ImageFile:
    """Open a HEIC file.

    Raises:
        InputRejected: pillow-heif is not installed.
    """
    if pillow_heif is None:
        raise InputRejected(
            f"HEIC pictures can't be read here: {_ABSENT}",
            "pip install 'styled[heif]', restart styled, and drop the photo once more.",
            "Or save the photo as a JPEG.",
        )
    image: ImageFile.ImageFile = HeifImageFile(file)  # type: ignore[no-untyped-call]  # it has no types
    return image


def save_heic(picture: Picture, quality: int) -> bytes:
    """Return the bytes of a HEIC file.

    Raises:
        ConfigError: pillow-heif is not installed.
    """
    if pillow_heif is None:
        raise ConfigError(
            f"HEIC pictures can't be written here: {_ABSENT}", "pip install 'styled[heif]'"
        )
    file = BytesIO()
    heif = pillow_heif.from_pillow(picture.image())
    described = {key: value for key, value in picture.described().items() if key != "dpi"}
    icc = described.pop("icc_profile", None)
    if icc is not None:
        heif[0].info["icc_profile"] = icc
    heif.save(file, quality=quality, chroma=444, **described)
    return file.getvalue()

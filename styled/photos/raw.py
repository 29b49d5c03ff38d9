"""Develops the raw photos of cameras by LibRaw (the package rawpy), if that is installed."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from numpy.typing import NDArray

from styled.errors import InputRejected
from styled.extras import install_command
from styled.photos.limits import Limits
from styled.photos.raster import Raster
from styled.photos.standard_error import captured_standard_error

try:
    import rawpy
except ImportError:
    rawpy = None  # type: ignore[assignment]  # checked below

_SRGB_CURVE = (2.4, 12.92)


# What LibRaw writes to standard error and does not raise; the rest of the picture is black then.
_SIGNS_OF_DAMAGE = ("Unexpected end of file", "data corrupted")


def develop(data: bytes, limits: Limits) -> tuple[Raster, str | None]:
    """Develop a raw photo: full size, the camera's white balance, sRGB, 16 bits, upright.

    Brightness is scaled until 1 % of the pixels are white, which is LibRaw's default.

    Args:
        data: The bytes of the file.
        limits: Checks the size.

    Returns:
        The picture, and what is wrong with its data; None if it is whole.

    Raises:
        InputRejected: rawpy is not installed, or it can't read this camera's files.
    """
    if rawpy is None:
        raise InputRejected(
            f"{limits.name} is a raw photo of a camera, and the package rawpy that develops them "
            "is not installed",
            f"{install_command('rawpy')}, restart styled, and drop the photo once more.",
            "Or develop the photo in another program, and save it as a TIFF or JPEG.",
        )
    try:
        with captured_standard_error() as captured, rawpy.imread(BytesIO(data)) as photo:
            sizes = photo.sizes
            limits.check((sizes.iwidth, sizes.iheight))
            limits.require_memory()
            levels: NDArray[Any] = photo.postprocess(
                use_camera_wb=True,
                output_color=rawpy.ColorSpace.sRGB,
                output_bps=16,
                gamma=_SRGB_CURVE,
            )
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    except rawpy.LibRawFileUnsupportedError as error:
        raise InputRejected(
            f"{limits.name} is a raw photo of a camera that LibRaw does not know",
            "Develop it in the camera maker's program, and save it as a TIFF or JPEG.",
            "Or update rawpy.",
        ) from error
    except rawpy.LibRawError as error:
        cause = error.args[0] if error.args else ""
        text = cause.decode("utf-8", "replace") if isinstance(cause, bytes) else str(cause)
        raise ValueError(text) from error
    is_damaged = any(sign in captured.text for sign in _SIGNS_OF_DAMAGE) or not levels.any()
    if levels.shape[2] == 1:
        raster = Raster(levels, "gray", is_srgb=True)
    else:
        raster = Raster(levels[..., :3], "rgb", is_srgb=True)
    return raster, "part of its data is missing or wrong" if is_damaged else None

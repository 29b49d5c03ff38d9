"""EXIF orientation: stored images are turned upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from styled.degradation import Degradation
from styled.photos import ExportOptions, decode_photo, export_image
from styled.photos.exif import ORIENTATION, Exif, number_field
from styled.photos.output_image import OutputImage
from styled.photos.png import save_png
from styled.photos.tiff import save_tiff
from styled.photos.tiff_tags import SHORT
from tests.photos.samples import (
    EXACT,
    astronaut,
    converted,
    decoded,
    needs_avif,
    needs_convert,
    needs_exiftool,
    own_tensor,
    pixels,
    png_chunk,
    run,
    saved,
)

# An upright 40 x 32 image, and how a camera stores it for each orientation.
UPRIGHT = np.zeros((32, 40), dtype=np.uint8)
UPRIGHT[:16, :20], UPRIGHT[:16, 20:], UPRIGHT[16:, :20] = 60, 120, 180
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_comes_out_upright(orientation: int, format: str) -> None:
    """The image is turned upright, and the orientation of the file is kept in the photo."""
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation])).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode_photo(saved(stored, format, exif=exif, **EXACT.get(format, {})))
    assert (photo.width, photo.height, photo.orientation) == (40, 32, orientation)
    assert np.abs(pixels(photo)[..., 0] - UPRIGHT).max() <= 2
    assert photo.degraded == ()


def test_an_orientation_after_the_pixels_is_found() -> None:
    """A PNG may have its EXIF data after its pixels."""
    data = saved(astronaut(), "PNG")
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    photo = decode_photo(data[:-12] + png_chunk(b"eXIf", exif) + data[-12:])
    assert (photo.width, photo.height, photo.orientation) == (64, 96, 6)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_impossible_orientation_is_taken_for_upright(value: int) -> None:
    """A number outside 1..8 changes nothing."""
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode_photo(saved(astronaut(), "JPEG", exif=exif)).orientation == 1


def test_damaged_exif_data_does_not_cost_the_photo() -> None:
    """Unreadable EXIF data is ignored and noted."""
    photo = decode_photo(saved(astronaut(), "JPEG", exif=b"Exif\0\0nonsense"))
    assert photo.orientation == 1
    assert photo.degraded == (Degradation("metadata", "the EXIF data is damaged and was left out"),)


# --- 16 bits and opacity

DEEP_UPRIGHT = UPRIGHT.astype(np.uint16) * 257 + 3
DEEP_OPACITY = DEEP_UPRIGHT // 2 + 9999


def stored_file(kind: str, orientation: int) -> bytes:
    """Return a file with the image as stored for an orientation, and the EXIF orientation."""
    colors = STORED[orientation].astype(np.uint16) * 257 + 3
    levels = np.stack([*[colors] * 3, colors // 2 + 9999], axis=-1)
    if kind in ("png", "tiff"):
        fields = {ORIENTATION: number_field("<", SHORT, orientation)}
        save = {"png": save_png, "tiff": save_tiff}[kind]
        return save(OutputImage(levels, "RGBA", exif=Exif(image=fields)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray((levels >> 8).astype(np.uint8))
    options = EXACT.get(kind.upper(), {})
    return saved(stored, kind.upper(), exif=exif, **options)


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_opacity_and_all_bits_turn_along(orientation: int, kind: str) -> None:
    """8-bit and 16-bit colours and opacity are upright in the photo and in its painting."""
    photo = decode_photo(stored_file(kind, orientation))
    assert (photo.width, photo.height, photo.orientation) == (40, 32, orientation)
    assert np.array_equal(pixels(photo)[..., 0], UPRIGHT)
    assert np.array_equal(np.asarray(photo.alpha), DEEP_OPACITY >> 8)
    if kind != "webp":
        assert photo.deep is not None
        assert all(np.array_equal(photo.deep[..., c], DEEP_UPRIGHT) for c in range(3))
        assert np.array_equal(photo.deep[..., 3], DEEP_OPACITY)
    reread = decode_photo(export_image(own_tensor(photo), photo, "png", ExportOptions()).data)
    assert reread.orientation == 1
    assert np.array_equal(np.asarray(reread.alpha), DEEP_OPACITY >> 8)
    assert np.array_equal(pixels(reread)[..., 0], UPRIGHT)


@pytest.mark.parametrize("orientation", STORED)
def test_grey_of_16_bits_turns_along(orientation: int) -> None:
    """Images of one channel are turned upright too."""
    levels = STORED[orientation].astype(np.uint16) * 257 + 3
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format in ("PNG", "TIFF"):
        photo = decoded(Image.fromarray(np.ascontiguousarray(levels)), format, exif=exif)
        assert photo.deep is not None
        assert np.array_equal(photo.deep[..., 0], DEEP_UPRIGHT)


@needs_convert
@pytest.mark.parametrize("orientation", STORED)
def test_tiffs_of_another_program_come_out_upright(orientation: int, tmp_path: Path) -> None:
    """ImageMagick and styled agree about the meaning of each orientation."""
    stored = saved(Image.fromarray(np.ascontiguousarray(STORED[orientation])), "PNG")
    (tmp_path / "stored.png").write_bytes(stored)
    names = "TopLeft TopRight BottomRight BottomLeft LeftTop RightTop RightBottom LeftBottom"
    options = ("-orient", names.split()[orientation - 1])
    photo = decode_photo(converted(tmp_path / "stored.png", tmp_path / "input.tif", *options))
    assert photo.orientation == orientation
    assert np.array_equal(pixels(photo)[..., 0], UPRIGHT)


@needs_exiftool
@pytest.mark.parametrize("source", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("orientation", [2, 5, 8])
def test_orientations_of_another_program_are_found(
    orientation: int, source: str, tmp_path: Path
) -> None:
    """The orientation that exiftool writes into a file is applied."""
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation])).convert("RGB")
    path = tmp_path / f"input.{source}"
    path.write_bytes(saved(stored, source.upper(), **EXACT.get(source.upper(), {})))
    run("exiftool", "-q", "-overwrite_original", f"-Orientation#={orientation}", path)
    photo = decode_photo(path.read_bytes())
    assert photo.orientation == orientation
    assert np.abs(pixels(photo)[..., 0] - UPRIGHT).max() <= 2


RESULTS = ["jpeg", "png", "tiff", "webp", "heic", pytest.param("avif", marks=needs_avif)]


@pytest.mark.parametrize("target", RESULTS)
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_every_result_says_that_it_is_upright(orientation: int, target: str) -> None:
    """A result has orientation 1, so that viewers do not turn it again."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A camera"
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation])).convert("RGB")
    photo = decoded(stored, "PNG", exif=exif)
    result = decode_photo(
        export_image(own_tensor(photo), photo, target, ExportOptions(quality=100)).data
    )
    assert result.orientation == 1
    assert (result.width, result.height) == (40, 32)
    assert np.abs(pixels(result)[..., 0] - UPRIGHT).mean() <= 2

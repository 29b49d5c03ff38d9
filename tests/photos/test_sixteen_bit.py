"""16-bit photos are decoded and exported with 16 bits."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from styled.degradation import Degradation
from styled.photos import ExportOptions, Photo, decode_photo, export_image
from tests.photos.samples import (
    astronaut,
    converted,
    decoded,
    deep_png,
    needs_convert,
    own_tensor,
    run,
)

SAME = ExportOptions()


def gradients(channels: int) -> np.ndarray:
    """Return 256x256xC levels, with all 65536 levels in each colour channel; opacity is never 0."""
    all_levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    planes = [all_levels, all_levels[::-1], all_levels.T, np.maximum(all_levels[:, ::-1], 257)]
    return np.stack({2: [planes[0], planes[3]]}.get(channels, planes[:channels]), axis=-1)


def deep_of(photo: Photo) -> np.ndarray:
    assert photo.bits == 16
    assert photo.deep is not None
    return photo.deep


def as_colors(levels: np.ndarray) -> np.ndarray:
    """Return HxWxC levels as in `Photo.deep`: three channels, then opacity if there is any."""
    if levels.shape[2] > 2:
        return levels
    return np.concatenate([levels[..., :1]] * 3 + [levels[..., 1:]], axis=2)


def exported_unpainted(photo: Photo, format: str) -> Photo:
    """Export the photo's own pixels, and decode the file."""
    exported = export_image(own_tensor(photo), photo, format, SAME)
    assert exported.bits == 16
    assert exported.degraded == ()
    return decode_photo(exported.data)


def png_by_imagemagick(folder: Path, levels: np.ndarray, *options: str) -> bytes:
    (folder / "source.png").write_bytes(deep_png(levels))
    return converted(folder / "source.png", folder / "input.png", *options)


def levels_by_imagemagick(folder: Path, data: bytes, channels: int) -> np.ndarray:
    """Return the levels that ImageMagick reads in a file: 256x256xC."""
    (folder / "result").write_bytes(data)
    raw = folder / "raw"
    order = {1: "gray", 3: "rgb", 4: "rgba"}[channels]
    run("convert", folder / "result", "-depth", "16", "-endian", "LSB", f"{order}:{raw}")
    return np.frombuffer(raw.read_bytes(), "<u2").reshape(256, 256, channels)


COLOR_TYPES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


@pytest.mark.parametrize("target", ["png", "tiff"])
@pytest.mark.parametrize("mode", COLOR_TYPES)
def test_every_level_survives(mode: str, target: str) -> None:
    """The 65536 levels of a PNG are unchanged after decoding and after export."""
    levels = gradients(COLOR_TYPES[mode])
    photo = decode_photo(deep_png(levels))
    assert np.array_equal(deep_of(photo), as_colors(levels))
    assert photo.degraded == ()
    assert np.array_equal(deep_of(exported_unpainted(photo, target)), as_colors(levels))


@needs_convert
@pytest.mark.parametrize("mode", COLOR_TYPES)
@pytest.mark.parametrize("interlace", ["None", "PNG"])
def test_pngs_of_another_program_are_read_to_the_last_bit(
    mode: str, interlace: str, tmp_path: Path
) -> None:
    """All four colour types, plain and interlaced, are decoded exactly."""
    levels = gradients(COLOR_TYPES[mode])
    kind = {"L": "0", "LA": "4", "RGB": "2", "RGBA": "6"}[mode]
    options = ("-interlace", interlace, "-define", f"png:color-type={kind}")
    data = png_by_imagemagick(tmp_path, levels, *options)
    assert data[24:26] == bytes((16, int(kind)))
    assert data[28] == (interlace == "PNG")
    assert np.array_equal(deep_of(decode_photo(data)), as_colors(levels))


LAYOUTS = {
    "strips": ("tiff:rows-per-strip=7", 278, 7),
    "one strip": ("tiff:rows-per-strip=256", 278, 256),
    "tiles": ("tiff:tile-geometry=64x48", 323, 48),
}
ENDIANS = {"II": "lsb", "MM": "msb"}
COMPRESSIONS = {"None": 1, "LZW": 5, "Zip": 8}


def tiff_by_imagemagick(folder: Path, levels: np.ndarray, order: str, *options: str) -> bytes:
    """Return a TIFF by ImageMagick in byte order II or MM."""
    (folder / "source.png").write_bytes(deep_png(levels))
    endian = ("-define", f"tiff:endian={ENDIANS[order]}")
    data = converted(folder / "source.png", folder / "input.tif", *endian, *options)
    assert data[:2] == order.encode()
    return data


@needs_convert
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("compression", "predictor"), [("None", 1), ("LZW", 1), ("LZW", 2), ("Zip", 1), ("Zip", 2)]
)
@pytest.mark.parametrize("order", ["II", "MM"])
def test_tiffs_of_another_program_are_read_to_the_last_bit(
    order: str, compression: str, predictor: int, layout: str, tmp_path: Path
) -> None:
    """Both byte orders, compressed or not, with or without predictor, in strips or tiles."""
    define, tag, value = LAYOUTS[layout]
    options: tuple[str, ...] = ("-compress", compression, "-define", define)
    if compression != "None":
        options += ("-define", f"tiff:predictor={predictor}")
    data = tiff_by_imagemagick(tmp_path, gradients(3), order, *options)
    with Image.open(BytesIO(data)) as image:
        tags = image.tag_v2  # type: ignore[attr-defined]  # it is a TIFF
        assert (tags[259], tags.get(317, 1), tags[tag]) == (
            COMPRESSIONS[compression],
            predictor,
            value,
        )
    photo = decode_photo(data)
    assert np.array_equal(deep_of(photo), gradients(3))
    assert photo.degraded == ()


@needs_convert
@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("compression", ["None", "LZW"])
@pytest.mark.parametrize("channels", [1, 4])
def test_tiffs_of_grey_and_with_opacity_are_read_to_the_last_bit(
    channels: int, compression: str, order: str, tmp_path: Path
) -> None:
    """One and four channels are decoded as exactly as three."""
    levels = gradients(channels)
    photo = decode_photo(tiff_by_imagemagick(tmp_path, levels, order, "-compress", compression))
    assert np.array_equal(deep_of(photo), as_colors(levels))
    assert photo.is_gray == (channels == 1)


@needs_convert
def test_a_further_channel_that_is_no_opacity_is_passed_over(tmp_path: Path) -> None:
    """A fourth channel that is not alpha, such as a selection saved by an editor, is ignored."""
    define = ("-define", "tiff:alpha=unspecified")
    photo = decode_photo(tiff_by_imagemagick(tmp_path, gradients(4), "II", *define))
    assert photo.alpha is None
    assert np.array_equal(deep_of(photo), gradients(3))


@needs_convert
@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("compression", ["None", "Zip"])
def test_separate_planes_keep_sixteen_bits(compression: str, order: str, tmp_path: Path) -> None:
    """A planar TIFF is decoded with all its bits."""
    options = ("-interlace", "Plane", "-compress", compression)
    photo = decode_photo(tiff_by_imagemagick(tmp_path, gradients(3), order, *options))
    assert photo.degraded == ()
    assert np.array_equal(deep_of(photo), gradients(3))


@needs_convert
def test_inks_keep_sixteen_bits(tmp_path: Path) -> None:
    """CMYK without a profile is decoded with all its bits, by the plain formula."""
    photo = decode_photo(tiff_by_imagemagick(tmp_path, gradients(3), "II", "-colorspace", "CMYK"))
    assert [note.kind for note in photo.degraded] == ["color"]
    assert np.abs(deep_of(photo).astype(int) - gradients(3)).max() <= 2


@needs_convert
@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("mode", COLOR_TYPES)
def test_another_program_reads_the_same_numbers(mode: str, format: str, tmp_path: Path) -> None:
    """ImageMagick reads the same levels in an exported file."""
    levels = gradients(COLOR_TYPES[mode])
    photo = decode_photo(deep_png(levels))
    options = ExportOptions(grayscale="keep", metadata="strip")
    exported = export_image(own_tensor(photo), photo, format, options)
    channels = 4 if mode.endswith("A") else 3
    read_levels = levels_by_imagemagick(tmp_path, exported.data, channels)
    assert np.array_equal(read_levels, as_colors(levels))


@pytest.mark.parametrize("format", ["jpeg", "webp", "gif", "bmp", "heic"])
def test_formats_of_eight_bits_round_and_say_so(format: str) -> None:
    """Exporting 16 bits to a format with 8 adds a note."""
    photo = decode_photo(deep_png(gradients(3)))
    exported = export_image(own_tensor(photo), photo, format, SAME)
    assert exported.bits == 8
    reason = "are written in 8" if format == "heic" else "have no more"
    message = f"more than 8 bits were rounded to 8: {format.upper()} files {reason}"
    assert exported.degraded == (Degradation("bits", message),)


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_the_bits_are_those_that_were_asked_for(format: str) -> None:
    """8 for a photo with 16, 16 for a photo with 8, and `same` as the photo has."""
    deep, shallow = decode_photo(deep_png(gradients(3))), decoded(astronaut(), "PNG")
    for photo, bits, expected in [(deep, 8, 8), (shallow, 16, 16), (shallow, "same", 8)]:
        options = ExportOptions(bits=bits)  # type: ignore[arg-type]  # 8, 16 or same
        exported = export_image(own_tensor(photo), photo, format, options)
        assert exported.bits == expected
        assert decode_photo(exported.data).bits == expected
        assert exported.degraded == ()


def test_eight_bits_are_the_nearest_of_sixteen() -> None:
    """A result of 8 bits is rounded from 16 bits, not truncated."""
    photo = decode_photo(deep_png(gradients(3)))
    data = export_image(own_tensor(photo), photo, "png", ExportOptions(bits=8)).data
    with Image.open(BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), (gradients(3).astype(float) / 257).round())


@pytest.mark.parametrize("size", [(128, 128), (300, 300), (100, 400)])
def test_resizing_keeps_more_than_eight_bits(size: tuple[int, int]) -> None:
    """Between two neighbouring 8-bit levels there are still many levels."""
    ramp = np.linspace(30000, 30257, 256).astype(np.uint16)
    photo = decode_photo(deep_png(np.tile(ramp[None, :, None], (256, 1, 3))))
    tensor = photo.tensor(*size)
    assert tensor.shape == (1, 3, size[1], size[0])
    assert len(np.unique((tensor * 65535).round().numpy())) >= 90
    assert tensor.min() * 65535 >= 29990
    assert tensor.max() * 65535 <= 30270


def test_a_painting_of_many_strips_and_rows_is_whole() -> None:
    """Files of more than one strip or block of rows are decoded completely."""
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 65536, (700, 400, 3), dtype=np.uint16)
    photo = decode_photo(deep_png(levels))
    for format in ("png", "tiff"):
        assert np.array_equal(deep_of(exported_unpainted(photo, format)), levels)


@needs_convert
def test_the_first_of_several_deep_pages_is_used(tmp_path: Path) -> None:
    """Both bytes of the 16-bit levels are those of the first page, with a note."""
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    first.write_bytes(deep_png(gradients(3)))
    second.write_bytes(deep_png(65535 - gradients(3)))
    run("convert", first, second, tmp_path / "pages.tif")
    photo = decode_photo((tmp_path / "pages.tif").read_bytes())
    assert np.array_equal(deep_of(photo), gradients(3))
    assert photo.degraded == (Degradation("frames", "only the first of several pages was used"),)

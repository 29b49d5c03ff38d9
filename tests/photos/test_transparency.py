"""Opacity: decoding, the engine's input, and results."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from styled.degradation import Degradation
from styled.errors import InputRejected
from styled.photos import ExportOptions, Photo, decode_photo, export_image
from tests.photos.samples import (
    EXACT,
    astronaut,
    converted,
    decoded,
    deep_png,
    needs_avif,
    needs_convert,
    own_tensor,
    pixels,
    png_chunk,
    saved,
)

# 64 x 40: black, transparent on the left and half transparent on the right.
HALVES = np.repeat([[0, 128]], 32, axis=1).astype(np.uint8).repeat(40, 0)


def half_transparent(mode: str = "RGBA") -> Image.Image:
    image = Image.new(mode, (64, 40))
    image.putalpha(Image.fromarray(HALVES))
    return image


def alpha_of(photo: Photo) -> np.ndarray:
    assert photo.alpha is not None
    assert photo.alpha.size == photo.image.size
    return np.asarray(photo.alpha).astype(int)


@pytest.mark.parametrize(("mode", "format"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
def test_transparency_is_set_apart_and_placed_on_white_in_the_end(mode: str, format: str) -> None:
    """Decoding keeps it; in a JPEG half-transparent black becomes middle grey, the rest white."""
    photo = decode_photo(saved(half_transparent(mode), format, **EXACT.get(format, {})))
    assert photo.image.mode == "RGB"
    assert np.array_equal(alpha_of(photo), HALVES)
    assert photo.degraded == ()
    exported = export_image(own_tensor(photo), photo, "jpeg", ExportOptions(quality=100))
    assert exported.degraded == (
        Degradation("transparency", "transparency was placed on white: JPEG files have none"),
    )
    result = decode_photo(exported.data)
    assert result.alpha is None
    assert np.abs(pixels(result)[5, 5] - 255).max() <= 2
    assert np.abs(pixels(result)[5, 50] - 127).max() <= 2


@pytest.mark.parametrize("format", ["jpeg", "bmp"])
def test_formats_without_opacity_get_white(format: str) -> None:
    """The transparent areas of a red painting are white, with a note."""
    photo = decoded(half_transparent(), "PNG")
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 40, 64)
    exported = export_image(red, photo, format, ExportOptions())
    assert exported.degraded == (
        Degradation(
            "transparency", f"transparency was placed on white: {format.upper()} files have none"
        ),
    )
    result = pixels(decode_photo(exported.data))
    assert np.abs(result[5, 5] - 255).max() <= 3
    assert np.abs(result[5, 50] - (255, 127, 127)).max() <= 3


@pytest.mark.parametrize(
    "format", ["png", "webp", "tiff", pytest.param("avif", marks=needs_avif), "heic"]
)
def test_formats_with_opacity_keep_it(format: str) -> None:
    """All 256 levels of opacity are kept, whatever the painting's colours are."""
    image = astronaut(256, 40)
    levels = np.tile(np.arange(256, dtype=np.uint8), (40, 1))
    image.putalpha(Image.fromarray(levels))
    photo = decoded(image, "PNG")
    exported = export_image(own_tensor(photo).flip(1), photo, format, ExportOptions(quality=100))
    assert exported.degraded == ()
    result = decode_photo(exported.data)
    tolerance = 0 if format in ("png", "tiff", "webp") else 2
    assert np.abs(alpha_of(result) - levels).max() <= tolerance


def test_a_gif_has_one_bit_of_opacity() -> None:
    """Opacity below one half becomes transparent, the rest opaque with its colour."""
    image = Image.new("RGB", (96, 40), (200, 30, 30))
    image.putalpha(Image.fromarray(np.tile(np.arange(96, dtype=np.uint8) + 80, (40, 1))))
    photo = decoded(image, "PNG")
    exported = export_image(own_tensor(photo), photo, "gif", ExportOptions())
    result = decode_photo(exported.data)
    assert np.array_equal(alpha_of(result)[0], np.where(np.arange(96) + 80 < 128, 0, 255))
    assert np.abs(pixels(result)[0, 60:] - (200, 30, 30)).max() <= 4


def test_opacity_follows_the_size_of_the_painting() -> None:
    """A painting of twice the size has opacity at twice the size."""
    photo = decoded(half_transparent(), "PNG")
    alpha = alpha_of(
        decode_photo(export_image(torch.zeros(1, 3, 80, 128), photo, "png", ExportOptions()).data)
    )
    assert alpha.shape == (80, 128)
    assert alpha[40, [10, 110]].tolist() == [0, 128]


def test_an_opaque_alpha_channel_is_nothing_to_speak_of() -> None:
    """An image with a fully opaque alpha channel is treated like one without alpha."""
    photo = decoded(astronaut().convert("RGBA"), "PNG")
    assert photo.degraded == ()
    assert photo.alpha is None
    assert photo.tensor(96, 64).shape == (1, 3, 64, 96)


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_entries_are_transparent(
    transparency: int | bytes, format: str
) -> None:
    """One index or a table of alphas: the palette entry is transparent."""
    image = Image.new("P", (64, 40))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (32, 0, 64, 40))
    photo = decode_photo(saved(image, format, transparency=1 if format == "GIF" else transparency))
    assert pixels(photo)[5, 5].tolist() == [200, 0, 0]
    assert alpha_of(photo)[5, [5, 40]].tolist() == [255, 0]
    assert photo.degraded == ()


def test_a_half_transparent_palette_entry_is_half_transparent() -> None:
    """The transparency table of a PNG can hold any level of opacity."""
    image = Image.new("P", (64, 40))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (32, 0, 64, 40))
    assert alpha_of(decoded(image, "PNG", transparency=b"\x50\xff"))[5, [5, 40]].tolist() == [
        80,
        255,
    ]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "deep"])
def test_a_picture_that_is_transparent_all_over_is_rejected(mode: str) -> None:
    """There is nothing to paint, and the message mentions the alpha channel."""
    if mode == "deep":
        levels = np.full((40, 40, 4), 9999, np.uint16)
        levels[..., 3] = 0
        data = deep_png(levels)
    else:
        image = astronaut().convert(mode)
        image.putalpha(0)
        data = saved(image, "PNG")
    with pytest.raises(InputRejected, match="transparent all over") as caught:
        decode_photo(data)
    assert "alpha channel" in str(caught.value)


# --- the engine's input


def disc(deep: bool) -> tuple[bytes, np.ndarray]:
    """Return a PNG with a red disc on transparent black, and the mask of the disc."""
    y, x = np.mgrid[:64, :96]
    inside = (x - 48) ** 2 + (y - 32) ** 2 < 20**2
    levels = np.zeros((64, 96, 4), np.uint16)
    levels[inside] = (50000, 5000, 5000, 65535)
    if deep:
        return deep_png(levels), inside
    return saved(Image.fromarray((levels >> 8).astype(np.uint8)), "PNG"), inside


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("size", [(96, 64), (48, 32), (37, 21), (192, 128)])
def test_transparent_pixels_take_the_colours_around_them(deep: bool, size: tuple[int, int]) -> None:
    """A red disc on transparent black has no black in it, at any size."""
    data, _ = disc(deep)
    tensor = decode_photo(data).tensor(*size)
    assert tensor.shape == (1, 4, size[1], size[0])
    red = torch.tensor([50000, 5000, 5000]).view(1, 3, 1, 1) / 65535
    assert (tensor[:, :3] - red).abs().max() < 0.02
    assert tensor[0, 3].min() == 0
    assert tensor[0, 3].max() == 1


def test_opaque_pixels_keep_their_colours_beside_transparent_ones() -> None:
    """Without resizing, opaque pixels are unchanged."""
    data, inside = disc(deep=True)
    photo = decode_photo(data)
    assert photo.deep is not None
    opaque = photo.tensor(96, 64)[0].permute(1, 2, 0).numpy()[inside]
    assert np.abs(opaque * 65535 - photo.deep[inside]).max() < 0.1


def test_colours_are_filled_in_from_the_nearest() -> None:
    """Between a red edge and a blue one the left is red, the right is blue, nothing is dark."""
    levels = np.zeros((64, 128, 4), np.uint8)
    levels[:, :8], levels[:, -8:] = (255, 0, 0, 255), (0, 0, 255, 255)
    tensor = decode_photo(saved(Image.fromarray(levels), "PNG")).tensor(128, 64)[0]
    assert tensor[0, 32, 12] > 0.9
    assert tensor[2, 32, 12] < 0.1
    assert tensor[2, 32, 115] > 0.9
    assert tensor[:3].sum(0).min() > 0.9


# --- sixteen bits


def test_opacity_of_16_bits_survives() -> None:
    """All 65536 levels of opacity are kept in PNG and TIFF."""
    levels = np.full((256, 256, 4), 30000, np.uint16)
    levels[..., 3] = np.arange(65536).reshape(256, 256)
    photo = decode_photo(deep_png(levels))
    for format in ("png", "tiff"):
        result = decode_photo(export_image(own_tensor(photo), photo, format, ExportOptions()).data)
        assert result.deep is not None
        assert np.array_equal(result.deep[..., 3], levels[..., 3])
        visible = result.deep[levels[..., 3] > 255][:, :3].astype(int)
        assert np.abs(visible - 30000).max() <= 1


def test_a_transparent_16_bit_level_of_grey_is_transparent() -> None:
    """A PNG may declare one of its 65536 levels transparent."""
    levels = np.full((40, 40), 1000, np.uint16)
    levels[:, 20:] = 1001  # the same after scaling to 8 bits
    photo = decode_photo(saved(Image.fromarray(levels), "PNG", transparency=1001))
    assert pixels(photo)[5, 5].tolist() == [4, 4, 4]
    assert alpha_of(photo)[5, [5, 25]].tolist() == [255, 0]
    assert photo.deep is not None
    assert photo.deep[5, [5, 25], 3].tolist() == [65535, 0]
    assert photo.degraded == ()


@pytest.mark.parametrize("transparent", [(40001, 50000, 60000), (0, 0, 0), (1, 2, 3)])
def test_a_transparent_16_bit_colour_is_transparent(transparent: tuple[int, int, int]) -> None:
    """A PNG may declare one 48-bit colour transparent; similar colours stay opaque."""
    levels = np.full((40, 60, 3), (40000, 50000, 60000), np.uint16)
    levels[:, 20:40], levels[:, 40:] = (40001, 50000, 60000), (5, 6, 7)
    data = deep_png(levels)
    chunk = png_chunk(b"tRNS", struct.pack(">3H", *transparent))
    photo = decode_photo(data[:33] + chunk + data[33:])
    assert photo.deep is not None
    if transparent[0] == 40001:
        assert alpha_of(photo)[5, [5, 25, 45]].tolist() == [255, 0, 255]
        assert photo.deep.shape == (40, 60, 4)
        assert photo.tensor(60, 40).shape == (1, 4, 40, 60)
    else:
        assert photo.alpha is None
        assert np.array_equal(photo.deep, levels)


@needs_convert
def test_imagemagick_reads_the_opacity_of_every_lossless_result(tmp_path: Path) -> None:
    """ImageMagick reads the alpha channels of PNG and TIFF, in 8 and in 16 bits."""
    levels = np.full((40, 256, 4), 30000, np.uint16)
    levels[..., 3] = np.arange(256) * 257
    photo = decode_photo(deep_png(levels))
    for format in ("png", "tiff"):
        for bits in (8, 16):
            source = tmp_path / f"{format}{bits}.{format}"
            options = ExportOptions(bits=bits)
            source.write_bytes(export_image(own_tensor(photo), photo, format, options).data)
            data = converted(source, tmp_path / "alpha.png", "-alpha", "extract", "-depth", "8")
            extracted = np.asarray(Image.open(BytesIO(data)).convert("L"))
            assert np.array_equal(extracted[0], np.arange(256))


@needs_convert
def test_premultiplied_colours_are_divided_by_their_opacity(tmp_path: Path) -> None:
    """A TIFF with premultiplied colours gives the original ones, in 16 bits."""
    levels = np.full((40, 40, 4), (50000, 20000, 10000, 40000), np.uint16)
    (tmp_path / "a.png").write_bytes(deep_png(levels))
    define = ("-define", "tiff:alpha=associated")
    photo = decode_photo(converted(tmp_path / "a.png", tmp_path / "a.tif", *define))
    assert np.abs(pixels(photo)[5, 5] - np.array([50000, 20000, 10000]) / 257).max() <= 2
    assert abs(alpha_of(photo)[5, 5] - 40000 / 257) <= 1
    assert (photo.bits, photo.degraded) == (16, ())

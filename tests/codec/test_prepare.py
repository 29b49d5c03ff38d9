"""Preparing a job: reading and decoding the photo and the style images into tensors."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from styled.codec.prepare import Blend, Prepared, decode, prepare
from styled.codec.source_files import read_source_files
from styled.codec.style_check import check_style
from styled.config import Style, StyleImage
from styled.engine.scales import resize
from styled.errors import InputIncomplete, InputRejected, ResourceUnavailable
from styled.job_io.publish import result_name
from styled.recipes import PYRAMID, Size
from tests.job_harness import picture

MAX_PIXELS = 1_000_000


def prepared_from(photo: Path, style: Style, *, max_pixels: int = MAX_PIXELS) -> Prepared:
    """Read and prepare a photo and a style."""
    return prepare(read_source_files(photo, style), style.recipe, max_pixels=max_pixels)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def style_of(*paths: Path, long_edge: int = 64) -> Style:
    recipe = replace(PYRAMID, size=Size(long_edge=long_edge))
    images = tuple(StyleImage(path, weight) for weight, path in enumerate(paths, start=1))
    return Style(images, recipe)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write(tmp_path / "photo.png", picture("teal", (128, 96)))


@pytest.fixture
def painting(tmp_path: Path) -> Path:
    return write(tmp_path / "painting.png", picture("crimson", (100, 200)))


def test_the_photo_comes_at_the_size_of_the_result(photo: Path, painting: Path) -> None:
    """The content tensor has the working size; width, height and digest are those of the file."""
    prepared = prepared_from(photo, style_of(painting), max_pixels=MAX_PIXELS)
    assert prepared.content.shape == (1, 3, 48, 64)
    assert (prepared.input_file.photo.width, prepared.input_file.photo.height) == (128, 96)
    assert prepared.input_file.sha256 == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert prepared.input_file.size_bytes == photo.stat().st_size


def test_each_style_image_comes_with_weight_and_digest(photo: Path, painting: Path) -> None:
    """Style images keep their order and weights, and have the long edge of the result."""
    prepared = prepared_from(photo, style_of(painting, photo), max_pixels=MAX_PIXELS)
    assert [style.weight for style in prepared.styles] == [1, 2]
    assert [style.path for style in prepared.styles] == [painting, photo]
    assert prepared.styles[0].sha256 == hashlib.sha256(painting.read_bytes()).hexdigest()
    shapes = [tuple(image.shape) for image, _ in prepared.task("4a").styles]
    assert shapes == [(1, 3, 64, 32), (1, 3, 48, 64)]


def test_style_scale_enlarges_the_style(photo: Path, painting: Path) -> None:
    """With a style scale of 2 the style images are twice as large."""
    style = style_of(painting)
    style = replace(style, recipe=replace(style.recipe, style_scale=2.0))
    assert prepared_from(photo, style, max_pixels=MAX_PIXELS).styles[0].image.shape == (
        1,
        3,
        128,
        64,
    )


def test_a_missing_photo_is_not_a_missing_style(photo: Path, painting: Path) -> None:
    """A missing photo raises FileNotFoundError, a missing style image ResourceUnavailable."""
    with pytest.raises(FileNotFoundError):
        prepared_from(photo.with_name("gone.png"), style_of(painting), max_pixels=MAX_PIXELS)
    with pytest.raises(ResourceUnavailable, match=r"gone\.png does not exist"):
        prepared_from(photo, style_of(painting.with_name("gone.png")), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("data", [b"", b"words", picture()[:-40], picture(size=(20, 20))])
def test_a_photo_is_not_to_blame_for_its_style(photo: Path, tmp_path: Path, data: bytes) -> None:
    """An unusable style image raises ResourceUnavailable, and the message names it."""
    bad = write(tmp_path / "bad.png", data)
    with pytest.raises(ResourceUnavailable, match=r"bad\.png can't be used"):
        prepared_from(photo, style_of(bad), max_pixels=MAX_PIXELS)


def test_a_photo_is_judged_before_its_style(tmp_path: Path) -> None:
    """An invalid photo is rejected even if a style image is missing."""
    bad = write(tmp_path / "bad.png", b"words")
    with pytest.raises(InputRejected):
        prepared_from(bad, style_of(tmp_path / "gone.png"), max_pixels=MAX_PIXELS)


def test_an_edge_too_short_at_the_working_size_is_rejected(photo: Path, painting: Path) -> None:
    """A photo with an edge under 32 pixels at the working size is rejected."""
    with pytest.raises(InputRejected, match="32 pixels"):
        prepared_from(photo, style_of(painting, long_edge=40), max_pixels=MAX_PIXELS)


def test_reading_tells_incomplete_from_hopeless_and_too_large(tmp_path: Path) -> None:
    """Incomplete and too large files raise different errors."""
    with pytest.raises(InputIncomplete):
        decode(picture()[:-40], max_pixels=MAX_PIXELS)
    with pytest.raises(InputRejected, match="too large"):
        decode(picture(), max_pixels=100)


def test_all_problems_of_a_style_are_reported_at_once(painting: Path) -> None:
    """`check_style` returns a message for each unusable image, and none for a good style."""
    assert check_style(style_of(painting), max_pixels=MAX_PIXELS) == []
    bad = write(painting.with_name("bad.png"), b"words")
    gone = painting.with_name("gone.png")
    problems = check_style(style_of(painting, bad, gone), max_pixels=MAX_PIXELS)
    assert len(problems) == 2
    assert problems[0].startswith(f"{bad}: ")
    assert problems[1] == f"{gone} does not exist"


@pytest.mark.parametrize(
    ("destination", "configured", "format", "expected"),
    [
        ("a/b.jpg", "same", "jpeg", ("a/b.jpg", "jpeg")),
        ("b.JPE", "same", "jpeg", ("b.JPE", "jpeg")),
        ("b.jpg", "same", "png", ("b.png", "png")),
        ("b.tiff", "same", "tiff", ("b.tiff", "tiff")),
        ("b.tiff", "png", "tiff", ("b.png", "png")),
        ("b.v2", "same", "png", ("b.png", "png")),
        ("b", "webp", "png", ("b.webp", "webp")),
        (".hidden", "same", "png", (".hidden.png", "png")),
    ],
)
def test_result_names(
    photo: Path, destination: str, configured: str, format: str, expected: tuple[str, str]
) -> None:
    """The result keeps a suffix that fits its format; any other is replaced. Folders are kept."""
    read = decode(photo.read_bytes(), max_pixels=MAX_PIXELS)
    read = replace(read, photo=replace(read.photo, format=format))
    assert result_name(destination, configured, read) == expected


def test_a_painting_made_smaller_for_lack_of_memory_is_blended_at_its_size() -> None:
    """The photo stays where the mask is black, and is covered where it is white."""
    mask = torch.zeros(1, 1, 60, 90)
    mask[..., 45:] = 1
    photo = torch.rand(1, 4, 60, 90, generator=torch.Generator().manual_seed(0))
    painting = torch.full((1, 3, 20, 30), 2.0)  # a third of the size
    blended = Blend(mask, photo).over(painting)
    assert torch.equal(blended[..., :14], resize(photo, 30, 20)[:, :3, :, :14])
    assert torch.equal(blended[..., 16:], painting[..., 16:])

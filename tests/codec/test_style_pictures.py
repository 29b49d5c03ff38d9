"""Style images that are kept for the next photos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from styled import photos
from styled.codec.local_codec import LocalPhotoCodec
from styled.codec.source_files import SourceFile, SourceFiles
from styled.codec.style_pictures import PreparedStyle, Proof, StylePictures
from styled.engine_api import PixelSize
from styled.errors import StyleUnavailable
from styled.recipes import PYRAMID, Recipe, Size
from tests.job_harness import picture
from tests.photos.icc import adobe_rgb_profile

MAX_PIXELS = 1_000_000
PAINTED = PixelSize(128, 96)
RECIPE = replace(PYRAMID, size=Size(long_edge=64))
PAINTING = picture("crimson", (100, 200))

Decoded = list[bytes]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    """Return the files that are decoded, in order."""
    files: Decoded = []
    decode: Callable[..., photos.Photo] = photos.decode_photo

    def noted(data: bytes, **limits: object) -> photos.Photo:
        files.append(data)
        return decode(data, **limits)

    monkeypatch.setattr(photos, "decode_photo", noted)
    return files


def of(
    pictures: StylePictures, data: bytes = PAINTING, *, recipe: Recipe = RECIPE,
    painted: PixelSize = PAINTED, max_pixels: int = MAX_PIXELS, proof: Proof | None = None,
) -> PreparedStyle:  # fmt: skip
    style = SourceFile(Path("painting.png"), 2.0, data)
    return pictures.picture(style, recipe, painted, max_pixels=max_pixels, proof=proof)


def test_a_style_is_decoded_once(decoded: Decoded) -> None:
    """The second photo gets the same pixels, digest and weight, without decoding."""
    pictures = StylePictures()
    first, second = of(pictures), of(pictures)
    assert decoded == [PAINTING]
    assert second == replace(first, image=second.image)
    assert torch.equal(first.image, second.image)
    assert (second.sha256, second.weight) == (hashlib.sha256(PAINTING).hexdigest(), 2.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"data": picture("olive", (100, 200))},
        {"painted": PixelSize(96, 72)},
        {"recipe": replace(RECIPE, style_scale=0.8)},
        {"recipe": replace(RECIPE, resample="bilinear")},
    ],
)
def test_what_its_pixels_depend_on_is_decoded_again(
    decoded: Decoded, changed: dict[str, object]
) -> None:
    """Another file, size or filter gives what it gives without an earlier call."""
    pictures = StylePictures()
    of(pictures)
    again = of(pictures, **changed)  # type: ignore[arg-type]  # one of the arguments
    assert len(decoded) == 2
    assert torch.equal(again.image, of(StylePictures(), **changed).image)  # type: ignore[arg-type]


def test_a_soft_proof_has_its_own_pictures() -> None:
    """A picture that was brought through a profile is not given to a style without one."""
    pictures = StylePictures()
    icc = adobe_rgb_profile()
    proof = Proof(photos.SoftProof(icc), hashlib.sha256(icc).hexdigest())
    plain, proofed = of(pictures).image, of(pictures, proof=proof).image
    assert torch.equal(of(pictures).image, plain)
    assert torch.equal(of(pictures, proof=proof).image, proofed)
    assert torch.equal(proofed, of(StylePictures(), proof=proof).image)


def test_a_kept_style_may_not_be_larger_than_allowed() -> None:
    """A limit that is lowered applies to kept pictures as well."""
    pictures = StylePictures()
    of(pictures)
    with pytest.raises(StyleUnavailable, match=r"painting\.png can't be used"):
        of(pictures, max_pixels=100 * 200 - 1)


def test_few_bytes_are_kept(decoded: Decoded) -> None:
    """The pictures that were not used for longest are dropped; a larger one is never kept."""
    blue, green = picture("blue", (100, 200)), picture("green", (100, 200))
    one = of(StylePictures(0)).image.nbytes
    pictures = StylePictures(2 * one)
    for data in (blue, green, blue, PAINTING, blue, green):
        of(pictures, data)
    assert decoded == [PAINTING, blue, green, PAINTING, green]
    decoded.clear()
    small = StylePictures(one - 1)
    for _ in range(2):
        of(small)
    assert decoded == [PAINTING] * 2


def test_the_daemon_keeps_them(decoded: Decoded) -> None:
    """The second photo of a style is decoded alone."""
    codec, photo = LocalPhotoCodec(), picture("teal", (128, 96))
    files = SourceFiles(photo, (SourceFile(Path("painting.png"), 1.0, PAINTING),))
    for _ in range(2):
        codec.prepare(
            files, RECIPE, max_pixels=MAX_PIXELS, at_own_size=False, paint_damaged=False
        )  # fmt: skip
    assert decoded == [photo, PAINTING, photo]

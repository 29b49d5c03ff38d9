"""Noise and damage: nothing but a refusal ever comes out of decoding."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from styled.errors import InputRejected
from styled.photos import decode
from tests.photos.icc import adobe_rgb_profile, cmyk_profile
from tests.photos.samples import CUTTABLE, REFUSALS, astronaut, saved


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"", *(b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0")])
)
def test_random_bytes_are_only_ever_refused(data: bytes, magic: bytes) -> None:
    """Nothing but a refusal comes out of noise, with or without magic bytes."""
    with pytest.raises(REFUSALS):
        decode(magic + data)


VALID = [saved(astronaut(40, 36), **options) for options in CUTTABLE.values()] + [
    saved(astronaut(40, 36), "PNG", icc_profile=adobe_rgb_profile()),
    saved(astronaut(40, 36).convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
    saved(astronaut(40, 36).quantize(16), "PNG", transparency=b"\0\x80\xff"),
    saved(astronaut(40, 36), "GIF", save_all=True, append_images=[astronaut(40, 36).rotate(9)]),
    saved(astronaut(40, 36), "WEBP", save_all=True, append_images=[astronaut(40, 36).rotate(9)]),
    *([saved(astronaut(40, 36), "AVIF")] if features.check("avif") else []),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Flipped bytes in a valid file never raise anything but a refusal."""
    damaged = bytearray(data.draw(st.sampled_from(VALID)))
    # Most structure is near the start.
    reach = data.draw(st.sampled_from([64, 700, len(damaged)]))
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, reach - 1), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        damaged[position % len(damaged)] = value
    try:
        photo = decode(bytes(damaged), max_pixels=1_000_000)
    except REFUSALS:
        return
    assert photo.image.mode == "RGB"
    assert photo.image.size == (photo.width, photo.height)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), MemoryError(), RecursionError("deep"), AssertionError(), zlib.error("z")],
)
def test_whatever_pillow_raises_becomes_a_refusal_with_a_cause(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any exception of the decoder turns into words."""

    def fail(*_: object) -> None:
        raise error

    data = saved(astronaut(), "BMP")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(InputRejected, match=r"can't be decoded as BMP: .+"):
        decode(data)

"""Working sizes and coarse-to-fine scales."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import pytest
import torch

from styled.engine.scales import fit_long_edge, plan_scales, resize, working_size
from styled.errors import InputRejected
from styled.recipes import Scales, Size


@pytest.mark.parametrize(
    ("size", "photo", "expected"),
    [
        (Size(long_edge=512), (4000, 3000), (512, 384)),
        (Size(long_edge=512), (3000, 4000), (384, 512)),
        (Size(short_edge=300), (4000, 3000), (400, 300)),
        (Size(megapixels=0.12), (4000, 3000), (400, 300)),
        (Size(exact=(450, 300)), (4000, 3000), (450, 300)),
        (Size(long_edge=512), (400, 300), (400, 300)),
        (Size(long_edge=512, upscale=True), (256, 128), (512, 256)),
    ],
)
def test_working_size(size: Size, photo: tuple[int, int], expected: tuple[int, int]) -> None:
    """For each kind of size; a photo is enlarged only with `upscale`."""
    assert working_size(size, *photo) == expected


def test_a_panorama_too_thin_to_paint_is_rejected_with_both_sizes() -> None:
    """An edge below 32 px is an error with the photo's size and the working size."""
    with pytest.raises(InputRejected, match=r"5000 x 200 .*512 x 20"):
        working_size(Size(long_edge=512), 5000, 200)


def test_scales_grow_by_the_root_of_two_up_to_the_size() -> None:
    """The scales end exactly at the size and begin at or above `start_px`."""
    assert plan_scales(Scales(), 512, 384) == [
        (128, 96), (181, 136), (256, 192), (362, 272), (512, 384)
    ]  # fmt: skip


def test_every_scale_grows_by_nearly_the_same_factor() -> None:
    """The ratio of adjacent scales is the factor up to rounding, for an odd size, too."""
    plan = plan_scales(Scales(), 1000, 750)
    ratios = [big[0] / small[0] for small, big in pairwise(plan)]
    assert all(ratio == pytest.approx(sqrt(2), rel=0.01) for ratio in ratios)
    assert 128 <= plan[0][0] < 182


def test_a_small_picture_and_a_recipe_without_scales_have_one_scale() -> None:
    """Below `start_px`, or with `scales: null`, there is one scale: the size itself."""
    assert plan_scales(Scales(), 100, 80) == [(100, 80)]
    assert plan_scales(None, 512, 384) == [(512, 384)]


def test_no_scale_has_an_edge_under_32_px() -> None:
    """A panorama starts at a larger scale, so that the deepest layers have positions."""
    plan = plan_scales(Scales(), 1024, 64)
    assert min(min(size) for size in plan) >= 32
    assert plan[-1] == (1024, 64)


def test_fitted_keeps_the_shape_and_never_enlarges() -> None:
    """A style image is reduced to the long edge; a smaller one is unchanged."""
    assert fit_long_edge(1000, 500, 200) == (200, 100)
    assert fit_long_edge(100, 50, 200) == (100, 50)
    assert fit_long_edge(1000, 40, 200) == (800, 32)


def test_resize_stays_within_the_valid_colours() -> None:
    """Bicubic overshoot at a hard edge is clamped."""
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1.0
    large = resize(image, 32, 32)
    assert large.shape == (1, 3, 32, 32)
    assert float(large.min()) >= 0
    assert float(large.max()) <= 1


def test_resize_to_the_same_size_changes_nothing() -> None:
    """An image that already has the size is returned as it is, without resampling."""
    image = torch.rand(1, 3, 9, 7)
    assert resize(image, 7, 9) is image

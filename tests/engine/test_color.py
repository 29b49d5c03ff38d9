"""Colour statistics and colour transfer."""

from __future__ import annotations

import pytest
import torch

from styled.engine.color import (
    color_statistics,
    in_style_colors,
    keep_colors,
    match_affine,
    match_histogram,
    recolored_styles,
    take_luminance,
)
from tests.engine.conftest import picture

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def muted(seed: int) -> torch.Tensor:
    """Return an image far from black and white, so that nothing is clamped."""
    return 0.4 + 0.2 * picture(40, 32, seed)


def gray(seed: int) -> torch.Tensor:
    """Return a grey image, with three channels."""
    return muted(seed).mean(dim=1, keepdim=True).expand(1, 3, 32, 40)


def test_statistics_of_two_pixels_by_hand() -> None:
    """Pixels (0, 0, 1) and (1, 0, 1): mean (.5, 0, 1), variance only in red."""
    image = torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]], [[1.0, 1.0]]]])
    mean, covariance = color_statistics(image)
    assert mean.tolist() == [0.5, 0.0, 1.0]
    assert covariance.tolist() == [[0.25, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_affine_matching_gives_the_wanted_mean_and_covariance() -> None:
    """After matching, both statistics equal those of the reference up to rounding."""
    mean, covariance = color_statistics(muted(1))
    matched = color_statistics(match_affine(muted(0), mean, covariance))
    torch.testing.assert_close(matched[0], mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(matched[1], covariance, rtol=0, atol=1e-5)


def test_a_gray_picture_gets_no_invented_colours() -> None:
    """Matching a grey image to a colourful one is finite; its colours stay on one line."""
    matched = match_affine(gray(0), *color_statistics(muted(1)))
    assert matched.isfinite().all()
    variances = torch.linalg.eigvalsh(color_statistics(matched)[1])
    assert float(variances[1]) < 1e-6 < float(variances[2])


def test_matching_to_a_gray_picture_gives_a_gray_picture() -> None:
    """All three channels are equal if the reference is grey."""
    for matched in (
        match_affine(muted(0), *color_statistics(gray(1))),
        match_histogram(gray(0), gray(1)),
    ):
        assert float((matched.amax(dim=1) - matched.amin(dim=1)).max()) < 1e-4


def test_a_uniform_picture_can_be_matched_and_be_matched_to() -> None:
    """No division by zero; matching to a uniform image gives that image."""
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert match_affine(flat, *color_statistics(muted(0))).isfinite().all()
    torch.testing.assert_close(
        match_affine(picture(8, 8), *color_statistics(flat)), flat, rtol=0, atol=1e-5
    )


def test_histogram_matching_of_the_same_size_permutes_the_references_values() -> None:
    """Each channel has exactly the reference's values, in the order of the image's own values."""
    image, reference = picture(20, 16, 0), picture(20, 16, 1)
    matched = match_histogram(image, reference)
    for channel in range(3):
        own, expected = matched[0, channel].flatten(), reference[0, channel].flatten()
        assert torch.equal(own.sort().values, expected.sort().values)
    brightest = image[0, 0].flatten().argmax()
    assert matched[0, 0].flatten()[brightest] == reference[0, 0].max()


def test_histogram_matching_between_sizes_keeps_the_distribution() -> None:
    """Quantiles agree between images of different sizes."""
    matched, reference = match_histogram(picture(64, 48, 0), picture(40, 40, 1)), picture(40, 40, 1)
    shares = torch.tensor([0.1, 0.5, 0.9])
    for own, expected in zip(matched[0], reference[0], strict=True):
        torch.testing.assert_close(
            own.flatten().quantile(shares), expected.flatten().quantile(shares), rtol=0, atol=0.02
        )


def test_luminance_comes_from_one_and_chroma_from_the_other() -> None:
    """Inside [0, 1], luminance is exactly the one's and chroma exactly the other's."""
    colors, light = muted(0), muted(1)
    mixed = take_luminance(colors, light)
    torch.testing.assert_close((mixed * LUMA).sum(1), (light * LUMA).sum(1))
    torch.testing.assert_close(
        mixed - (mixed * LUMA).sum(1, keepdim=True), colors - (colors * LUMA).sum(1, keepdim=True)
    )


def test_luminance_without_room_for_the_chroma_keeps_hue_and_luminance() -> None:
    """Near white and black, chroma is scaled down instead of clipping single channels."""
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 1, 3)
    light = torch.tensor([0.0, 0.97, 1.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    mixed = take_luminance(red, light)
    torch.testing.assert_close((mixed * LUMA).sum(1), light[:, 0], rtol=0, atol=1e-5)
    assert mixed[0, 0, 0, 1] > mixed[0, 1, 0, 1] == mixed[0, 2, 0, 1]


@pytest.mark.parametrize("kind", ["histogram", "affine"])
def test_a_result_that_keeps_the_photos_colours_has_its_statistics(kind: str) -> None:
    """The result has the photo's mean colour and, with `affine`, its covariance."""
    content, result = muted(0), muted(1)
    kept = keep_colors(kind, result, content)  # type: ignore[arg-type]  # parametrised
    mean, covariance = color_statistics(kept)
    expected_mean, expected_covariance = color_statistics(content)
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=1e-3)
    if kind == "affine":
        torch.testing.assert_close(covariance, expected_covariance, rtol=0, atol=1e-5)
    assert not torch.allclose(kept, content, atol=0.02)


def test_none_changes_nothing() -> None:
    """`none` does not change the result, and `luminance` not the styles."""
    content, result = muted(0), muted(1)
    assert keep_colors("none", result, content) is result
    assert recolored_styles("luminance", [(result, 2.0)], content) == [(result, 2.0)]


def test_the_style_is_recoloured_before_painting() -> None:
    """With affine matching, the style image gets the photo's mean colour."""
    ((style, weight),) = recolored_styles("affine", [(muted(1), 2.0)], muted(0))
    assert weight == 2.0
    torch.testing.assert_close(
        color_statistics(style)[0], color_statistics(muted(0))[0], rtol=0, atol=1e-5
    )


def test_a_start_in_the_styles_colours_blends_them_by_weight() -> None:
    """The photo gets the weighted mean of the styles' colours."""
    start = in_style_colors(muted(0), [(muted(1), 3.0), (muted(2), 1.0)])
    expected = 0.75 * color_statistics(muted(1))[0] + 0.25 * color_statistics(muted(2))[0]
    torch.testing.assert_close(color_statistics(start)[0], expected, rtol=0, atol=1e-4)

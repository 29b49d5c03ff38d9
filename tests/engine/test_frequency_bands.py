"""Frequency bands: they partition the spectrum, and a wave is in the band of its frequency."""

from __future__ import annotations

from math import cos, pi

import pytest
import torch
from torch import Tensor

from styled.engine.frequency_bands import (
    BANDS_PER_OCTAVE,
    band_energies,
    with_band_count,
    with_gains,
)

SIZES = [(1, 1), (1, 7), (2, 3), (16, 16), (15, 32), (33, 8), (48, 65), (300, 7)]
GREY, RED_BLUE, GREEN = range(3)


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, height, width, generator=generator, dtype=torch.float64)


def wave(height: int, width: int, across: int, down: int) -> Tensor:
    """Return a 1x3xHxW grey cosine wave with `across` horizontal and `down` vertical periods."""
    rows = torch.arange(height, dtype=torch.float64)[:, None] * down / height
    columns = torch.arange(width, dtype=torch.float64)[None] * across / width
    return torch.cos(2 * pi * (rows + columns)).expand(1, 3, -1, -1).clone()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_bands_are_all_of_a_picture(height: int, width: int) -> None:
    """Gains of one are the identity, gains of zero give zero, and no band is empty."""
    picture = noise(height, width)
    energies = band_energies(picture)
    assert (energies > 0).all()
    torch.testing.assert_close(with_gains(picture, torch.ones_like(energies)), picture)
    assert with_gains(picture, torch.zeros_like(energies)).abs().max() == 0


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_no_two_bands_overlap(height: int, width: int) -> None:
    """An image filtered by one band has no energy in the others; the parts add up to the image."""
    picture = noise(height, width)
    bands = band_energies(picture).shape[1]
    parts = [
        with_gains(picture, (torch.arange(bands) == band).double().expand(3, -1))
        for band in range(bands)
    ]
    torch.testing.assert_close(sum(parts), picture)
    for band, part in enumerate(parts):
        energies = band_energies(part)
        assert energies[:, band].min() > 0
        energies[:, band] = 0
        assert energies.max() < 1e-20


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_gains_are_a_symmetric_operation(height: int, width: int) -> None:
    """a . Hb = Ha . b, as L-BFGS requires of the initial inverse Hessian."""
    a, b = noise(height, width, 1), noise(height, width, 2)
    gains = torch.rand_like(band_energies(a)) + 0.1
    left, right = (a * with_gains(b, gains)).sum(), (with_gains(a, gains) * b).sum()
    assert float(left) == pytest.approx(float(right))
    assert (a * with_gains(a, gains)).sum() > 0


@pytest.mark.parametrize(("across", "down"), [(0, 0), (2, 0), (0, 2), (5, -5), (16, 3), (32, 20)])
def test_a_wave_lies_in_one_band_and_in_brightness(across: int, down: int) -> None:
    """A band is half an octave wide, and grey has energy in the brightness channel only."""
    energies = band_energies(wave(48, 64, across, down))
    (bands,) = torch.nonzero(energies[GREY] > 1e-9, as_tuple=True)
    assert len(bands) == 1
    assert energies[[RED_BLUE, GREEN]].max() < 1e-20
    frequency = max(across / 64, abs(down) / 48)
    below_nyquist = energies.shape[1] - 1 - int(bands)
    if below_nyquist < energies.shape[1] - 1:
        assert frequency >= 0.5 * 2 ** (-(below_nyquist + 1) / BANDS_PER_OCTAVE)
    assert frequency < 0.5 * 2 ** (-below_nyquist / BANDS_PER_OCTAVE) or below_nyquist == 0


def test_each_color_has_a_gain_of_its_own() -> None:
    """Brightness is doubled, red - blue is unchanged, green - (red and blue) is removed."""
    picture = noise(8, 8)
    gains = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)[:, None]
    result = with_gains(picture, gains.expand_as(band_energies(picture)))
    grey = picture.mean(dim=1)
    torch.testing.assert_close(result.mean(dim=1), 2 * grey)
    torch.testing.assert_close(result[:, 0] - result[:, 2], picture[:, 0] - picture[:, 2])
    torch.testing.assert_close(result[:, 1], 2 * grey)


def test_energy_counts_the_stored_half_once() -> None:
    """Only one of a wave's two conjugate coefficients is stored: half of its sum of squares."""
    energies = band_energies(wave(16, 16, 3, 1))
    squares = sum(cos(2 * pi * (3 * x + y) / 16) ** 2 for x in range(16) for y in range(16))
    assert float(energies[GREY].sum()) == pytest.approx(3 * squares / 2)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (128, 192), (32, 48), (90, 135)])
def test_bands_of_two_sizes_correspond_from_the_highest_frequency_on(
    height: int, width: int
) -> None:
    """Three periods per 10 px are in corresponding bands at all sizes; none is left without one."""
    small = band_energies(wave(64, 96, across=29, down=0))
    own = band_energies(wave(height, width, across=round(0.3 * width), down=0))
    found = with_band_count(small, own.shape[1])
    assert found.shape == own.shape
    assert found.argmax(dim=1)[GREY] == own.argmax(dim=1)[GREY]


def test_coarser_bands_than_another_size_has_are_like_its_coarsest() -> None:
    """The energies of 3 bands serve 5 or 2 bands."""
    energies = torch.arange(1.0, 4.0).expand(2, 3, 3)
    assert with_band_count(energies, 5)[0, 0].tolist() == [1, 1, 1, 2, 3]
    assert with_band_count(energies, 2)[0, 0].tolist() == [2, 3]

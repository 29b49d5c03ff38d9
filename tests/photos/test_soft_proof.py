"""Soft proofing by profiles: what stays, what comes into the gamut, and what is no profile."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from styled.errors import InputRejected
from styled.photos import SoftProof
from tests.photos.icc import ADOBE_RGB_TO_XYZ, gamma, matrix_profile

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def narrow_profile() -> bytes:
    """Return a colour space with the white of Adobe RGB, and primaries half-way to it."""
    gray = ADOBE_RGB_TO_XYZ.sum(axis=1, keepdims=True) / 3
    return matrix_profile(0.5 * ADOBE_RGB_TO_XYZ + 0.5 * gray, gamma(2.2))


def image_of(*colors: tuple[float, float, float]) -> torch.Tensor:
    """Return 1x3x1xN."""
    return torch.tensor(colors).T[None, :, None]


def test_by_srgb_nothing_changes() -> None:
    """But for the rounding to 8 bits; opacity stays as it is."""
    image = torch.rand(1, 4, 20, 30)
    proofed = SoftProof(SRGB).applied(image)
    assert float((proofed[:, :3] - image[:, :3]).abs().max()) < 1.6 / 255
    assert torch.equal(proofed[:, 3:], image[:, 3:])


def test_colours_out_of_the_gamut_come_into_it() -> None:
    """White and black stay; proofed twice is proofed once; and it is what ImageCms does."""
    narrow = narrow_profile()
    proof = SoftProof(narrow)
    image = image_of((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.5, 0.5, 0.5))
    proofed = proof.applied(image)
    moved = (proofed - image).abs().amax(dim=1)[0, 0]
    assert float(moved[:3].min()) > 0.02
    assert float(moved[3:].max()) < 2.5 / 255
    assert float((proof.applied(proofed) - proofed).abs().max()) < 3.5 / 255
    levels = np.asarray((image[0].permute(1, 2, 0) * 255).round().to(torch.uint8))
    srgb, profile = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(narrow))
    expected: Image.Image | None = Image.fromarray(levels)
    for source, target in ((srgb, profile), (profile, srgb)):
        assert expected is not None
        expected = ImageCms.profileToProfile(
            expected, source, target,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    assert np.array_equal(
        (proofed[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy(), np.asarray(expected)
    )


PRINTER = Path("/usr/share/color/icc/ghostscript/default_cmyk.icc")


@pytest.mark.skipif(not PRINTER.exists(), reason="ghostscript's CMYK profile is not installed")
def test_a_printers_profile_of_another_program() -> None:
    """Blue, which no four inks can print, loses its saturation; paper white and black stay."""
    proof = SoftProof(PRINTER.read_bytes())
    proofed = proof.applied(image_of((0, 0, 1), (1, 1, 1), (0, 0, 0)))[0, :, 0].T
    assert float((proofed[0] - torch.tensor([0.0, 0.0, 1.0])).abs().max()) > 0.1
    assert float(proofed[1].min()) > 0.98
    assert float(proofed[2].max()) < 0.05


@pytest.mark.parametrize("data", [b"", b"no profile", SRGB[:200], bytes(5000)])
def test_what_is_no_profile_is_refused(data: bytes) -> None:
    """With a remedy."""
    with pytest.raises(InputRejected, match="not a colour profile") as caught:
        SoftProof(data)
    assert caught.value.remedies

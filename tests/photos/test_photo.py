"""Conversion of a photo to a tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from styled.photos import decode_photo
from tests.photos.samples import astronaut, saved


def test_the_tensor_at_its_own_size_is_the_pixels() -> None:
    """1x3xHxW float32 in [0, 1], without resampling."""
    tensor = decode_photo(saved(astronaut(), "PNG")).tensor(96, 64)
    assert tensor.shape == (1, 3, 64, 96)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    expected = torch.from_numpy(np.asarray(astronaut()).copy()).permute(2, 0, 1)[None] / 255
    assert torch.equal(tensor, expected)


@pytest.mark.parametrize(("width", "height"), [(24, 16), (300, 200), (200, 20), (30, 90)])
def test_the_tensor_has_the_size_that_was_asked_for(width: int, height: int) -> None:
    """Enlarging, reducing and both at once keep the mean brightness and the range."""
    photo = decode_photo(saved(astronaut(), "PNG"))
    tensor = photo.tensor(width, height)
    assert tensor.shape == (1, 3, height, width)
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    assert abs(tensor.mean() - photo.tensor(96, 64).mean()) < 0.02


def test_a_tensor_without_pixels_is_refused() -> None:
    """A side below 1 is a ValueError."""
    with pytest.raises(ValueError, match="0 x 10 pixels"):
        decode_photo(saved(astronaut(), "PNG")).tensor(0, 10)

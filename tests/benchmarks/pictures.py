"""The photos and paintings that benchmarks work on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from styled.cli.demo_pictures import draw_painting, draw_photo
from styled.engine.scales import fit_long_edge, resize


@dataclass(frozen=True)
class Pair:
    """A photo and a painting, 1x3xHxW in [0, 1]."""

    name: str
    photo: Tensor
    painting: Tensor


def pairs(size: int, paintings: Sequence[Path]) -> Iterator[Pair]:
    """Yield four photos, three of them real, each with a painting, with long edges of `size`."""
    styles = [Image.open(path).convert("RGB") for path in paintings] or [draw_painting()]
    photos = {name: Image.fromarray(getattr(skimage.data, name)()) for name in
              ("astronaut", "coffee", "chelsea")} | {"lighthouse": draw_photo()}  # fmt: skip
    for k, (name, photo) in enumerate(photos.items()):
        painting = styles[k % len(styles)]
        yield Pair(f"{name} {size}", _tensor(photo, size), _tensor(painting, size))


def _tensor(image: Image.Image, size: int) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).movedim(-1, 0)[None].float() / 255
    return resize(pixels, *fit_long_edge(image.width, image.height, size))

"""Soft proofing: colours as a printer's profile can reproduce them."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from styled.errors import InputRejected

_SRGB = ImageCms.createProfile("sRGB")
_INTENT, _FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
_MODES = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L", "Lab": "LAB"}
"""The colour space of a profile, and Pillow's mode for it."""


class SoftProof:
    """Converts sRGB pictures to a profile's colour space and back.

    Both ways are relative colorimetric with black point compensation, so that white and black stay
    as they are, and colours out of the profile's gamut become the nearest ones in it. A single
    proofing transform would not compensate on the way back: black would become that of the ink.
    """

    def __init__(self, icc: bytes) -> None:
        """Use the profile `icc`.

        Raises:
            InputRejected: it is not a profile, or can't be used in both directions.
        """
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            mode = _MODES[profile.profile.xcolor_space.strip()]
            self._to_proof = ImageCms.buildTransform(
                _SRGB, profile, "RGB", mode, renderingIntent=_INTENT, flags=_FLAGS
            )
            self._to_srgb = ImageCms.buildTransform(
                profile, _SRGB, mode, "RGB", renderingIntent=_INTENT, flags=_FLAGS
            )
        except (OSError, ImageCms.PyCMSError, KeyError, TypeError, ValueError) as error:
            raise InputRejected(
                f"it is not a colour profile that can be proofed by: {error}",
                "name the printer's or the paper's ICC profile",
            ) from error

    def applied(self, image: Tensor) -> Tensor:
        """Return 1xCxHxW with its first three channels, sRGB in [0, 1], proofed, in 8 bits."""
        levels = (image[0, :3].permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8)
        picture = Image.fromarray(levels.contiguous().numpy())
        printed = ImageCms.applyTransform(picture, self._to_proof)
        assert printed is not None, "it is not done in place"
        proofed = ImageCms.applyTransform(printed, self._to_srgb)
        assert proofed is not None, "likewise"
        colors = torch.from_numpy(np.array(proofed)).permute(2, 0, 1)[None].to(image.dtype) / 255
        return torch.cat([colors, image[:, 3:]], dim=1).contiguous()

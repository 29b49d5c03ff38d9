"""Conversion between image files and tensors.

`read_bytes` and `decode_photo` turn a file into a `Photo`: upright, RGB, 8 bit, sRGB. Its
`tensor` is the engine's input (1x3xHxW float32, sRGB in [0, 1]). `export_image` turns the
engine's result into the bytes of a file with the photo's properties; `encode_image` does so
for a tensor that belongs to no photo.
"""

from styled.photos.decode import decode_photo
from styled.photos.encode import require_encodable
from styled.photos.export import (
    ExportedImage,
    ExportOptions,
    encode_image,
    export_image,
    output_format,
    to_grayscale,
)
from styled.photos.files import read_bytes
from styled.photos.limits import DEFAULT_MAX_PIXELS, MIN_EDGE_PX
from styled.photos.mask import Mask, decode_mask
from styled.photos.photo import Photo
from styled.photos.shortage import memory_shortage_at
from styled.photos.soft_proof import SoftProof

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "MIN_EDGE_PX",
    "ExportOptions",
    "ExportedImage",
    "Mask",
    "Photo",
    "SoftProof",
    "decode_mask",
    "decode_photo",
    "encode_image",
    "export_image",
    "memory_shortage_at",
    "output_format",
    "read_bytes",
    "require_encodable",
    "to_grayscale",
]

"""Files to tensors and back: what stands between a photographer's disk and the engine.

`read_bytes` and `decode` turn a file into a `Photo`: upright, RGB, 8 bit, sRGB. Its
`tensor` is what the engine paints on (1x3xHxW float32, sRGB in [0,1]); `encode` turns the
engine's result into the bytes of a file.
"""

from styled.photos.reading import MIN_EDGE_PX, Photo, decode, read_bytes
from styled.photos.writing import encode, output_format, to_image

__all__ = [
    "MIN_EDGE_PX",
    "Photo",
    "decode",
    "encode",
    "output_format",
    "read_bytes",
    "to_image",
]

"""Files to tensors and back: what stands between a photographer's disk and the engine.

`read_bytes` and `decode` turn a file into a `Photo`: upright, RGB, 8 bit, sRGB. Its
`tensor` is what the engine paints on (1x3xHxW float32, sRGB in [0,1]); `encode` turns the
engine's result into the bytes of a file.
"""

from styled.photos.finishing import Finish, Finished, encode, finish, in_gray, output_format
from styled.photos.opening import read_bytes
from styled.photos.photo import Photo
from styled.photos.reading import DEFAULT_MAX_PIXELS, MIN_EDGE_PX, decode
from styled.photos.saving import require_room
from styled.photos.shortage import memory_shortage_at

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "MIN_EDGE_PX",
    "Finish",
    "Finished",
    "Photo",
    "decode",
    "encode",
    "finish",
    "in_gray",
    "memory_shortage_at",
    "output_format",
    "read_bytes",
    "require_room",
]

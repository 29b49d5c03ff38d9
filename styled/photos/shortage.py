"""Lack of memory, which Pillow, its libraries, numpy and torch each tell in their own words."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from styled.errors import MemoryShortage, StyledError

_REMEDIES = (
    "Free some memory, or stop what else needs it; the photo is tried again by itself.",
    "Under systemd or in a container, raise the limit (MemoryMax=, --memory).",
    "Or save the picture smaller; `intake.max_pixels` is the most that is read at all.",
)

_SIGNS = (
    "out of memory",  # Pillow's codecs, libavif, and torch on GPUs
    "not enough memory",  # torch on CPUs
    "can't allocate memory",
    "cannot allocate memory",
    "memory allocation error",  # libheif
    "bad_alloc",
)

# libheif names the limits that it sets for hostile files an error of memory, too.
_OF_A_FILE = "security limit"


def is_memory_shortage(error: BaseException) -> bool:
    """Return whether an error says that memory could not be allocated."""
    text = str(error).lower()
    if _OF_A_FILE in text:
        return False
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)


def can_be_allocated(size: int) -> bool:
    """Return whether so many bytes can be had at once now; none of them is touched."""
    try:
        mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return False
    return True


@contextmanager
def memory_shortage_at(doing: str, needed_bytes: int = 0) -> Iterator[None]:
    """Raise a `MemoryShortage` for every error in the context that means lack of memory.

    Args:
        doing: What fails by it, such as "read the photo".
        needed_bytes: What it takes. Several decoders do not say why they failed: where so much
            memory can't be had, that was it.
    """
    try:
        yield
    except StyledError:
        raise
    except Exception as error:
        if not is_memory_shortage(error) and can_be_allocated(needed_bytes):
            raise
        raise MemoryShortage(f"there is not enough memory to {doing}", *_REMEDIES) from error

"""Detects lack of memory, which Pillow, its libraries, numpy and torch each report differently."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from styled.errors import MemoryShortage, StyledError

_REMEDIES = (
    "Free some memory, or stop what else needs it; the photo is tried again by itself.",
    "Under systemd or in a container, raise the limit (MemoryMax=, --memory).",
    "Or save the picture smaller; `intake.max_pixels` is the most that is read at all.",
)

_MESSAGES = (
    "out of memory",  # Pillow's codecs, libavif, and torch on GPUs
    "not enough memory",  # torch on CPUs
    "can't allocate memory",
    "cannot allocate memory",
    "memory allocation error",  # libheif
    "bad_alloc",
)

# libheif also reports as a memory error that a hostile file exceeds its security limits.
_FILE_LIMIT_MESSAGE = "security limit"


def is_memory_shortage(error: BaseException) -> bool:
    """Return whether an error says that memory could not be allocated."""
    text = str(error).lower()
    if _FILE_LIMIT_MESSAGE in text:
        return False
    return isinstance(error, MemoryError) or any(message in text for message in _MESSAGES)


def can_be_allocated(size: int) -> bool:
    """Return whether `size` bytes can be allocated at once now, without touching them."""
    try:
        mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return False
    return True


def require_memory(doing: str, needed_bytes: int) -> None:
    """Raise `MemoryShortage` if memory can't be allocated.

    For libraries that end the process in that case.

    Args:
        doing: What it is for, for the message, such as "read the photo".
        needed_bytes: Memory that it takes.
    """
    if not can_be_allocated(needed_bytes):
        raise MemoryShortage(f"there is not enough memory to {doing}", *_REMEDIES)


class Need(Protocol):
    """Tells how much memory something takes, which may become known only while it is done."""

    @property
    def needed_bytes(self) -> int:
        """Bytes that are known so far."""


@contextmanager
def memory_shortage_at(doing: str, need: Need | None = None) -> Iterator[None]:
    """Raise `MemoryShortage` for every exception in the context that means lack of memory.

    Args:
        doing: What fails, for the message, such as "read the photo".
        need: Memory that it takes. Several decoders do not say why they failed: if this
            much memory can't be allocated, lack of memory is taken for the cause.
    """
    try:
        yield
    except StyledError:
        raise
    except Exception as error:
        needed_bytes = 0 if need is None else need.needed_bytes
        if not is_memory_shortage(error) and can_be_allocated(needed_bytes):
            raise
        raise MemoryShortage(f"there is not enough memory to {doing}", *_REMEDIES) from error

"""Access to the bytes of a file that may be large: only what is used is read."""

from __future__ import annotations

import os
from typing import Protocol, overload

WINDOW_BYTES = 1 << 16


class ByteSource(Protocol):
    """The part of the interface of `bytes` that the checks of files use."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> bytes: ...
    def find(self, sub: bytes, start: int = ..., /) -> int: ...


class FileView:
    """The bytes of an open file, read on demand: a check needs only a few pages of them.

    If the file shrinks meanwhile, reads return fewer bytes. With a memory map the process would
    be killed.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        """Give access to the first `size` bytes of the file."""
        self._descriptor = descriptor
        self._size = size
        self._window = b""
        self._window_start = 0

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> bytes: ...
    def __getitem__(self, at: int | slice, /) -> int | bytes:
        if isinstance(at, int):
            return self._read(at, 1)[0]
        start, stop, _ = at.indices(self._size)
        return self._read(start, max(0, stop - start))

    def find(self, sub: bytes, start: int = 0, /) -> int:
        """Return a position of `sub` at or after `start`, -1 if none. Not always the first one."""
        # The last window comes first: mostly the end marker is searched for, and mostly it is
        # there.
        last = max(start, self._size - WINDOW_BYTES)
        in_last_window = self[last : self._size].find(sub)
        if in_last_window >= 0:
            return last + in_last_window
        while start < last:
            offset = self[start : start + WINDOW_BYTES + len(sub)].find(sub)
            if offset >= 0:
                return start + offset
            start += WINDOW_BYTES
        return -1

    def _read(self, start: int, count: int) -> bytes:
        if count > WINDOW_BYTES:
            return os.pread(self._descriptor, count, start)
        offset = start - self._window_start
        if offset < 0 or offset + count > len(self._window):
            self._window = os.pread(self._descriptor, WINDOW_BYTES, start)
            self._window_start, offset = start, 0
        return self._window[offset : offset + count]


def view_of(descriptor: int, size: int) -> ByteSource:
    """Return the first `size` bytes of a file: as `bytes` if they are few, else as a `FileView`."""
    if size <= WINDOW_BYTES:
        return os.pread(descriptor, size, 0)
    return FileView(descriptor, size)

"""Measuring and managing memory: the process's on a CPU, the device's on a GPU."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MAX_MMAP_THRESHOLD_OLD_GLIBC = 32 << 20  # before 2.35

SHARE_OF_FREE = 0.9
"""The share of the memory that is free now that one picture may use."""


MMAP_THRESHOLD_WITHOUT_ARENA = 1 << 30
MMAP_THRESHOLD_WITH_ARENA = 3 << 20
"""Arguments of `configure_allocator`, in bytes, for steps without and with `ActivationArena`."""


def configure_allocator(mmap_threshold: int = MMAP_THRESHOLD_WITHOUT_ARENA) -> None:
    """Make glibc reuse freed memory instead of returning it to the kernel.

    Without an `ActivationArena` every step allocates and frees the same large activations. By
    default glibc returns each of them at once, and the kernel clears the pages again at every
    step: a fifth of the time of a step on a CPU. Without glibc this does nothing.

    It applies to the whole process until the next call. `stylize` calls it for each scale, and
    when the precision changes, with what suits the network's backend.

    Args:
        mmap_threshold: Allocations of more bytes still use mmap. Otherwise one small live
            allocation often pins a whole freed block, and a heap with few block sizes grows by a
            large block at every step. Where an `ActivationArena` holds the activations, mapping
            the others takes no noticeable time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no mallopt, for example on Windows
        return
    if not mallopt(_M_MMAP_THRESHOLD, mmap_threshold):
        mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD_OLD_GLIBC)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Return to the kernel the freed memory that glibc has kept.

    Holes left by blocks of one size do not fit blocks of another. Without this call, pictures
    of ever different sizes make a process grow without limit while its live memory stays the
    same.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


_OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate",
    "bad_alloc",
    "could not create a memory object",
    "_alloc_failed",  # cuBLAS and cuDNN, for their workspaces
    "unable to find an engine",  # cuDNN, when none fits into the free memory
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a failed allocation.

    Only GPU allocators have a type for it; the libraries below and torch's CPU allocator raise
    RuntimeError, and only the message tells.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(text in message for text in _OUT_OF_MEMORY)


class CatchMemoryShortage:
    """A context in which a failed allocation is noted instead of raised.

    Attributes:
        occurred: Whether one has failed; valid after the context.
    """

    def __init__(self) -> None:
        self.occurred = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.occurred = error is not None and is_out_of_memory(error)
        return self.occurred


def empty_cache(device: torch.device) -> None:
    """Return freed memory to the system, for other programs or larger allocations."""
    trim_heap()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def used_bytes(device: torch.device) -> int:
    """Return the bytes in use: on a CPU by the whole process, on a GPU by tensors."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    try:
        pages = int(_read("/proc/self/statm").split()[1])
    except (OSError, IndexError, ValueError):
        return peak_bytes(device)
    return pages * resource.getpagesize()


def peak_bytes(device: torch.device) -> int:
    """Return the peak of used bytes since `reset_peak`, or ever where it can't be reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        for line in _read("/proc/self/status").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak(device: torch.device) -> None:
    """Reset the peak, where the system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed


def free_bytes(device: torch.device) -> int | None:
    """Return how many more bytes could be used, or None if the system does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    known = [free for free in (_free_in_machine(), _free_in_cgroup()) if free is not None]
    return min(known, default=None)


def _free_in_machine() -> int | None:
    try:
        lines = _read("/proc/meminfo").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _free_in_cgroup(
    root: Path = Path("/sys/fs/cgroup"), cgroup_file: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Return the bytes that cgroup limits leave (systemd's MemoryMax, containers): the minimum."""
    try:
        own_path = _read(cgroup_file).splitlines()[-1].partition("::")[2].strip("/")
    except (OSError, IndexError):
        return None
    folder, free = root / own_path, []
    while True:
        try:
            limit = _read(folder / "memory.max").strip()
            used = int(_read(folder / "memory.current"))
            if limit != "max":
                # Cached files count as used, but the kernel drops them when memory is short.
                free.append(int(limit) - used + _cached_files(folder))
        except (OSError, ValueError):
            pass
        if folder in (root, folder.parent):
            return min(free, default=None)
        folder = folder.parent


def _cached_files(folder: Path) -> int:
    for line in _read(folder / "memory.stat").splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _read(path: str | Path) -> str:
    """Return the text of a file of the kernel, by few calls of the system: they are read often."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16).decode()
    finally:
        os.close(descriptor)

"""What the engine knows and does about memory: of the process on a CPU, of the device on a GPU."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import torch

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MOST_IN_OLD_GLIBC = 32 << 20  # before 2.35

SHARE_OF_FREE = 0.9
"""How much of the memory that is free now one picture may count on."""


EVERY_BLOCK = 1 << 30
SMALL_BLOCKS = 3 << 20
"""What `keep_freed_memory` is told: bytes of the largest block that is kept."""


def keep_freed_memory(largest: int = EVERY_BLOCK) -> None:
    """Have the C library reuse freed memory instead of handing it back to the kernel.

    Without a `Workplace` every step allocates and frees the same large activations. By default
    glibc returns each of them at once, and the kernel clears the pages anew at every step: a
    fifth of the time of a step on a CPU. Where there is no glibc this does nothing.

    It holds for the whole process, until it is told otherwise: `stylize` does so at each scale, by
    what the network's layers do there.

    Args:
        largest: Blocks of more bytes are still mapped one by one. A freed block often can't be
            had again, for a crumb of it remains in use: a heap with few sizes of blocks grows
            by a large one at every step. Where a `Workplace` has the activations, the rest is
            mapped in no time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # as Windows has it
        return
    if not mallopt(_M_MMAP_THRESHOLD, largest):
        mallopt(_M_MMAP_THRESHOLD, _MOST_IN_OLD_GLIBC)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_M_ARENA_MAX, 1)


def give_back_heap() -> None:
    """Hand back what the C library has kept of freed memory: it is of little use by now.

    Holes that blocks of one size have left fit no block of another. Pictures of ever other
    sizes would make a process grow for ever, though all that it uses stays the same.
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
    "_alloc_failed",  # cuBLAS and cuDNN, when they want a workspace
    "unable to find an engine",  # cuDNN, when none fits into what is left
)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error is a failed allocation; torch has no type for it on all devices."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in words for sign in _OUT_OF_MEMORY)


def give_back(device: torch.device) -> None:
    """Hand freed memory back, so that others, or larger pieces, find room."""
    give_back_heap()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def used_bytes(device: torch.device) -> int:
    """Return what is in use now: on a CPU by the whole process, on a GPU by tensors."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return peak_bytes(device)
    return pages * resource.getpagesize()


def peak_bytes(device: torch.device) -> int:
    """Return the most that was in use since `reset_peak`; or ever, where that can't be reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak(device: torch.device) -> None:
    """Begin to measure the peak anew, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed


def free_bytes(device: torch.device) -> int | None:
    """Return how much more could be used, or None where nobody tells."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    known = [free for free in (_free_in_machine(), _free_in_cgroup()) if free is not None]
    return min(known, default=None)


def _free_in_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _free_in_cgroup(
    root: Path = Path("/sys/fs/cgroup"), named: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Return what systemd's MemoryMax, or a container's limit, leaves: the least of all levels."""
    try:
        own = named.read_text().splitlines()[-1].partition("::")[2].strip("/")
    except (OSError, IndexError):
        return None
    folder, found = root / own, []
    while True:
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            if limit != "max":
                # Cached files count as used, but make room when memory is asked for.
                found.append(int(limit) - used + _cached_files(folder))
        except (OSError, ValueError):
            pass
        if folder in (root, folder.parent):
            return min(found, default=None)
        folder = folder.parent


def _cached_files(folder: Path) -> int:
    for line in (folder / "memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0

"""Lack of memory is told apart from a damaged photo, wherever it occurs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from styled.errors import InputRejected, MemoryShortage, ResourceUnavailable
from styled.photos import decode_photo
from styled.photos.shortage import memory_shortage_at
from tests.photos.samples import astronaut, deep_png, saved

MIB = 2**20

WIDTH, HEIGHT = 4000, 3000


def address_space() -> int:
    """Return the size of this process's address space in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def with_little_memory(mib: int, action: Callable[[], object]) -> str:
    """Run `action` in a child process with `mib` MiB of extra memory; return what it raised."""
    previous_limits = resource.getrlimit(resource.RLIMIT_AS)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(
                resource.RLIMIT_AS, (address_space() + mib * MIB, previous_limits[1])
            )
            action()
            outcome = "nothing"
        except BaseException as error:  # noqa: BLE001  # the parent checks it
            resource.setrlimit(resource.RLIMIT_AS, previous_limits)
            outcome = type(error).__name__
            if not isinstance(error, ResourceUnavailable):
                outcome += "".join(traceback.format_exception(error))
        os.write(writer, outcome.encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        outcome = stream.read().decode()
    assert os.waitpid(child, 0)[1] == 0, outcome
    return outcome


def large(format: str, **options: object) -> bytes:
    """Return a picture of 12 million pixels in a small file."""
    return saved(
        Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB"), format, **options
    )


LARGE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: large("JPEG"),
    "progressive jpeg": lambda: large("JPEG", progressive=True),
    "png": lambda: large("PNG"),
    "tiff": lambda: large("TIFF", compression="tiff_lzw"),
    "bmp": lambda: large("BMP"),
    "gif": lambda: large("GIF"),
    "webp": lambda: large("WEBP", method=0),
    "png of 16 bits": lambda: deep_png(np.zeros((HEIGHT, WIDTH, 3), np.uint16)),
}


def in_a_fresh_process(expression: str) -> list[str]:
    """Return the words of an expression of this module, evaluated in a new process.

    A process that has run other tests has freed memory in reserve, and threads that a fork loses.
    """
    script = f"from tests.photos.test_shortage import *; sys.stdout.write(' '.join({expression}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[str]]:
    """Return the outcomes of decoding with little memory, by format."""
    results = iter(in_a_fresh_process("read_all_with_little_memory()"))
    return {format: [next(results) for _ in LIMITS_MIB] for format in LARGE}


@pytest.mark.parametrize("format", LARGE)
def test_a_sound_photo_is_not_refused_for_lack_of_memory(
    format: str, outcomes: dict[str, list[str]]
) -> None:
    """Each limit gives MemoryShortage, whatever the decoder raises, or a photo; never a refusal."""
    assert outcomes[format][-1] == "nothing"
    assert outcomes[format][0] == "MemoryShortage"
    assert set(outcomes[format]) <= {"MemoryShortage", "nothing"}


LIMITS_MIB = (4, 30, 50, 1000)


def read_all_with_little_memory() -> Iterator[str]:
    """Decode each format in its own child, so that no memory freed by another one is available."""
    for format in LARGE:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, " ".join(read_with_little_memory(format)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as stream:
            yield stream.read()


def read_with_little_memory(format: str) -> list[str]:
    """Return the outcomes of decoding a large image with increasing amounts of memory."""
    data = LARGE[format]()  # not decoded here: libvips' threads do not survive a fork
    return [with_little_memory(mib, lambda: decode_photo(data)) for mib in LIMITS_MIB]


def test_a_photo_that_was_read_may_still_be_too_large_to_resize() -> None:
    """Resizing takes memory too, from numpy and torch."""
    assert in_a_fresh_process("resize_with_little_memory()") == ["MemoryShortage", "nothing"]


def resize_with_little_memory() -> list[str]:
    """Return the outcomes of enlarging a photo with little memory and with enough."""
    torch.set_num_threads(1)
    photo = decode_photo(deep_png(np.zeros((600, 800, 3), np.uint16)))
    photo.tensor(40, 30)

    def enlarge() -> None:
        with memory_shortage_at("resize it"):
            photo.tensor(WIDTH, HEIGHT)

    return [with_little_memory(mib, enlarge) for mib in (20, 2000)]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError("out of memory when reading image file"),
        RuntimeError("Memory allocation error: Unspecified"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    ],
    ids=str,
)
def test_whoever_runs_out_of_memory_is_understood(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding raises MemoryShortage with remedies and the original cause."""

    def fail(*_: object) -> None:
        raise error

    data = saved(astronaut(), "BMP")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(MemoryShortage, match="not enough memory to decode one") as raised:
        decode_photo(data, name="one")
    assert raised.value.remedies
    assert raised.value.__cause__ is error


def test_a_limit_that_a_hostile_file_exceeds_is_no_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libheif reports exceeded security limits as memory errors, but a retry would not help."""

    def fail(*_: object) -> None:
        raise RuntimeError("Memory allocation error: Security limit exceeded: 9 bytes")

    data = saved(astronaut(), "BMP")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(InputRejected):
        decode_photo(data)


def test_other_errors_stay_what_they_are() -> None:
    """Only exceptions that mean lack of memory are converted."""
    with pytest.raises(ValueError, match="odd"), memory_shortage_at("think"):
        raise ValueError("odd")
    with pytest.raises(InputRejected), memory_shortage_at("think"):
        raise InputRejected("out of memory, it says")


def test_a_small_photo_is_read_with_little_memory() -> None:
    """A photo that fits into the available memory is decoded."""
    data = saved(astronaut(64, 64), "PNG")
    decode_photo(data)
    assert with_little_memory(4, lambda: decode_photo(data)) == "nothing"

"""Lack of memory: it is told apart from a damaged photo, whoever runs out of it."""

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
from styled.photos import decode
from styled.photos.shortage import memory_shortage_at
from tests.photos.samples import astronaut, deep_png, saved

MIB = 2**20

WIDTH, HEIGHT = 4000, 3000


def address_space() -> int:
    """Return how much of it this process uses, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def with_little_memory(mib: int, do: Callable[[], object]) -> str:
    """Do something in a child that may use so much more memory; return what it raised."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (address_space() + mib * MIB, before[1]))
            do()
            said = "nothing"
        except BaseException as error:  # noqa: BLE001  # the parent looks at it
            resource.setrlimit(resource.RLIMIT_AS, before)
            said = type(error).__name__
            if not isinstance(error, ResourceUnavailable):
                said += "".join(traceback.format_exception(error))
        os.write(writer, said.encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode()
    assert os.waitpid(child, 0)[1] == 0, said
    return said


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
    """Return the words that an expression of this module gives in a process of its own.

    One that has run other tests has freed memory to spare, and threads that a fork loses.
    """
    script = f"from tests.photos.test_shortage import *; sys.stdout.write(' '.join({expression}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[str]]:
    """Return, for each format, what came of reading with little memory."""
    said = iter(in_a_fresh_process("read_all_with_little_memory()"))
    return {format: [next(said) for _ in LIMITS_MIB] for format in LARGE}


@pytest.mark.parametrize("format", LARGE)
def test_a_sound_photo_is_not_refused_for_lack_of_memory(
    format: str, outcomes: dict[str, list[str]]
) -> None:
    """From hardly any memory to nearly enough, whatever the decoder says of it; then it is read."""
    assert outcomes[format][-1] == "nothing"
    assert outcomes[format][0] == "MemoryShortage"
    assert set(outcomes[format]) <= {"MemoryShortage", "nothing"}


LIMITS_MIB = (4, 30, 50, 1000)


def read_all_with_little_memory() -> Iterator[str]:
    """Read a picture of each format in a child of its own: none has memory that another freed."""
    for format in LARGE:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, " ".join(read_with_little_memory(format)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as stream:
            yield stream.read()


def read_with_little_memory(format: str) -> list[str]:
    """Return what came of reading one of the large pictures with ever more memory."""
    data = LARGE[format]()
    assert decode(data).width == WIDTH  # and everything is loaded that will be needed
    return [with_little_memory(mib, lambda: decode(data)) for mib in LIMITS_MIB]


def test_a_photo_that_was_read_may_still_be_too_large_to_resize() -> None:
    """Bringing it to its size takes memory as well, of numpy and torch."""
    assert in_a_fresh_process("resize_with_little_memory()") == ["MemoryShortage", "nothing"]


def resize_with_little_memory() -> list[str]:
    """Return what came of enlarging a photo with little memory, and with enough."""
    torch.set_num_threads(1)
    photo = decode(deep_png(np.zeros((600, 800, 3), np.uint16)))
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
    """Decoding says that memory is short, with remedies, and keeps the cause."""

    def fail(*_: object) -> None:
        raise error

    data = saved(astronaut(), "BMP")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(MemoryShortage, match="not enough memory to decode one") as raised:
        decode(data, name="one")
    assert raised.value.remedies
    assert raised.value.__cause__ is error


def test_a_limit_that_a_hostile_file_exceeds_is_no_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libheif calls its security limits an error of memory: that would never get better."""

    def fail(*_: object) -> None:
        raise RuntimeError("Memory allocation error: Security limit exceeded: 9 bytes")

    data = saved(astronaut(), "BMP")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(InputRejected):
        decode(data)


def test_other_errors_stay_what_they_are() -> None:
    """Only lack of memory is told in other words."""
    with pytest.raises(ValueError, match="odd"), memory_shortage_at("think"):
        raise ValueError("odd")
    with pytest.raises(InputRejected), memory_shortage_at("think"):
        raise InputRejected("out of memory, it says")


def test_a_small_photo_is_read_with_little_memory() -> None:
    """A shortage stops those photos only that it is too small for."""
    data = saved(astronaut(64, 64), "PNG")
    decode(data)
    assert with_little_memory(4, lambda: decode(data)) == "nothing"

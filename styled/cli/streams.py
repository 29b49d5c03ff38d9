"""Standard streams that can be relied on, whatever the process was started with.

Imported before everything else, so it imports next to nothing.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ESCAPED = "styled.escaped"
r"""The error handler that writes what an encoding lacks as `\uXXXX`, which JSON reads as well."""


STANDARD_ERROR = 2

closed: set[int] = set()
"""Which of the descriptors 0 to 2 the process was started without."""


def open_standard_streams() -> None:
    """Make all three standard streams usable, and safe to write anything to.

    A stream that is closed becomes /dev/null: otherwise the next file that is opened, such as
    the journal, would get its number, and receive what is printed. Characters that the encoding
    lacks are escaped. A failed write to standard output ends the program, one to standard error
    is ignored.
    """
    codecs.register_error(ESCAPED, _escaped)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            _connect_to_null(descriptor)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout = _text_stream(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text_stream(_Messages(STANDARD_ERROR, "w", closefd=False), sys.stderr)


class _Output(io.FileIO):
    """Standard output: the program ends with a message when it can't be written.

    `SystemExit` and not an error, because neither typer nor rich handles it: both of them turn a
    broken pipe into exit code 1, which says that an input was rejected.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])  # another program made it non-blocking
            return written
        except OSError as error:
            reason = error
        _connect_to_null(1)  # for what is still buffered
        from styled.cli.exits import DONE, TEMPORARY, say_error
        from styled.errors import DiskTrouble

        if isinstance(reason, BrokenPipeError):
            raise SystemExit(DONE)  # the reader has seen enough, as `head` does
        say_error(DiskTrouble(f"standard output can't be written: {reason.strerror}"))
        raise SystemExit(TEMPORARY)


class _Messages(io.FileIO):
    """Standard error: where it can't be written there is nowhere else to say so."""

    def write(self, data: ReadableBuffer, /) -> int:
        written = None
        with suppress(OSError):
            written = super().write(data)
        return memoryview(data).nbytes if written is None else written


def _text_stream(raw: io.FileIO, former: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream with the encoding and the buffering of the one that Python made."""
    encoding, buffers_lines = "utf-8", False
    if isinstance(former, io.TextIOWrapper):
        encoding = former.encoding
        buffers_lines = former.line_buffering or former.write_through
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors=ESCAPED, line_buffering=buffers_lines
    )


def _connect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == descriptor:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, descriptor)
        os.close(null)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in pairs), error.end

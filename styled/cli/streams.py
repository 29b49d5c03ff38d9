"""Makes the standard streams usable, however the process was started.

This module is imported before everything else, so it imports only the standard library.
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
r"""Name of the codec error handler that writes unsupported characters as `\uXXXX`, as in JSON."""


STANDARD_ERROR = 2

closed: set[int] = set()
"""The descriptors from 0 to 2 that were closed when the process was started."""


def open_standard_streams() -> None:
    """Replace the standard streams so that any text can be written to them.

    A closed descriptor is connected to /dev/null: otherwise the next file that is opened, such as
    the journal, would get its number and receive the printed text. Characters that the encoding
    does not support are escaped. A failed write to standard output ends the program; a failed
    write to standard error is ignored.
    """
    codecs.register_error(ESCAPED, _escape_unencodable)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            _connect_to_null(descriptor)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout = _text_stream(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text_stream(_ErrorOutput(STANDARD_ERROR, "w", closefd=False), sys.stderr)


class _Output(io.FileIO):
    """Standard output: a failed write ends the program with a message.

    It raises `SystemExit`, which neither typer nor rich handles. Both of them convert a broken
    pipe to exit code 1, which in styled means that an input was rejected.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])  # another process made it non-blocking
            return written
        except OSError as error:
            reason = error
        _connect_to_null(1)  # for the data that is still buffered
        from styled.cli.exit_codes import DONE, TEMPORARY, print_error
        from styled.errors import DiskFailure

        if isinstance(reason, BrokenPipeError):
            raise SystemExit(DONE)  # the reader, such as `head`, has closed the pipe
        print_error(DiskFailure(f"standard output can't be written: {reason.strerror}"))
        raise SystemExit(TEMPORARY)


class _ErrorOutput(io.FileIO):
    """Standard error: failed writes are ignored, because they can't be reported anywhere."""

    def write(self, data: ReadableBuffer, /) -> int:
        written = None
        with suppress(OSError):
            written = super().write(data)
        return memoryview(data).nbytes if written is None else written


def _text_stream(raw: io.FileIO, original: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream with the encoding and the line buffering of Python's own stream."""
    encoding, buffers_lines = "utf-8", False
    if isinstance(original, io.TextIOWrapper):
        encoding = original.encoding
        buffers_lines = original.line_buffering or original.write_through
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


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in pairs), error.end

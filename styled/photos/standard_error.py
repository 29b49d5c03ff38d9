"""What C libraries write to standard error: libtiff of damaged rows, LibRaw of damaged data.

Redirecting it affects the whole process; styled's log goes to another file descriptor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_STDERR_FD = 2
_MAX_BYTES = 4000


class CapturedText:
    """The beginning of what was written; empty until the redirection has ended."""

    text = ""


@contextmanager
def captured_standard_error() -> Iterator[CapturedText]:
    """Redirect standard error to memory; nothing is shown."""
    captured = CapturedText()
    with ExitStack() as stack:
        try:
            memory = os.memfd_create("stderr", os.MFD_CLOEXEC)
            stack.callback(os.close, memory)
            saved = os.dup(_STDERR_FD)
        except OSError:  # standard error is closed, or too many files are open
            yield captured
            return
        stack.callback(os.close, saved)
        os.dup2(memory, _STDERR_FD)
        try:
            yield captured
        finally:
            os.dup2(saved, _STDERR_FD)
            captured.text = os.pread(memory, _MAX_BYTES, 0).decode("utf-8", "replace")

"""What Ray's core prints becomes records of the log.

The core writes its errors to file descriptor 2 as text, whatever the settings of Ray's loggers. The
log itself, and Python's fault handler, write to descriptors of their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()

_STDERR_FD = 2
_LAST_LINES_SECONDS = 1.0
"""Maximum wait at the end for lines that are not logged yet."""


@contextmanager
def logged_core_output() -> Iterator[None]:
    """Log each line that is written to standard error meanwhile, in the whole process."""
    try:
        saved = os.dup(_STDERR_FD)
    except OSError:  # standard error is closed: nobody would see the lines anyway
        yield
        return
    read_end, write_end = os.pipe()
    os.dup2(write_end, _STDERR_FD)
    os.close(write_end)
    thread = threading.Thread(target=_log_lines, args=(read_end,), name="ray-output", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(saved, _STDERR_FD)
        os.close(saved)
        # Longer if a process that was started meanwhile still has the pipe.
        thread.join(_LAST_LINES_SECONDS)


def _log_lines(descriptor: int) -> None:
    with open(descriptor, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                log.warning("library.logged", library="ray", message=line.strip())

"""Speeds up imports by turning garbage collection off."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Disable garbage collection while a command imports its modules, then freeze their objects.

    Imports create hundreds of thousands of objects, almost none of which become garbage. Without
    this, collections take a seventh of the import time of torch, and afterwards each full
    collection takes 0.1 s, during an optimisation step and at exit.

    Meanwhile SIGINT ends the process at once: an exception during an import would leave a
    half-initialised module, which causes misleading errors in other modules.
    """
    gc.disable()
    try:
        with exit_on_sigint():
            yield
        gc.freeze()
    finally:
        gc.enable()


@contextmanager
def exit_on_sigint() -> Iterator[None]:
    """Let SIGINT end the process without an exception, if its handler is Python's default."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # SIGINT is ignored, or the daemon has its own handler
        return
    signal.signal(signal.SIGINT, lambda signum, frame: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


INTERRUPTED = 130
"""The exit code that shells report for a program that was ended by SIGINT."""

"""Imports that take no longer than they must, and are nobody's concern afterwards."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import what a command needs, without looking for garbage among it.

    Modules make hundreds of thousands of objects and throw hardly any away. Looking through them
    again and again takes a seventh of the time that torch needs to be imported, then 0.1 s at each
    full collection, in the midst of a step, and once more at the end.

    SIGINT ends the process at once meanwhile: an exception amid an import leaves half a module, of
    which others then report something else.
    """
    gc.disable()
    try:
        with interrupted_at_once():
            yield
        gc.freeze()
    finally:
        gc.enable()


@contextmanager
def interrupted_at_once() -> Iterator[None]:
    """Have SIGINT end the process without an exception, where it would raise one."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # it is ignored, or a daemon's own
        return
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


INTERRUPTED = 130
"""The exit code that shells have for a program that SIGINT has ended."""

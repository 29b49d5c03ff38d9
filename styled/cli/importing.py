"""Imports that take no longer than they must, and are nobody's concern afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import what a command needs, without looking for garbage among it.

    Modules make hundreds of thousands of objects and throw hardly any away. Looking through them
    again and again takes a seventh of the time that torch needs to be imported, then 0.1 s at each
    full collection, in the midst of a step, and once more at the end.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()

"""Signals that stop or reload the process, from its first moment to its last.

This module is imported before everything else, so it imports next to nothing.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

HANGUP_SECONDS = 0.1
"""How long after SIGHUP the terminal may still be there although it is going away.

When a shell exits, the kernel sends SIGHUP a moment before it takes the terminal away.
"""

_deferred_reloads: list[signal.Signals] = []


def handle_signals(
    on_stop: Callable[[], None], on_reload: Callable[[], None]
) -> dict[signal.Signals, Handler]:
    """Call `on_stop` or `on_reload` when a signal arrives; return the former handlers.

    SIGTERM and SIGINT stop. SIGHUP reloads, unless the process was started on a terminal that
    is gone: then it stops. Where SIGHUP was ignored at the start, as by nohup, it always reloads.
    No signal is lost between the former handlers and the new ones, and a reload that
    `defer_reload` has kept is made up for at once. SIGIO is ignored.

    Args:
        on_stop: Called in the main thread, between any two of its instructions.
        on_reload: Called likewise.
    """
    stops_when_hung_up = _was_started_on_terminal()

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not (stops_when_hung_up and _is_terminal_gone()):
            on_reload()
        else:
            on_stop()

    # Comes where a writer opens a file amid `styled.open_files`; its default ends the process.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    former = {number: signal.signal(number, handle) for number in HANDLED}
    if _deferred_reloads:
        _deferred_reloads.clear()
        on_reload()
    return former


@contextmanager
def signals_handled(on_stop: Callable[[], None], on_reload: Callable[[], None]) -> Iterator[None]:
    """Do as `handle_signals` while the context lasts."""
    former = handle_signals(on_stop, on_reload)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def defer_reload() -> None:
    """Keep a reload for whoever handles signals next."""
    _deferred_reloads.append(signal.SIGHUP)


@cache
def _was_started_on_terminal() -> bool:
    """Tell whether the end of a terminal was meant to end this process, when it was started."""
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()


def _is_terminal_gone() -> bool:
    deadline = time.monotonic() + HANGUP_SECONDS
    while _has_terminal():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def _has_terminal() -> bool:
    """Tell whether the process has a controlling terminal; see tty(4)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        # Out of descriptors, or not allowed to open it: there is one nevertheless.
        return error.errno not in (errno.ENXIO, errno.EIO, errno.ENOENT, errno.ENODEV)
    return True

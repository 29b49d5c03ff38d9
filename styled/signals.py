"""Handlers of the signals that stop or reload the process.

This module is imported before everything else, so it imports as little as possible.
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
"""How long to wait after SIGHUP for the terminal to disappear.

When a shell exits, the kernel sends SIGHUP shortly before it removes the terminal.
"""

_deferred_reloads: list[signal.Signals] = []


def handle_signals(
    on_stop: Callable[[], None], on_reload: Callable[[], None]
) -> dict[signal.Signals, Handler]:
    """Call `on_stop` or `on_reload` when a signal arrives; return the former handlers.

    SIGTERM and SIGINT stop. SIGHUP reloads, unless the process was started on a terminal that
    is gone: then it stops. If SIGHUP was ignored at the start, as by nohup, it always reloads.
    No signal is lost while the handlers are replaced, and a reload recorded by `defer_reload` is
    executed at once. SIGIO is ignored.

    Args:
        on_stop: Called in the main thread, between any two bytecode instructions.
        on_reload: Called in the same way.
    """
    stops_when_hung_up = _was_started_on_terminal()

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not (stops_when_hung_up and _is_terminal_gone()):
            on_reload()
        else:
            on_stop()

    # Sent if a writer opens a file while `styled.open_files` holds a lease on it. By default it
    # would terminate the process.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    former = {number: signal.signal(number, handle) for number in HANDLED}
    if _deferred_reloads:
        _deferred_reloads.clear()
        on_reload()
    return former


def restore_signal_handlers() -> None:
    """Set the current handlers again; a library in C may have replaced them without a word."""
    for number in HANDLED:
        signal.signal(number, signal.getsignal(number))


@contextmanager
def signals_handled(on_stop: Callable[[], None], on_reload: Callable[[], None]) -> Iterator[None]:
    """Handle signals as `handle_signals` while the context lasts."""
    former = handle_signals(on_stop, on_reload)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def defer_reload() -> None:
    """Record a reload for the next call of `handle_signals`."""
    _deferred_reloads.append(signal.SIGHUP)


@cache
def _was_started_on_terminal() -> bool:
    """Return whether the process was started on a terminal, and not with nohup."""
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()


def _is_terminal_gone() -> bool:
    deadline = time.monotonic() + HANGUP_SECONDS
    while _has_terminal():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def _has_terminal() -> bool:
    """Return whether the process has a controlling terminal; see tty(4)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        # Other errors, such as too many open files or no permission, mean that there is one.
        return error.errno not in (errno.ENXIO, errno.EIO, errno.ENOENT, errno.ENODEV)
    return True

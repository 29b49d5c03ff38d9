"""Runs the daemon in a child process that is replaced if Ray ends it.

If the Ray processes of this machine die, Ray ends every process that is connected to them, without
a word and at any moment. The daemon is then started again and waits for the cluster. Under systemd
this module is not used: systemd does the same.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from typing import NoReturn

import structlog

log = structlog.get_logger()

ENDED_BY_RAY = (1, -signal.SIGABRT, -signal.SIGSEGV)
"""How Ray ends a process: by `_exit(1)`, a failed check, or an error of its own."""

FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 60.0
"""Back-off: doubles with each child that has lived for less than the longest."""

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_in_child() -> None:
    """Fork; returns in the child only. The parent ends with the child's exit code.

    To be called before threads are started. If the parent dies, so does the child.
    """
    seconds = FIRST_RETRY_SECONDS
    while True:
        started = time.monotonic()
        parent = os.getpid()
        # A signal that comes in between waits until its handler can forward it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before that
                os._exit(0)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return
        code, is_stopping = _wait(child)
        if is_stopping or code not in ENDED_BY_RAY:
            _end_like(code)
        if time.monotonic() - started > MAX_RETRY_SECONDS:
            seconds = FIRST_RETRY_SECONDS
        log.error("daemon.died", exit_code=code, retry_seconds=seconds)
        time.sleep(seconds)
        seconds = min(2 * seconds, MAX_RETRY_SECONDS)


def _end_like(code: int) -> NoReturn:
    """End as the child has ended: with the same code, or by the same signal."""
    if code < 0:
        with suppress(OSError):  # SIGKILL and SIGSTOP have no handlers to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.stdout.flush()
    os._exit(code if code >= 0 else 128 - code)


def _wait(child: int) -> tuple[int, bool]:
    """Wait for a child, and forward signals to it.

    Returns:
        Its exit code, negative for a signal; and whether it was told to stop.
    """
    forwarded: list[int] = []

    def forward(number: int, frame: object) -> None:
        forwarded.append(number)
        with suppress(ProcessLookupError):
            os.kill(child, number)

    former = {number: signal.signal(number, forward) for number in _SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    is_stopping = signal.SIGTERM in forwarded or signal.SIGINT in forwarded
    return os.waitstatus_to_exitcode(status), is_stopping

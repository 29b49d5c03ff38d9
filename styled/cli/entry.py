"""Entry point: sets up signals, encoding and standard streams before anything else is imported.

Importing torch takes a second. Until then Python's default signal handling would apply: SIGTERM
kills the process, or is ignored by process 1 of a container, and SIGINT prints a traceback.
"""

from __future__ import annotations

import os
import signal
import sys

from styled.cli.fast_import import INTERRUPTED, importing
from styled.cli.streams import open_standard_streams
from styled.signals import HANDLED, defer_reload, handle_signals

STOPPED_EARLY = {"run": 0, "once": 75}
"""Commands that handle signals -> exit code if they are stopped before they have begun.

`once` leaves photos then; 75 is `TEMPORARY` of `exit_codes`, which takes time to import.
"""


def main() -> None:
    """Run the command line and exit with its exit code."""
    command = next((arg for arg in sys.argv[1:] if not arg.startswith("-")), "")
    exit_code = STOPPED_EARLY.get(command, 0)

    def exit_now() -> None:
        # Used before the daemon installs its own handlers and after it removes them, when no work
        # can be lost. An exception could be swallowed or reported by the module being imported.
        os._exit(exit_code)

    if command in STOPPED_EARLY:
        handle_signals(exit_now, defer_reload)
    _use_utf8()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    open_standard_streams()
    exit_code = _run_command()
    # If a KeyboardInterrupt has passed through code that was compiled from a string, such as that
    # of a named tuple, `python -m styled` would still be killed by SIGINT at exit, even if a
    # library has turned the exception into an exit code. Running other such code resets that.
    exec("")
    sys.exit(exit_code)


def _run_command() -> int:
    try:
        try:
            with importing():
                from styled.cli.main import app

            app(prog_name="styled")
        finally:
            sys.stdout.flush()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _use_utf8() -> None:
    """Re-execute the process in Python's UTF-8 mode if file names would have another encoding.

    With ASCII a configured style image `gemälde.jpg` could not be opened. Signals are blocked
    until the new process has installed its handlers.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])

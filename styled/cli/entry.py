"""Where the process starts: signals, encoding and streams, before anything else is imported.

torch takes a second to import. Until then Python's own reactions would hold: SIGTERM kills, or is
ignored in the first process of a container, and SIGINT ends in a traceback.
"""

from __future__ import annotations

import os
import signal
import sys

from styled.cli.importing import INTERRUPTED, importing
from styled.cli.streams import open_standard_streams
from styled.signals import HANDLED, defer_reload, handle_signals

DAEMON_COMMANDS = ("run", "once")


def main() -> None:
    """Run the command line, and leave with its exit code."""
    exit_code = 0

    def leave() -> None:
        # Before the daemon's own handlers are there, and after: there is nothing to lose. An
        # exception would be swallowed, or reported, by whatever is being imported.
        os._exit(exit_code)

    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") in DAEMON_COMMANDS:
        handle_signals(leave, defer_reload)
    _use_utf8()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    open_standard_streams()
    exit_code = _run_command()
    sys.exit(exit_code)


def _run_command() -> int:
    try:
        try:
            with importing():
                from styled.cli.main import app

            app(prog_name="styled")
        finally:
            sys.stdout.flush()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        # At its end `python -m styled` would still be killed by SIGINT if the exception has passed
        # through code that Python compiled from a string, such as a named tuple's; Python forgets
        # it as soon as other such code is run.
        exec("")
        return INTERRUPTED
    return 0


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where file names would have another encoding.

    In ASCII a style image `gemälde.jpg` that the configuration names could not even be opened.
    Signals that arrive meanwhile wait for the new handlers.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])

"""`styled run` and `styled once`."""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path

from styled.cli.exits import DONE, REJECTED, TEMPORARY, say_error
from styled.cli.working_folder import find_or_make_config
from styled.daemon import Daemon
from styled.errors import ResourceUnavailable
from styled.ops.logs import configure_logs


def run_daemon(config: Path | None) -> None:
    """Run until stopped."""
    configure_logs()
    _say_where_it_hangs()
    Daemon(find_or_make_config(config)).run()


def run_once(config: Path | None) -> int:
    """Work through the inbox, say what could not be done, return the exit code."""
    configure_logs()
    result = Daemon(find_or_make_config(config)).once()
    for one in result.left:
        say_error(ResourceUnavailable(f"{one.path} is left: {one.reason}"))
    if result.rejected:
        return REJECTED
    return TEMPORARY if result.left else DONE


def _say_where_it_hangs() -> None:
    """Have every thread say where it is when the process is aborted, as by systemd's watchdog."""
    # Under a number of its own, as the log: see there.
    faulthandler.enable(os.fdopen(os.dup(sys.stderr.fileno()), "w"))

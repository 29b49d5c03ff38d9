"""`styled run` and `styled once`."""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path

from styled.cli.working_folder import find_or_make_config
from styled.daemon import Daemon
from styled.ops.logs import configure_logs


def run_daemon(config: Path | None) -> None:
    """Run until stopped."""
    configure_logs()
    _say_where_it_hangs()
    Daemon(find_or_make_config(config)).run()


def run_once(config: Path | None) -> int:
    """Work through the inbox; return how many inputs were rejected."""
    configure_logs()
    return Daemon(find_or_make_config(config)).once()


def _say_where_it_hangs() -> None:
    """Have every thread say where it is when the process is aborted, as by systemd's watchdog."""
    # Under a number of its own, as the log: see there.
    faulthandler.enable(os.fdopen(os.dup(sys.stderr.fileno()), "w"))

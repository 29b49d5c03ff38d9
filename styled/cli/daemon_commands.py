"""`styled run` and `styled once`."""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path

from styled.cli.exit_codes import DONE, REJECTED, TEMPORARY, print_error
from styled.cli.find_config import find_or_make_config
from styled.cli.pause import is_pause_requested
from styled.cli.supervisor import run_in_child
from styled.daemon import Daemon
from styled.errors import ResourceUnavailable, StopTimeout
from styled.ops.logs import configure_logs


def run_daemon(config: Path | None) -> None:
    """Run the daemon until it is stopped."""
    configure_logs()
    found = find_or_make_config(config)
    if found.cluster.address is not None and "NOTIFY_SOCKET" not in os.environ:
        run_in_child()
    _enable_fault_handler()
    Daemon(found).run()


def run_once(config: Path | None) -> int:
    """Process the inbox once, print what could not be processed, and return the exit code."""
    configure_logs()
    found = find_or_make_config(config)
    if is_pause_requested(found):
        print_error(ResourceUnavailable("the queue is paused on request", "styled resume"))
        return TEMPORARY
    _enable_fault_handler()
    try:
        result = Daemon(found).once()
    except StopTimeout:
        print_error(
            ResourceUnavailable(
                "a photo was not processed: styled was stopped during a step that takes long"
            )
        )
        sys.stderr.flush()
        os._exit(TEMPORARY)  # as in `errors_as_exit_codes`
    for item in result.unprocessed:
        print_error(ResourceUnavailable(f"{item.path} was not processed: {item.reason}"))
    if result.rejected:
        return REJECTED
    return TEMPORARY if result.unprocessed else DONE


def _enable_fault_handler() -> None:
    """Print the stack of every thread if the process is aborted, for example by the watchdog."""
    # Use a duplicate of descriptor 2, because 2 itself is redirected while C libraries decode
    # files. The log does the same.
    faulthandler.enable(os.fdopen(os.dup(sys.stderr.fileno()), "w"))

"""`styled run` and `styled once`."""

from __future__ import annotations

from pathlib import Path

from styled.cli.working_folder import find_or_make_config
from styled.daemon import Daemon
from styled.ops.logs import configure_logs


def run_daemon(config: Path | None) -> None:
    """Run until stopped."""
    configure_logs()
    Daemon(find_or_make_config(config)).run()


def run_once(config: Path | None) -> int:
    """Work through the inbox; return how many inputs were rejected."""
    configure_logs()
    return Daemon(find_or_make_config(config)).once()

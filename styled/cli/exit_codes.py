"""Maps errors to exit codes and prints error messages."""

from __future__ import annotations

import os
import sys
import syslog
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from styled.cli import streams
from styled.errors import (
    ClusterUnavailable,
    ConfigError,
    DeviceError,
    DeviceLost,
    DiskFailure,
    EngineFailure,
    InputIncomplete,
    InputRejected,
    JournalDamaged,
    MemoryShortage,
    NoNetworkAccess,
    NotMounted,
    ResourceUnavailable,
    ServiceUnhealthy,
    StopTimeout,
    StyledError,
    WeightsError,
)
from styled.ops.humanize import printable

DONE = 0
REJECTED = 1
USAGE = 2
NOT_AVAILABLE = 69
NOT_WRITABLE = 73
TEMPORARY = 75
BAD_CONFIG = 78

# The first matching class is used, so subclasses come before their base classes.
EXIT_CODES: tuple[tuple[type[StyledError], int], ...] = (
    (DeviceLost, TEMPORARY),
    (NoNetworkAccess, BAD_CONFIG),
    (WeightsError, NOT_AVAILABLE),
    (DeviceError, NOT_AVAILABLE),
    (ClusterUnavailable, NOT_AVAILABLE),
    (ServiceUnhealthy, NOT_AVAILABLE),
    (NotMounted, TEMPORARY),
    (MemoryShortage, TEMPORARY),
    (DiskFailure, TEMPORARY),
    (JournalDamaged, TEMPORARY),
    (ResourceUnavailable, NOT_WRITABLE),
    (ConfigError, BAD_CONFIG),
    (InputRejected, REJECTED),
    (InputIncomplete, REJECTED),
    (EngineFailure, REJECTED),
)

UNWRAPPED_WIDTH = 10_000


class _Console(Console):
    """Wraps lines on terminals only, so that a program or a log gets each as it is."""

    @property  # type: ignore[misc]  # nothing sets the size
    def size(self) -> ConsoleDimensions:
        """The width and height in characters."""
        size = super().size
        is_wrapped = self.is_terminal or "COLUMNS" in os.environ
        return size if is_wrapped else ConsoleDimensions(UNWRAPPED_WIDTH, size.height)


console = _Console()
error_console = _Console(stderr=True)


def exit_code_of(error: StyledError) -> int:
    """Return the exit code for an error that ends the program."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), TEMPORARY)


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Print a `StyledError` without a traceback and exit with its exit code."""
    try:
        yield
    except StopTimeout:
        sys.stderr.flush()
        os._exit(DONE)  # a normal exit would wait for the step, or shut torch down during it
    except StyledError as error:
        print_error(error)
        raise typer.Exit(exit_code_of(error)) from error


def print_error(error: StyledError) -> None:
    """Print an error and its remedies to standard error."""
    _print_message(error.message)
    for remedy in error.remedies:
        _print(Text(f"  - {_printable_lines(remedy)}"))


def exit_with_usage_error(message: str) -> NoReturn:
    """Print what is wrong with the command line and exit with `USAGE`."""
    _print_message(message)
    raise typer.Exit(USAGE)


def _print_message(message: str) -> None:
    text = _printable_lines(message)
    if streams.STANDARD_ERROR in streams.closed:
        # Old init scripts start programs without standard error: write to the system log.
        syslog.openlog("styled", syslog.LOG_PID)
        syslog.syslog(syslog.LOG_ERR, text)
    _print(Text.assemble(("styled: ", "bold red"), text))


def _print(text: Text) -> None:
    # It imports structlog, which takes a sixth of the time of `styled status`.
    from styled.ops.logs import is_journal, with_priority

    if is_journal(sys.stderr):
        # systemd's journal needs the priority on every line.
        text = Text("\n".join(with_priority("error", line) for line in text.plain.split("\n")))
    error_console.print(text, soft_wrap=True)


def _printable_lines(text: str) -> str:
    # Messages contain file names, which may contain any character.
    return "\n".join(map(printable, text.split("\n")))

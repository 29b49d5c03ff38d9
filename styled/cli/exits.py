"""From errors to exit codes, in one place."""

from __future__ import annotations

import os
import sys
import syslog
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

from styled.cli import streams
from styled.errors import (
    ConfigError,
    DeviceError,
    DeviceLost,
    DiskTrouble,
    EngineFailure,
    InputIncomplete,
    InputRejected,
    JournalDamaged,
    MemoryShortage,
    NotMounted,
    ResourceUnavailable,
    StoppedAmidStep,
    StyledError,
    WeightsError,
)
from styled.ops.lines import is_journal, printable, with_priority

DONE = 0
REJECTED = 1
USAGE = 2
NOT_AVAILABLE = 69
NOT_WRITABLE = 73
TEMPORARY = 75
BAD_CONFIG = 78

# The first class that fits decides, so that subclasses come before their bases.
EXIT_CODES: tuple[tuple[type[StyledError], int], ...] = (
    (DeviceLost, TEMPORARY),
    (WeightsError, NOT_AVAILABLE),
    (DeviceError, NOT_AVAILABLE),
    (NotMounted, TEMPORARY),
    (MemoryShortage, TEMPORARY),
    (DiskTrouble, TEMPORARY),
    (JournalDamaged, TEMPORARY),
    (ResourceUnavailable, NOT_WRITABLE),
    (ConfigError, BAD_CONFIG),
    (InputRejected, REJECTED),
    (InputIncomplete, REJECTED),
    (EngineFailure, REJECTED),
)

console = Console()
errors = Console(stderr=True)


def exit_code_of(error: StyledError) -> int:
    """Return the exit code for an error that ended the program."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), TEMPORARY)


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Print a `StyledError` in words and leave with its code; never a traceback."""
    try:
        yield
    except StoppedAmidStep:
        sys.stderr.flush()
        os._exit(DONE)  # anything else would wait for the step, or tear torch down amid it
    except StyledError as error:
        say_error(error)
        raise typer.Exit(exit_code_of(error)) from error


def say_error(error: StyledError) -> None:
    """Print an error and what to do about it on standard error."""
    _say(error.message)
    for remedy in error.remedies:
        _print(Text(f"  - {_printable_lines(remedy)}"))


def leave_with_usage_error(message: str) -> NoReturn:
    """Print what is wrong with the command line and leave."""
    _say(message)
    raise typer.Exit(USAGE)


def _say(message: str) -> None:
    words = _printable_lines(message)
    if streams.STANDARD_ERROR in streams.closed:
        # As old init scripts start things: their messages go to the system's log.
        syslog.openlog("styled", syslog.LOG_PID)
        syslog.syslog(syslog.LOG_ERR, words)
    _print(Text.assemble(("styled: ", "bold red"), words))


def _print(text: Text) -> None:
    if is_journal(sys.stderr):
        # Every line by itself, or the journal would not know all of them for an error.
        text = Text("\n".join(with_priority("error", line) for line in text.plain.split("\n")))
    errors.print(text, soft_wrap=True)


def _printable_lines(text: str) -> str:
    # Messages quote file names, which may hold anything.
    return "\n".join(map(printable, text.split("\n")))

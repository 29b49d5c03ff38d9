"""Logs: JSON lines for machines, readable lines on a terminal, both on standard error."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


def configure_logs(stream: TextIO | None = None, *, level: str = "info") -> None:
    """Send all events to `stream` (standard error): JSON unless it is a terminal.

    Args:
        stream: Where to write.
        level: The least severe level that is shown: debug, info, warning, error.
    """
    stream = stream or sys.stderr
    on_terminal = stream.isatty()
    rendering: list[Processor] = (
        [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            _without_control_characters,
            structlog.dev.ConsoleRenderer(pad_event_to=18),
        ]
        if on_terminal
        else [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ]
    )
    _quieten_libraries()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def _quieten_libraries() -> None:
    """Leave only errors of other libraries, which write to standard error themselves.

    watchdog warns whenever an observer is stopped while events are still coming.
    """
    for name in ("watchdog", "PIL"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _without_control_characters(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape what could move a terminal's cursor or change its colours.

    File names are chosen by strangers. JSON escapes such characters by itself.
    """
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = printable(value)
    return event


def printable(text: str) -> str:
    r"""Return text with control characters and lone surrogates as escapes such as `\x1b`."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )

"""Logs: JSON lines for machines, readable lines on a terminal, both on standard error.

Where systemd's journal is what reads standard error, each line begins with its level as the
journal knows it (`<4>` is a warning; the journal takes it away), so that `journalctl -p warning`
shows what it should.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from styled.ops.lines import is_journal, printable, with_priority
from styled.ops.repetition import Repetition

# Without local variables, which are whole pictures here.
_tracebacks = structlog.processors.ExceptionRenderer(
    # The journal cuts longer lines in two.
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
)

LONGEST_LINE, SHORTENED_TO = 48_000, 500
"""Characters: of a line, and of each text in a line that would be longer."""


def configure_logs(stream: TextIO | None = None, *, level: str = "info") -> None:
    """Send all events to `stream` (standard error): JSON unless it is a terminal.

    Args:
        stream: Where to write.
        level: The least severe level that is shown: debug, info, warning, error.
    """
    stream = stream or _own_standard_error()
    on_terminal = stream.isatty()
    rendering: list[Processor] = (
        [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.processors.format_exc_info,
            _without_control_characters,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
        if on_terminal
        else [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _tracebacks,
            _for_the_journal if is_journal(stream) else _as_json,
        ]
    )
    _take_in_libraries()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            Repetition(),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Steadfast(stream))),
        cache_logger_on_first_use=False,
    )


_as_json = structlog.processors.JSONRenderer(ensure_ascii=True)


def _for_the_journal(logger: WrappedLogger, name: str, event: EventDict) -> str:
    line = _as_json(logger, name, event)
    if len(line) > LONGEST_LINE:
        line = _as_json(logger, name, {key: _shortened(value) for key, value in event.items()})
    return with_priority(str(event.get("level")), str(line))


def _shortened(value: object) -> object:
    if isinstance(value, str) and len(value) > SHORTENED_TO:
        return f"{value[:SHORTENED_TO]}... ({len(value)} characters)"
    if isinstance(value, dict):
        return {key: _shortened(part) for key, part in value.items()}
    return [_shortened(part) for part in value] if isinstance(value, list) else value


class _Steadfast:
    """A stream that never fails.

    The log may go to a disk that is full, or to a reader that has left. Both are to be
    waited out like all else, and must not end the thread that has something to say.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _own_standard_error() -> TextIO:
    """Return standard error under a number of its own.

    Libraries in C write whatever they like to number 2, which is therefore taken away from
    them while they decode strangers' files.
    """
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):
        return sys.stderr  # it is no real file, as in tests
    return open(
        descriptor, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace"
    )


class _LibraryLogs(logging.Handler):
    """Passes what other libraries log on to our own log, so that it stays one of JSON lines."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        # watchdog calls it an error that an observer is stopped while events are coming.
        if "when the thread is inactive" not in message:
            structlog.get_logger().log(
                record.levelno // 10 * 10, "library.logged", library=record.name, message=message
            )


def _take_in_libraries() -> None:
    logging.captureWarnings(True)
    root = logging.getLogger()
    if not any(isinstance(handler, _LibraryLogs) for handler in root.handlers):
        root.addHandler(_LibraryLogs(logging.WARNING))


def _without_control_characters(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape what could move a terminal's cursor or change its colours.

    File names are chosen by strangers. JSON escapes such characters by itself.
    """
    for key, value in event.items():
        if isinstance(value, str):
            # A traceback has lines of its own, but quotes names all the same.
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(map(printable, lines))
    return event

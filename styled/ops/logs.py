"""Logs on standard error: JSON lines, or human-readable lines on a terminal.

If systemd's journal reads standard error, each line begins with its syslog priority (`<4>` is a
warning; the journal strips it), so that `journalctl -p warning` works.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from styled.ops.humanize import printable
from styled.ops.log_dedup import DropRepeats

# Without local variables, which may be whole pictures.
_tracebacks = structlog.processors.ExceptionRenderer(
    # At most 20 frames: the journal splits longer lines.
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
)

# syslog(3)
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}

MAX_LINE_CHARS, SHORTENED_TO = 48_000, 500
"""In characters: if a line is longer than the first, each of its texts is cut to the second."""


def configure_logs(stream: TextIO | None = None, *, level: str = "info") -> None:
    """Send all events to `stream` (standard error): JSON unless it is a terminal.

    Args:
        stream: Where to write.
        level: The lowest level that is shown: debug, info, warning or error.
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
            _as_journal_line if is_journal(stream) else _as_json,
        ]
    )
    _capture_library_logs()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            DropRepeats(),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _NeverFailing(stream))),
        cache_logger_on_first_use=False,
    )


def is_journal(stream: TextIO) -> bool:
    """Return whether `stream` is connected to systemd's journal; see systemd.exec(5)."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def with_priority(level: str, line: str) -> str:
    """Return a line with the syslog priority of its level, for systemd's journal."""
    return f"<{_PRIORITIES.get(level, 6)}>{line}"


_as_json = structlog.processors.JSONRenderer(ensure_ascii=True)


def _as_journal_line(logger: WrappedLogger, name: str, event: EventDict) -> str:
    line = _as_json(logger, name, event)
    if len(line) > MAX_LINE_CHARS:
        line = _as_json(logger, name, {key: _truncated(value) for key, value in event.items()})
    return with_priority(str(event.get("level")), str(line))


def _truncated(value: object) -> object:
    if isinstance(value, str) and len(value) > SHORTENED_TO:
        return f"{value[:SHORTENED_TO]}... ({len(value)} characters)"
    if isinstance(value, dict):
        return {key: _truncated(part) for key, part in value.items()}
    return [_truncated(part) for part in value] if isinstance(value, list) else value


class _NeverFailing:
    """A stream that ignores errors.

    The log may go to a full disk or to a reader that has gone. That must not end the thread that
    logs something.
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
    """Return standard error under a new file descriptor.

    C libraries write arbitrary text to descriptor 2, so it is redirected while they decode
    untrusted files.
    """
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):
        return sys.stderr  # it has no file descriptor, as in tests
    return open(
        descriptor, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace"
    )


class _LibraryLogs(logging.Handler):
    """Passes log records of other libraries to our own log, so that all lines are JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        # watchdog logs an error if an observer is stopped while events arrive.
        if "when the thread is inactive" not in message:
            structlog.get_logger().log(
                record.levelno // 10 * 10, "library.logged", library=record.name, message=message
            )


def _capture_library_logs() -> None:
    logging.captureWarnings(True)
    root = logging.getLogger()
    if not any(isinstance(handler, _LibraryLogs) for handler in root.handlers):
        root.addHandler(_LibraryLogs(logging.WARNING))


def _without_control_characters(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape characters that could move a terminal's cursor or change its colours.

    File names are untrusted. JSON escapes such characters itself.
    """
    for key, value in event.items():
        if isinstance(value, str):
            # A traceback keeps its line breaks, but may quote file names.
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(map(printable, lines))
    return event

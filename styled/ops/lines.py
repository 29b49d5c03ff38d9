"""Lines of text for terminals and for systemd's journal."""

from __future__ import annotations

import os
from typing import TextIO

# syslog(3)
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


def is_journal(stream: TextIO) -> bool:
    """Tell whether systemd's journal reads what is written to `stream`; see systemd.exec(5)."""
    try:
        file = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{file.st_dev}:{file.st_ino}"


def with_priority(level: str, line: str) -> str:
    """Return a line as the journal reads it, with its level."""
    return f"<{_PRIORITIES.get(level, 6)}>{line}"


def printable(text: str) -> str:
    r"""Return text with control characters and lone surrogates as escapes such as `\x1b`."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )

"""Logs: for machines and for people."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from styled.ops.logs import configure_logs, printable

HOSTILE = "a\x1b[2J\x07\r\nb\udcff\u202e.jpg"
ESCAPED = "a\\x1b[2J\\x07\\r\\nb\\udcff\\u202e.jpg"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_off_a_terminal_each_event_is_a_line_of_json() -> None:
    """Whoever reads a log by program gets one object a line, with level, time and all keys."""
    stream = io.StringIO()
    configure_logs(stream)
    log = structlog.get_logger()
    log.info("job.claimed", attempt=1, remedies=["a", "b"])
    log.warning("job.failed", input=HOSTILE)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {"event": "job.claimed", "attempt": 1, "remedies": ["a", "b"], "level": "info"}
    assert second["input"] == HOSTILE
    assert stream.getvalue().isascii()


def test_what_is_bound_to_a_job_stands_in_each_of_its_lines() -> None:
    """Context variables are merged into every event."""
    stream = io.StringIO()
    configure_logs(stream)
    with structlog.contextvars.bound_contextvars(job="4a"):
        structlog.get_logger().info("job.claimed")
    assert json.loads(stream.getvalue())["job"] == "4a"


def test_an_exception_off_a_terminal_is_json_without_pictures() -> None:
    """A traceback is part of its line, and holds no local variables: they are whole pictures."""
    stream = io.StringIO()
    configure_logs(stream)
    picture = "0.0784" * 99
    try:
        raise ValueError(f"no {len(picture)}")
    except ValueError:
        structlog.get_logger().exception("job.crashed")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert line["exception"][0]["frames"][0]["name"].startswith("test_an_exception_off")
    assert picture[:12] not in stream.getvalue()


def without_colours(text: str) -> str:
    """Take away what the renderer itself adds: colours, and the end of each line."""
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\n", "")


@pytest.mark.parametrize("key", ["input", "event"])
def test_on_a_terminal_nothing_can_move_the_cursor(key: str) -> None:
    """Control characters of a file's name are shown as escapes."""
    stream = Terminal()
    configure_logs(stream)
    log = structlog.get_logger()
    log.info(HOSTILE) if key == "event" else log.info("job.claimed", input=HOSTILE)
    text = without_colours(stream.getvalue())
    assert ESCAPED in text
    assert text.isprintable()


def test_on_a_terminal_values_in_lists_are_harmless_too() -> None:
    """A list of names is no way around it."""
    stream = Terminal()
    configure_logs(stream)
    structlog.get_logger().info("input.retired", places=[HOSTILE], more={"a": HOSTILE})
    assert without_colours(stream.getvalue()).isprintable()


def test_on_a_terminal_tracebacks_are_harmless_too() -> None:
    """An exception keeps its lines, and what it quotes is escaped."""
    stream = Terminal()
    configure_logs(stream)
    try:
        raise ValueError(f"can't read {HOSTILE}")
    except ValueError:
        structlog.get_logger().exception("job.crashed")
    lines = stream.getvalue().splitlines()
    assert any(line.startswith("Traceback") for line in lines)
    assert len(lines) > 3
    assert without_colours(stream.getvalue()).isprintable()


@pytest.mark.parametrize(("level", "shown"), [("info", 2), ("warning", 1), ("debug", 3)])
def test_levels_decide_what_is_shown(level: str, shown: int) -> None:
    """What is less severe than the level stays away."""
    stream = io.StringIO()
    configure_logs(stream, level=level)
    log = structlog.get_logger()
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert len(stream.getvalue().splitlines()) == shown


def test_printable_leaves_words_alone() -> None:
    """Letters of any script stay as they are."""
    assert printable("größe 画.jpg") == "größe 画.jpg"
    assert printable(HOSTILE) == ESCAPED


def test_what_other_libraries_log_or_warn_is_part_of_the_log() -> None:
    """A line of another library, or a Python warning, is a JSON object like all others."""
    stream = io.StringIO()
    configure_logs(stream)
    logging.getLogger("somebody").error("it broke: %s", HOSTILE)
    logging.getLogger("watchdog.x").error("called when the thread is inactive")
    logging.getLogger("py.warnings").warning("old habits")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["event"] == second["event"] == "library.logged"
    assert (first["library"], first["level"]) == ("somebody", "error")
    assert HOSTILE in first["message"]
    assert second["message"] == "old habits"


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    """It may go to the very disk whose being full is to be said."""
    configure_logs(Broken())
    structlog.get_logger().error("queue.paused", reason="the disk is full")
    stream = open("/dev/full", "w")  # noqa: SIM115
    configure_logs(stream)
    structlog.get_logger().error("queue.paused")
    with contextlib.suppress(OSError):
        stream.close()

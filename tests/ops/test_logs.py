"""Logs: JSON lines and lines on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
import structlog

from styled.ops.humanize import printable
from styled.ops.logs import configure_logs, is_journal, with_priority

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
    """Each line is one JSON object with level, time and all keys."""
    stream = io.StringIO()
    configure_logs(stream)
    log = structlog.get_logger()
    log.info("job.claimed", attempt=1, remedies=["a", "b"])
    log.warning("job.attempt_failed", input=HOSTILE)
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
    """A traceback is part of its line, without local variables, which may be whole pictures."""
    stream = io.StringIO()
    configure_logs(stream)
    picture = "0.0784" * 99
    try:
        raise ValueError(f"no {len(picture)}")
    except ValueError:
        structlog.get_logger().exception("job.internal_error")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert line["exception"][0]["frames"][0]["name"].startswith("test_an_exception_off")
    assert picture[:12] not in stream.getvalue()


def without_colours(text: str) -> str:
    """Remove what the renderer itself adds: colours and line ends."""
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\n", "")


@pytest.mark.parametrize("key", ["input", "event"])
def test_on_a_terminal_nothing_can_move_the_cursor(key: str) -> None:
    """Control characters in a file name are shown as escapes."""
    stream = Terminal()
    configure_logs(stream)
    log = structlog.get_logger()
    log.info(HOSTILE) if key == "event" else log.info("job.claimed", input=HOSTILE)
    text = without_colours(stream.getvalue())
    assert ESCAPED in text
    assert text.isprintable()


def test_on_a_terminal_values_in_lists_are_harmless_too() -> None:
    """Names in lists and mappings are escaped as well."""
    stream = Terminal()
    configure_logs(stream)
    structlog.get_logger().info("input.retired", places=[HOSTILE], more={"a": HOSTILE})
    assert without_colours(stream.getvalue()).isprintable()


def test_on_a_terminal_tracebacks_are_harmless_too() -> None:
    """A traceback keeps its line breaks, and its other control characters are escaped."""
    stream = Terminal()
    configure_logs(stream)
    try:
        raise ValueError(f"can't read {HOSTILE}")
    except ValueError:
        structlog.get_logger().exception("job.internal_error")
    lines = stream.getvalue().splitlines()
    assert any(line.startswith("Traceback") for line in lines)
    assert len(lines) > 3
    assert without_colours(stream.getvalue()).isprintable()


@pytest.mark.parametrize(("level", "shown"), [("info", 2), ("warning", 1), ("debug", 3)])
def test_levels_decide_what_is_shown(level: str, shown: int) -> None:
    """Events below the level are not shown."""
    stream = io.StringIO()
    configure_logs(stream, level=level)
    log = structlog.get_logger()
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert len(stream.getvalue().splitlines()) == shown


def test_printable_leaves_words_alone() -> None:
    """Letters of any script stay unchanged."""
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
    """The log may be on the full disk that it reports."""
    configure_logs(Broken())
    structlog.get_logger().error("queue.paused", reason="the disk is full")
    stream = open("/dev/full", "w")  # noqa: SIM115
    configure_logs(stream)
    structlog.get_logger().error("queue.paused")
    with contextlib.suppress(OSError):
        stream.close()


def test_the_same_message_is_logged_once() -> None:
    """Each log drops repetitions of events about a condition, and keeps all others."""
    stream = io.StringIO()
    configure_logs(stream)
    log = structlog.get_logger()
    for _ in range(3):
        log.warning("queue.paused", reason="the disk is full", seconds=len(stream.getvalue()))
        log.info("jobs.submitted", count=1)
    with structlog.contextvars.bound_contextvars(job="4a"):
        log.info("job.painting_started")
        log.info("job.painting_started")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["queue.paused", *["jobs.submitted"] * 3, "job.painting_started"]


# The journal


def connect_journal(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set `JOURNAL_STREAM`, as systemd does if the journal reads `stream`."""
    stat = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[TextIO]:
    with open(tmp_path / "log", "w+", buffering=1) as stream:
        yield stream


LEVELS = [
    ("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("exception", 3), ("critical", 2),
]  # fmt: skip


@pytest.mark.parametrize(("method", "priority"), LEVELS)
def test_the_journal_learns_the_level_of_each_line(
    file: TextIO, monkeypatch: pytest.MonkeyPatch, method: str, priority: int
) -> None:
    """Each line begins with the syslog priority of its level, followed by JSON."""
    connect_journal(file, monkeypatch)
    configure_logs(file, level="debug")
    getattr(structlog.get_logger(), method)("job.ended", input=HOSTILE)
    file.seek(0)
    (line,) = file.read().splitlines()
    assert line.startswith(f"<{priority}>{{")
    assert json.loads(line[3:])["input"] == HOSTILE


def test_another_file_than_the_journals_has_plain_lines(
    file: TextIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream redirected to a file gets plain JSON, even in a service."""
    with open(tmp_path / "other", "w") as other:
        connect_journal(other, monkeypatch)
        configure_logs(file)
        structlog.get_logger().warning("job.ended")
    file.seek(0)
    assert json.loads(file.read())["level"] == "warning"


def test_the_journal_is_known_by_the_very_file() -> None:
    """A pipe that the journal reads, as standard error of a process, gets priorities."""
    reading, writing = os.pipe()
    stat = os.fstat(writing)
    program = (
        "import structlog; from styled.ops.logs import configure_logs; configure_logs();"
        "structlog.get_logger().warning('job.ended')"
    )
    environment = {**os.environ, "JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
    with open(reading, "rb") as journal:
        subprocess.run([sys.executable, "-c", program], stderr=writing, env=environment, check=True)
        os.close(writing)
        (line,) = journal.read().splitlines()
    assert line.startswith(b'<4>{"')


@pytest.mark.parametrize("value", [None, "", ":", "garbage", "{device}", "{inode}:{device}"])
def test_what_is_no_sign_of_the_journal_is_none(
    file: TextIO, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """Device and inode must both match, in this order."""
    stat = os.fstat(file.fileno())
    if value is None:
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    else:
        value = value.format(device=stat.st_dev, inode=stat.st_ino)
        monkeypatch.setenv("JOURNAL_STREAM", value)
    assert not is_journal(file)


def test_a_stream_without_a_file_is_not_the_journal(
    file: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a closed file."""
    connect_journal(file, monkeypatch)
    assert is_journal(file)
    assert not is_journal(io.StringIO())
    file.close()
    assert not is_journal(file)


@pytest.mark.parametrize(("level", "line"), [("warning", "<4>a"), ("error", "<3>a"), ("", "<6>a")])
def test_a_level_that_is_unknown_is_taken_for_information(level: str, line: str) -> None:
    """It gets the priority of `info`."""
    assert with_priority(level, "a") == line


def raise_deeply(depth: int) -> None:
    """Raise ValueError after `depth` nested calls."""
    if not depth:
        raise ValueError("the ground")
    raise_deeply(depth - 1)


def raise_chain(times: int) -> None:
    """Raise a chain of `times` exceptions, each while the previous one is handled."""
    try:
        if times > 1:
            raise_chain(times - 1)
    finally:
        raise_deeply(100)


@pytest.mark.parametrize("fail", [lambda: raise_deeply(900), lambda: raise_chain(12)])
def test_a_traceback_is_short_enough_for_the_journal(fail: Callable[[], None]) -> None:
    """The journal splits lines of more than 48 KiB, which are then not valid JSON."""
    stream = io.StringIO()
    configure_logs(stream)
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("job.internal_error")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["exception"][0]["exc_value"] == "the ground"
    assert len(line) < 48 * 1024


def test_long_texts_are_shortened_for_the_journal(
    file: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text of thousands of characters must not make its line too long for the journal."""
    connect_journal(file, monkeypatch)
    configure_logs(file)
    structlog.get_logger().error(
        "config.rejected", reason="\u00fc" * 10_000, paths=["a", "b" * 9000]
    )
    file.seek(0)
    (line,) = file.read().splitlines()
    assert len(line) < 48 * 1024
    event = json.loads(line.removeprefix("<3>"))
    assert event["reason"].endswith("... (10000 characters)")
    assert (event["paths"][0], len(event["paths"][1]) < 9000) == ("a", True)


def test_a_level_of_its_own_is_taken_for_the_one_below() -> None:
    """Libraries may log with any numeric level, which is rounded down to a standard one."""
    stream = io.StringIO()
    configure_logs(stream)
    logging.getLogger("somebody").log(35, "between")
    assert json.loads(stream.getvalue())["level"] == "warning"

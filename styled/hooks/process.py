"""Runs a command of the user beside the queue, so that nothing it does can harm the daemon."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_OUTPUT_BYTES = 4000
"""Maximum output of a hook that is logged. The rest is read and dropped, so that none blocks."""

TERMINATION_SECONDS = 2.0
"""How long a process group has between SIGTERM and SIGKILL."""

_POLL_SECONDS = 0.1
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class HookOutcome:
    """How a hook ended.

    Attributes:
        reason: Why it failed, as a clause; empty if it succeeded.
        output: The beginning of what it wrote to standard output and error.
        was_stopped: Whether it was ended because the daemon stops.
    """

    reason: str
    output: str
    was_stopped: bool = False


def run_hook(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    stdin: Path | None,
    timeout_seconds: float,
    stop: threading.Event,
) -> HookOutcome:
    """Run a command until it ends, its time is over, or `stop` is set.

    It runs in a session of its own. When it ends, all processes that it has left in its process
    group are ended too.

    Args:
        command: Program and arguments; no shell is involved.
        environment: Variables that are added to the daemon's own.
        folder: The working directory.
        stdin: A file to read from; None, or one that can't be opened: nothing.
        timeout_seconds: Time limit.
        stop: Ends the command at once.
    """
    try:
        process = _start(command, environment, folder, stdin)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, PermissionError) and _is_in_no_folder_of_path(command[0]):
            reason = "it is in no folder of PATH that styled's user may read"
        return HookOutcome(f"{command[0]} can't be started: {reason}", "")
    assert process.stdout is not None, "it is a pipe"
    output = bytearray()
    deadline = time.monotonic() + timeout_seconds
    try:
        while not _has_ended(process) and time.monotonic() < deadline and not stop.is_set():
            _read(process.stdout.fileno(), output, _POLL_SECONDS)
        has_ended = _has_ended(process)
        while _read(process.stdout.fileno(), output, 0.0) and len(output) < MAX_OUTPUT_BYTES:
            pass  # what it wrote just before its end
    finally:
        _end_group(process)
        process.stdout.close()
    text = bytes(output).decode("utf-8", "backslashreplace")
    if not has_ended:
        limit = f"it took longer than {timeout_seconds:g} s"
        return HookOutcome("styled stops" if stop.is_set() else limit, text, stop.is_set())
    code = process.returncode
    if code == 0:
        return HookOutcome("", text)
    return HookOutcome(f"exit code {code}" if code > 0 else f"ended by signal {-code}", text)


def _is_in_no_folder_of_path(program: str) -> bool:
    """Return whether the system says "Permission denied" only because of a folder of PATH."""
    return os.sep not in program and shutil.which(program) is None


def _start(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, stdin: Path | None
) -> subprocess.Popen[bytes]:
    descriptor = subprocess.DEVNULL
    if stdin is not None:
        with suppress(OSError):
            descriptor = os.open(stdin, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            list(command), stdin=descriptor, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=folder, env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    assert process.stdout is not None, "it is a pipe"
    os.set_blocking(process.stdout.fileno(), False)
    return process


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process has ended, without reaping it: its group keeps its number."""
    if process.returncode is not None:
        return True
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, options) is not None


def _read(descriptor: int, output: bytearray, wait_seconds: float) -> bool:
    """Read what is there, for a limited time; keep the beginning. Return whether there was any."""
    readable, _, _ = select.select([descriptor], [], [], wait_seconds)
    if not readable:
        return False
    with suppress(BlockingIOError):
        chunk = os.read(descriptor, _CHUNK_BYTES)
        output += chunk[: max(0, MAX_OUTPUT_BYTES - len(output))]
        if not chunk and wait_seconds:
            time.sleep(wait_seconds)  # it has closed its output and goes on
        return bool(chunk)
    return False


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that is left of its group, and reap it."""
    if not _has_ended(process):
        _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + TERMINATION_SECONDS
        while not _has_ended(process) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS / 2)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(leader: int, signal_number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal_number)

"""Signals during the start of the process, also as process 1 of a namespace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.daemon_harness import DaemonHarness
from tests.faults.conftest import STOP_LIMIT_SECONDS, paint_slowly

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("one_thread")]

IN_ITS_OWN_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def wait_until_caught(pid: int, number: signal.Signals) -> None:
    """Wait until a process handles a signal, which takes a moment after its start."""
    deadline = time.monotonic() + 60
    while True:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
        if int(caught, 16) >> (number - 1) & 1:
            return
        assert time.monotonic() < deadline
        time.sleep(0.001)


def wait_until_importing(pid: int) -> None:
    """Wait until the imports of the command line have begun, after Python's own start."""
    deadline = time.monotonic() + 60
    while "pydantic_core" not in Path(f"/proc/{pid}/maps").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def only_child(pid: int) -> int:
    """Wait until a process has a child; return the ID of its only child."""
    deadline = time.monotonic() + 60
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    (child,) = children
    return int(child)


def stop_after(
    harness: DaemonHarness,
    command: str,
    number: signal.Signals,
    seconds: float,
    within: tuple[str, ...],
) -> None:
    """Start a command and send it a signal after some time; check that it ends at once.

    The exit code is 0, or 75 for `once`, which leaves a photo.
    """
    process = subprocess.Popen(
        [*within, *harness.command(command)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        pid = only_child(process.pid) if within else process.pid
        wait_until_caught(pid, signal.SIGTERM)
        time.sleep(seconds)
        os.kill(pid, number)
        _, stderr = process.communicate(timeout=STOP_LIMIT_SECONDS)
    finally:
        process.kill()
    code = 75 if command == "once" else 0
    assert (process.returncode, b"Traceback" in stderr) == (code, False), (number, seconds, stderr)


@pytest.mark.parametrize("command", ["run", "once"])
@pytest.mark.parametrize("within", [(), IN_ITS_OWN_NAMESPACE], ids=["", "as process 1"])
def test_a_stop_at_any_moment_of_the_start_is_a_stop(
    harness: DaemonHarness, command: str, within: tuple[str, ...]
) -> None:
    """A stop signal at any moment of the start ends it within 5 s, without a traceback."""
    if within and (os.geteuid() != 0 or shutil.which("unshare") is None):
        pytest.skip("a process namespace needs root and unshare")
    if within and subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("this container makes no process namespaces")
    paint_slowly(harness, 100_000)
    harness.drop("photo.jpg", "coffee", (96, 72))
    numbers = (signal.SIGTERM, signal.SIGINT)
    # Process 1 differs only until it handles signals itself.
    moments = (0.0, 0.05, 0.1, 0.2, 0.4, *(() if within else (0.8, 1.2, 1.6, 2.0)))
    for index, seconds in enumerate(moments):
        stop_after(harness, command, numbers[index % 2], seconds, within)
    stop_after(harness, command, signal.SIGINT, 0.0, within)


def test_a_reload_at_any_moment_of_the_start_does_not_end_it(harness: DaemonHarness) -> None:
    """A SIGHUP during the start is handled later, as a reload."""
    with harness.running_from_scratch() as daemon:
        wait_until_caught(daemon.process.pid, signal.SIGTERM)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded")


@pytest.mark.parametrize(
    "app",
    [
        "exec('raise KeyboardInterrupt')",
        "    try:\n        exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt:\n        raise SystemExit(130)",
    ],
    ids=["raised", "turned into an exit code"],
)
def test_an_interrupt_amid_code_made_of_a_string_is_one_like_any_other(
    tmp_path: Path, app: str
) -> None:
    """A KeyboardInterrupt raised in `exec` exits with 130 and without output.

    Python records such an interrupt, although it was caught, and would kill its process by SIGINT.
    """
    (tmp_path / "interrupted.py").write_text(
        "from styled.cli import entry, main\n"
        f"def app(prog_name):\n    {app.lstrip()}\n"
        "main.app = app\n"
        "entry.main()\n"
    )
    completed = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert (completed.returncode, completed.stdout, completed.stderr) == (130, b"", b"")


def test_an_interrupted_command_leaves_without_a_traceback(harness: DaemonHarness) -> None:
    """SIGINT ends `styled check` with 130 and without a traceback, while importing and later."""
    # Many large images: the check takes much longer than the test needs to interrupt it.
    Image.new("RGB", (4000, 4000)).save(harness.folder / "styles/large.png")
    many = "".join(f"  s{number}: {{image: styles/large.png}}\n" for number in range(100))
    text = harness.config.read_text()
    harness.config.write_text(text.replace("styles:\n", f"styles:\n{many}", 1))
    for seconds in (0.0, 0.2, 0.6):
        process = subprocess.Popen(
            harness.command("check"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Background jobs of a shell ignore SIGINT, and so might these tests.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        wait_until_importing(process.pid)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=STOP_LIMIT_SECONDS)
        assert (process.returncode, stderr) == (130, b"")

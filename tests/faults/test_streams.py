"""Standard streams that are closed, full, without a reader, or of a limited encoding."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.daemon_harness import Daemon, DaemonHarness

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("one_thread")]

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FULL_MESSAGE = "styled: standard output can't be written: No space left on device\n"
TEMPORARY = 75


def redirected(
    command: list[str], redirections: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell with redirections."""
    return subprocess.run(
        ["sh", "-c", f"exec {shlex.join(command)} {redirections}"],
        capture_output=True, text=True, errors="replace", timeout=120,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def painted(harness: DaemonHarness) -> DaemonHarness:
    """Return a working folder whose journal has one rejected photo."""
    (harness.folder / "inbox").mkdir()
    (harness.folder / "inbox" / "text.jpg").write_text("no picture")
    assert harness.do("once").returncode == 1
    return harness


def commands(harness: DaemonHarness) -> list[list[str]]:
    """Return the command lines that print to standard output and succeed."""
    argument_lists = (
        ["status"],
        ["status", "--json"],
        ["jobs"],
        ["explain", str(harness.config)],
        ["doctor", "--json"],
        ["check"],
        ["config", "show"],
    )
    plain = [[*harness.command()[:3], option] for option in ("--help", "--version")]
    return [*(harness.command(*args) for args in argument_lists), *plain]


def test_output_that_cannot_be_written_is_exit_code_75_with_a_message(
    painted: DaemonHarness,
) -> None:
    """If standard output is full, every command exits with 75 and a message."""
    for command in commands(painted):
        completed = redirected(command, ">/dev/full")
        assert (completed.returncode, completed.stderr) == (TEMPORARY, FULL_MESSAGE), command
    for others in ("2>/dev/full", "2>&-", "2>&- <&-"):
        completed = redirected(painted.command("status"), f">/dev/full {others}")
        assert (completed.returncode, completed.stdout + completed.stderr) == (TEMPORARY, "")


def test_closed_streams_are_no_failure(painted: DaemonHarness) -> None:
    """Closed standard streams cause no error, whichever they are."""
    for command in commands(painted):
        if "check" in command:
            continue  # it takes seconds
        completed = redirected(command, "<&- >&- 2>&-")
        assert (completed.returncode, completed.stdout + completed.stderr) == (0, ""), command
    for closed in ("<&-", "2>&-", "<&- 2>&-", "2>/dev/full"):
        completed = redirected(painted.command("status"), closed)
        assert (completed.returncode, completed.stderr) == (0, "")
        assert "text.jpg" in completed.stdout


def test_errors_keep_their_exit_codes_without_standard_error(harness: DaemonHarness) -> None:
    """Exit codes 78 and 2 are the same with standard error closed or full."""
    harness.config.write_text("stiles: {}\n")
    for redirection in ("2>&-", "2>/dev/full", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"):
        assert redirected(harness.command("status"), redirection).returncode == 78
        assert redirected(harness.command("unknown"), redirection).returncode == 2
    assert redirected(harness.command("run"), "2>&-").returncode == 78


def test_a_reader_that_leaves_is_no_failure(painted: DaemonHarness) -> None:
    """A command whose output is piped to `head` or `true` exits with 0 and prints no error."""
    for args in ("status", "jobs --json", "config show", "status --follow --json"):
        command = shlex.join(painted.command(*args.split()))
        for reader in ("head -1 >/dev/null", "true"):
            if "--follow" in args and reader != "true":
                continue  # without changes it writes nothing more, so that no write can fail
            completed = subprocess.run(
                ["sh", "-c", f"({command}; echo exit code $? >&2) | {reader}"],
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert completed.stderr == "exit code 0\n", (args, reader)


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_the_daemon_works_without_standard_streams(
    harness: DaemonHarness, redirections: str
) -> None:
    """Without standard streams the daemon works, and no file gets descriptor 0, 1 or 2."""
    harness.drop("coffee.jpg", "coffee", (96, 72))
    process = subprocess.Popen(
        ["sh", "-c", f"exec {shlex.join(harness.command('run'))} {redirections}"]
    )
    log = harness.folder / "log"
    log.touch()
    daemon = Daemon(process, log)
    try:
        daemon.wait_until(lambda: "swirls/coffee.jpg" in harness.files("archive"))
        for number in range(3):
            leads_to = os.readlink(f"/proc/{process.pid}/fd/{number}")
            assert "&-" not in redirections or leads_to == "/dev/null"
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        daemon.kill()
    assert harness.files("outbox") == ["swirls/coffee.jpg", "swirls/coffee.jpg.json"]


def test_an_ascii_locale_changes_nothing(harness: DaemonHarness, tmp_path: Path) -> None:
    """In an ASCII locale, styles, photos and configurations can have any name."""
    folder = tmp_path / os.fsdecode("Fotos-ü-😀-".encode() + b"\xff")
    harness.folder.rename(folder)
    (folder / "styles/swirls.png").rename(folder / "styles/gemälde-😀.png")
    text = (
        (folder / "config.yaml").read_text(encoding="utf-8").replace("swirls.png", "gemälde-😀.png")
    )
    config = folder / "Einstellungen-ü.yaml"
    config.write_text(text.replace("swirls", "gemälde"), encoding="utf-8")
    (folder / "inbox").mkdir()
    for name in ("größe-😀.png".encode(), b"l\xfcbeck.png"):
        Image.linear_gradient("L").resize((96, 72)).save(
            folder / "inbox" / os.fsdecode(name), "png"
        )

    def do(*args: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        completed = subprocess.run(
            [*harness.command()[:3], *args, "-c", str(config)],
            capture_output=True, timeout=120, env={**os.environ, **ASCII, **environment},
        )  # fmt: skip
        assert b"Traceback" not in completed.stderr
        return completed

    assert do("once").returncode == 0
    names = {os.fsencode(path.name) for path in (folder / "outbox/gemälde").iterdir()}
    assert names >= {"größe-😀.png".encode(), b"l\xfcbeck.png", b"l\xfcbeck.png.json"}
    inputs = [r"l\xfcbeck.png", "größe-😀.png"]
    for encoding in ("ascii", "utf-8", "latin-1"):
        status = do("status", "--json", PYTHONIOENCODING=encoding)
        assert status.returncode == 0
        assert sorted(
            job["input"] for job in json.loads(status.stdout.decode(encoding))["last"]
        ) == sorted(inputs)
        for args in (["status"], ["config", "show"], ["explain", str(config)]):
            assert do(*args, PYTHONIOENCODING=encoding).returncode == 0
    wrong = do("explain", "--nö-\udcff", PYTHONIOENCODING="ascii")
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert rb"--n\u00f6-\udcff" in wrong.stderr


def test_without_standard_error_the_system_s_log_has_the_message(painted: DaemonHarness) -> None:
    """If standard error is closed, the message of a failed start goes to syslog."""
    address = Path("/dev/log")
    if os.geteuid() != 0 or os.path.lexists(address):
        pytest.skip("the test listens in the place of the system's log, as root")
    painted.config.write_text("engine: {weights: untrained, device: cpu}\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(address))
        try:
            completed = redirected(painted.command("run"), "2>&-")
            log.settimeout(10)
            message = ""
            while "names no style" not in message:  # other tests may cause messages, too
                message = log.recv(4096).decode()
        finally:
            address.unlink()
    assert completed.returncode == 78
    assert "styled[" in message

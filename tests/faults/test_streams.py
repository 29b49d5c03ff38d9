"""Standard streams that are closed, full, without a reader, or of a narrow encoding."""

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

from tests.studio import Daemon, Studio

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("one_thread")]

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FULL_MESSAGE = "styled: standard output can't be written: No space left on device\n"
TEMPORARY = 75


def redirected(
    command: list[str], redirections: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end with redirections as a shell has them."""
    return subprocess.run(
        ["sh", "-c", f"exec {shlex.join(command)} {redirections}"],
        capture_output=True, text=True, errors="replace", timeout=120,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def painted(studio: Studio) -> Studio:
    """Return a working folder that has a journal with one rejected photo in it."""
    (studio.folder / "inbox").mkdir()
    (studio.folder / "inbox" / "text.jpg").write_text("no picture")
    assert studio.do("once").returncode == 1
    return studio


def commands(studio: Studio) -> list[list[str]]:
    """Return the commands that print to standard output and succeed."""
    words = (
        ["status"],
        ["status", "--json"],
        ["jobs"],
        ["explain", str(studio.config)],
        ["doctor", "--json"],
        ["check"],
        ["config", "show"],
    )
    plain = [[*studio.command()[:3], option] for option in ("--help", "--version")]
    return [*(studio.command(*some) for some in words), *plain]


def test_output_that_cannot_be_written_is_exit_code_75_with_a_message(painted: Studio) -> None:
    """Every command ends with 75 on a full disk, and says why on standard error."""
    for command in commands(painted):
        done = redirected(command, ">/dev/full")
        assert (done.returncode, done.stderr) == (TEMPORARY, FULL_MESSAGE), command
    for others in ("2>/dev/full", "2>&-", "2>&- <&-"):
        done = redirected(painted.command("status"), f">/dev/full {others}")
        assert (done.returncode, done.stdout + done.stderr) == (TEMPORARY, "")


def test_closed_streams_are_no_failure(painted: Studio) -> None:
    """What nobody wants to see is not missed, whichever streams are closed."""
    for command in commands(painted):
        if "check" in command:
            continue  # it takes seconds
        done = redirected(command, "<&- >&- 2>&-")
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), command
    for closed in ("<&-", "2>&-", "<&- 2>&-", "2>/dev/full"):
        done = redirected(painted.command("status"), closed)
        assert (done.returncode, done.stderr) == (0, "")
        assert "text.jpg" in done.stdout


def test_errors_keep_their_exit_codes_where_nobody_can_be_told(studio: Studio) -> None:
    """A wrong configuration is 78 and wrong usage 2, with standard error closed or full."""
    studio.config.write_text("stiles: {}\n")
    for redirection in ("2>&-", "2>/dev/full", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"):
        assert redirected(studio.command("status"), redirection).returncode == 78
        assert redirected(studio.command("unknown"), redirection).returncode == 2
    assert redirected(studio.command("run"), "2>&-").returncode == 78


def test_a_reader_that_leaves_is_no_failure(painted: Studio) -> None:
    """A command whose output goes to `head` or `true` ends with 0 and without a word."""
    for words in ("status", "jobs --json", "config show", "status --follow --json"):
        command = shlex.join(painted.command(*words.split()))
        for reader in ("head -1 >/dev/null", "true"):
            if "--follow" in words and reader != "true":
                continue  # it writes nothing more that could fail while nothing changes
            done = subprocess.run(
                ["sh", "-c", f"({command}; echo exit code $? >&2) | {reader}"],
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert done.stderr == "exit code 0\n", (words, reader)


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_the_daemon_works_without_standard_streams(studio: Studio, redirections: str) -> None:
    """It paints and stops as usual, and no file takes the numbers of closed streams."""
    studio.drop("coffee.jpg", "coffee", (96, 72))
    process = subprocess.Popen(
        ["sh", "-c", f"exec {shlex.join(studio.command('run'))} {redirections}"]
    )
    log = studio.folder / "log"
    log.touch()
    daemon = Daemon(process, log)
    try:
        daemon.wait_until(lambda: "swirls/coffee.jpg" in studio.files("archive"))
        for number in range(3):
            leads_to = os.readlink(f"/proc/{process.pid}/fd/{number}")
            assert "&-" not in redirections or leads_to == "/dev/null"
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        daemon.kill()
    assert studio.files("outbox") == ["swirls/coffee.jpg", "swirls/coffee.jpg.json"]


def test_an_ascii_locale_changes_nothing(studio: Studio, tmp_path: Path) -> None:
    """Styles, photos and configurations of any name work where the locale knows only ASCII."""
    folder = tmp_path / os.fsdecode("Fotos-ü-😀-".encode() + b"\xff")
    studio.folder.rename(folder)
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

    def do(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*studio.command()[:3], *words, "-c", str(config)],
            capture_output=True, timeout=120, env={**os.environ, **ASCII, **environment},
        )  # fmt: skip
        assert b"Traceback" not in done.stderr
        return done

    assert do("once").returncode == 0
    names = {os.fsencode(path.name) for path in (folder / "outbox/gemälde").iterdir()}
    assert names >= {"größe-😀.png".encode(), b"l\xfcbeck.png", b"l\xfcbeck.png.json"}
    inputs = [r"l\xfcbeck.png", "größe-😀.png"]
    for encoding in ("ascii", "utf-8", "latin-1"):
        said = do("status", "--json", PYTHONIOENCODING=encoding)
        assert said.returncode == 0
        assert sorted(
            job["input"] for job in json.loads(said.stdout.decode(encoding))["last"]
        ) == sorted(inputs)
        for words in (["status"], ["config", "show"], ["explain", str(config)]):
            assert do(*words, PYTHONIOENCODING=encoding).returncode == 0
    wrong = do("explain", "--nö-\udcff", PYTHONIOENCODING="ascii")
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert rb"--n\u00f6-\udcff" in wrong.stderr


def test_without_standard_error_the_system_s_log_has_the_message(painted: Studio) -> None:
    """A start that fails is never silent, as long as there is a place for words."""
    address = Path("/dev/log")
    if os.geteuid() != 0 or os.path.lexists(address):
        pytest.skip("the test listens in the place of the system's log, as root")
    painted.config.write_text("engine: {weights: untrained, device: cpu}\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(address))
        try:
            done = redirected(painted.command("run"), "2>&-")
            log.settimeout(10)
            said = ""
            while "names no style" not in said:  # other tests may cause messages, too
                said = log.recv(4096).decode()
        finally:
            address.unlink()
    assert done.returncode == 78
    assert "styled[" in said

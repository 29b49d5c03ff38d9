"""A hook's process can't harm the daemon, whatever it does. All processes here are real."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from styled.hooks.process import MAX_OUTPUT_BYTES, HookOutcome, run_hook


def run(folder: Path, *command: str, seconds: float = 20.0, stdin: Path | None = None,
        stop: threading.Event | None = None, **environment: str) -> HookOutcome:  # fmt: skip
    return run_hook(command, environment, folder, stdin, seconds, stop or threading.Event())


def python(folder: Path, code: str, seconds: float = 20.0) -> HookOutcome:
    return run(folder, sys.executable, "-c", code, seconds=seconds)


def test_output_and_success(tmp_path: Path) -> None:
    """Standard output and error are kept, in the order in which they were written."""
    assert run(tmp_path, "sh", "-c", "echo one; echo two >&2") == HookOutcome("", "one\ntwo\n")


@pytest.mark.parametrize(
    ("code", "reason"),
    [("exit 3", "exit code 3"), ("kill -9 $$", "ended by signal 9"), ("false", "exit code 1")],
)
def test_failures_are_named(tmp_path: Path, code: str, reason: str) -> None:
    """By exit code or by signal."""
    assert run(tmp_path, "sh", "-c", code).reason == reason


@pytest.mark.parametrize(
    ("program", "words"),
    [("no-such-program", "No such file"), ("./plain", "Permission denied"), ("./", "Permission")],
)
def test_a_program_that_cannot_be_started_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    """Missing, not executable, or a folder."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "plain").write_text("no program")
    assert f"{program} can't be started: {words}" in run(tmp_path, program).reason


def test_a_folder_of_path_that_may_not_be_read_is_no_riddle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says "Permission denied" of a program that is nowhere."""
    (tmp_path / "plain").write_text("no program")  # as if it were a folder that is closed
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert "plain can't be started: it is in no folder of PATH" in run(tmp_path, "plain").reason


def test_words_are_not_read_by_a_shell(tmp_path: Path) -> None:
    """Names of photos may contain anything."""
    words = ("$(touch evil)", "`touch evil`", "a b", "*", "'", '"; touch evil', "\n")
    outcome = run(tmp_path, sys.executable, "-c", "import sys; print(sys.argv[1:])", *words)
    assert outcome.output == f"{list(words)}\n"
    assert not (tmp_path / "evil").exists()


def test_environment_folder_and_input(tmp_path: Path) -> None:
    """It gets the daemon's variables and its own, the folder, and the file as standard input."""
    file = tmp_path / "sidecar.json"
    file.write_text('{"a": 1}')
    outcome = run(
        tmp_path, "sh", "-c", 'cat; echo " $STYLED_JOB $HOME"; pwd', stdin=file, STYLED_JOB="7"
    )
    assert outcome.output == f'{{"a": 1}} 7 {os.environ["HOME"]}\n{tmp_path}\n'
    assert run(tmp_path, "cat", stdin=tmp_path / "gone") == HookOutcome("", "")


def test_a_flood_of_output_is_cut_and_never_blocks(tmp_path: Path) -> None:
    """A hundred megabytes are read, and the first few thousand bytes kept."""
    outcome = run(tmp_path, "sh", "-c", "head -c 100000000 /dev/zero | tr '\\0' x")
    assert (outcome.reason, len(outcome.output)) == ("", MAX_OUTPUT_BYTES)


@pytest.mark.parametrize(
    "code",
    [
        "sleep 60",
        "trap '' TERM; sleep 60; sleep 60",
        "exec >&- 2>&-; sleep 60",
        "sleep 60 & wait",
        "while :; do :; done",
        "yes",
    ],
    ids=["sleeps", "ignores SIGTERM", "closes its output", "forks", "computes", "floods"],
)
def test_a_hook_that_hangs_is_ended_with_its_group(tmp_path: Path, code: str) -> None:
    """At its time limit, or two seconds later if it ignores SIGTERM."""
    began = time.monotonic()
    outcome = run(tmp_path, "sh", "-c", f"echo $$ > pid; {code}", seconds=1.5)
    assert time.monotonic() - began < 20
    assert outcome.reason == "it took longer than 1.5 s"
    assert not group_exists(int((tmp_path / "pid").read_text()))


def group_exists(leader: int) -> bool:
    """Return whether a process group has members; zombies that wait for init do not count."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        states = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == leader and state != "Z":
                states.append(state)
        if not states:
            return False
        time.sleep(0.05)
    return True


def test_what_a_hook_leaves_running_is_ended(tmp_path: Path) -> None:
    """A child that keeps the output open does not delay anything either."""
    began = time.monotonic()
    outcome = run(tmp_path, "sh", "-c", "echo $$ > pid; sleep 60 & echo done")
    assert time.monotonic() - began < 5
    assert outcome == HookOutcome("", "done\n")
    assert not group_exists(int((tmp_path / "pid").read_text()))


def test_a_child_in_another_session_delays_nothing(tmp_path: Path) -> None:
    """It has left the group and keeps the output open; it is not waited for."""
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    open('child', 'w').write(str(os.getpid()))\n"
        "    time.sleep(20)\n"
        "while not os.path.exists('child'): time.sleep(0.01)\n"
    )
    began = time.monotonic()
    try:
        assert python(tmp_path, code).reason == ""
        assert time.monotonic() - began < 10
    finally:
        os.kill(int((tmp_path / "child").read_text()), 9)


def test_a_stop_ends_a_hook_at_once(tmp_path: Path) -> None:
    """The daemon has a few seconds to stop."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    outcome = run(tmp_path, "sleep", "60", stop=stop)
    assert time.monotonic() - began < 3
    assert outcome.was_stopped


def test_no_descriptors_are_left(tmp_path: Path) -> None:
    """After hooks that succeed, fail, hang and can't be started."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    run(tmp_path, "true")
    before = descriptors()
    for command in (["true"], ["false"], ["no-such-program"]):
        run(tmp_path, *command, stdin=tmp_path / "gone")
    run(tmp_path, "sleep", "9", seconds=0.1)
    assert descriptors() == before

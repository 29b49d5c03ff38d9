"""Read-only commands work for any user who can read the folders, whatever the daemon's state."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import styled
from styled.journal.journal import Journal
from tests.daemon_harness import Daemon, DaemonHarness, make_harness

# Long, because whole programs run, possibly on a busy machine.
pytestmark = pytest.mark.timeout(400)

CONFIGURATION = """\
styles:
  quick:
    image: styles/swirls.png
    overrides: &small
      size: {long_edge: 96}
      steps: 2
      scales: {start_px: 60}
      content_layers: {relu2_2: 1.0}
      style_layers: {relu1_1: 0.8, relu2_1: 0.2}
  slow:
    image: styles/swirls.png
    overrides: {<<: *small, steps: 50000, min_improvement: 0}
engine: {weights: untrained, device: cpu, precision: float32}
intake: {settle_seconds: 0.3}
"""

NOBODY = 65534


@dataclass(frozen=True)
class Visitor:
    """An unprivileged user: has read access to world-readable files and no write access.

    Attributes:
        python: A Python interpreter that this user can run.
        program: A folder with a copy of the `styled` package that this user can read.
        home: The user's home folder.
    """

    python: str
    program: Path
    home: str = "/nonexistent"

    def do(
        self, harness: DaemonHarness | None, *args: str, cwd: str = "/"
    ) -> subprocess.CompletedProcess[str]:
        """Run a `styled` command, in the folder `cwd`."""
        config = [] if harness is None else ["-c", str(harness.config)]
        return self.run("-m", "styled", *args, *config, cwd=cwd)

    def run(self, *args: str, cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments; `python -m` must not print a traceback."""
        paths = (str(self.program), *map(sysconfig.get_path, ("purelib", "platlib")))
        completed = subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
             "env", self.python, *args],  # setpriv itself can still execute files only root may
            env={"PATH": os.environ["PATH"], "HOME": self.home, "LANG": "C.UTF-8",
                 "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if "-m" in args:
            assert "Traceback" not in completed.stderr, completed.stderr
        return completed

    def read_json(self, harness: DaemonHarness, *args: str) -> Any:
        """Return the parsed output of a command with `--json`."""
        completed = self.do(harness, *args, "--json")
        assert (completed.returncode, completed.stderr) == (0, "")
        return json.loads(completed.stdout)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a temporary folder that other users can read, unlike pytest's; sets the umask to 022."""
    old_umask = os.umask(0o022)
    try:
        with tempfile.TemporaryDirectory(prefix="styled-") as folder:
            os.chmod(folder, 0o755)
            yield Path(folder)
    finally:
        os.umask(old_umask)


@pytest.fixture(scope="module")
def visitor() -> Iterator[Visitor]:
    """Return another user with a copy of the program: the checkout may be private."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    with open_folder() as folder:
        # File modes are not copied: in a private checkout they may exclude other users.
        shutil.copytree(
            Path(styled.__file__).parent, folder / "styled", copy_function=shutil.copyfile,
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
        # The visitor cannot write bytecode, so each command would compile all modules.
        subprocess.run([sys.executable, "-m", "compileall", "-q", folder / "styled"], check=True)
        for copied in (folder / "styled", *(folder / "styled").rglob("*")):
            copied.chmod(0o755 if copied.is_dir() else 0o644)
        yield _visitor_with_readable_python(folder)


def _visitor_with_readable_python(program: Path) -> Visitor:
    # The virtual environment's Python may be in a private home folder; then try the system's.
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        visitor = Visitor(python, program)
        if (
            os.path.exists(python)
            and visitor.run("-c", "import styled.cli.explain").returncode == 0
        ):
            return visitor
    return pytest.skip(
        "no Python of this version, or not the packages that the tests run with, may be read by "
        "another user"
    )


@pytest.fixture
def harness() -> Iterator[DaemonHarness]:
    """Make a working folder that other users can read."""
    with open_folder() as folder:
        harness = make_harness(folder / "harness", CONFIGURATION)
        harness.take_time(0.1)
        yield harness


def work(harness: DaemonHarness, daemon: Daemon) -> None:
    """Let the daemon finish one photo, reject one and start one; return while it is running."""
    harness.drop("quick/done.png")
    (harness.folder / "inbox/quick/bad.png").write_bytes(b"no picture")
    daemon.wait_for("job.published")
    daemon.wait_for("job.rejected")
    harness.drop("slow/amid.png")
    daemon.wait_for("job.painting_started", 2)
    daemon.wait_until(lambda: list((harness.folder / "state/previews").glob("*.jpg")))


def journal_files(harness: DaemonHarness) -> dict[str, bytes]:
    """Return the content of the journal's files, by name."""
    return {path.name: path.read_bytes() for path in (harness.folder / "state").glob("journal*")}


def verdicts(visitor: Visitor, harness: DaemonHarness) -> dict[str, str]:
    """Return the verdict of `styled explain` for each photo, by its name in the inbox."""
    names = ("quick/done.png", "quick/bad.png", "slow/amid.png")
    return {
        name: visitor.read_json(harness, "explain", str(harness.folder / "inbox" / name))["verdict"]
        for name in names
    }


def test_others_may_look_while_it_runs_and_after_a_kill(
    visitor: Visitor, harness: DaemonHarness
) -> None:
    """Another user can run status, jobs and explain, with a running daemon and after kill -9."""
    with harness.running() as daemon:
        work(harness, daemon)
        status = visitor.read_json(harness, "status")
        assert (status["running"], status["pid"]) == (True, daemon.process.pid)
        assert status["state"] == "running"
        assert status["counts"] == {"done": 1, "rejected": 1, "running": 1}
        assert status["current"][0]["progress"]["step"] >= 1
        jobs = visitor.read_json(harness, "jobs")
        assert {(job["input"], job["state"]) for job in jobs} == {
            ("quick/done.png", "done"), ("quick/bad.png", "rejected"), ("slow/amid.png", "running"),
        }  # fmt: skip
        assert verdicts(visitor, harness) == {
            "quick/done.png": "done", "quick/bad.png": "rejected", "slow/amid.png": "painting",
        }  # fmt: skip
        daemon.kill()

    files_before = journal_files(harness)
    assert set(files_before) == {"journal.sqlite3", "journal.sqlite3-shm", "journal.sqlite3-wal"}
    status = visitor.read_json(harness, "status")
    assert (status["running"], status["pid"], status["state"]) == (False, None, "not running")
    assert status["counts"] == {"done": 1, "rejected": 1, "running": 1}
    assert [job["id"] for job in visitor.read_json(harness, "jobs")] == [job["id"] for job in jobs]
    explanation = visitor.read_json(harness, "explain", str(harness.folder / "inbox/slow/amid.png"))
    assert explanation["reasons"][0] == "styled is not running"
    assert [job["id"] for job in explanation["jobs"]] == [jobs[0]["id"]]
    assert journal_files(harness) == files_before


def test_others_may_look_after_a_stop_but_change_nothing(
    visitor: Visitor, harness: DaemonHarness
) -> None:
    """After a stop another user can run the read-only commands, but not cancel or retry."""
    with harness.running() as daemon:
        work(harness, daemon)
        check_that_writes_are_refused(visitor, harness)
    files_before = journal_files(harness)
    assert set(files_before) == {"journal.sqlite3"}
    status = visitor.read_json(harness, "status")
    assert (status["running"], status["state"]) == (False, "not running")
    assert status["counts"] == {"done": 1, "rejected": 1, "queued": 1}
    assert {job["state"] for job in visitor.read_json(harness, "jobs")} == {
        "done",
        "rejected",
        "queued",
    }
    assert verdicts(visitor, harness) == {
        "quick/done.png": "done", "quick/bad.png": "rejected", "slow/amid.png": "waiting",
    }  # fmt: skip
    check_that_writes_are_refused(visitor, harness)
    assert journal_files(harness) == files_before


def check_that_writes_are_refused(visitor: Visitor, harness: DaemonHarness) -> None:
    """Check that cancel and retry, which need write permission, fail and change nothing."""
    rejected = harness.files("rejected")
    assert rejected == ["quick/bad.png", "quick/bad.png.json"]
    for args in (("cancel", "--all"), ("cancel", "slow/amid.png"), ("retry", "--all")):
        completed = visitor.do(harness, *args)
        assert (completed.returncode, completed.stdout) == (73, "")
        assert completed.stderr.startswith("styled: ")
        assert "\n  - " in completed.stderr
    assert harness.files("rejected") == rejected
    assert harness.files("inbox") == ["slow/amid.png"]
    for job in json.loads(harness.do("jobs", "--json").stdout):
        assert not job["cancel_requested"]


def test_a_closed_state_folder_is_reported(visitor: Visitor, harness: DaemonHarness) -> None:
    """A state folder without read permission gives its own error, not "there is no journal"."""
    (harness.folder / "state").mkdir()
    Journal.open(harness.folder / "state/journal.sqlite3").close()
    (harness.folder / "state").chmod(0o700)
    for args in (("status",), ("jobs", "--json"), ("cancel", "--all")):
        completed = visitor.do(harness, *args)
        assert (completed.returncode, completed.stdout) == (73, "")
        assert f"{harness.folder}/state/journal.sqlite3" in completed.stderr
        assert "there is no journal" not in completed.stderr


def test_doctor_blames_nobody_for_what_another_may_not(
    visitor: Visitor, harness: DaemonHarness
) -> None:
    """`styled doctor` run by another user does not report missing write permission as a failure."""
    text = harness.config.read_text().replace("weights: untrained", "weights: none.pth")
    harness.config.write_text(text)
    for folder in ("inbox", "outbox", "rejected", "archive", "state"):
        (harness.folder / folder).mkdir()
    (harness.folder / "state/lock").touch()
    completed = visitor.do(harness, "doctor", "--json")
    assert completed.returncode == 69
    failed = [
        check["subject"] for check in json.loads(completed.stdout) if check["level"] == "fail"
    ]
    assert failed == ["weights"]


@pytest.mark.parametrize("closed", ["the present folder", "the home folder"])
def test_a_closed_folder_holds_no_configuration(
    visitor: Visitor, harness: DaemonHarness, closed: str
) -> None:
    """A folder that cannot be read counts as one without a configuration file."""
    private = harness.folder / "private"
    private.mkdir(mode=0o700)
    if closed == "the present folder":
        completed = visitor.do(None, "status", cwd=str(private))
    else:
        completed = replace(visitor, home=str(private)).do(None, "status")
    assert completed.returncode == 78  # or that of the service, where there is one


def test_a_closed_folder_is_no_reason_not_to_run(visitor: Visitor, harness: DaemonHarness) -> None:
    """In a private folder `styled run` goes on to the home folder, and fails to make that."""
    private = harness.folder / "private"
    private.mkdir(mode=0o700)
    completed = visitor.do(None, "run", cwd=str(private))
    assert completed.returncode == 73


def test_what_a_closed_state_folder_hides_is_reported(
    visitor: Visitor, harness: DaemonHarness
) -> None:
    """With a private state folder, explain names the journal and does not call styled stopped."""
    (harness.folder / "state").mkdir()
    Journal.open(harness.folder / "state/journal.sqlite3").close()
    (harness.folder / "state").chmod(0o700)
    photo = harness.drop("quick/photo.png")
    explanation = visitor.read_json(harness, "explain", str(photo))
    assert "journal.sqlite3 can't be read" in explanation["reasons"][0]
    assert "not running" not in " ".join(explanation["reasons"])

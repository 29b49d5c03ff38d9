"""Whoever may read the folders may look, whether the daemon runs, was stopped or was killed."""

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
from styled.jobs.journal import Journal
from tests.studio import Daemon, Studio, make_studio

# Whole programs, on machines that may be busy with other things.
pytestmark = pytest.mark.timeout(400)

CONFIGURATION = """\
styles:
  quick:
    image: styles/swirls.png
    overrides: &small
      size: {long_edge: 96}
      steps: 2
      scales: {start_px: 64}
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
    """A user who may read what all may read, and write nothing.

    Attributes:
        python: An interpreter that this user may start.
        program: A folder with a copy of the program that this user may read.
        home: The user's home folder.
    """

    python: str
    program: Path
    home: str = "/nonexistent"

    def do(
        self, studio: Studio | None, *words: str, here: str = "/"
    ) -> subprocess.CompletedProcess[str]:
        """Run `styled` to its end."""
        config = [] if studio is None else ["-c", str(studio.config)]
        return self.run("-m", "styled", *words, *config, here=here)

    def run(self, *words: str, here: str = "/") -> subprocess.CompletedProcess[str]:
        """Run Python to its end; nothing of it may be a traceback."""
        paths = (str(self.program), *map(sysconfig.get_path, ("purelib", "platlib")))
        ran = subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
             "env", self.python, *words],  # setpriv itself may still start what root may
            env={"PATH": os.environ["PATH"], "HOME": self.home, "LANG": "C.UTF-8",
                 "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=here, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if "-m" in words:
            assert "Traceback" not in ran.stderr, ran.stderr
        return ran

    def sees(self, studio: Studio, *words: str) -> Any:
        """Return what a command tells programs."""
        ran = self.do(studio, *words, "--json")
        assert (ran.returncode, ran.stderr) == (0, "")
        return json.loads(ran.stdout)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that others may look into, as into what is put there; pytest's are closed."""
    before = os.umask(0o022)
    try:
        with tempfile.TemporaryDirectory(prefix="styled-") as folder:
            os.chmod(folder, 0o755)
            yield Path(folder)
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def visitor() -> Iterator[Visitor]:
    """Return another user, who has a copy of the program: the checkout may be closed to others."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    with open_folder() as folder:
        # Modes are not copied: those of a closed checkout would close this as well.
        shutil.copytree(
            Path(styled.__file__).parent, folder / "styled", copy_function=shutil.copyfile,
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
        # The visitor can't keep what Python compiles, and would compile it for each command.
        subprocess.run([sys.executable, "-m", "compileall", "-q", folder / "styled"], check=True)
        for copied in (folder / "styled", *(folder / "styled").rglob("*")):
            copied.chmod(0o755 if copied.is_dir() else 0o644)
        yield _found(folder)


def _found(program: Path) -> Visitor:
    # Python of a virtual environment may lie in somebody's home; the system's does as well.
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        found = Visitor(python, program)
        if os.path.exists(python) and found.run("-c", "import styled.cli.explain").returncode == 0:
            return found
    return pytest.skip(
        "no Python of this version, or not the packages that the tests run with, may be read by "
        "another user"
    )


@pytest.fixture
def studio() -> Iterator[Studio]:
    """Make a working folder that others may look into."""
    with open_folder() as folder:
        made = make_studio(folder / "studio", CONFIGURATION)
        made.take_time(0.1)
        yield made


def work(studio: Studio, daemon: Daemon) -> None:
    """Have one photo painted, one rejected, and one being painted."""
    studio.drop("quick/done.png")
    (studio.folder / "inbox/quick/bad.png").write_bytes(b"no picture")
    daemon.wait_for("job.published")
    daemon.wait_for("job.rejected")
    studio.drop("slow/amid.png")
    daemon.wait_for("job.started", 2)
    daemon.wait_until(lambda: list((studio.folder / "state/previews").glob("*.jpg")))


def journal_files(studio: Studio) -> dict[str, bytes]:
    """Return the journal's files with their content."""
    return {path.name: path.read_bytes() for path in (studio.folder / "state").glob("journal*")}


def verdicts(visitor: Visitor, studio: Studio) -> dict[str, str]:
    """Return what there is to say of each photo, by the name that it was dropped as."""
    names = ("quick/done.png", "quick/bad.png", "slow/amid.png")
    return {
        name: visitor.sees(studio, "explain", str(studio.folder / "inbox" / name))["verdict"]
        for name in names
    }


def test_others_may_look_while_it_runs_and_after_a_kill(visitor: Visitor, studio: Studio) -> None:
    """Status, jobs and explanations are those that root sees; a kill -9 leaves them readable."""
    with studio.running() as daemon:
        work(studio, daemon)
        status = visitor.sees(studio, "status")
        assert (status["running"], status["pid"]) == (True, daemon.process.pid)
        assert status["state"] == "running"
        assert status["counts"] == {"done": 1, "rejected": 1, "running": 1}
        assert status["current"][0]["progress"]["step"] >= 1
        jobs = visitor.sees(studio, "jobs")
        assert {(job["input"], job["state"]) for job in jobs} == {
            ("quick/done.png", "done"), ("quick/bad.png", "rejected"), ("slow/amid.png", "running"),
        }  # fmt: skip
        assert verdicts(visitor, studio) == {
            "quick/done.png": "done", "quick/bad.png": "rejected", "slow/amid.png": "painting",
        }  # fmt: skip
        daemon.kill()

    left = journal_files(studio)
    assert set(left) == {"journal.sqlite3", "journal.sqlite3-shm", "journal.sqlite3-wal"}
    status = visitor.sees(studio, "status")
    assert (status["running"], status["pid"], status["state"]) == (False, None, "not running")
    assert status["counts"] == {"done": 1, "rejected": 1, "running": 1}
    assert [job["id"] for job in visitor.sees(studio, "jobs")] == [job["id"] for job in jobs]
    told = visitor.sees(studio, "explain", str(studio.folder / "inbox/slow/amid.png"))
    assert told["reasons"][0] == "styled is not running"
    assert [job["id"] for job in told["jobs"]] == [jobs[0]["id"]]
    assert journal_files(studio) == left


def test_others_may_look_after_a_stop_but_change_nothing(visitor: Visitor, studio: Studio) -> None:
    """What may not be is refused in words, as long as the daemon runs and afterwards."""
    with studio.running() as daemon:
        work(studio, daemon)
        refused(visitor, studio)
    left = journal_files(studio)
    assert set(left) == {"journal.sqlite3"}
    status = visitor.sees(studio, "status")
    assert (status["running"], status["state"]) == (False, "not running")
    assert status["counts"] == {"done": 1, "rejected": 1, "queued": 1}
    assert {job["state"] for job in visitor.sees(studio, "jobs")} == {"done", "rejected", "queued"}
    assert verdicts(visitor, studio) == {
        "quick/done.png": "done", "quick/bad.png": "rejected", "slow/amid.png": "waiting",
    }  # fmt: skip
    refused(visitor, studio)
    assert journal_files(studio) == left


def refused(visitor: Visitor, studio: Studio) -> None:
    """Try to cancel and to retry, which takes permission to write."""
    rejected = studio.files("rejected")
    assert rejected == ["quick/bad.png", "quick/bad.png.json"]
    for words in (("cancel", "--all"), ("cancel", "slow/amid.png"), ("retry", "--all")):
        ran = visitor.do(studio, *words)
        assert (ran.returncode, ran.stdout) == (73, "")
        assert ran.stderr.startswith("styled: ")
        assert "\n  - " in ran.stderr
    assert studio.files("rejected") == rejected
    assert studio.files("inbox") == ["slow/amid.png"]
    for job in json.loads(studio.do("jobs", "--json").stdout):
        assert not job["cancel_requested"]


def test_a_closed_state_folder_is_told_in_words(visitor: Visitor, studio: Studio) -> None:
    """That nobody may look into it is not to say that nothing has ever run there."""
    (studio.folder / "state").mkdir()
    Journal.open(studio.folder / "state/journal.sqlite3").close()
    (studio.folder / "state").chmod(0o700)
    for words in (("status",), ("jobs", "--json"), ("cancel", "--all")):
        ran = visitor.do(studio, *words)
        assert (ran.returncode, ran.stdout) == (73, "")
        assert f"{studio.folder}/state/journal.sqlite3" in ran.stderr
        assert "there is no journal" not in ran.stderr


def test_doctor_blames_nobody_for_what_another_may_not(visitor: Visitor, studio: Studio) -> None:
    """Only the daemon's user has to be able to write; a visitor can't tell whether he is."""
    text = studio.config.read_text().replace("weights: untrained", "weights: none.pth")
    studio.config.write_text(text)
    for folder in ("inbox", "outbox", "rejected", "archive", "state"):
        (studio.folder / folder).mkdir()
    (studio.folder / "state/lock").touch()
    ran = visitor.do(studio, "doctor", "--json")
    assert ran.returncode == 69
    failed = [one["about"] for one in json.loads(ran.stdout) if one["level"] == "fail"]
    assert failed == ["weights"]


@pytest.mark.parametrize("closed", ["the present folder", "the home folder"])
def test_a_closed_folder_holds_no_configuration(
    visitor: Visitor, studio: Studio, closed: str
) -> None:
    """As for `sudo -u styled` from root's home: whatever can't be seen is not there."""
    private = studio.folder / "private"
    private.mkdir(mode=0o700)
    if closed == "the present folder":
        ran = visitor.do(None, "status", here=str(private))
    else:
        ran = replace(visitor, home=str(private)).do(None, "status")
    assert ran.returncode == 78  # or that of the service, where there is one


def test_a_closed_folder_is_no_reason_not_to_run(visitor: Visitor, studio: Studio) -> None:
    """It goes on looking, and fails only where it would have to make a folder."""
    private = studio.folder / "private"
    private.mkdir(mode=0o700)
    ran = visitor.do(None, "run", here=str(private))
    assert ran.returncode == 73


def test_what_a_closed_state_folder_hides_is_told(visitor: Visitor, studio: Studio) -> None:
    """Whether the daemon runs, and what it has done, is not known; so nothing is claimed."""
    (studio.folder / "state").mkdir()
    Journal.open(studio.folder / "state/journal.sqlite3").close()
    (studio.folder / "state").chmod(0o700)
    photo = studio.drop("quick/photo.png")
    told = visitor.sees(studio, "explain", str(photo))
    assert "journal.sqlite3 can't be looked at" in told["reasons"][0]
    assert "not running" not in " ".join(told["reasons"])

"""The program as it is started: quick where it need not compute, exact in its codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from styled import __version__
from styled.cli.init import init_folder
from styled.jobs.journal import Journal

# Runs the command line and then tells on standard error whether torch was loaded.
WITNESS = """
import sys
from styled.cli.main import app
try:
    app(sys.argv[1:], prog_name="styled")
finally:
    print("TORCH" if "torch" in sys.modules else "LIGHT", file=sys.stderr)
"""


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WITNESS, *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def _journal(here: Path) -> None:
    init_folder(here)
    (here / "state").mkdir()
    Journal.open(here / "state/journal.sqlite3").close()


@pytest.mark.usefixtures("_journal")
@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "status", "status --json", "jobs", "jobs --json", "explain inbox/a.jpg",
     "explain --json config.yaml", "cancel --all", "recipes", "recipes pyramid", "config schema",
     "config show", "retry --all"],
)  # fmt: skip
def test_looking_never_loads_torch(arguments: str) -> None:
    """Commands that only look at things answer at once, because torch stays out."""
    ran = start(*arguments.split())
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == "LIGHT\n"
    assert ran.stdout.strip()


@pytest.mark.parametrize("module", ["status_view", "jobs", "explain", "retry", "working_folder"])
def test_what_looks_never_imports_torch(module: str) -> None:
    """However one comes to these modules."""
    code = f"import styled.cli.{module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "arguments",
    ["bogus", "status --bogus", "stylize", "stylize a.jpg", "init", "run -c", "config bogus",
     "jobs --state bogus", "explain"],
)  # fmt: skip
def test_wrong_usage_is_two(arguments: str) -> None:
    """A command line that makes no sense exits with 2, says why, and loads nothing."""
    ran = start(*arguments.split())
    assert ran.returncode == 2
    assert "Usage" in ran.stderr or "Error" in ran.stderr
    assert ran.stderr.endswith("LIGHT\n")
    assert ran.stdout == ""


@pytest.mark.usefixtures("here")
def test_the_version_is_told() -> None:
    """`--version` prints the package's version."""
    assert start("--version").stdout == f"styled {__version__}\n"


@pytest.mark.usefixtures("here")
def test_the_package_is_a_program_too() -> None:
    """`python -m styled` is the same program."""
    ran = subprocess.run(
        [sys.executable, "-m", "styled", "status"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 78
    assert "Traceback" not in ran.stderr

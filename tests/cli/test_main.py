"""Tests of the program in its own process: imports of torch, exit codes, output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from styled import __version__
from styled.cli.init import init_folder
from styled.journal.journal import Journal

# Runs the command line, then prints to standard error whether torch was imported.
SCRIPT = """
import sys
from styled.cli.main import app
try:
    app(sys.argv[1:], prog_name="styled")
finally:
    print("TORCH" if "torch" in sys.modules else "LIGHT", file=sys.stderr)
"""


def run_styled(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def _journal(cwd: Path) -> None:
    init_folder(cwd)
    (cwd / "state").mkdir()
    Journal.open(cwd / "state/journal.sqlite3").close()


@pytest.mark.usefixtures("_journal")
@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "status", "status --json", "jobs", "jobs --json", "explain inbox/a.jpg",
     "explain --json config.yaml", "cancel --all", "recipes", "recipes pyramid", "config schema",
     "config show", "retry --all"],
)  # fmt: skip
def test_looking_never_loads_torch(arguments: str) -> None:
    """Commands that compute nothing do not import torch, which takes seconds."""
    result = run_styled(*arguments.split())
    assert result.returncode == 0, result.stderr
    assert result.stderr == "LIGHT\n"
    assert result.stdout.strip()


@pytest.mark.usefixtures("_journal")
@pytest.mark.parametrize("arguments", ["--help", "--version", "status", "jobs"])
def test_the_most_frequent_commands_load_no_logging(arguments: str) -> None:
    """Importing structlog would take a sixth of their time."""
    code = SCRIPT.replace("torch", "structlog")
    result = subprocess.run(
        [sys.executable, "-c", code, arguments], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "LIGHT\n")
    assert result.stdout


@pytest.mark.parametrize("module", ["status_view", "jobs", "explain", "retry", "find_config"])
def test_what_looks_never_imports_torch(module: str) -> None:
    """Importing one of these modules directly does not import torch either."""
    code = f"import styled.cli.{module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("cwd")
@pytest.mark.parametrize(
    "arguments",
    ["bogus", "status --bogus", "stylize", "stylize a.jpg", "init", "run -c", "config bogus",
     "jobs --state bogus", "explain"],
)  # fmt: skip
def test_wrong_usage_is_two(arguments: str) -> None:
    """An invalid command line exits with 2 and a message, without importing torch."""
    result = run_styled(*arguments.split())
    assert result.returncode == 2
    assert "Usage" in result.stderr or "Error" in result.stderr
    assert result.stderr.endswith("LIGHT\n")
    assert result.stdout == ""


@pytest.mark.usefixtures("cwd")
def test_the_version_is_reported() -> None:
    """`--version` prints the package's version."""
    assert run_styled("--version").stdout == f"styled {__version__}\n"


@pytest.mark.usefixtures("cwd")
def test_the_package_is_a_program_too() -> None:
    """`python -m styled` runs the same program."""
    result = subprocess.run(
        [sys.executable, "-m", "styled", "status"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 78
    assert "Traceback" not in result.stderr

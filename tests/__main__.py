"""`python -m tests`: lint, type, import and test checks; other arguments are passed to pytest.

python -m tests            everything except the heavy tests; must pass before a commit
python -m tests --quick    without real daemons, services and browsers, and without slow tests
python -m tests --heavy    only the heavy tests: a soak, storms, growth, fuzzing
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("lint-imports",),
    ("mypy",),
)

NOT_QUICK = ("faults", "systemd", "gallery", "end_to_end", "packaging", "container", "cluster")
"""Test folders that `--quick` leaves out: their tests wait for real programs."""

CLUSTERS = ("cluster", "systemd/test_cluster.py")
"""Tests that start Ray clusters: they run afterwards, three for two cores. Each cluster has some
thirty processes, which on few cores would make the time limits of all other tests meaningless."""

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 3 * 2**30
"""Free space that `MEMORY` must have to be used for the tests' temporary folders."""


def main(args: list[str]) -> int:
    """Run all checks and tests, even after a failure; return 0 if all passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests", add_help=False, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--heavy", action="store_true")
    options, pytest_args = parser.parse_known_args(args)
    if options.quick:
        pytest_args += [f"--ignore={ROOT / 'tests' / folder}" for folder in NOT_QUICK]
        pytest_args += ["-m", "not slow and not heavy"]
    if options.heavy:
        pytest_args += ["-m", "heavy"]
    # Quick tests are bound by the CPU; most of the others wait for a daemon.
    cores = os.cpu_count() or 1
    workers = cores if options.quick else 3 * cores

    runs = [(workers, pytest_args)]
    if not pytest_args:
        clusters = [str(ROOT / "tests" / path) for path in CLUSTERS]
        others = [f"--ignore={path}" for path in clusters]
        runs = [(workers, others), (3 * cores // 2, clusters)]

    start = time.monotonic()
    failed = []
    with folder_for_tests() as folder, ThreadPoolExecutor(1) as pool:
        checks = [pool.submit(run_check, check) for check in CHECKS]
        # One OpenMP thread per worker: more would only wait for each other. Tests that use two
        # threads must not busy-wait, hence the passive wait policy.
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        files = {"TMPDIR": folder, "STYLED_TESTS_UNTRAINED_FILE": f"{folder}/untrained.pth"}
        environment = {**os.environ, **threads, **files}
        # Hundreds of processes import this project. Without cached bytecode each would compile
        # it, and each pytest worker would compile its tests.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if not any(Path(__file__).parent.glob("__pycache__/*-pytest-*")):
            # In a new checkout all workers would compile all tests at the same time.
            command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", *pytest_args]
            subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        for count, args in runs:
            command = [
                sys.executable, "-m", "pytest", "-n", str(count), "--no-loadscope-reorder",
                "--basetemp", f"{folder}/p", *args,
            ]  # fmt: skip
            print("$", *command, flush=True)
            if subprocess.run(command, cwd=ROOT, env=environment).returncode:
                failed.append("pytest")
        for check, future in zip(CHECKS, checks, strict=True):
            if not report(check, future):
                failed.append(" ".join(check))
    print(f"{time.monotonic() - start:.0f} seconds")
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed else 0


def run_check(check: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run one of `CHECKS`; stdout and stderr are captured together."""
    # Tools that are installed beside this Python come first, in a virtual environment or not.
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    return subprocess.run(
        check, cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def report(check: tuple[str, ...], future: Future[subprocess.CompletedProcess[str]]) -> bool:
    """Print the output of a check; return whether it passed."""
    print("$", *check)
    try:
        completed = future.result()
    except OSError as error:
        print(error)
        return False
    print(completed.stdout.rstrip(), flush=True)
    return completed.returncode == 0


@contextmanager
def folder_for_tests() -> Iterator[str]:
    """Make a temporary folder, in memory (`MEMORY`) if that has enough free space.

    Tests of durability do not need a disk: they check the system calls (fsync).
    """
    memory = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    if memory is not None and shutil.disk_usage(memory).free < MEMORY_BYTES:
        memory = None
    with tempfile.TemporaryDirectory(prefix="styled-", dir=memory) as folder:
        os.chmod(folder, 0o755)  # some tests access folders in it as another user
        yield folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

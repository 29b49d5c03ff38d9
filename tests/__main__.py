"""`python -m tests`: lint, types, imports and tests; all other words are handed on to pytest.

python -m tests            everything but the heavy tests: what has to pass before a commit
python -m tests --quick    without real daemons, services and browsers, and what computes long
python -m tests --heavy    only those that take long: storms, growth, fuzzing
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

NOT_QUICK = ("faults", "systemd", "gallery", "end_to_end")
"""Folders of tests that wait for real programs."""

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 3 * 2**30
"""How much of it must be free to be used for the folders of tests."""


def main(words: list[str]) -> int:
    """Run everything, even after a failure; return 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests", add_help=False, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--heavy", action="store_true")
    options, for_pytest = parser.parse_known_args(words)
    if options.quick:
        for_pytest += [f"--ignore={ROOT / 'tests' / folder}" for folder in NOT_QUICK]
        for_pytest += ["-m", "not slow and not heavy"]
    if options.heavy:
        for_pytest += ["-m", "heavy"]
    # Quick tests compute; most of the others wait for a daemon.
    cores = os.cpu_count() or 1
    workers = cores if options.quick else 5 * cores // 2

    begun = time.monotonic()
    failed = []
    with folder_for_tests() as folder, ThreadPoolExecutor(1) as beside:
        checks = [beside.submit(run_check, check) for check in CHECKS]
        command = [
            sys.executable, "-m", "pytest", "-n", str(workers), "--no-loadscope-reorder",
            "--basetemp", f"{folder}/p", *for_pytest,
        ]  # fmt: skip
        print("$", *command, flush=True)
        # One thread of computation for each worker: more would only wait for each other. Where a
        # test is about two, they are not to turn in circles while they wait.
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        environment = {**os.environ, **threads, "TMPDIR": folder}
        # Hundreds of processes import this project; each would compile it, and pytest its tests.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            failed.append("pytest")
        for check, future in zip(CHECKS, checks, strict=True):
            if not report(check, future):
                failed.append(" ".join(check))
    print(f"{time.monotonic() - begun:.0f} seconds")
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed else 0


def run_check(check: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run one of the checks that are no tests."""
    # Tools that are installed beside this Python come first, in a virtual environment or not.
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    return subprocess.run(
        check, cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def report(check: tuple[str, ...], future: Future[subprocess.CompletedProcess[str]]) -> bool:
    """Print what a check said; return whether it found nothing."""
    print("$", *check)
    try:
        done = future.result()
    except OSError as error:
        print(error)
        return False
    print(done.stdout.rstrip(), flush=True)
    return done.returncode == 0


@contextmanager
def folder_for_tests() -> Iterator[str]:
    """Make a folder in memory, where there is room: what tests write need not survive them.

    That files are safe on a disk in time is tested by the calls to the system that ask for it.
    """
    memory = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    if memory is not None and shutil.disk_usage(memory).free < MEMORY_BYTES:
        memory = None
    with tempfile.TemporaryDirectory(prefix="styled-", dir=memory) as folder:
        os.chmod(folder, 0o755)  # other users visit some of the folders in it
        yield folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

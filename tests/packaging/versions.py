"""Runs the quick tests with the oldest and the newest versions that pyproject.toml allows.

python -m tests.packaging.versions                          oldest and newest, with this Python
python -m tests.packaging.versions --python 3.12 3.13       with these, as far as they are installed
python -m tests.packaging.versions --keep FOLDER            keep the environments, to use them again

It needs `uv`, a network, and some 6 GB for each environment. Types are checked with the newest
versions only: older ones of other packages have other types.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.__main__ import NOT_QUICK, ROOT, folder_for_tests

RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
SHOWN = ("torch", "torchvision", "pillow", "numpy", "pyvips", "watchdog", "pydantic", "ray")


def main() -> int:
    """Print a line for each combination; return 0 if the tests have passed in all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.packaging.versions")
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    parser.add_argument("--versions", nargs="+", choices=RESOLUTIONS, default=list(RESOLUTIONS))
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="styled-versions-") as temporary:
        base = options.keep or Path(temporary)
        for python in options.python:
            for versions in options.versions:
                environment = base / f"{Path(python).name}-{versions}"
                print(f"# Python {python}, {versions} versions", flush=True)
                failed += not passes(environment, python, RESOLUTIONS[versions])
    return 1 if failed else 0


def passes(environment: Path, python: str, resolution: str) -> bool:
    """Make a virtual environment, install styled, and run the quick tests in it."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run(
        [*uv, "venv", "-q", "--allow-existing", "--python", python, environment], check=True
    )
    subprocess.run(
        [*uv, "pip", "install", "-q", "--python", environment, "--resolution", resolution,
         "-e", f"{ROOT}[test]"],
        check=True,
    )  # fmt: skip
    listed = subprocess.run(
        [*uv, "pip", "freeze", "--python", environment], capture_output=True, text=True, check=True
    )
    print(*(line for line in listed.stdout.split() if line.partition("==")[0] in SHOWN))
    with folder_for_tests() as folder:
        done = subprocess.run(
            [environment / "bin/python", "-m", "pytest", "-q", "-n", str(os.cpu_count() or 1),
             "--basetemp", f"{folder}/p", "-m", "not slow and not heavy",
             *(f"--ignore={ROOT / 'tests' / name}" for name in NOT_QUICK)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": folder},
        )  # fmt: skip
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())

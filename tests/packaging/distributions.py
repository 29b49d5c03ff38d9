"""Builds the wheel and the sdist, and installs one of them as a stranger would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

NOT_SOURCE = (
    ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist",
    "styled-demo",
)  # fmt: skip
"""What lies in a checkout, but does not belong to its source."""


KEPT_VARIABLES = ("PATH", "TMPDIR", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
"""Variables of the tests' environment that installed programs get. Of those, OpenMP's matter on a
busy machine: threads that wait for each other by spinning take the cores from other tests."""


def build(folder: Path, *kinds: str) -> list[Path]:
    """Build distributions of this checkout; return their paths.

    Args:
        folder: A folder that does not exist yet.
        kinds: `--sdist`, `--wheel`; by default an sdist, and a wheel of that.
    """
    # From a copy, because a build leaves folders in its source.
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", *kinds, "-o", folder / "dist",
         folder / "source"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted((folder / "dist").iterdir())


@dataclass(frozen=True)
class Environment:
    """A virtual environment that is outside the checkout and has nothing of it.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "bin/python"

    @property
    def site_packages(self) -> Path:
        """The folder of installed packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    def run(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment in its folder, without access to cached weights."""
        outside = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        return subprocess.run(
            [self.folder / "bin" / command[0], *command[1:]],
            cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout, env={**outside, "HOME": str(self.folder)},
        )  # fmt: skip


def install(folder: Path, distribution: Path, options: Sequence[str] = ()) -> Environment:
    """Install a distribution into a new virtual environment, without a network.

    Its dependencies, and nothing else, are taken from the environment that the tests run in: a
    `.pth` file adds them behind the new environment's own packages, and `.pth` files among them,
    such as that of an editable `styled`, are not read.

    Args:
        folder: A folder that does not exist yet.
        distribution: A wheel or an sdist.
        options: Further options of `pip install`.
    """
    venv.create(folder)
    environment = Environment(folder)
    dependencies = environment.site_packages / "dependencies.pth"
    dependencies.write_text(sysconfig.get_path("purelib") + "\n")
    done = environment.run(
        "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
        "--no-build-isolation", "--ignore-installed", *options, str(distribution),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return environment

"""Builds the image of container/Containerfile, for real."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.distributions import ROOT

IMAGE = "localhost/styled"
OPTIONS = shlex.split(os.environ.get("STYLED_TESTS_BUILD_OPTIONS", ""))
"""Further options of `podman build`, for machines with package indexes of their own."""


def podman(*args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman; its output is returned."""
    done = subprocess.run(
        ["podman", *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0 or not check, f"{args}\n{done.stdout}{done.stderr}"
    return done


def need(*programs: str) -> None:
    """Skip the test if a program is not installed, or may not be used."""
    if os.geteuid() != 0:
        pytest.skip("containers of other users' files are run as root here")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return a base image: `STYLED_TESTS_BASE`, or a minimal Debian made by mmdebstrap."""
    if name := os.environ.get("STYLED_TESTS_BASE"):
        yield name
        return
    need("podman", "mmdebstrap")
    archive = tmp_path_factory.mktemp("base") / "base.tar"
    command = ["mmdebstrap", "--variant=minbase", "--include=ca-certificates,python3,python3-venv"]
    done = subprocess.run([*command, "stable", archive], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no base could be made:\n{done.stderr[-2000:]}")
    podman("import", archive, "localhost/styled-base")
    yield "localhost/styled-base"
    podman("rmi", "--force", "localhost/styled-base")


@pytest.fixture(scope="session")
def image(base: str) -> str:
    """Return the name of the image, built from this checkout."""
    need("podman")
    podman(
        "build", "--format", "docker", "-t", IMAGE, "-f", ROOT / "container/Containerfile",
        "--build-arg", f"BASE={base}", *OPTIONS, ROOT,
    )  # fmt: skip
    return IMAGE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the volumes, which other users can reach."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    return tmp_path

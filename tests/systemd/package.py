"""styled as users install it, from a wheel, in a container that has no network."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.systemd.machine import Machine

PREFIX = "/opt/styled"
"""Where `install_package` puts the program, as `systemd/styled.service` expects it."""

DEPENDENCIES = "/opt/dependencies"
PYTHON = "/opt/python"


def python_mounts() -> dict[Path, str]:
    """Return what `booted` has to bind for `install_package`: packages, and maybe a Python."""
    mounts = {Path(sysconfig.get_path("purelib")): DEPENDENCIES}
    base = Path(sys.base_prefix)
    # One below /usr is there anyway. Others lie where services may not look, such as in /root.
    if not base.is_relative_to("/usr"):
        mounts[base] = PYTHON
    return mounts


def install_package(machine: Machine) -> None:
    """Install this checkout as a wheel into a virtual environment in `PREFIX`.

    What it depends on is taken from the environment that the tests run in.
    """
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(prefix="styled-wheel-") as scratch:
        source = Path(scratch, "source")
        # A copy, since a build leaves folders behind in its source.
        shutil.copytree(root, source, ignore=shutil.ignore_patterns(
            ".*", "__pycache__", "*.egg-info", "build", "dist", "venv", "tests"
        ))  # fmt: skip
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", scratch, str(source)]
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            # One that is new enough needs not be fetched.
            if int(importlib.metadata.version("setuptools").split(".")[0]) >= 77:
                command.append("--no-build-isolation")
        built = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=250
        )
        assert built.returncode == 0, f"no wheel could be built:\n{built.stdout}{built.stderr}"
        (wheel,) = Path(scratch).glob("*.whl")
        shutil.copy(wheel, machine.path(f"/opt/{wheel.name}"))

    base = PYTHON if PYTHON in python_mounts().values() else sys.base_prefix
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A Python in a library of its own would look for it where it was built, in vain.
    library = sysconfig.get_config_var("INSTSONAME")
    if base == PYTHON and isinstance(library, str) and ".so" in library:
        machine.run("ln", "-sf", f"{PYTHON}/lib/{library}", f"/usr/local/lib/{library}")
        machine.run("ldconfig")
    machine.run(f"{base}/bin/{version}", "-m", "venv", "--without-pip", PREFIX)
    # After the environment's own packages, so that our `styled` wins; and .pth files in there,
    # such as that of an editable `styled`, are not looked at.
    listed = f"{PREFIX}/lib/{version}/site-packages/dependencies.pth"
    machine.run("sh", "-c", f"echo {DEPENDENCIES} > {listed}")
    machine.run(
        f"{PREFIX}/bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
        "--ignore-installed", f"/opt/{wheel.name}", timeout=120,
    )  # fmt: skip

"""Installs styled from a wheel, as users do, in a container without network access."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.packaging.distributions import build
from tests.systemd.machine import Machine

PREFIX = "/opt/styled"
"""The virtual environment that `install_package` makes; `systemd/styled.service` has this path."""

DEPENDENCIES = "/opt/dependencies"
PYTHON = "/opt/python"


def python_mounts() -> dict[Path, str]:
    """Return what `install_package` needs mounted, in the format of `bind_ro` of `booted`.

    That is the installed packages, and Python unless it is in /usr.
    """
    mounts = {Path(sysconfig.get_path("purelib")): DEPENDENCIES}
    base = Path(sys.base_prefix)
    # /usr is in the container anyway. Services cannot read some other places, such as /root.
    if not base.is_relative_to("/usr"):
        mounts[base] = PYTHON
    return mounts


def install_package(machine: Machine) -> None:
    """Install this checkout as a wheel into a virtual environment in `PREFIX`.

    Its dependencies are taken from the environment that the tests run in.
    """
    with tempfile.TemporaryDirectory(prefix="styled-wheel-") as folder:
        (wheel,) = build(Path(folder, "build"), "--wheel")
        shutil.copy(wheel, machine.path(f"/opt/{wheel.name}"))

    base = PYTHON if PYTHON in python_mounts().values() else sys.base_prefix
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A Python with a shared libpython searches it where it was built, and would not find it.
    library = sysconfig.get_config_var("INSTSONAME")
    if base == PYTHON and isinstance(library, str) and ".so" in library:
        machine.run("ln", "-sf", f"{PYTHON}/lib/{library}", f"/usr/local/lib/{library}")
        machine.run("ldconfig")
    machine.run(f"{base}/bin/{version}", "-m", "venv", "--without-pip", PREFIX)
    # A .pth file adds the dependencies after the environment's own packages, so that the installed
    # `styled` wins. The .pth files in them, such as that of an editable `styled`, are not read.
    pth_file = f"{PREFIX}/lib/{version}/site-packages/dependencies.pth"
    machine.run("sh", "-c", f"echo {DEPENDENCIES} > {pth_file}")
    machine.run(
        f"{PREFIX}/bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
        "--ignore-installed", f"/opt/{wheel.name}", timeout=120,
    )  # fmt: skip

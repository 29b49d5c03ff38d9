"""How to install optional packages into the environment that styled runs in."""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import PackageNotFoundError, version


def install_command(package: str) -> str:
    """Return a command for a shell: another `pip` may be the first one on the user's PATH."""
    python = shlex.quote(sys.executable)
    try:
        version("pip")
    except PackageNotFoundError:  # as in environments made by uv
        return f"uv pip install --python {python} {package}"
    return f"{python} -m pip install {package}"

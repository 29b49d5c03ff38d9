"""How to install optional packages into the environment that styled runs in."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec


def install_command(package: str) -> str:
    """Return a command for a shell: another `pip` may be the first one on the user's PATH."""
    python = shlex.quote(sys.executable)
    if find_spec("pip") is None:  # as in environments made by uv
        return f"uv pip install --python {python} {package}"
    return f"{python} -m pip install {package}"

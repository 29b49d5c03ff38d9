"""`python -m tests`: lint, types, imports and tests; any words are handed on to pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("lint-imports",),
)


def main(words: list[str]) -> int:
    """Run everything, even after a failure; return 0 if all went well."""
    root = Path(__file__).parents[1]
    tools = Path(sys.executable).parent
    # Tools that are installed beside this Python come first, in a virtual environment or not.
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    failed = []
    for command in (*CHECKS, (sys.executable, "-m", "pytest", *words)):
        print("$", *command, flush=True)
        if subprocess.run(command, cwd=root, env=environment).returncode:
            failed.append(" ".join(command))
    for command_line in failed:
        print(f"failed: {command_line}")
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))

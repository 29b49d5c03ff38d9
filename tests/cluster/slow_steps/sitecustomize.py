"""Loaded at the start of Ray's workers: each step of an engine sleeps as long as a file says.

Jobs have to last until something happens to their engine. Computing for so long would take CPU time
from everything else on the machine.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULE = "styled.engine.scale_run"
VARIABLE = "STYLED_TESTS_STEP_SECONDS_FILE"


class PatchOnImport(MetaPathFinder):
    """Patches `MODULE` once it is imported: importing it here would load torch into all workers."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of `MODULE`, whose loader patches it; None for any other module."""
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_patch(module: ModuleType) -> None:
            execute(module)
            module.ScaleRun.advance = slowed(module.ScaleRun.advance)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


def slowed(advance: Any) -> Any:
    """Return a method that sleeps before a step."""

    def advance_slowly(scale_run: Any) -> Any:
        with open(os.environ[VARIABLE]) as file:
            time.sleep(float(file.read()))
        return advance(scale_run)

    return advance_slowly


if VARIABLE in os.environ:
    sys.meta_path.insert(0, PatchOnImport())

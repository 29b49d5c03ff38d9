"""Loaded at the start of a Python process with this folder in `PYTHONPATH`: styled's tests set it.

Engines then warm up with few layers, which saves a third of a second for each process, and read
the untrained network from a file, which saves a second. And each step sleeps as long as a file
says, if one is named: jobs have to last until something happens to their engine, and computing for
so long would take CPU time from everything else on the machine.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

STEP_SECONDS_FILE = "STYLED_TESTS_STEP_SECONDS_FILE"
UNTRAINED_FILE = "STYLED_TESTS_UNTRAINED_FILE"


class PatchOnImport(MetaPathFinder):
    """Patches a module once it is imported: importing it here would load torch into all workers."""

    def __init__(self, name: str, patch: Callable[[Any], None]) -> None:
        """Call `patch` with the module `name`."""
        self._name = name
        self._patch = patch

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the module, whose loader patches it; None for any other module."""
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_patch(module: ModuleType) -> None:
            execute(module)
            self._patch(module)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


def warm_up_with_few_layers(local_engine: Any) -> None:
    """Patch `styled.engine.local_engine`."""
    local_engine.WARM_UP = replace(
        local_engine.WARM_UP, content_layers={"relu2_1": 1.0}, style_layers={"relu1_1": 1.0}
    )


def read_the_untrained_network(weights: Any) -> None:
    """Patch `styled.engine.weights`: `tests/engine/conftest.py` has written the file."""
    weights.untrained = lambda: weights.torch.load(
        os.environ[UNTRAINED_FILE], mmap=True, weights_only=True
    )


def sleep_before_each_step(scale_run: Any) -> None:
    """Patch `styled.engine.scale_run`."""
    advance = scale_run.ScaleRun.advance

    def advance_slowly(self: Any) -> Any:
        with open(os.environ[STEP_SECONDS_FILE]) as file:
            time.sleep(float(file.read()))
        return advance(self)

    scale_run.ScaleRun.advance = advance_slowly


sys.meta_path.insert(0, PatchOnImport("styled.engine.local_engine", warm_up_with_few_layers))
if os.path.exists(os.environ.get(UNTRAINED_FILE, "")):
    sys.meta_path.insert(0, PatchOnImport("styled.engine.weights", read_the_untrained_network))
if STEP_SECONDS_FILE in os.environ:
    sys.meta_path.insert(0, PatchOnImport("styled.engine.scale_run", sleep_before_each_step))

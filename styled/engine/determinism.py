"""Selection of deterministic algorithms, which torch offers only on CUDA.

On CPU the summation order of the engine's kernels depends only on the thread count. MPS has no
deterministic variants. docs/recipes.md says what is reproducible where, and why. The effect of
these settings has not been tested on a GPU yet: the tests only check that they are set.
"""

from __future__ import annotations

import os
import warnings

import torch

CUBLAS_WORKSPACE_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_WORKSPACE = ":4096:8"
"""Workspaces of fixed size, 24 MiB in total; cuBLAS is deterministic with this or `:16:8`."""

_WARNINGS = (
    r".* does not have a deterministic implementation",
    # If the user has set CUBLAS_WORKSPACE_CONFIG to another value.
    r"Deterministic behavior was enabled with either",
)


def fix_cublas_workspace() -> None:
    """Set CUBLAS_WORKSPACE_CONFIG unless it is set already; call before CUDA is initialised.

    Without CUDA it has no effect.
    """
    os.environ.setdefault(CUBLAS_WORKSPACE_VARIABLE, CUBLAS_WORKSPACE)


def choose_algorithms(device: torch.device, *, deterministic: bool) -> None:
    """Enable or disable deterministic algorithms on CUDA; do nothing on other devices.

    It applies to the whole process. Operations without a deterministic variant still run, and
    torch's warning about them, which would come at every step, is suppressed.

    Args:
        device: Where the engine computes.
        deterministic: False: torch's defaults.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = False  # it selects by timing, so the choice may vary
    torch.backends.cudnn.deterministic = deterministic
    # The same as `use_deterministic_algorithms(True, warn_only=True)`, which in torch 2.14 also
    # imports torch's compiler: that takes seconds, and nothing here is compiled.
    torch.set_deterministic_debug_mode("warn" if deterministic else "default")
    if deterministic:
        # It would fill every new tensor with NaN. The engine never reads uninitialised memory.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
        for message in _WARNINGS:
            warnings.filterwarnings("ignore", message, UserWarning)

"""Deterministic algorithms: on CUDA torch has a choice, elsewhere there is nothing to choose.

On CPU the kernels that the engine uses add in an order that depends on the thread count alone.
MPS has no deterministic variants to choose from. README says what holds where, and why. What
these settings do on a GPU has not been run yet: tests only see that they are made.
"""

from __future__ import annotations

import os
import warnings

import torch

CUBLAS_WORKSPACE_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_WORKSPACE = ":4096:8"
"""Workspaces of fixed size, 24 MiB in all: cuBLAS is deterministic with this and with `:16:8`."""

_WARNINGS = (
    r".* does not have a deterministic implementation",
    # Where the user has set CUBLAS_WORKSPACE_CONFIG to something else.
    r"Deterministic behavior was enabled with either",
)


def fix_cublas_workspace() -> None:
    """Set CUBLAS_WORKSPACE_CONFIG, unless the user has; call it before CUDA is initialised.

    Without CUDA nothing reads it.
    """
    os.environ.setdefault(CUBLAS_WORKSPACE_VARIABLE, CUBLAS_WORKSPACE)


def choose_algorithms(device: torch.device, *, deterministic: bool) -> None:
    """Choose between deterministic and other algorithms on CUDA; elsewhere do nothing.

    It holds for the whole process. An operation of which torch has no deterministic variant
    runs all the same, without a warning: torch would give one at every step.

    Args:
        device: Where the engine computes.
        deterministic: False: whatever torch takes by itself.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = False  # it chooses by time, and each time anew
    torch.backends.cudnn.deterministic = deterministic
    # The same as `use_deterministic_algorithms(True, warn_only=True)`, which in torch 2.14 also
    # imports torch's compiler: that takes seconds, and nothing here is compiled.
    torch.set_deterministic_debug_mode("warn" if deterministic else "default")
    if deterministic:
        # It would fill every new tensor with NaN first. Nothing here reads what it did not write.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
        for message in _WARNINGS:
            warnings.filterwarnings("ignore", message, UserWarning)

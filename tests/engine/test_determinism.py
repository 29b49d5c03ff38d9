"""Selection of deterministic algorithms by device. No test needs a GPU."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from styled.engine.determinism import choose_algorithms, fix_cublas_workspace
from styled.engine.device import choose_device

CUDA = torch.device("cuda")
DETERMINISTIC_MODULE: Any = torch.utils.deterministic  # its property is not typed


@pytest.fixture(autouse=True)
def _restore_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore torch's settings, which apply to the whole process."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    mode = torch.get_deterministic_debug_mode()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    fills = DETERMINISTIC_MODULE.fill_uninitialized_memory
    yield
    torch.set_deterministic_debug_mode(mode)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
    DETERMINISTIC_MODULE.fill_uninitialized_memory = fills


def is_deterministic() -> tuple[bool, bool, bool]:
    """Return torch's deterministic flag, its warn-only flag, and cuDNN's flag."""
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
    )


def test_cuda_gets_deterministic_algorithms_in_the_mode_that_never_raises() -> None:
    """torch and cuDNN use deterministic algorithms, and cuDNN's benchmark mode is off."""
    torch.backends.cudnn.benchmark = True
    choose_algorithms(CUDA, deterministic=True)
    assert is_deterministic() == (True, True, True)
    assert not torch.backends.cudnn.benchmark


def test_new_tensors_are_not_filled_with_nan() -> None:
    """Filling would slow down every activation, and the engine reads no uninitialised memory."""
    choose_algorithms(CUDA, deterministic=True)
    assert not DETERMINISTIC_MODULE.fill_uninitialized_memory


def test_false_turns_them_off_again() -> None:
    """`False` restores torch's defaults."""
    choose_algorithms(CUDA, deterministic=True)
    choose_algorithms(CUDA, deterministic=False)
    assert is_deterministic() == (False, False, False)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_elsewhere_nothing_is_chosen(device: str) -> None:
    """On CPU and MPS the settings stay unchanged."""
    before = is_deterministic()
    choose_algorithms(torch.device(device), deterministic=True)
    assert is_deterministic() == before == (False, False, False)


def test_what_has_no_deterministic_variant_runs_without_a_word() -> None:
    """torch's warning, which would come at every step, is suppressed, also under `-W error`."""
    values, index, updates = torch.zeros(2), torch.tensor([1]), torch.ones(1)
    choose_algorithms(CUDA, deterministic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="does not have a deterministic implementation"):
            values.put_(index, updates)  # it warns on a CPU, too
        choose_algorithms(CUDA, deterministic=True)
        values.put_(index, updates)
    assert values.tolist() == [0, 1]


def test_other_warnings_are_still_given() -> None:
    """Only torch's warnings about determinism are suppressed."""
    choose_algorithms(CUDA, deterministic=True)
    with pytest.warns(UserWarning, match="something else"):
        warnings.warn("something else", UserWarning, stacklevel=1)


def test_the_cublas_workspace_is_fixed_before_cuda_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """cuBLAS reads the variable only when it is initialised."""
    seen: list[str | None] = []

    def record_first_use(*size: int, device: torch.device) -> torch.Tensor:
        seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        raise RuntimeError("no such device")

    monkeypatch.setattr(torch, "zeros", record_first_use)
    choose_device("auto")
    assert seen == [":4096:8", ":4096:8"]  # CUDA, then MPS


def test_the_cublas_workspace_is_left_alone_where_algorithms_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`engine.deterministic: false` sets nothing, and a value set by the user is kept."""
    choose_device("cpu", deterministic=False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    fix_cublas_workspace()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"

"""Deterministic algorithms: what is chosen for which device. Nothing here needs a GPU."""

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
FILLING: Any = torch.utils.deterministic  # its property is not typed


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what is chosen: it holds for the whole process."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    mode = torch.get_deterministic_debug_mode()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    fills = FILLING.fill_uninitialized_memory
    yield
    torch.set_deterministic_debug_mode(mode)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
    FILLING.fill_uninitialized_memory = fills


def is_deterministic() -> tuple[bool, bool, bool]:
    """Return whether torch, torch without errors, and cuDNN are to be deterministic."""
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
    )


def test_cuda_gets_deterministic_algorithms_in_the_mode_that_never_raises() -> None:
    """torch and cuDNN choose them, and cuDNN no longer chooses by time."""
    torch.backends.cudnn.benchmark = True
    choose_algorithms(CUDA, deterministic=True)
    assert is_deterministic() == (True, True, True)
    assert not torch.backends.cudnn.benchmark


def test_new_tensors_are_not_filled_with_nan() -> None:
    """That would be done to every activation, and nothing reads what it did not write."""
    choose_algorithms(CUDA, deterministic=True)
    assert not FILLING.fill_uninitialized_memory


def test_false_turns_them_off_again() -> None:
    """Whatever was chosen before, torch then takes what it takes by itself."""
    choose_algorithms(CUDA, deterministic=True)
    choose_algorithms(CUDA, deterministic=False)
    assert is_deterministic() == (False, False, False)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_elsewhere_nothing_is_chosen(device: str) -> None:
    """CPU and MPS have no variants to choose from."""
    before = is_deterministic()
    choose_algorithms(torch.device(device), deterministic=True)
    assert is_deterministic() == before == (False, False, False)


def test_what_has_no_deterministic_variant_runs_without_a_word() -> None:
    """The warning that torch gives at every step is neither shown nor, under `-W error`, raised."""
    values, where, new = torch.zeros(2), torch.tensor([1]), torch.ones(1)
    choose_algorithms(CUDA, deterministic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="does not have a deterministic implementation"):
            values.put_(where, new)  # it is on torch's list on a CPU, too
        choose_algorithms(CUDA, deterministic=True)
        values.put_(where, new)
    assert values.tolist() == [0, 1]


def test_other_warnings_are_still_given() -> None:
    """Only what torch says about determinism is dropped."""
    choose_algorithms(CUDA, deterministic=True)
    with pytest.warns(UserWarning, match="something else"):
        warnings.warn("something else", UserWarning, stacklevel=1)


def test_the_cublas_workspace_is_fixed_before_cuda_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """cuBLAS reads the variable when it is initialised, so that later is too late."""
    seen: list[str | None] = []

    def first_use(*size: int, device: torch.device) -> torch.Tensor:
        seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        raise RuntimeError("no such device")

    monkeypatch.setattr(torch, "zeros", first_use)
    choose_device("auto")
    assert seen == [":4096:8", ":4096:8"]  # CUDA, then MPS


def test_the_cublas_workspace_is_left_alone_where_algorithms_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`engine.deterministic: false` sets nothing, and what the user has set stays."""
    choose_device("cpu", deterministic=False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    fix_cublas_workspace()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"

"""The environment of a picture, and the degradation if it changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from styled.engine.environment import Environment, resumed_elsewhere

CPU = Environment("cpu", "AMD EPYC (AVX2)", 1, "float32", "2.15.0", "0.1.0")


def message(before: Environment, now: Environment, *, again: bool = False) -> str:
    """Return the degradation message of a resumed job."""
    degradation = resumed_elsewhere(before, now, again=again)
    assert degradation is not None
    assert degradation.kind == "resumed"
    return degradation.message


def test_the_same_environment_is_no_degradation() -> None:
    """A restart in the same environment gives no degradation."""
    assert resumed_elsewhere(CPU, replace(CPU)) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"threads": 2},
            "resumed on cpu with 2 threads, torch 2.15.0; begun on cpu with 1 thread, torch 2.15.0",
        ),
        (
            {"torch_version": "2.16.0"},
            "resumed on cpu with 1 thread, torch 2.16.0; begun on cpu with 1 thread, torch 2.15.0",
        ),
        (
            {"precision": "bfloat16"},
            "resumed on cpu with 1 thread in bfloat16, torch 2.15.0; "
            "begun on cpu with 1 thread in float32, torch 2.15.0",
        ),
        (
            {"model": "Xeon (AVX512)"},
            "resumed on cpu (Xeon (AVX512)) with 1 thread, torch 2.15.0; "
            "begun on cpu (AMD EPYC (AVX2)) with 1 thread, torch 2.15.0",
        ),
        (
            {"device": "NVIDIA H200", "model": "NVIDIA H200"},
            "resumed on NVIDIA H200 with 1 thread, torch 2.15.0; "
            "begun on cpu (AMD EPYC (AVX2)) with 1 thread, torch 2.15.0",
        ),
        (
            {"styled_version": "0.2.0"},
            "resumed on cpu with 1 thread, torch 2.15.0, styled 0.2.0; "
            "begun on cpu with 1 thread, torch 2.15.0, styled 0.1.0",
        ),
    ],
)
def test_whatever_differs_is_named_on_both_sides(changes: dict[str, object], expected: str) -> None:
    """Device, threads and torch are always named, other fields only if they differ."""
    assert message(CPU, replace(CPU, **changes)) == expected  # type: ignore[arg-type]  # by name


def test_a_second_change_does_not_claim_to_be_the_beginning() -> None:
    """It is worded relative to the first change, which has named the original environment."""
    assert "; before that on cpu with 1 thread" in message(CPU, replace(CPU, threads=2), again=True)


def test_the_current_environment_has_the_calling_threads_count() -> None:
    """The thread count is the calling thread's, the precision the network's."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        current = Environment.current(torch.device("cpu"), torch.bfloat16)
    finally:
        torch.set_num_threads(before)
    assert (current.device, current.threads, current.precision) == ("cpu", 3, "bfloat16")
    assert current.torch_version == torch.__version__
    assert torch.backends.cpu.get_cpu_capability() in current.model


def test_a_gpu_is_named_by_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs of one model are the same device: the pixels do not depend on which it was."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    first, second = (
        Environment.current(torch.device(name), torch.float32) for name in ("cuda:0", "cuda:1")
    )
    assert first == second
    assert (first.device, first.model) == ("NVIDIA H200", "NVIDIA H200")

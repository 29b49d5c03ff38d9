"""The resident engine: what it says of itself, and what becomes of a device's errors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from styled.engine.device import Device
from styled.engine.local import LocalEngine
from styled.engine.vgg import Vgg19
from styled.engine.weights import Weights, untrained
from styled.errors import DeviceLost, EngineFailure, StyledError
from styled.recipes import PYRAMID
from tests.engine.conftest import picture

CPU = Device(torch.device("cpu"), "cpu", degraded="no GPU was found: running on the CPU")
RECIPE = replace(PYRAMID, steps=3, scales=None)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Return the untrained network."""
    return Weights(untrained(), "untrained", "0" * 64)


class Failing(Vgg19):
    """Raises after two runs, as a device would."""

    def __init__(self, message: str) -> None:
        """Raise a RuntimeError with these words."""
        super().__init__(untrained())
        self.message, self.calls = message, 0

    def features(self, image: Tensor, layers: Collection[str], **how: object) -> dict[str, Tensor]:
        """Compute, until the third run, the first of an evaluation."""
        self.calls += 1
        if self.calls > 2:
            raise RuntimeError(self.message)
        return super().features(image, layers, **how)  # type: ignore[arg-type]  # handed through


def test_everything_that_is_less_than_asked_for_is_in_the_facts(weights: Weights) -> None:
    """The CPU in place of a GPU, and an untrained network, are both degradations."""
    facts = LocalEngine(weights, CPU).facts
    assert facts.degraded == (CPU.degraded, "the network is untrained")
    assert (facts.device, facts.precision) == ("cpu", "float32")


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", EngineFailure),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes", EngineFailure),
        ("CUDA error: an illegal memory access was encountered\nmore", DeviceLost),
    ],
    ids=["cuda memory", "cpu memory", "cuda"],
)
def test_a_devices_errors_become_words(
    weights: Weights, message: str, error: type[StyledError]
) -> None:
    """Lack of memory fails the job; a broken device asks for a new process."""
    engine = LocalEngine(weights, CPU)
    engine._network = Failing(message)
    with pytest.raises(error, match=r"too little memory|cpu broke"):
        list(engine.stylize(picture(40, 40), [(picture(40, 40, 1), 1.0)], RECIPE))


def test_an_error_of_the_program_itself_is_not_disguised(weights: Weights) -> None:
    """Any other error comes through as it is."""
    engine = LocalEngine(weights, CPU)
    engine._network = Failing("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes"):
        list(engine.stylize(picture(40, 40), [(picture(40, 40, 1), 1.0)], RECIPE))


def test_a_fingerprint_names_everything_that_decides_the_result(weights: Weights) -> None:
    """Another photo, weight of a style, or recipe has another fingerprint."""
    engine = LocalEngine(weights, CPU)
    photo, style = picture(40, 40), picture(40, 40, 1)
    prints = {
        engine.fingerprint(photo, [(style, 1.0)], RECIPE),
        engine.fingerprint(style, [(style, 1.0)], RECIPE),
        engine.fingerprint(photo, [(style, 2.0)], RECIPE),
        engine.fingerprint(photo, [(style, 1.0)], replace(RECIPE, seed=1)),
    }
    assert len(prints) == 4

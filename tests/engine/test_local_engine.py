"""The in-process engine: its properties, errors of the device, and its memory limit."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from styled.degradation import Degradation
from styled.engine.checkpoint import task_fingerprint
from styled.engine.device import Device
from styled.engine.local_engine import LocalEngine
from styled.engine.vgg import Vgg19
from styled.engine.weights import Weights
from styled.engine_api import Painted
from styled.errors import ConfigError, DeviceLost, EngineFailure, StyledError, UnexpectedError
from styled.recipes import RECIPES, Recipe
from tests.engine.conftest import SHALLOW, painted_by, picture, task_of, untrained

NO_GPU = Degradation("device", "no GPU was found: running on the CPU")
CPU = Device(torch.device("cpu"), "cpu", NO_GPU)
RECIPE = replace(SHALLOW, steps=3, scales=None)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Return the untrained network."""
    return Weights(untrained(), "untrained", "0" * 64)


class Failing(Vgg19):
    """A network that raises a device's error in its third forward pass."""

    def __init__(self, message: str) -> None:
        """Raise a RuntimeError with this message."""
        super().__init__(untrained())
        self.message, self.calls = message, 0

    def features(
        self, image: Tensor, layers: Collection[str], **options: object
    ) -> dict[str, Tensor]:
        """Compute, and raise from the third pass on: that of the first evaluation."""
        self.calls += 1
        if self.calls > 2:
            raise RuntimeError(self.message)
        return super().features(image, layers, **options)  # type: ignore[arg-type]  # handed through


def test_everything_that_is_less_than_asked_for_is_in_the_facts(weights: Weights) -> None:
    """`info` lists the CPU in place of a GPU and the untrained network as degradations."""
    info = LocalEngine(weights, CPU, precision="float32").info
    assert info.degraded == (NO_GPU, Degradation("weights", "the network is untrained"))
    assert (info.device, info.precision) == ("cpu", "float32")


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
    """Lack of memory is an EngineFailure, a CUDA error DeviceLost."""
    engine = LocalEngine(weights, CPU, "float32")
    engine._network = Failing(message)
    with pytest.raises(error, match=r"too little memory|cpu broke"):
        painted_by(engine, task_of(picture(40, 40), [(picture(40, 40, 1), 1.0)], RECIPE))


def test_an_error_of_the_program_itself_is_not_disguised(weights: Weights) -> None:
    """Other errors are reported with their traceback; the engine stays usable."""
    engine = LocalEngine(weights, CPU, "float32")
    network, engine._network = engine._network, Failing("shapes do not match")
    task = task_of(picture(40, 40), [(picture(40, 40, 1), 1.0)], RECIPE)
    with pytest.raises(UnexpectedError, match="RuntimeError: shapes") as caught:
        painted_by(engine, task)
    assert "in features" in caught.value.traceback
    engine._network = network
    assert painted_by(engine, task).steps == 3


def test_a_fingerprint_names_the_work() -> None:
    """The fingerprint depends on network, photo, style weight and recipe, but not on the job id."""
    photo, style = picture(40, 40), picture(40, 40, 1)
    task = task_of(photo, [(style, 1.0)], RECIPE)
    fingerprints = {
        task_fingerprint(task, "0" * 64),
        task_fingerprint(task, "1" * 64),
        task_fingerprint(replace(task, content=style), "0" * 64),
        task_fingerprint(replace(task, styles=((style, 2.0),)), "0" * 64),
        task_fingerprint(replace(task, recipe=replace(RECIPE, seed=1)), "0" * 64),
    }
    assert len(fingerprints) == 5
    assert task_fingerprint(replace(task, job_id="another"), "0" * 64) in fingerprints


@pytest.mark.slow
def test_bfloat16_is_taken_by_itself_for_pyramid_alone(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published recipes use float32, so that they match their source, unless bfloat16 is set."""
    monkeypatch.setattr("styled.engine.precision.bfloat16_time_ratio", lambda device: 0.1)
    published = replace(RECIPES["avgpool"], steps=1)
    for precision, recipes in (
        ("auto", [(RECIPE, "bfloat16"), (published, "float32")]),
        ("bfloat16", [(published, "bfloat16")]),
        ("float32", [(RECIPE, "float32")]),
    ):
        engine = LocalEngine(weights, CPU, precision)  # type: ignore[arg-type]  # one of three
        for recipe, expected in recipes:
            assert finish(engine, recipe).precision == expected


def test_a_memory_limit_below_the_network_itself_is_a_configuration_error(
    weights: Weights,
) -> None:
    """The message names the limit and the minimum."""
    with pytest.raises(ConfigError, match=r"engine\.memory_limit: 100 MiB is less than"):
        LocalEngine(weights, CPU, "float32", memory_limit=100 << 20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured in /proc")
@pytest.mark.parametrize("masked", [False, True])
def test_a_memory_limit_is_kept_by_tiles(weights: Weights, masked: bool) -> None:
    """A picture that needs some 300 MB is painted in tiles under a limit of 200, with equal result.

    With a mask too, whose edge lies between the tiles' edges. The actual memory of tiles is
    measured in `test_memory_estimate`.
    """
    content, style = picture(512, 448), [(picture(256, 256, 1), 1.0)]
    if masked:
        mask = (
            torch.linspace(-1, 2, content.shape[3]).clamp(0, 1).expand(1, 1, content.shape[2], -1)
        )
        content = torch.cat([content, mask], dim=1)
    recipe = replace(RECIPE, steps=1)
    unlimited = finish(LocalEngine(weights, CPU, "float32"), recipe, content, style)
    engine = LocalEngine(weights, CPU, "float32", memory_limit=1 << 40)
    engine._memory_limit = engine._resident_bytes + (200 << 20)
    limited = finish(engine, recipe, content, style)
    assert (unlimited.tile_px, limited.tile_px) == (None, 256)
    assert limited.degraded == ()
    torch.testing.assert_close(limited.image, unlimited.image, rtol=0, atol=1e-3)


def finish(
    engine: LocalEngine,
    recipe: Recipe,
    content: Tensor | None = None,
    styles: list[tuple[Tensor, float]] | None = None,
) -> Painted:
    """Paint to the end."""
    content = picture(40, 40) if content is None else content
    return painted_by(engine, task_of(content, styles or [(picture(40, 40, 1), 1.0)], recipe))

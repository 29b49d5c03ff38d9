"""The engine as the configuration asks for it: threads, and a precision that does not change."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import ClassVar

import pytest
import structlog
import torch

from styled.config import Config, default_config
from styled.engine.vgg import Convolutions
from styled.jobs.io_pool import IoDone, ThreadIoPool
from styled.jobs.protocols import Beat
from styled.ops.pulse import Pulse
from styled.stages import LocalEngineFactory, build_engine
from tests.engine.conftest import SHALLOW, picture, task_of, untrained


@pytest.fixture(scope="module")
def network() -> Convolutions:
    """Return the untrained network, which takes seconds to make."""
    return untrained()


@pytest.fixture(autouse=True)
def _network_at_hand(monkeypatch: pytest.MonkeyPatch, network: Convolutions) -> None:
    monkeypatch.setattr("styled.engine.weights.untrained", lambda: network)
    monkeypatch.setattr("styled.engine.local.WARM_UP", SHALLOW)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return a configuration of the untrained network on the CPU, with a state folder."""
    config = default_config(tmp_path)
    config.state.mkdir()
    return configured(config, weights="untrained", device="cpu")


class Measured:
    """Plays the measurement: bfloat16 takes `share` of float32's time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.share = 0.5
        self.times = 0
        monkeypatch.setattr("styled.engine.device.bfloat16_share", self.measure)

    def measure(self, device: torch.device) -> float:
        """Count, and return the share."""
        self.times += 1
        return self.share


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    return Measured(monkeypatch)


def configured(config: Config, **engine: object) -> Config:
    """Return the configuration with changes to its engine."""
    return replace(config, engine=config.engine.model_copy(update=engine))


def precision_of(config: Config) -> str:
    """Start, and return the precision that was chosen."""
    return build_engine(config, lambda done, total: None).info.precision


@pytest.mark.usefixtures("measured")
def test_engine_threads_are_those_that_paint_beside_an_io_pool(config: Config) -> None:
    """The threads that decode on one core each leave the engine's its own count."""

    class Count:
        part: ClassVar[str] = "count"
        log_context: ClassVar[dict[str, str]] = {}

        def run(self, beat: Beat) -> int:
            return torch.get_num_threads()

    events: SimpleQueue[IoDone] = SimpleQueue()
    torch.set_num_threads(1)
    engine = build_engine(configured(config, threads=2), lambda done, total: None)
    pool = ThreadIoPool(2, events, Pulse())
    recipe = replace(SHALLOW, steps=2, scales=None)
    task = task_of(picture(40, 40), [(picture(40, 40, 1), 1.0)], recipe)
    counts = []
    for _ in engine.run(task):
        pool.submit(Count())
        counts.append((torch.get_num_threads(), events.get(timeout=60).result))
    pool.close()
    assert engine.info.threads == 2
    assert set(counts) == {(2, 1)}


@pytest.mark.usefixtures("measured")
def test_an_io_pool_that_was_there_first_changes_nothing(config: Config) -> None:
    """An engine's thread that first asks torch after that would be told of one core."""
    torch.set_num_threads(3)
    factory = LocalEngineFactory(config, lambda done, total: None)
    counts: list[int] = []

    def use() -> None:
        torch.set_num_threads(1)  # as the pool does, in another thread, before this one asks
        engine = factory.make()
        counts.append(engine.info.threads)
        recipe = replace(SHALLOW, steps=1, scales=None)
        for _ in engine.run(task_of(picture(40, 40), [(picture(40, 40, 1), 1.0)], recipe)):
            counts.append(torch.get_num_threads())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert set(counts) == {3}


@pytest.mark.usefixtures("measured")
def test_auto_takes_as_many_threads_as_torch_does(config: Config) -> None:
    """OMP_NUM_THREADS and the like keep their meaning."""
    torch.set_num_threads(3)
    assert build_engine(config, lambda done, total: None).info.threads == 3


def test_the_second_start_does_not_measure(config: Config, measured: Measured) -> None:
    """What the first has found holds, even if a measurement would now come out otherwise."""
    assert precision_of(config) == "bfloat16"
    measured.share = 2.0
    assert precision_of(config) == "bfloat16"
    assert measured.times == 1


def test_float32_is_remembered_too(config: Config, measured: Measured) -> None:
    """A lucky measurement later does not change the pixels either."""
    measured.share = 2.0
    assert precision_of(config) == "float32"
    measured.share = 0.1
    assert precision_of(config) == "float32"
    assert measured.times == 1


def test_another_torch_is_measured_anew(
    config: Config, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade may have brought faster kernels; the way back finds what was there."""
    assert precision_of(config) == "bfloat16"
    with monkeypatch.context() as upgraded:
        upgraded.setattr(torch, "__version__", "99.0")
        measured.share = 2.0
        assert precision_of(config) == "float32"
    assert precision_of(config) == "bfloat16"
    assert measured.times == 2


def test_another_cpu_is_measured_anew(
    config: Config, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state folder may move to another machine."""
    precision_of(config)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX9000")
    measured.share = 2.0
    assert precision_of(config) == "float32"


def test_a_damaged_record_is_said_in_the_log_and_measured_anew(
    config: Config, measured: Measured
) -> None:
    """It is replaced, so that the next start has something to go by."""
    path = config.state / "precision.json"
    path.write_text("{oh")
    with structlog.testing.capture_logs() as logs:
        assert precision_of(config) == "bfloat16"
    (line,) = [line for line in logs if line["event"] == "precision.not_remembered"]
    assert line["log_level"] == "warning"
    assert str(path) in line["reason"]
    assert list(json.loads(path.read_bytes()).values()) == [{torch.__version__: "bfloat16"}]
    assert precision_of(config) == "bfloat16"
    assert measured.times == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_neither_measured_nor_remembered(
    config: Config, measured: Measured, precision: str
) -> None:
    """Only `auto` has something to find out."""
    assert precision_of(configured(config, precision=precision)) == precision
    assert measured.times == 0
    assert not (config.state / "precision.json").exists()

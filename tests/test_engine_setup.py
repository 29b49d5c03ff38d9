"""Creating the engine from the configuration: thread count, and a stable precision."""

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

from styled.app import LocalEngineFactory, build_engine
from styled.config import Config, default_config
from styled.engine.vgg import Convolutions
from styled.job_io.io_pool import IoDone, ThreadIoPool
from styled.job_io.protocols import SendHeartbeat
from styled.ops.heartbeats import Heartbeats
from tests.engine.conftest import SHALLOW, picture, task_of, untrained


@pytest.fixture(scope="module")
def network() -> Convolutions:
    """Return the untrained network, which takes seconds to compute."""
    return untrained()


@pytest.fixture(autouse=True)
def _use_cached_network(monkeypatch: pytest.MonkeyPatch, network: Convolutions) -> None:
    monkeypatch.setattr("styled.engine.weights.untrained", lambda: network)
    monkeypatch.setattr("styled.engine.local_engine.WARM_UP", SHALLOW)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return a configuration of the untrained network on the CPU, with a state folder."""
    config = default_config(tmp_path)
    config.state.mkdir()
    return configured(config, weights="untrained", device="cpu")


class Measured:
    """A fake measurement: bfloat16 takes `ratio` of float32's time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ratio = 0.5
        self.times = 0
        monkeypatch.setattr("styled.engine.precision.bfloat16_time_ratio", self.measure)

    def measure(self, device: torch.device) -> float:
        """Count the call and return the ratio."""
        self.times += 1
        return self.ratio


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    return Measured(monkeypatch)


def configured(config: Config, **engine: object) -> Config:
    """Return the configuration with changed engine settings."""
    return replace(config, engine=config.engine.model_copy(update=engine))


def precision_of(config: Config) -> str:
    """Create the engine and return its precision."""
    return build_engine(config, lambda done, total: None).info.precision


@pytest.mark.usefixtures("measured")
def test_engine_threads_are_those_that_paint_beside_an_io_pool(config: Config) -> None:
    """The I/O pool's threads use one core each, without changing the engine thread's count."""

    class Count:
        part: ClassVar[str] = "count"
        log_context: ClassVar[dict[str, str]] = {}

        def run(self, heartbeat: SendHeartbeat) -> int:
            return torch.get_num_threads()

    events: SimpleQueue[IoDone] = SimpleQueue()
    torch.set_num_threads(1)
    engine = build_engine(configured(config, threads=2), lambda done, total: None)
    pool = ThreadIoPool(2, events, Heartbeats())
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
    """The factory reads the count early: threads started after the pool's call inherit one."""
    torch.set_num_threads(3)
    factory = LocalEngineFactory(config, lambda done, total: None)
    counts: list[int] = []

    def use() -> None:
        torch.set_num_threads(1)  # as the pool does in another thread, before this one reads it
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
    """torch's own count, for example from OMP_NUM_THREADS, is kept."""
    torch.set_num_threads(3)
    assert build_engine(config, lambda done, total: None).info.threads == 3


def test_the_second_start_does_not_measure(config: Config, measured: Measured) -> None:
    """The stored precision is used, even if a new measurement would differ."""
    assert precision_of(config) == "bfloat16"
    measured.ratio = 2.0
    assert precision_of(config) == "bfloat16"
    assert measured.times == 1


def test_float32_is_remembered_too(config: Config, measured: Measured) -> None:
    """A stored float32 is kept, even if a new measurement would favour bfloat16."""
    measured.ratio = 2.0
    assert precision_of(config) == "float32"
    measured.ratio = 0.1
    assert precision_of(config) == "float32"
    assert measured.times == 1


def test_another_torch_is_measured_again(
    config: Config, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another torch version is measured; the entry of the earlier version is kept."""
    assert precision_of(config) == "bfloat16"
    with monkeypatch.context() as upgraded:
        upgraded.setattr(torch, "__version__", "99.0")
        measured.ratio = 2.0
        assert precision_of(config) == "float32"
    assert precision_of(config) == "bfloat16"
    assert measured.times == 2


def test_another_cpu_is_measured_again(
    config: Config, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another CPU, as after moving the state folder, the precision is measured."""
    precision_of(config)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX9000")
    measured.ratio = 2.0
    assert precision_of(config) == "float32"


def test_a_damaged_record_is_reported_in_the_log_and_measured_again(
    config: Config, measured: Measured
) -> None:
    """A damaged file is logged and replaced."""
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
    """An explicit precision is neither measured nor stored."""
    assert precision_of(configured(config, precision=precision)) == precision
    assert measured.times == 0
    assert not (config.state / "precision.json").exists()

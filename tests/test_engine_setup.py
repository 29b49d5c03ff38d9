"""The engine as the configuration asks for it: threads, and a precision that does not change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
import torch

from styled.config import Config, default_config
from styled.engine.vgg import Convolutions
from styled.jobs.backstage import Backstage
from styled.stages import build_engine
from tests.engine.conftest import SHALLOW, picture, untrained


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
    return build_engine(config, lambda done, total: None).facts.precision


@pytest.mark.usefixtures("measured")
def test_engine_threads_are_those_that_paint_beside_a_backstage(config: Config) -> None:
    """The thread that reads photos on one core leaves the engine's its own count."""
    torch.set_num_threads(1)
    engine = build_engine(configured(config, threads=2), lambda done, total: None)
    backstage = Backstage()
    try:
        assert backstage.do(torch.get_num_threads).result(60) == 1
        recipe = replace(SHALLOW, steps=2, scales=None)
        styles = [(picture(40, 40, 1), 1.0)]
        counts = [torch.get_num_threads() for _ in engine.stylize(picture(40, 40), styles, recipe)]
        assert backstage.do(torch.get_num_threads).result(60) == 1
    finally:
        backstage.close()
    assert engine.facts.threads == 2
    assert counts == [2, 2]


@pytest.mark.usefixtures("measured")
def test_auto_takes_as_many_threads_as_torch_does(config: Config) -> None:
    """OMP_NUM_THREADS and the like keep their meaning."""
    torch.set_num_threads(3)
    assert build_engine(config, lambda done, total: None).facts.threads == 3


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

"""Fixtures shared by the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from styled.cli.main import app
from styled.engine.vgg import Convolutions
from tests.engine.conftest import SHALLOW, untrained

Run = Callable[..., Result]


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder and return it; hide all configurations of this machine."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("styled.cli.find_config.SYSTEM_CONFIG", tmp_path / "etc/styled/config.yaml")
    monkeypatch.setenv("COLUMNS", "200")
    # Drawing a large picture takes seconds, and these tests do not need one.
    monkeypatch.setattr("styled.cli.init.FIRST_STYLE_SIZE", (64, 48))
    return folder


@pytest.fixture
def run(cwd: Path) -> Run:
    """Return a function that runs `styled` with arguments; `output` has stdout and stderr."""

    def run_styled(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    return run_styled


@pytest.fixture(scope="session")
def untrained_network() -> Convolutions:
    """Return the untrained network; it is created only once, because that takes seconds."""
    return untrained()


@pytest.fixture
def _cached_network(monkeypatch: pytest.MonkeyPatch, untrained_network: Convolutions) -> None:
    monkeypatch.setattr("styled.engine.weights.untrained", lambda: untrained_network)
    monkeypatch.setattr("styled.engine.local_engine.WARM_UP", SHALLOW)
    # `precision: auto` would take nine tenths of the time of these tests.
    monkeypatch.setattr("styled.engine.precision.bfloat16_time_ratio", lambda device: 1.0)


def draw(path: Path, color: str = "teal", size: tuple[int, int] = (64, 48)) -> Path:
    """Write a picture with two colours."""
    image = Image.new("RGB", size, color)
    image.paste("gold", (4, 4, size[0] // 2, size[1] // 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path

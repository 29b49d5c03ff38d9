"""What the tests of the command line share."""

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
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty current folder, away from any configuration of this machine."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(
        "styled.cli.working_folder.OF_THE_SERVICE", tmp_path / "etc/styled/config.yaml"
    )
    monkeypatch.setenv("COLUMNS", "200")
    # Drawing a large picture takes seconds, and nothing here looks at it.
    monkeypatch.setattr("styled.cli.init.FIRST_STYLE_SIZE", (64, 48))
    return folder


@pytest.fixture
def run(here: Path) -> Run:
    """Return a function that runs `styled` with arguments; `output` holds all that it says."""

    def run_styled(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    return run_styled


@pytest.fixture(scope="session")
def untrained_network() -> Convolutions:
    """Return the untrained network, which takes seconds to make."""
    return untrained()


@pytest.fixture
def _network_at_hand(monkeypatch: pytest.MonkeyPatch, untrained_network: Convolutions) -> None:
    monkeypatch.setattr("styled.engine.weights.untrained", lambda: untrained_network)
    monkeypatch.setattr("styled.engine.local.WARM_UP", SHALLOW)


def draw(path: Path, colour: str = "teal", size: tuple[int, int] = (64, 48)) -> Path:
    """Write a picture with something in it."""
    image = Image.new("RGB", size, colour)
    image.paste("gold", (4, 4, size[0] // 2, size[1] // 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path

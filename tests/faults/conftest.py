"""A working folder whose pictures take a moment, for a daemon that is treated badly."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.engine.weights import exported, load_weights
from tests.studio import Studio, make_studio

QUICK = "steps: 2, content_layers: {relu2_1: 1}, style_layers: {relu1_1: 1, relu2_1: 1}"
"""What makes a picture take hundredths of a second. Tests that need time put steps for it."""

FAST = f"""\
default_style: swirls
styles:
  swirls:
    image: styles/swirls.png
    recipe: udacity
    overrides: &small {{size: {{long_edge: 48}}, {QUICK}}}
  coffee:
    image: styles/coffee.jpg
    recipe: udacity
    overrides: *small
folders:
  both: [swirls, coffee]
engine: {{device: cpu, precision: float32, weights: WEIGHTS}}
intake: {{settle_seconds: 0.2, truncated_grace_seconds: 2}}
"""


AQUARELLE = f"""\
  aquarelle:
    image: styles/coffee.jpg
    recipe: udacity
    overrides: {{size: {{long_edge: 48}}, {QUICK.replace("steps: 2", "steps: 20")}}}
folders:"""


def add_slow_style(studio: Studio) -> None:
    """Add the style `aquarelle`, which takes some seconds; its folder comes first."""
    text = studio.config.read_text()
    studio.config.write_text(text.replace("folders:", AQUARELLE))
    studio.take_time(0.1)


def paint_slowly(studio: Studio, steps: int) -> None:
    """Have each picture take so many steps, at most ten of them a second where it is forked."""
    slow = QUICK.replace("steps: 2", f"steps: {steps}")
    studio.config.write_text(studio.config.read_text().replace(QUICK, slow))
    studio.take_time(0.1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the untrained network, which loads sooner than it is made."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    path.write_bytes(exported(load_weights("untrained")))
    return path


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes compute with one thread: pictures this small gain nothing by more."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def studio(tmp_path: Path, weights: Path) -> Studio:
    """Make a working folder with two styles that paint a picture in a moment."""
    return make_studio(tmp_path / "studio", FAST.replace("WEIGHTS", str(weights)))

"""A working folder whose pictures take a moment, for a daemon that is treated badly."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.engine.weights import exported, load_weights
from tests.studio import Studio, make_studio

FAST = """\
default_style: swirls
styles:
  swirls:
    image: styles/swirls.png
    recipe: udacity
    overrides: &small {{size: {{long_edge: 48}}, steps: 2}}
  coffee:
    image: styles/coffee.jpg
    recipe: udacity
    overrides: *small
folders:
  both: [swirls, coffee]
engine: {{device: cpu, weights: {weights}}}
intake: {{settle_seconds: 0.2, truncated_grace_seconds: 2}}
"""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the untrained network, which loads sooner than it is made."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    path.write_bytes(exported(load_weights("untrained")))
    return path


@pytest.fixture
def studio(tmp_path: Path, weights: Path) -> Studio:
    """Make a working folder with two styles that paint a picture in a tenth of a second."""
    return make_studio(tmp_path / "studio", FAST.format(weights=weights))

"""`styled demo`, run as the README describes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

# Long, because whole programs run, possibly on a busy machine.
pytestmark = pytest.mark.timeout(1300)


def test_the_demo_shows_a_painting_and_says_where_it_is(tmp_path: Path) -> None:
    """Without network access the demo writes a result and a sidecar, and prints their path."""
    completed = subprocess.run(
        [sys.executable, "-m", "styled", "demo", "--out", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "TORCH_HOME": str(tmp_path / "nothing")},
    )
    assert completed.returncode == 0, completed.stderr
    result = tmp_path / "demo/outbox/red-trees/lighthouse.jpg"
    assert str(result) in completed.stdout
    assert "untrained" in completed.stdout
    with Image.open(result) as picture:
        assert max(picture.size) >= 256
    sidecar = json.loads(result.with_name("lighthouse.jpg.json").read_bytes())
    assert {"kind": "weights", "message": "the network is untrained"} in sidecar["degraded"]
    second = subprocess.run(
        [sys.executable, "-m", "styled", "demo", "--out", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 73
    assert "already there" in second.stderr

"""`styled demo`, as README tells a newcomer to run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

# Whole programs, on machines that may be busy with other things.
pytestmark = pytest.mark.timeout(1300)


def test_the_demo_shows_a_painting_and_says_where_it_is(tmp_path: Path) -> None:
    """Without network or files the demo ends with a result, a sidecar and their paths."""
    done = subprocess.run(
        [sys.executable, "-m", "styled", "demo", "--out", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "TORCH_HOME": str(tmp_path / "nothing")},
    )
    assert done.returncode == 0, done.stderr
    result = tmp_path / "demo/outbox/red-trees/lighthouse.jpg"
    assert str(result) in done.stdout
    assert "untrained" in done.stdout
    with Image.open(result) as picture:
        assert max(picture.size) >= 256
    facts = json.loads(result.with_name("lighthouse.jpg.json").read_bytes())
    assert {"kind": "weights", "message": "the network is untrained"} in facts["degraded"]
    again = subprocess.run(
        [sys.executable, "-m", "styled", "demo", "--out", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert again.returncode == 73
    assert "already there" in again.stderr

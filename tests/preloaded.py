"""What the fork server of `tests.daemon_harness` does once for all processes forked from it."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from functools import cache
from pathlib import Path

import typer.main

import styled.cli.main
from styled.config.load import load_config
from styled.engine import local_engine, weights
from styled.engine.objective import Losses
from styled.engine.scale_run import ScaleRun
from tests.daemon_harness import PYRAMID, UNTRAINED_WEIGHTS
from tests.engine.conftest import SHALLOW, untrained

weights.untrained = untrained
_UNTRAINED = untrained()  # builds and caches the network, which takes a second
_SHA256 = weights.weights_sha256(_UNTRAINED)
_weights_sha256 = weights.weights_sha256
weights.weights_sha256 = lambda convolutions: (
    _SHA256 if convolutions is _UNTRAINED else _weights_sha256(convolutions)
)
_read_file = weights._read_file
weights._read_file = lambda path: _UNTRAINED if path.name == UNTRAINED_WEIGHTS else _read_file(path)
# The parser of the command line, and that of the configuration with its nested models.
typer.main.get_command = cache(typer.main.get_command)
typer.main.get_command(styled.cli.main.app)
with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "config.yaml").write_text(PYRAMID)
    load_config(Path(folder) / "config.yaml")
# Warming up few layers saves half a second. Daemons that are not forked warm up the whole network.
local_engine.WARM_UP = SHALLOW
_advance = ScaleRun.advance


def _take_time(scale_run: ScaleRun) -> Losses:
    """Take a step, after a sleep of `STYLED_TESTS_STEP_SECONDS`, which uses no CPU time."""
    time.sleep(float(os.environ.get("STYLED_TESTS_STEP_SECONDS", "0")))
    return _advance(scale_run)


ScaleRun.advance = _take_time  # type: ignore[method-assign, assignment]  # the patch is intended
gc.collect()
gc.freeze()  # the collector skips these objects, so that forked processes share their pages

"""Fixtures of the fault tests: a working folder whose jobs take hundredths of a second."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from styled.engine.weights import Weights, exported
from tests.daemon_harness import (
    SHORTCUTS,
    UNTRAINED_WEIGHTS,
    Daemon,
    DaemonHarness,
    make_harness,
)
from tests.engine.conftest import untrained

QUICK = "steps: 2, content_layers: {relu2_1: 1}, style_layers: {relu1_1: 1, relu2_1: 1}"
"""Overrides with which a job takes hundredths of a second; some tests raise the steps in it."""

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


def add_slow_style(harness: DaemonHarness) -> None:
    """Add the style `aquarelle`, which takes some seconds, and whose folder comes first."""
    text = harness.config.read_text()
    harness.config.write_text(text.replace("folders:", AQUARELLE))
    harness.take_time(0.1)


def paint_slowly(harness: DaemonHarness, steps: int) -> None:
    """Make each job take this many steps, of at least 0.1 s each if the daemon is forked."""
    slow = QUICK.replace("steps: 2", f"steps: {steps}")
    harness.config.write_text(harness.config.read_text().replace(QUICK, slow))
    harness.take_time(0.1)


STOP_LIMIT_SECONDS = 15.0
"""A stop takes 5 s at most, and several times as long on a machine that is very busy."""


def wait_until_amid_a_job(harness: DaemonHarness, daemon: Daemon) -> None:
    """Wait until some steps of a job have been taken."""
    daemon.wait_for("job.claimed")
    with closing(sqlite3.connect(harness.folder / "state/journal.sqlite3")) as journal:
        query = "SELECT max(fraction) FROM jobs WHERE state = 'running'"
        daemon.wait_until(lambda: (journal.execute(query).fetchone()[0] or 0) > 0)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the untrained network: loading it is faster than generating it."""
    path = tmp_path_factory.mktemp("weights") / UNTRAINED_WEIGHTS
    path.write_bytes(exported(Weights(untrained(), "untrained", "0" * 64)))
    return path


@pytest.fixture(autouse=True)
def _shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make processes that are not forked start faster."""
    monkeypatch.setenv("PYTHONPATH", SHORTCUTS)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit started processes to one OpenMP thread: images this small gain nothing from more."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def harness(tmp_path: Path, weights: Path) -> DaemonHarness:
    """Make a working folder with two styles that take hundredths of a second."""
    return make_harness(tmp_path / "harness", FAST.replace("WEIGHTS", str(weights)))

"""Starts that fail: the exit code and the error message, within seconds."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.daemon_harness import DaemonHarness

# Long, because whole programs run, possibly on a busy machine.
pytestmark = pytest.mark.timeout(400)


def run(harness: DaemonHarness, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `styled run` until it exits."""
    return subprocess.run(
        harness.command("run"),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_missing_weights_without_a_network_exit_69_with_three_remedies(
    harness: DaemonHarness,
) -> None:
    """Without a weights file and network access the exit code is 69, with three remedies."""
    text = harness.config.read_text().replace("weights: untrained", "weights: imagenet")
    harness.config.write_text(text)
    completed = run(
        harness,
        TORCH_HOME=str(harness.folder / "nothing"),
        STYLED_WEIGHTS_URL="http://127.0.0.1:9/vgg19.pth",
    )
    assert completed.returncode == 69
    assert completed.stderr.count("  - ") == 3
    assert "Traceback" not in completed.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("styles:", "stiles:", 'did you mean "styles"'),
        ("steps: 3", "steps: many", "steps"),
    ],
)
def test_a_bad_configuration_exits_78_in_words(
    harness: DaemonHarness, old: str, new: str, message: str
) -> None:
    """Unknown keys and wrong values exit with 78 and a message, without a traceback."""
    harness.config.write_text(harness.config.read_text().replace(old, new))
    completed = run(harness)
    assert completed.returncode == 78
    assert message in completed.stderr
    assert "Traceback" not in completed.stderr


def test_a_device_that_is_missing_exits_69(harness: DaemonHarness) -> None:
    """A configured GPU that does not exist exits with 69; there is no fallback to the CPU."""
    text = harness.config.read_text().replace("device: cpu", "device: cuda:63")
    harness.config.write_text(text)
    completed = run(harness)
    assert completed.returncode == 69
    assert "cuda:63" in completed.stderr


def test_folders_that_cannot_be_made_exit_73(harness: DaemonHarness) -> None:
    """If a file is in place of the outbox, the exit code is 73 and the message names it."""
    (harness.folder / "outbox").write_text("a file")
    completed = run(harness)
    assert completed.returncode == 73
    assert "outbox" in completed.stderr

"""Starts that can't succeed: the right exit code, in words, within seconds."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.studio import Studio

# Whole programs, on machines that may be busy with other things.
pytestmark = pytest.mark.timeout(400)


def run(studio: Studio, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start `styled run` and wait until it has given up."""
    return subprocess.run(
        studio.command("run"),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_missing_weights_without_a_network_exit_69_with_three_remedies(studio: Studio) -> None:
    """No file, no network: 69 at once, what to do, and no traceback."""
    text = studio.config.read_text().replace("weights: untrained", "weights: imagenet")
    studio.config.write_text(text)
    done = run(
        studio,
        TORCH_HOME=str(studio.folder / "nothing"),
        STYLED_WEIGHTS_URL="http://127.0.0.1:9/vgg19.pth",
    )
    assert done.returncode == 69
    assert done.stderr.count("  - ") == 3
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("styles:", "stiles:", 'did you mean "styles"'),
        ("steps: 3", "steps: many", "steps"),
    ],
)
def test_a_bad_configuration_exits_78_in_words(
    studio: Studio, old: str, new: str, said: str
) -> None:
    """Unknown keys and wrong values: 78, and what is wrong."""
    studio.config.write_text(studio.config.read_text().replace(old, new))
    done = run(studio)
    assert done.returncode == 78
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_device_that_is_missing_exits_69(studio: Studio) -> None:
    """A GPU that was asked for by name is not replaced."""
    text = studio.config.read_text().replace("device: cpu", "device: cuda:63")
    studio.config.write_text(text)
    done = run(studio)
    assert done.returncode == 69
    assert "cuda:63" in done.stderr


def test_folders_that_cannot_be_made_exit_73(studio: Studio) -> None:
    """A file where the outbox should be: 73, naming it."""
    (studio.folder / "outbox").write_text("a file")
    done = run(studio)
    assert done.returncode == 73
    assert "outbox" in done.stderr

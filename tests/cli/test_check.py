"""`styled check`: every problem at once, and the code of the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.cli.init import init_folder
from tests.cli.conftest import Run


@pytest.mark.usefixtures("_network_at_hand")
def test_a_good_folder_passes(run: Run, here: Path) -> None:
    """With everything right each check says so, and the code is 0."""
    init_folder(here, weights="untrained")
    result = run("check")
    assert result.exit_code == 0, result.output
    starts = [line.split(":")[0] for line in result.output.splitlines()]
    assert starts == [
        "ok  configuration config.yaml",
        "ok  style images",
        "ok  folders",
        "ok  weights",
        "ok  device",
    ]
    assert sorted(path.name for path in here.iterdir()) == [
        "config.yaml", "inbox", "outbox", "styles",
    ]  # fmt: skip


def test_all_problems_appear_at_once_and_the_first_decides(run: Run, here: Path) -> None:
    """A broken style, folder and network are told together; the rest is still checked."""
    init_folder(here, weights="missing.pth")
    (here / "styles/red-trees.png").write_bytes(b"no picture")
    (here / "archive").write_text("a file")
    result = run("check")
    assert result.exit_code == 78
    assert "styles.red-trees:" in result.output
    assert "archive: " in result.output
    assert "missing.pth" in result.output
    assert "ok  device" in result.output


def test_a_missing_network_is_69_and_fetches_nothing(run: Run, here: Path) -> None:
    """Checking is no reason for a download of half a gigabyte."""
    init_folder(here)
    result = run("check")
    assert result.exit_code == 69
    assert "pretrained network is not on this machine" in result.output
    assert "untrained" in result.output


def test_a_wrong_configuration_is_78(run: Run, here: Path) -> None:
    """A configuration that can't be read ends the check with file, line and key."""
    (here / "config.yaml").write_text("output: {quality: high}\n")
    result = run("check")
    assert result.exit_code == 78
    assert "config.yaml:1: output.quality:" in result.output


def test_a_missing_configuration_is_78(run: Run, here: Path) -> None:
    """Without any configuration the error names where one is looked for."""
    result = run("check")
    assert result.exit_code == 78
    assert "config.yaml" in result.output

"""Tests of `styled check`: it reports all problems, and its exit code is that of the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.cli import find_config
from styled.cli.init import init_folder
from styled.engine.weights import imagenet_file
from tests.cli.conftest import Run


@pytest.mark.usefixtures("_cached_network")
def test_a_good_folder_passes(run: Run, cwd: Path) -> None:
    """Without problems each check prints one line, and the exit code is 0."""
    init_folder(cwd, weights="untrained")
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
    assert sorted(path.name for path in cwd.iterdir()) == [
        "config.yaml", "inbox", "outbox", "styles",
    ]  # fmt: skip


def test_all_problems_appear_at_once_and_the_first_decides(run: Run, cwd: Path) -> None:
    """A broken style, folder and network are all reported; the other checks still run."""
    init_folder(cwd, weights="missing.pth")
    (cwd / "styles/red-trees.png").write_bytes(b"no picture")
    (cwd / "archive").write_text("a file")
    result = run("check")
    assert result.exit_code == 78
    assert "styles.red-trees:" in result.output
    assert "archive: " in result.output
    assert "missing.pth" in result.output
    assert "ok  device" in result.output


def test_a_missing_network_is_69_and_fetches_nothing(run: Run, cwd: Path) -> None:
    """A check does not download the network."""
    init_folder(cwd)
    result = run("check")
    assert result.exit_code == 69
    assert "pretrained network is not on this machine" in result.output
    assert "untrained" in result.output


def test_a_services_network_is_in_its_cache(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who checks the service's configuration is another user, whose cache does not matter."""
    config = init_folder(find_config.SYSTEM_CONFIG.parent, folders=tmp_path / "data").config
    monkeypatch.setattr("styled.cli.daemon_weights.SERVICE_CACHE", tmp_path / "cache/torch")
    file = tmp_path / "cache/torch/hub/checkpoints" / imagenet_file().name
    assert run("check").exit_code == 69
    file.parent.mkdir(parents=True)
    file.write_bytes(b"548 MB")
    for command in ("check", "doctor"):
        assert f"weights: the daemon's are at {file}" in run(command, "-c", config).output
    own = init_folder(tmp_path / "own").config
    assert "the daemon's are at" not in run("check", "-c", own).output


def test_a_wrong_configuration_is_78(run: Run, cwd: Path) -> None:
    """An invalid configuration ends the check with an error with file, line and key."""
    (cwd / "config.yaml").write_text("output: {quality: high}\n")
    result = run("check")
    assert result.exit_code == 78
    assert "config.yaml:1: output.quality:" in result.output


def test_a_missing_configuration_is_78(run: Run, cwd: Path) -> None:
    """Without a configuration the error lists the paths that were searched."""
    result = run("check")
    assert result.exit_code == 78
    assert "config.yaml" in result.output

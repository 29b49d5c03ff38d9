"""Commands of a running daemon whose configuration has become invalid since its start."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.daemon_harness import DaemonHarness

WRONG = ("stiles: {}\n", "\tx: [\n")


@pytest.mark.parametrize("wrong", WRONG)
def test_the_daemon_can_still_be_asked(harness: DaemonHarness, wrong: str, tmp_path: Path) -> None:
    """All commands that ask it say what is wrong and go on with what the daemon has loaded."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        harness.config.write_text(harness.config.read_text() + wrong)
        assert harness.do("pause").returncode == 0
        harness.drop("a.jpg", "coffee", (96, 72))
        daemon.wait_for("jobs.submitted")
        for command in (
            ("status", "--json"), ("jobs", "--json"), ("explain", "--json", "a.jpg"),
            ("first", "a.jpg"), ("report", "a.jpg", "-o", str(tmp_path / "report.zip")),
        ):  # fmt: skip
            result = harness.do(*command)
            assert result.returncode == 0, result.stderr
            assert "config.yaml:" in result.stderr
            assert "keeps what it has loaded" in result.stderr
            if "--json" in command:
                json.loads(result.stdout)
        with zipfile.ZipFile(tmp_path / "report.zip") as report:
            (checked,) = [
                finding
                for finding in json.loads(report.read("doctor.json"))
                if finding["subject"] == "configuration"
            ]
        assert checked["level"] == "fail"
        doctor = harness.do("doctor", "--json")
        assert doctor.returncode == 78
        (finding,) = [one for one in json.loads(doctor.stdout) if one["subject"] == "configuration"]
        assert finding["level"] == "fail"
        assert "config.yaml:" in finding["message"]
        for words in (
            "check",
            "retry --all",
            "gallery",
            "config show",
        ):  # change files, or check it
            assert harness.do(*words.split()).returncode == 78, words
        assert harness.do("resume").returncode == 0
        daemon.wait_for("job.published")
    assert harness.do("status").returncode == 78


def test_a_reload_changes_what_commands_go_on_with(harness: DaemonHarness) -> None:
    """After a valid reload it is the new configuration."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        harness.config.write_text(
            harness.config.read_text().replace("coffee:", "mocha:").replace("coffee]", "mocha]")
        )
        daemon.process.send_signal(1)
        daemon.wait_for("config.reloaded")
        harness.config.write_text("state: state\n[")
        photo = harness.folder / "inbox/mocha/a.jpg"
        result = harness.do("explain", "--json", str(photo.parent))
        assert "mocha" in json.loads(result.stdout)["reasons"][0]

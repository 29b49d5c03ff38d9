"""Tests of `styled report`: what a bug report gets, and what it does not."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import Run, draw
from tests.daemon_harness import DaemonHarness, make_harness

HOOK = "hooks: {on_done: [/bin/true, 'https://example.org/?key=SECRET']}\n"


@pytest.fixture
def harness(tmp_path: Path) -> DaemonHarness:
    """Return a working folder in which a photo was painted and another one rejected."""
    harness = make_harness(tmp_path / "work")
    harness.config.write_text(harness.config.read_text() + HOOK)
    harness.drop("trip/a.jpg", "coffee", (96, 72))
    (harness.folder / "inbox/b.jpg").write_bytes(b"no picture")
    return harness


def contents(path: Path) -> dict[str, str]:
    """Return name -> text of all files in a report."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_a_report_of_a_finished_and_of_a_rejected_photo(
    harness: DaemonHarness, tmp_path: Path
) -> None:
    """By a real daemon: its sidecar, its log lines and no other's, no path, no key, no picture."""
    with harness.running() as daemon:
        daemon.wait_for("job.published")
        daemon.wait_for("job.rejected")
        daemon.wait_until(lambda: harness.files("inbox") == [])
    for about, end in (
        ("outbox/swirls/trip/a.jpg", "outbox/swirls/trip/a.jpg.json"),
        ("archive/swirls/trip/a.jpg", "outbox/swirls/trip/a.jpg.json"),
        ("trip/a.jpg", "outbox/swirls/trip/a.jpg.json"),
        ("rejected/swirls/b.jpg", "rejected/swirls/b.jpg.json"),
    ):
        output = tmp_path / "report.zip"
        done = harness.do(
            "report", about if about.startswith("trip") else str(harness.folder / about),
            "--log", str(daemon.log), "--output", str(output),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files = contents(output)
        sidecar = json.loads((harness.folder / end).read_text())
        job = sidecar["job"]["id"]
        assert json.loads(files[f"jobs/{job}/sidecar.json"])["job"] == sidecar["job"]
        assert json.loads(files[f"jobs/{job}/job.json"])["id"] == job
        lines = [json.loads(line) for line in files[f"jobs/{job}/log.jsonl"].splitlines()]
        assert {line["job"] for line in lines} == {job}
        assert {line["event"] for line in lines} & {"job.published", "job.rejected"}
        assert json.loads(files["doctor.json"])
        assert json.loads(files["versions.json"])["torch"]
        assert "inbox: INBOX" in files["config.yaml"]
        everything = "".join(files.values())
        assert str(harness.folder) not in everything
        assert "SECRET" not in everything
        assert not [name for name in files if name.endswith(".jpg")]
        assert "report.zip" in done.stdout
        output.unlink()


@pytest.fixture
def folder(cwd: Path) -> Path:
    """Return a working folder in which styled has never run."""
    (cwd / "config.yaml").write_text(
        "default_style: oil\nstyles: {oil: {image: oil.png}}\nengine: {weights: untrained}\n"
    )
    draw(cwd / "oil.png")
    (cwd / "inbox").mkdir()
    return cwd


@pytest.mark.usefixtures("_cached_network")
def test_a_photo_that_is_not_taken_has_a_report_too(run: Run, folder: Path) -> None:
    """With what explain and doctor say; the picture only on request; nothing is overwritten."""
    draw(folder / "inbox/a.png")
    assert run("report", "inbox/a.png").exit_code == 0
    assert run("report", "--with-picture", "inbox/a.png").exit_code == 0
    files = contents(folder / "styled-report-photo.zip")
    assert json.loads(files["explanation.json"])["verdict"] == "new"
    assert "picture/a.png" not in files
    with zipfile.ZipFile(folder / "styled-report-photo-2.zip") as archive:
        assert archive.read("picture/a.png") == (folder / "inbox/a.png").read_bytes()


@pytest.mark.usefixtures("_cached_network")
def test_what_is_not_supported_is_reported(run: Run, folder: Path) -> None:
    """An unknown job, a file that is there already, a folder that is not, a log that is not."""
    draw(folder / "inbox/a.png")
    result = run("report", "0123456789ab")
    assert (result.exit_code, "no file and no job 0123456789ab" in result.output) == (2, True)
    (folder / "there.zip").write_text("mine")
    result = run("report", "inbox/a.png", "-o", "there.zip")
    assert (result.exit_code, "there.zip exists already" in result.output) == (2, True)
    assert (folder / "there.zip").read_text() == "mine"
    result = run("report", "inbox/a.png", "-o", "nowhere/a.zip")
    assert (result.exit_code, "can't be written" in result.output) == (73, True)
    result = run("report", "inbox/a.png", "--log", "nothing.log")
    assert (result.exit_code, "nothing.log can't be read" in result.output) == (73, True)
    assert not (folder / "styled-report-photo.zip").exists()

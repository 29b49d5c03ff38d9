"""Tests of `styled gallery`: rebuilding the page, and failures."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from styled.cli.init import init_folder
from styled.sidecar import InputInfo, JobInfo, Rejection, ResultInfo, Sidecar
from tests.cli.conftest import Run, draw


@pytest.fixture
def outbox(cwd: Path) -> Path:
    """Return the outbox of a working folder with two results and one rejected input."""
    init_folder(cwd)
    for number, name in enumerate(("a.png", os.fsdecode(b"caf\xe9\x1b[2J.png"))):
        path = draw(cwd / "outbox/oil" / name)
        publish(path, f"{number}", result=ResultInfo(
            path=f"oil/{name}", sha256="0" * 64, width=64, height=48, format="png"))  # fmt: skip
    broken = cwd / "rejected/oil/broken.jpg"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"broken")
    publish(broken, "9", rejected=Rejection(reason="it is no picture", failure="input"))
    return cwd / "outbox"


def publish(
    path: Path, job_id: str, result: ResultInfo | None = None, rejected: Rejection | None = None
) -> None:
    """Write the sidecar of a file."""
    timestamp = datetime(2026, 1, 1, tzinfo=UTC)
    job = JobInfo(
        id=job_id,
        attempts=1,
        resumed=False,
        submitted_at=timestamp,
        started_at=timestamp,
        finished_at=timestamp,
    )
    sidecar = Sidecar(
        job=job, input=InputInfo(path=path.name, bytes=6), result=result, rejected=rejected
    )
    path.with_name(f"{path.name}.json").write_bytes(sidecar.to_json())


def test_the_page_is_made_of_all_that_there_is(run: Run, outbox: Path) -> None:
    """The command prints the path and the number of entries, and can be repeated."""
    for _ in range(2):
        result = run("gallery")
        assert result.exit_code == 0, result.output
        assert result.output == f"{outbox / 'gallery.html'}  (2 paintings, 1 rejected)\n"
        assert b'"results":2,"rejected":1' in (outbox / "gallery.html").read_bytes()
        assert len(list(outbox.glob("gallery_files/thumbs/*/*-after.webp"))) == 2


def test_the_configuration_can_be_named(
    run: Run, outbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `-c` the command works in any folder."""
    monkeypatch.chdir(tmp_path)
    assert run("gallery", "-c", outbox.parent / "config.yaml").exit_code == 0
    assert (outbox / "gallery.html").exists()


def test_an_empty_outbox_has_an_empty_page(run: Run, cwd: Path) -> None:
    """A gallery without entries can be built."""
    init_folder(cwd)
    (cwd / "outbox").mkdir(exist_ok=True)
    result = run("gallery")
    assert result.exit_code == 0, result.output
    assert "(0 paintings, 0 rejected)" in result.output


def test_without_an_outbox_there_is_nothing_to_show(run: Run, cwd: Path) -> None:
    """A missing outbox is not created, because its disk may not be mounted."""
    init_folder(cwd)
    for folder in (cwd / "outbox",):
        if folder.exists():
            folder.rmdir()
    result = run("gallery")
    assert result.exit_code == 73
    assert "outbox can't be read" in result.output
    assert not (cwd / "outbox").exists()


def test_the_page_of_somebody_else_is_left_alone(run: Run, outbox: Path) -> None:
    """A page that styled has not made is kept; the error has a remedy."""
    (outbox / "gallery.html").write_text("mine")
    result = run("gallery")
    assert result.exit_code == 73
    assert "was not made by styled" in result.output
    assert "move it away" in result.output
    assert (outbox / "gallery.html").read_text() == "mine"


def test_without_a_configuration_it_is_78(run: Run) -> None:
    """Without a configuration the exit code is 78."""
    assert run("gallery").exit_code == 78


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_whom_the_outbox_does(run: Run, outbox: Path) -> None:
    """Files made by root belong to the owner of the outbox, so that the daemon can update them."""
    os.chown(outbox, 4711, 4712)
    assert run("gallery").exit_code == 0
    files = [outbox / "gallery.html", *(outbox / "gallery_files").rglob("*")]
    assert len(files) > 5
    assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(4711, 4712)}
    assert (outbox / "oil/a.png").stat().st_uid == 0


def test_another_user_may_not_rebuild_it(
    outbox: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon could not write it any more."""
    (outbox.parent / "state").mkdir(exist_ok=True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    result = run("gallery")
    assert (result.exit_code, "only the user that styled runs as" in result.output) == (73, True)
    assert not (outbox / "gallery.html").exists()

"""Tests of `styled retry`: only rejected photos are moved back into the inbox."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from styled.atomic import sync_folder
from styled.cli.init import init_folder
from styled.delivery import requeue
from styled.delivery.names import unused_path
from styled.journal.job import JobState
from styled.journal.journal import Journal
from styled.sidecar import InputInfo, JobInfo, Rejection, Sidecar
from tests.cli.conftest import Run
from tests.job_harness import Dropped

HOSTILE = os.fsdecode(b"caf\xe9\x1b[2J[bold].jpg")


@pytest.fixture
def rejected(cwd: Path) -> Path:
    """Return the folder of rejected inputs of a working folder, with three inputs."""
    init_folder(cwd)
    config = (cwd / "config.yaml").read_text()
    assert "styles:" in config
    folder = cwd / "rejected"
    style = style_of(cwd)
    for name in (f"{style}/a.jpg", f"{style}/trip/b.jpg", f"{style}/{HOSTILE}"):
        reject(folder / name, "4a")
    return folder


def style_of(cwd: Path) -> str:
    """Return the name of the style that `styled init` has created."""
    (image,) = (cwd / "styles").iterdir()
    return image.stem


def reject(path: Path, job_id: str) -> None:
    """Write a rejected input with its sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"photo")
    path.with_name(path.name + ".json").write_text(json.dumps({"job": {"id": job_id}}))


def files(folder: Path) -> list[str]:
    """Return the relative paths of all files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("arg", ["rejected/{}/a.jpg", "{}/a.jpg", "rejected/{}/a.jpg.json"])
def test_a_photo_is_named_by_any_of_its_paths(
    run: Run, cwd: Path, rejected: Path, arg: str
) -> None:
    """A path is relative to the current or the rejected folder, and may be that of the sidecar."""
    style = style_of(cwd)
    result = run("retry", arg.format(style))
    assert result.exit_code == 0, result.output
    assert files(cwd / "inbox") == [f"{style}/a.jpg"]
    assert f"{style}/a.jpg" not in files(rejected)
    assert f"{style}/a.jpg.json" not in files(rejected)
    assert len(files(rejected)) == 4
    assert f"inbox/{style}/a.jpg" in result.output


def test_a_photo_is_named_by_its_job(run: Run, cwd: Path, rejected: Path) -> None:
    """A job id selects the job's original, but not another photo at the same path."""
    style = style_of(cwd)
    job_id = make_finished_job(cwd, rejected / style / "trip/b.jpg", JobState.REJECTED)
    assert run("retry", job_id).exit_code == 2
    sidecar = rejected / style / "trip/b.jpg.json"
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "job": {**content["job"], "id": job_id}}))
    assert run("retry", job_id).exit_code == 0
    assert files(cwd / "inbox") == [f"{style}/trip/b.jpg"]


def make_finished_job(
    cwd: Path, original: Path | None, state: JobState, failure: str | None = None
) -> str:
    """Add a finished job to the journal; return its id."""
    (cwd / "state").mkdir(exist_ok=True)
    journal = Journal.open(cwd / "state/journal.sqlite3")
    style = style_of(cwd)
    journal.submit([Dropped("b.jpg", 1, 2, {style: "b.jpg"})], 5.0)
    job = journal.claim(6.0)
    assert job is not None
    if original is not None:
        journal.reserve_original(job, original)
    journal.finish(job, state, 7.0, reason="because", failure=failure)
    journal.close()
    return job.id


def make_cancelled(cwd: Path) -> tuple[str, Path]:
    """Create a photo whose job was cancelled on request; return the job's id and its path."""
    path = cwd / "rejected" / style_of(cwd) / "b.jpg"
    job_id = make_finished_job(cwd, path, JobState.CANCELLED, "cancelled")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"photo")
    timestamp = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    sidecar = Sidecar(
        job=JobInfo(
            id=job_id,
            attempts=0,
            resumed=False,
            submitted_at=timestamp,
            started_at=timestamp,
            finished_at=timestamp,
        ),
        input=InputInfo(path="b.jpg", bytes=5),
        rejected=Rejection(reason="cancelled on request", failure="cancelled"),
    )
    path.with_name("b.jpg.json").write_bytes(sidecar.to_json())
    return job_id, path


@pytest.mark.parametrize("arg", ["{id}", "{path}", "{path}.json", "{style}/b.jpg", "--all"])
def test_what_was_cancelled_comes_back(run: Run, cwd: Path, arg: str) -> None:
    """Photos of cancelled jobs can be retried like rejected ones."""
    init_folder(cwd)
    job_id, path = make_cancelled(cwd)
    style = style_of(cwd)
    result = run("retry", arg.format(id=job_id, path=path, style=style))
    assert result.exit_code == 0, result.output
    assert files(cwd / "inbox") == [f"{style}/b.jpg"]
    assert (cwd / "inbox" / style / "b.jpg").read_bytes() == b"photo"
    assert files(cwd / "rejected") == []


def test_a_name_without_its_folder_gets_a_hint(run: Run, cwd: Path) -> None:
    """Nothing is retried on a guess."""
    init_folder(cwd)
    make_cancelled(cwd)
    result = run("retry", "b.jpg")
    assert result.exit_code == 2
    assert f"did you mean {style_of(cwd)}/b.jpg?" in result.output
    assert files(cwd / "inbox") == []


def test_it_comes_back_once(run: Run, cwd: Path) -> None:
    """A job id can be retried only once."""
    init_folder(cwd)
    job_id, _ = make_cancelled(cwd)
    assert run("retry", job_id).exit_code == 0
    result = run("retry", job_id)
    assert result.exit_code == 2
    assert "is not a rejected photo" in result.output
    assert files(cwd / "inbox") == [f"{style_of(cwd)}/b.jpg"]


def test_a_cancelled_job_without_a_photo_is_refused(run: Run, cwd: Path) -> None:
    """A job whose input was removed or replaced has no photo to retry."""
    init_folder(cwd)
    result = run("retry", make_finished_job(cwd, None, JobState.CANCELLED))
    assert result.exit_code == 2
    assert "is not a rejected photo" in result.output


def test_a_finished_job_is_refused(run: Run, cwd: Path) -> None:
    """The original of a finished job stays in the archive."""
    init_folder(cwd)
    original = cwd / "archive" / style_of(cwd) / "b.jpg"
    reject(original, "4a")
    assert run("retry", make_finished_job(cwd, original, JobState.DONE)).exit_code == 2
    assert original.exists()
    assert files(cwd / "inbox") == []


def test_all_means_all(run: Run, cwd: Path, rejected: Path) -> None:
    """`--all` moves all rejected photos of configured styles; hostile names are escaped."""
    style = style_of(cwd)
    reject(rejected / "gone" / "c.jpg", "4b")
    (rejected / style / "stray.txt").write_text("no sidecar")
    result = run("retry", "--all")
    assert result.exit_code == 0, result.output
    assert len(files(cwd / "inbox")) == 3
    assert files(rejected) == ["gone/c.jpg", "gone/c.jpg.json", f"{style}/stray.txt"]
    assert "\x1b[2J" not in result.output
    assert run("retry", "--all").output == "nothing was rejected\n"


def test_a_name_that_is_taken_is_left_alone(run: Run, cwd: Path, rejected: Path) -> None:
    """If the name exists in the inbox, the photo gets a number, and both files are kept."""
    style = style_of(cwd)
    (cwd / "inbox" / style).mkdir(parents=True, exist_ok=True)
    (cwd / "inbox" / style / "a.jpg").write_bytes(b"another")
    assert run("retry", f"{style}/a.jpg").exit_code == 0
    assert files(cwd / "inbox") == [f"{style}/a-2.jpg", f"{style}/a.jpg"]
    assert (cwd / "inbox" / style / "a.jpg").read_bytes() == b"another"


@pytest.mark.parametrize("arg", ["nothing.jpg", "config.yaml", "../elsewhere.jpg", "0123456789ab"])
@pytest.mark.usefixtures("rejected")
def test_what_was_not_rejected_is_refused_in_words(run: Run, cwd: Path, arg: str) -> None:
    """Files outside the folder of rejected inputs are never moved."""
    reject(cwd.parent / "elsewhere.jpg", "4a")
    result = run("retry", arg)
    assert result.exit_code == 2
    assert "is not a rejected photo" in result.output
    assert files(cwd / "inbox") == []


def test_one_wrong_word_moves_nothing(run: Run, cwd: Path, rejected: Path) -> None:
    """All arguments are checked before the first photo is moved."""
    result = run("retry", f"{style_of(cwd)}/a.jpg", "nothing.jpg")
    assert result.exit_code == 2
    assert "nothing was retried" in result.output
    assert files(cwd / "inbox") == []
    assert len(files(rejected)) == 6


def test_a_missing_style_is_reported(run: Run, cwd: Path, rejected: Path) -> None:
    """A photo of a removed style is refused: it would be painted in another style."""
    reject(rejected / "gone" / "c.jpg", "4b")
    result = run("retry", "gone/c.jpg")
    assert result.exit_code == 2
    assert "no longer configured" in result.output
    assert files(cwd / "inbox") == []


@pytest.mark.usefixtures("rejected")
def test_an_argument_is_required(run: Run) -> None:
    """Either arguments or `--all` must be given, not both."""
    assert run("retry").exit_code == 2
    assert run("retry", "--all", "a.jpg").exit_code == 2


def test_nothing_is_put_where_the_disk_of_the_inbox_is_missing(
    run: Run, cwd: Path, rejected: Path
) -> None:
    """Nothing is moved to the empty mount point of an inbox that is not mounted."""
    (cwd / "state").mkdir()
    mount = {"point": str(cwd), "source": "nas:/photos", "inode": 1}
    record = json.dumps({str(cwd / "inbox"): mount})
    (cwd / "state/mounts.json").write_text(record)
    result = run("retry", "--all")
    assert result.exit_code == 75
    assert "nothing is mounted now" in " ".join(result.output.split())
    assert files(cwd / "inbox") == []
    assert len(files(rejected)) == 6
    assert (cwd / "state/mounts.json").read_text() == record


def test_an_upload_that_takes_the_name_at_the_last_moment_is_not_replaced(
    run: Run, cwd: Path, rejected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an upload takes the name at the last moment, the next free name is used."""
    style = style_of(cwd)

    def take_then_answer(folder: Path, name: str, *, sidecar: bool) -> Path:
        path = unused_path(folder, name, sidecar=sidecar)
        if path.name == "a.jpg":
            path.write_bytes(b"upload")
        return path

    monkeypatch.setattr(requeue, "unused_path", take_then_answer)
    assert run("retry", f"{style}/a.jpg").exit_code == 0
    assert (cwd / "inbox" / style / "a.jpg").read_bytes() == b"upload"
    assert (cwd / "inbox" / style / "a-2.jpg").read_bytes() == b"photo"
    assert f"{style}/a.jpg" not in files(rejected)


def test_a_sidecar_in_the_inbox_is_in_nobodys_way(run: Run, cwd: Path, rejected: Path) -> None:
    """In the inbox only the name of the photo must be free, not that of a sidecar."""
    style = style_of(cwd)
    (cwd / "inbox" / style).mkdir(parents=True, exist_ok=True)
    (cwd / "inbox" / style / "a.jpg.json").write_text("{}")
    assert run("retry", f"{style}/a.jpg").exit_code == 0
    assert (cwd / "inbox" / style / "a.jpg").read_bytes() == b"photo"


def test_a_photo_is_safe_in_the_inbox_before_it_leaves_the_rejected(
    run: Run, cwd: Path, rejected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new directory entry is synced before the old one is removed, for power failures."""
    style = style_of(cwd)
    photo = rejected / style / "a.jpg"
    calls: list[str] = []
    unlink = Path.unlink

    def syncing(folder: Path) -> None:
        calls.append(f"sync {folder.relative_to(cwd)}")
        sync_folder(folder)

    def unlinking(path: Path, missing_ok: bool = False) -> None:
        calls.append(f"unlink {path.name}")
        unlink(path, missing_ok)

    monkeypatch.setattr(requeue, "sync_folder", syncing)
    monkeypatch.setattr(Path, "unlink", unlinking)
    assert run("retry", f"{style}/a.jpg").exit_code == 0
    assert not photo.exists()
    assert calls.index(f"sync inbox/{style}") < calls.index("unlink a.jpg")
    assert calls[-2:] == ["unlink a.jpg.json", f"sync rejected/{style}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to others")
def test_what_root_puts_back_can_be_taken_by_the_daemon(
    run: Run, cwd: Path, rejected: Path
) -> None:
    """Folders that root creates in the inbox belong to the owner of the inbox."""
    inbox = cwd / "inbox"
    for folder in (inbox, inbox / style_of(cwd)):
        folder.mkdir(exist_ok=True)
        os.chown(folder, 65534, 65534)
    assert run("retry", f"{style_of(cwd)}/trip/b.jpg").exit_code == 0
    stat = (inbox / style_of(cwd) / "trip").stat()
    assert (stat.st_uid, stat.st_gid) == (65534, 65534)

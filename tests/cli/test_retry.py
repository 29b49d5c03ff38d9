"""`styled retry`: rejected photos come back into the inbox, and nothing else does."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from styled.atomic import sync_folder
from styled.cli.init import init_folder
from styled.delivery import restoring
from styled.delivery.names import free_place
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.sidecar import InputFacts, JobFacts, Rejection, Sidecar
from tests.cli.conftest import Run
from tests.jobs.conftest import Dropped

HOSTILE = os.fsdecode(b"caf\xe9\x1b[2J[bold].jpg")


@pytest.fixture
def rejected(here: Path) -> Path:
    """Return a working folder's folder of rejected inputs, with three of them."""
    init_folder(here)
    config = (here / "config.yaml").read_text()
    assert "styles:" in config
    folder = here / "rejected"
    style = style_of(here)
    for name in (f"{style}/a.jpg", f"{style}/trip/b.jpg", f"{style}/{HOSTILE}"):
        reject(folder / name, "4a")
    return folder


def style_of(here: Path) -> str:
    """Return the style that `styled init` has made."""
    (image,) = (here / "styles").iterdir()
    return image.stem


def reject(path: Path, job_id: str) -> None:
    """Make a rejected input with its sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"photo")
    path.with_name(path.name + ".json").write_text(json.dumps({"job": {"id": job_id}}))


def files(folder: Path) -> list[str]:
    """Return all files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("word", ["rejected/{}/a.jpg", "{}/a.jpg", "rejected/{}/a.jpg.json"])
def test_a_photo_is_named_by_any_of_its_paths(
    run: Run, here: Path, rejected: Path, word: str
) -> None:
    """From here, below the folder of rejected inputs, or by the file with the reason."""
    style = style_of(here)
    result = run("retry", word.format(style))
    assert result.exit_code == 0, result.output
    assert files(here / "inbox") == [f"{style}/a.jpg"]
    assert f"{style}/a.jpg" not in files(rejected)
    assert f"{style}/a.jpg.json" not in files(rejected)
    assert len(files(rejected)) == 4
    assert f"inbox/{style}/a.jpg" in result.output


def test_a_photo_is_named_by_its_job(run: Run, here: Path, rejected: Path) -> None:
    """The journal knows where it put the original; another one under that name is not meant."""
    style = style_of(here)
    job_id = ended_job(here, rejected / style / "trip/b.jpg", JobState.REJECTED)
    assert run("retry", job_id).exit_code == 2
    sidecar = rejected / style / "trip/b.jpg.json"
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "job": {**content["job"], "id": job_id}}))
    assert run("retry", job_id).exit_code == 0
    assert files(here / "inbox") == [f"{style}/trip/b.jpg"]


def ended_job(
    here: Path, original: Path | None, state: JobState, failure: str | None = None
) -> str:
    """Enter a job that has ended into the journal; return its id."""
    (here / "state").mkdir(exist_ok=True)
    journal = Journal.open(here / "state/journal.sqlite3")
    style = style_of(here)
    journal.submit([Dropped("b.jpg", 1, 2, {style: "b.jpg"})], 5.0)
    job = journal.claim(6.0)
    assert job is not None
    if original is not None:
        journal.reserve_original(job, original)
    journal.finish(job, state, 7.0, reason="because", failure=failure)
    journal.close()
    return job.id


def cancelled(here: Path) -> tuple[str, Path]:
    """Make a photo that was cancelled on request; return its job's id and where it lies."""
    place = here / "rejected" / style_of(here) / "b.jpg"
    job_id = ended_job(here, place, JobState.CANCELLED, "cancelled")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"photo")
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    sidecar = Sidecar(
        job=JobFacts(
            id=job_id, attempts=0, resumed=False, submitted_at=at, started_at=at, finished_at=at
        ),
        input=InputFacts(path="b.jpg", bytes=5),
        rejected=Rejection(reason="cancelled on request", failure="cancelled"),
    )
    place.with_name("b.jpg.json").write_bytes(sidecar.to_json())
    return job_id, place


@pytest.mark.parametrize("word", ["{id}", "{place}", "{place}.json", "{style}/b.jpg", "--all"])
def test_what_was_cancelled_comes_back(run: Run, here: Path, word: str) -> None:
    """Whoever cancels a job may think better of it; it is named as any rejected photo is."""
    init_folder(here)
    job_id, place = cancelled(here)
    style = style_of(here)
    result = run("retry", word.format(id=job_id, place=place, style=style))
    assert result.exit_code == 0, result.output
    assert files(here / "inbox") == [f"{style}/b.jpg"]
    assert (here / "inbox" / style / "b.jpg").read_bytes() == b"photo"
    assert files(here / "rejected") == []


def test_it_comes_back_once(run: Run, here: Path) -> None:
    """Its job is no name for it any more; no other photo is taken for it."""
    init_folder(here)
    job_id, _ = cancelled(here)
    assert run("retry", job_id).exit_code == 0
    result = run("retry", job_id)
    assert result.exit_code == 2
    assert "is no rejected photo" in result.output
    assert files(here / "inbox") == [f"{style_of(here)}/b.jpg"]


def test_a_cancelled_job_without_a_photo_is_refused(run: Run, here: Path) -> None:
    """Its input was removed or replaced, and nobody has it."""
    init_folder(here)
    result = run("retry", ended_job(here, None, JobState.CANCELLED))
    assert result.exit_code == 2
    assert "is no rejected photo" in result.output


def test_a_finished_job_is_refused(run: Run, here: Path) -> None:
    """Its original is safe in the archive, and stays there."""
    init_folder(here)
    original = here / "archive" / style_of(here) / "b.jpg"
    reject(original, "4a")
    assert run("retry", ended_job(here, original, JobState.DONE)).exit_code == 2
    assert original.exists()
    assert files(here / "inbox") == []


def test_all_means_all(run: Run, here: Path, rejected: Path) -> None:
    """Hostile names are escaped where they are shown; what is of no configured style stays."""
    style = style_of(here)
    reject(rejected / "gone" / "c.jpg", "4b")
    (rejected / style / "stray.txt").write_text("no sidecar")
    result = run("retry", "--all")
    assert result.exit_code == 0, result.output
    assert len(files(here / "inbox")) == 3
    assert files(rejected) == ["gone/c.jpg", "gone/c.jpg.json", f"{style}/stray.txt"]
    assert "\x1b[2J" not in result.output
    assert run("retry", "--all").output == "nothing was rejected\n"


def test_a_name_that_is_taken_is_left_alone(run: Run, here: Path, rejected: Path) -> None:
    """The photo gets a number; neither file is lost."""
    style = style_of(here)
    (here / "inbox" / style).mkdir(parents=True, exist_ok=True)
    (here / "inbox" / style / "a.jpg").write_bytes(b"another")
    assert run("retry", f"{style}/a.jpg").exit_code == 0
    assert files(here / "inbox") == [f"{style}/a-2.jpg", f"{style}/a.jpg"]
    assert (here / "inbox" / style / "a.jpg").read_bytes() == b"another"


@pytest.mark.parametrize("word", ["nothing.jpg", "config.yaml", "../elsewhere.jpg", "0123456789ab"])
@pytest.mark.usefixtures("rejected")
def test_what_was_not_rejected_is_refused_in_words(run: Run, here: Path, word: str) -> None:
    """No file outside of the folder of rejected inputs is ever moved."""
    reject(here.parent / "elsewhere.jpg", "4a")
    result = run("retry", word)
    assert result.exit_code == 2
    assert "is no rejected photo" in result.output
    assert files(here / "inbox") == []


def test_one_wrong_word_moves_nothing(run: Run, here: Path, rejected: Path) -> None:
    """All are looked at before the first is moved."""
    result = run("retry", f"{style_of(here)}/a.jpg", "nothing.jpg")
    assert result.exit_code == 2
    assert files(here / "inbox") == []
    assert len(files(rejected)) == 6


def test_a_style_that_is_gone_is_said_to_be(run: Run, here: Path, rejected: Path) -> None:
    """In the inbox the photo would be painted in some other style, without a word."""
    reject(rejected / "gone" / "c.jpg", "4b")
    result = run("retry", "gone/c.jpg")
    assert result.exit_code == 2
    assert "no longer configured" in result.output
    assert files(here / "inbox") == []


@pytest.mark.usefixtures("rejected")
def test_it_has_to_be_told_what(run: Run) -> None:
    """Neither nothing nor both."""
    assert run("retry").exit_code == 2
    assert run("retry", "--all", "a.jpg").exit_code == 2


def test_nothing_is_put_where_the_disk_of_the_inbox_is_missing(
    run: Run, here: Path, rejected: Path
) -> None:
    """Below a bare mount point nobody would ever find it again."""
    (here / "state").mkdir()
    home = {"point": str(here), "source": "nas:/photos", "inode": 1}
    record = json.dumps({str(here / "inbox"): home})
    (here / "state/mounts.json").write_text(record)
    result = run("retry", "--all")
    assert result.exit_code == 75
    assert "nothing is mounted now" in " ".join(result.output.split())
    assert files(here / "inbox") == []
    assert len(files(rejected)) == 6
    assert (here / "state/mounts.json").read_text() == record


def test_an_upload_that_takes_the_name_at_the_last_moment_is_not_replaced(
    run: Run, here: Path, rejected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers write to the inbox too: the next free name is taken."""
    style = style_of(here)

    def take_then_answer(folder: Path, name: str, *, sidecar: bool) -> Path:
        place = free_place(folder, name, sidecar=sidecar)
        if place.name == "a.jpg":
            place.write_bytes(b"upload")
        return place

    monkeypatch.setattr(restoring, "free_place", take_then_answer)
    assert run("retry", f"{style}/a.jpg").exit_code == 0
    assert (here / "inbox" / style / "a.jpg").read_bytes() == b"upload"
    assert (here / "inbox" / style / "a-2.jpg").read_bytes() == b"photo"
    assert f"{style}/a.jpg" not in files(rejected)


def test_a_sidecar_in_the_inbox_is_in_nobodys_way(run: Run, here: Path, rejected: Path) -> None:
    """Photos have none there: only the photo's own name has to be free."""
    style = style_of(here)
    (here / "inbox" / style).mkdir(parents=True, exist_ok=True)
    (here / "inbox" / style / "a.jpg.json").write_text("{}")
    assert run("retry", f"{style}/a.jpg").exit_code == 0
    assert (here / "inbox" / style / "a.jpg").read_bytes() == b"photo"


def test_a_photo_is_safe_in_the_inbox_before_it_leaves_the_rejected(
    run: Run, here: Path, rejected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut it lies in one of them: its new name is on disk before the old one goes."""
    style = style_of(here)
    photo = rejected / style / "a.jpg"
    calls: list[str] = []
    unlink = Path.unlink

    def syncing(folder: Path) -> None:
        calls.append(f"sync {folder.relative_to(here)}")
        sync_folder(folder)

    def unlinking(path: Path, missing_ok: bool = False) -> None:
        calls.append(f"unlink {path.name}")
        unlink(path, missing_ok)

    monkeypatch.setattr(restoring, "sync_folder", syncing)
    monkeypatch.setattr(Path, "unlink", unlinking)
    assert run("retry", f"{style}/a.jpg").exit_code == 0
    assert not photo.exists()
    assert calls.index(f"sync inbox/{style}") < calls.index("unlink a.jpg")
    assert calls[-2:] == ["unlink a.jpg.json", f"sync rejected/{style}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to others")
def test_what_root_puts_back_can_be_taken_by_the_daemon(
    run: Run, here: Path, rejected: Path
) -> None:
    """Folders that are made on the way belong to whom the inbox does."""
    inbox = here / "inbox"
    for folder in (inbox, inbox / style_of(here)):
        folder.mkdir(exist_ok=True)
        os.chown(folder, 65534, 65534)
    assert run("retry", f"{style_of(here)}/trip/b.jpg").exit_code == 0
    facts = (inbox / style_of(here) / "trip").stat()
    assert (facts.st_uid, facts.st_gid) == (65534, 65534)

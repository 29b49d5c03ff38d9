"""Rebuilding a lost journal from the sidecars in the outbox, so that no job is done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from styled.job_io.requests import CleanupRequest
from styled.journal.job import JobState
from styled.journal.journal import Journal
from styled.journal.rebuild import import_finished_jobs, open_or_rebuild
from tests.job_harness import STUB, Died, Dropped, JobHarness, LogLines, picture


@pytest.fixture
def lost(harness: JobHarness) -> JobHarness:
    """Return a harness with a kept photo that was painted in two styles, and an empty journal."""
    harness.configure("output", after_success="keep")
    harness.drop("photo.png", None, "oil", "ink")
    harness.work()
    assert harness.states() == ["done", "done"]
    lose_journal(harness)
    return harness


def lose_journal(harness: JobHarness) -> None:
    """Delete the journal and create a new one."""
    harness.journal.close()
    for path in (harness.config.state).glob("journal*"):
        path.unlink()
    harness._open()


def rebuild(harness: JobHarness, *styles: str) -> int:
    """Import the finished jobs of all photos in the inbox, in these styles; return their number."""
    arrivals = []
    for path in harness.config.inbox.iterdir():
        stat = path.stat()
        destinations = dict.fromkeys(styles, path.name)
        arrivals.append(Dropped(path.name, stat.st_size, stat.st_mtime_ns, destinations))
    return import_finished_jobs(
        harness.journal,
        arrivals,
        harness.config.inbox,
        harness.config.outbox,
        harness.time_of_day(),
    )


def test_a_finished_photo_is_not_painted_again(lost: JobHarness) -> None:
    """A finished photo is recognised by path and content, and its job keeps its id."""
    before = lost.files("outbox")
    assert rebuild(lost, "oil", "ink") == 2
    assert lost.rescan() == 0
    lost.work()
    assert lost.states() == ["done", "done"]
    assert lost.files("outbox") == before
    ids = {job.style: job.id for job in lost.jobs()}
    assert ids["oil"] == lost.sidecar("outbox/oil/photo.png.json")["job"]["id"]
    assert [job.degraded for job in lost.jobs()] == [(STUB,), (STUB,)]


def test_an_original_that_had_not_left_leaves_now(lost: JobHarness) -> None:
    """The original of an imported job is archived by the next clean-up."""
    lost.configure("output", after_success="archive")
    rebuild(lost, "oil", "ink")
    CleanupRequest(lost.context).run(lambda idle_for: None)
    assert lost.files("inbox") == []
    assert lost.files("archive") == ["ink/photo.png", "oil/photo.png"]


def test_only_the_styles_that_are_done_are_taken_up(lost: JobHarness) -> None:
    """Styles without a sidecar are painted, and the photo stays in the inbox until then."""
    lost.configure("output", after_success="archive")
    (lost.config.outbox / "ink/photo.png.json").unlink()
    assert rebuild(lost, "oil", "ink") == 1
    CleanupRequest(lost.context).run(lambda idle_for: None)
    assert lost.files("inbox") == ["photo.png"]
    assert lost.rescan() == 0
    lost.work()
    assert lost.files("inbox") == []
    assert sorted(lost.files("outbox")) == [
        "ink/photo-2.png",
        "ink/photo-2.png.json",
        "ink/photo.png",
        "oil/photo.png",
        "oil/photo.png.json",
    ]


def test_another_photo_of_the_same_name_is_painted(lost: JobHarness) -> None:
    """A photo with other content is not recognised, even if its size is the same."""
    path = lost.config.inbox / "photo.png"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert rebuild(lost, "oil", "ink") == 0
    other = picture("olive")
    path.write_bytes(other)
    assert rebuild(lost, "oil", "ink") == 0
    assert lost.rescan() == 2


def test_a_sidecar_without_its_picture_proves_nothing(lost: JobHarness) -> None:
    """A sidecar whose result was deleted is not imported."""
    (lost.config.outbox / "oil/photo.png").unlink()
    assert rebuild(lost, "oil") == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1, "job": 7}', '"\ud800"'])
def test_strange_files_in_the_outbox_are_no_sidecars(lost: JobHarness, content: str) -> None:
    """Files that are not valid sidecars are ignored."""
    stray = lost.config.outbox / "oil/stray.png"
    stray.write_bytes(b"")
    stray.with_name("stray.png.json").write_text(content, errors="surrogatepass")
    (lost.config.outbox / "folder.json").mkdir()
    assert rebuild(lost, "oil", "ink") == 2


def test_names_that_are_not_utf8_are_taken_up(harness: JobHarness) -> None:
    """Names that are not UTF-8 are imported as bytes, though the sidecar has them escaped."""
    harness.configure("output", after_success="keep")
    name = Path("caf\udce9.png").name
    harness.drop(name)
    harness.work()
    lose_journal(harness)
    assert rebuild(harness, "oil") == 1
    assert harness.job().result == f"oil/{name}"
    assert json.loads((harness.config.outbox / f"oil/{name}.json").read_bytes())["job"]["id"]


def open_journal(harness: JobHarness) -> Journal:
    """Open the journal as the daemon does at its start."""
    path = harness.config.state / "journal.sqlite3"
    photo = harness.config.inbox / "photo.png"
    stat = photo.stat()
    arrivals = [Dropped("photo.png", stat.st_size, stat.st_mtime_ns, {"oil": "photo.png"})]
    return open_or_rebuild(path, arrivals, harness.config.inbox, harness.config.outbox, 1.0)


def test_a_death_while_the_journal_is_rebuilt_is_mended(
    lost: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """After a crash during a rebuild the next start completes it."""

    def die(*_: object) -> int:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr("styled.journal.rebuild.import_finished_jobs", die)
        with pytest.raises(Died):
            open_journal(lost)
    journal = open_journal(lost)
    assert journal.counts() == {JobState.DONE: 1}
    journal.close()
    assert [line["event"] for line in logs].count("jobs.imported") == 1


def test_a_journal_is_completed_once(lost: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebuilt journal is not rebuilt again at the next start: the outbox may be large."""
    open_journal(lost).close()
    monkeypatch.delattr("styled.journal.rebuild.import_finished_jobs")
    open_journal(lost).close()


def test_a_damaged_journal_makes_room_for_a_new_one(harness: JobHarness, logs: LogLines) -> None:
    """A damaged journal is renamed, which is logged, and replaced by a new one."""
    harness.drop()
    harness.journal.close()
    (harness.config.state / "journal.sqlite3").write_bytes(b"no database" * 99)
    journal = open_journal(harness)
    assert journal.counts() == {}
    journal.close()
    (line,) = (line for line in logs if line["event"] == "journal.set_aside")
    assert Path(line["kept_as"]).read_bytes() == b"no database" * 99


def test_a_stop_amid_a_rebuild_leaves_it_to_the_next_start(lost: JobHarness) -> None:
    """A rebuild that is interrupted by a stop imports nothing and is repeated at the next start."""

    def stop() -> None:
        raise Died

    path, inbox = lost.config.state / "journal.sqlite3", lost.config.inbox
    stat = (inbox / "photo.png").stat()
    arrivals = [Dropped("photo.png", stat.st_size, stat.st_mtime_ns, {"oil": "photo.png"})]
    with pytest.raises(Died):
        open_or_rebuild(path, arrivals, inbox, lost.config.outbox, 1.0, stop)
    journal = open_journal(lost)
    assert journal.counts() == {JobState.DONE: 1}
    journal.close()

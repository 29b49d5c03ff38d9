"""A new journal in place of a lost one: what the outbox shows to be done is not done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from styled.jobs import journal_rebuild
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.jobs.journal_rebuild import import_finished_jobs, open_or_rebuild
from styled.jobs.requests import TidyRequest
from tests.jobs.conftest import STUB, Died, Dropped, JobHarness, LogLines, picture


@pytest.fixture
def lost(shop: JobHarness) -> JobHarness:
    """Return a shop that has painted and kept a photo, and then lost its journal."""
    shop.configure("output", after_success="keep")
    shop.drop("photo.png", None, "oil", "ink")
    shop.work()
    assert shop.states() == ["done", "done"]
    lose_journal(shop)
    return shop


def lose_journal(shop: JobHarness) -> None:
    """Delete the journal and begin a new one."""
    shop.journal.close()
    for path in (shop.config.state).glob("journal*"):
        path.unlink()
    shop._open()


def rebuild(shop: JobHarness, *styles: str) -> int:
    """Take up what is finished of all photos in the inbox, wanted in these styles."""
    arrivals = []
    for path in shop.config.inbox.iterdir():
        facts = path.stat()
        destinations = dict.fromkeys(styles, path.name)
        arrivals.append(Dropped(path.name, facts.st_size, facts.st_mtime_ns, destinations))
    return import_finished_jobs(
        shop.journal, arrivals, shop.config.inbox, shop.config.outbox, shop.time_of_day()
    )


def test_a_finished_photo_is_not_painted_again(lost: JobHarness) -> None:
    """It is known by its path and its content, and keeps the id of its job."""
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
    """As after a crash between the sidecar and the move to the archive."""
    lost.configure("output", after_success="archive")
    rebuild(lost, "oil", "ink")
    TidyRequest(lost.context).run(lambda rest_seconds: None)
    assert lost.files("inbox") == []
    assert lost.files("archive") == ["ink/photo.png", "oil/photo.png"]


def test_only_the_styles_that_are_done_are_taken_up(lost: JobHarness) -> None:
    """The others are painted, and until then the photo does not leave."""
    lost.configure("output", after_success="archive")
    (lost.config.outbox / "ink/photo.png.json").unlink()
    assert rebuild(lost, "oil", "ink") == 1
    TidyRequest(lost.context).run(lambda rest_seconds: None)
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
    """Even if it has as many bytes."""
    path = lost.config.inbox / "photo.png"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert rebuild(lost, "oil", "ink") == 0
    other = picture("olive")
    path.write_bytes(other)
    assert rebuild(lost, "oil", "ink") == 0
    assert lost.rescan() == 2


def test_a_sidecar_without_its_picture_proves_nothing(lost: JobHarness) -> None:
    """Somebody deleted the painting: then it is wanted again."""
    (lost.config.outbox / "oil/photo.png").unlink()
    assert rebuild(lost, "oil") == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1, "job": 7}', '"\ud800"'])
def test_strange_files_in_the_outbox_are_no_sidecars(lost: JobHarness, content: str) -> None:
    """Whatever they hold, the others are taken up."""
    stray = lost.config.outbox / "oil/stray.png"
    stray.write_bytes(b"")
    stray.with_name("stray.png.json").write_text(content, errors="surrogatepass")
    (lost.config.outbox / "folder.json").mkdir()
    assert rebuild(lost, "oil", "ink") == 2


def test_names_that_are_not_utf8_are_taken_up(shop: JobHarness) -> None:
    """The sidecar has them in readable form; the journal has their bytes."""
    shop.configure("output", after_success="keep")
    name = Path("caf\udce9.png").name
    shop.drop(name)
    shop.work()
    lose_journal(shop)
    assert rebuild(shop, "oil") == 1
    assert shop.job().result == f"oil/{name}"
    assert json.loads((shop.config.outbox / f"oil/{name}.json").read_bytes())["job"]["id"]


def opened(shop: JobHarness) -> Journal:
    """Open the journal as the daemon does at its start."""
    path = shop.config.state / "journal.sqlite3"
    photo = shop.config.inbox / "photo.png"
    facts = photo.stat()
    arrivals = [Dropped("photo.png", facts.st_size, facts.st_mtime_ns, {"oil": "photo.png"})]
    return open_or_rebuild(path, lambda: arrivals, shop.config.inbox, shop.config.outbox, 1.0)


def test_a_death_while_the_journal_is_rebuilt_is_mended(
    lost: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """The new journal is there, but does not know everything yet."""

    def die(*_: object) -> int:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(journal_rebuild, "import_finished_jobs", die)
        with pytest.raises(Died):
            opened(lost)
    journal = opened(lost)
    assert journal.counts() == {JobState.DONE: 1}
    journal.close()
    assert [line["event"] for line in logs].count("jobs.imported") == 1


def test_a_journal_is_completed_once(lost: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each start: an outbox may be large."""
    opened(lost).close()
    monkeypatch.delattr(journal_rebuild, "import_finished_jobs")
    opened(lost).close()


def test_a_damaged_journal_makes_room_for_a_new_one(shop: JobHarness, logs: LogLines) -> None:
    """It is kept, for those who want to know, and the log says where."""
    shop.drop()
    shop.journal.close()
    (shop.config.state / "journal.sqlite3").write_bytes(b"no database" * 99)
    journal = opened(shop)
    assert journal.counts() == {}
    journal.close()
    (line,) = (line for line in logs if line["event"] == "journal.set_aside")
    assert Path(line["kept_as"]).read_bytes() == b"no database" * 99


def test_a_stop_amid_a_rebuild_leaves_it_to_the_next_start(lost: JobHarness) -> None:
    """Nothing is entered by halves: what was not looked at must not be painted again."""

    def stop() -> None:
        raise Died

    path, inbox = lost.config.state / "journal.sqlite3", lost.config.inbox
    facts = (inbox / "photo.png").stat()
    arrivals = [Dropped("photo.png", facts.st_size, facts.st_mtime_ns, {"oil": "photo.png"})]
    with pytest.raises(Died):
        open_or_rebuild(path, lambda: arrivals, inbox, lost.config.outbox, 1.0, stop)
    journal = opened(lost)
    assert journal.counts() == {JobState.DONE: 1}
    journal.close()

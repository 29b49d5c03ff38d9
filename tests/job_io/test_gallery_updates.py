"""Adding finished jobs to the gallery: each exactly once, and errors never fail a job."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from styled.atomic import atomic_write
from styled.delivery import gallery_files as gallery_module
from styled.delivery.gallery import Gallery
from styled.delivery.page import records_in
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.job_io.gallery_updates import ENTRIES_AT_ONCE, RETRY_SECONDS, UPDATE_SECONDS
from styled.jobs.events import StopRequested, Wakeup
from styled.jobs.maintenance import GALLERY_SECONDS
from styled.journal.rebuild import enter_finished
from tests.job_harness import (
    TIMEOUT_SECONDS,
    Died,
    Dropped,
    JobHarness,
    LogLines,
    OneEngine,
    threaded_scheduler,
)


@pytest.fixture
def harness(tmp_path: Path, logs: LogLines) -> Iterator[JobHarness]:
    """Return a working folder with a gallery."""
    harness = JobHarness(tmp_path / "harness", gallery=True)
    yield harness
    harness.close()


def records(outbox: Path) -> list[dict[str, Any]]:
    """Return all records of the gallery, in order; an empty list if there is no page."""
    paths = sorted((outbox / "gallery_files/records").glob("*.js"))
    all_records: list[dict[str, Any]] = [r for path in paths for r in records_in(path.read_bytes())]
    if all_records:
        html = (outbox / "gallery.html").read_text()
        (text,) = re.findall(r'<script id="manifest" type="application/json">(.*?)</script>', html)
        manifest = json.loads(text)
        assert manifest["results"] + manifest["rejected"] == len(all_records)
    return all_records


def shown(harness: JobHarness) -> list[tuple[str, str]]:
    """Return kind and name of all records of the gallery."""
    return [(record["kind"], record["name"]) for record in records(harness.config.outbox)]


def run_to_the_end(harness: JobHarness) -> None:
    """Run the scheduler until nothing is left to do."""
    harness.work()


def make_failing(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, times: int = 1, method: str = "add"
) -> list[int]:
    """Let the next calls of a method of `Gallery` fail; the list returned counts all calls."""
    original, calls = getattr(Gallery, method), [0]

    def fail(self: Gallery, *args: object) -> None:
        calls[0] += 1
        if calls[0] <= times:
            raise error
        original(self, *args)

    monkeypatch.setattr(Gallery, method, fail)
    return calls


def test_each_result_hangs_once(harness: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result is added to the gallery once, with its thumbnails."""
    for name in ("a.png", "trip/b.png"):
        harness.drop(name)
    run_to_the_end(harness)
    assert shown(harness) == [("result", "a.png"), ("result", "trip/b.png")]
    assert harness.journal.missing_from_gallery(9) == []
    for record in records(harness.config.outbox):
        for which in ("before", "after", "result", "sidecar"):
            assert (harness.config.outbox / record[which]).is_file()
    calls = make_failing(monkeypatch, AssertionError(), 0)
    run_to_the_end(harness)
    harness.restart()
    run_to_the_end(harness)
    assert calls == [0]


def test_what_was_rejected_hangs_once_it_has_left_the_inbox(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rejected photo is added to the gallery once it was moved: the record links to it."""
    harness.drop("broken.png", b"no picture at all")
    move = harness.publisher.move_original
    shown_before: list[int] = []

    def update_and_move(*args: Any, **kwargs: Any) -> bool:
        harness.gallery_updater.update()
        shown_before.append(len(shown(harness)))
        return move(*args, **kwargs)

    monkeypatch.setattr(harness.publisher, "move_original", update_and_move)
    run_to_the_end(harness)
    assert (harness.states(), shown_before) == (["rejected"], [0])
    (record,) = records(harness.config.outbox)
    assert (record["kind"], record["failure"]) == ("rejected", "input")
    assert record["file"] == "../rejected/oil/broken.png"
    assert (harness.config.rejected / "oil/broken.png").read_bytes() == b"no picture at all"


def test_one_photo_in_two_styles_hangs_twice(harness: JobHarness) -> None:
    """A photo in two styles has two records in the gallery, one per job."""
    harness.drop("photo.png", None, "oil", "ink")
    run_to_the_end(harness)
    assert [record["style"] for record in records(harness.config.outbox)] == ["oil", "ink"]


def test_cancelled_on_request_hangs_as_rejected(harness: JobHarness) -> None:
    """A job cancelled on request is shown as rejected: its photo is in `rejected`."""
    harness.drop()
    harness.request_cancel(harness.job())
    run_to_the_end(harness)
    (record,) = records(harness.config.outbox)
    assert (record["kind"], record["failure"]) == ("rejected", "cancelled")


@pytest.mark.parametrize("why", ["gone", "style"])
def test_cancelled_for_other_reasons_does_not_hang(harness: JobHarness, why: str) -> None:
    """A job cancelled because its photo or style is gone is not added to the gallery."""
    path = harness.drop()
    if why == "gone":
        path.unlink()
    else:
        del harness.styles["oil"]
    run_to_the_end(harness)
    assert harness.states() == ["cancelled"]
    assert shown(harness) == []
    assert harness.journal.missing_from_gallery(9) == []


@pytest.mark.parametrize("after_success", ["keep", "delete"])
def test_a_photo_that_is_not_archived_hangs_all_the_same(
    harness: JobHarness, after_success: str
) -> None:
    """A photo that is not archived has a record and a thumbnail, too."""
    harness.configure("output", after_success=after_success)
    harness.drop()
    run_to_the_end(harness)
    (record,) = records(harness.config.outbox)
    assert record["before"] is not None
    assert (harness.config.outbox / record["before"]).is_file()


def test_a_transparent_photo_hangs_on_white(harness: JobHarness) -> None:
    """Thumbnails of transparent photos and results have a white background."""
    image = Image.new("RGBA", (64, 64), "#00800000")
    image.paste("navy", (0, 0, 32, 64))
    file = io.BytesIO()
    image.save(file, "png")
    harness.drop("photo.png", file.getvalue())
    run_to_the_end(harness)
    (record,) = records(harness.config.outbox)
    for which in ("before", "after"):
        with Image.open(harness.config.outbox / record[which]) as shown:
            levels = np.asarray(shown.convert("L"))
        assert levels[8:56, 40:56].min() > 245
        assert levels[8:56, 8:24].max() < 60


# Errors


@pytest.mark.parametrize("error", [ResourceUnavailable("it is full"), OSError("it is full")])
def test_problem_is_reported_and_tried_again_after_a_minute(
    harness: JobHarness, logs: LogLines, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A failed update is logged, shown in the journal's state, and retried after a minute.

    The jobs are done meanwhile, and the state is cleared after a success.
    """
    calls = make_failing(monkeypatch, error, times=2)
    for name in ("a.png", "b.png", "c.png"):
        harness.drop(name)
    run_to_the_end(harness)
    assert (harness.states(), calls) == (["done"] * 3, [1])
    assert [line["reason"] for line in logs if line["event"] == "gallery.failed"] == ["it is full"]
    assert harness.journal.get_state()["gallery_problem"] == "it is full"
    harness.now += RETRY_SECONDS
    assert not harness.gallery_updater.update()
    assert (calls, shown(harness)) == ([2], [])
    harness.now += RETRY_SECONDS
    assert not harness.gallery_updater.update()
    assert [name for _, name in shown(harness)] == ["a.png", "b.png", "c.png"]
    assert harness.journal.get_state()["gallery_problem"] == ""


def test_within_the_minute_nothing_is_tried(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the retry interval has passed no update is tried."""
    calls = make_failing(monkeypatch, ResourceUnavailable("it is full"), times=9)
    harness.drop()
    harness.work()
    for seconds in (0.0, RETRY_SECONDS - 1, 0.5):
        harness.now += seconds
        assert not harness.gallery_updater.update()
    assert calls == [1]
    harness.now += 0.5
    harness.gallery_updater.update()
    assert calls == [2]


def test_the_page_of_somebody_else_stops_no_job(harness: JobHarness) -> None:
    """A `gallery.html` of other origin is kept, and only the gallery update fails."""
    page = harness.config.outbox / "gallery.html"
    page.write_text("<h1>My wedding</h1>")
    harness.drop()
    run_to_the_end(harness)
    assert harness.states() == ["done"]
    assert page.read_text() == "<h1>My wedding</h1>"
    assert str(page) in harness.journal.get_state()["gallery_problem"]


def test_pictures_that_cannot_be_kept_are_made_of_files(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If thumbnails cannot be written with the result, they are made from the files later."""
    make_failing(monkeypatch, ResourceUnavailable("it is full"), method="write_thumbs")
    harness.drop()
    run_to_the_end(harness)
    (record,) = records(harness.config.outbox)
    assert harness.states() == ["done"]
    assert (record["before"] is None, record["after"] is None) == (False, False)


def test_a_journal_that_fails_stops_no_scheduler(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the journal cannot mark a record as added, it is still added only once."""
    note, calls = harness.journal.mark_in_gallery, [0]

    def fail(jobs: Sequence[Any]) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise ResourceUnavailable("the journal can't be used")
        note(jobs)

    monkeypatch.setattr(harness.journal, "mark_in_gallery", fail)
    harness.drop()
    run_to_the_end(harness)
    harness.run_for(GALLERY_SECONDS)
    assert (len(shown(harness)), harness.journal.missing_from_gallery(9)) == (1, [])


# Crashes


def test_what_a_killed_process_has_not_hung_hangs_at_the_next_start(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that a killed process did not add to the gallery is added at the next start."""

    def die(entries: Sequence[Any]) -> None:
        raise Died

    harness.drop()
    with monkeypatch.context() as patch:
        patch.setattr(harness.gallery, "add", die)
        with pytest.raises(Died):
            harness.work()
    assert (harness.states(), shown(harness)) == (["done"], [])
    harness.restart()
    run_to_the_end(harness)
    assert shown(harness) == [("result", "photo.png")]


@pytest.mark.parametrize("written", ["nothing", "record file", "page"])
def test_a_process_that_is_killed_while_it_hangs_doubles_nothing(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """If the process is killed during an update, no record is lost or duplicated."""
    harness.drop("a.png")
    run_to_the_end(harness)
    harness.drop("b.png")
    refused = {"nothing": ".js", "record file": ".html", "page": ""}[written]

    def die(path: Path, data: bytes) -> None:
        if refused and path.name.endswith(refused):
            raise Died
        atomic_write(path, data)

    def die_marking(jobs: Sequence[Any]) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(gallery_module, "atomic_write", die)
        patch.setattr(harness.journal, "mark_in_gallery", die_marking)
        with pytest.raises(Died):
            harness.work()
    harness.restart()
    run_to_the_end(harness)
    assert [name for _, name in shown(harness)] == ["a.png", "b.png"]


def test_what_was_published_before_a_crash_hangs(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that was published just before a crash is added at the next start."""
    harness.drop()

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(harness.journal, "finish", die)
        with pytest.raises(Died):
            harness.work()
    harness.restart()
    run_to_the_end(harness)
    assert (harness.engine.start_steps, shown(harness)) == ([0], [("result", "photo.png")])


def test_imported_results_are_not_added_again(harness: JobHarness) -> None:
    """Results imported into a new journal count as added: the page has them already."""

    class Done:
        job_id, style, input_sha256 = "a1", "oil", "0" * 64
        result, result_sha256 = "oil/a.png", "0" * 64
        degraded = ()

    arrival = Dropped("a.png", 1, 2, {"oil": "a.png"})
    assert enter_finished(harness.journal, [(arrival, [Done()])], 7.0) == 1  # type: ignore[list-item]  # it has the needed attributes
    assert harness.journal.missing_from_gallery(9) == []


# Time limits


def test_a_turn_has_its_time(harness: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update is limited in time; the remaining records are added by later ones."""
    sizes: list[int] = []

    def slow(self: Gallery, entries: Sequence[object]) -> None:
        sizes.append(len(entries))
        harness.advance(0.6 * UPDATE_SECONDS)

    monkeypatch.setattr(Gallery, "add", slow)
    arrivals = [Dropped(f"{n}.png", 1, 2, {"oil": f"{n}.png"}) for n in range(5 * ENTRIES_AT_ONCE)]
    harness.journal.submit(arrivals, harness.now)
    for job in harness.jobs():
        harness.journal.finish(job, type(job.state)("done"), harness.now)
    assert harness.gallery_updater.update()
    assert sizes == [ENTRIES_AT_ONCE] * 2
    assert harness.gallery_updater.update()
    assert not harness.gallery_updater.update()
    assert sizes == [ENTRIES_AT_ONCE] * 5


def test_a_photo_is_painted_before_the_rest_hangs(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are painted between the updates of a large backlog."""
    order: list[str] = []

    def slow(self: Gallery, entries: Sequence[object]) -> None:
        order.append("add")
        harness.advance(UPDATE_SECONDS)

    monkeypatch.setattr(Gallery, "add", slow)
    harness.engine.at_step = lambda step: order.append("paint") if step == 1 else None
    arrivals = [Dropped(f"{n}.png", 1, 2, {"oil": f"{n}.png"}) for n in range(2 * ENTRIES_AT_ONCE)]
    harness.journal.submit(arrivals, harness.now)
    for job in harness.jobs():
        harness.journal.finish(job, type(job.state)("done"), harness.now)
    harness.drop("a.png")
    harness.drop("b.png")
    run_to_the_end(harness)
    assert order.count("paint") == 2
    assert order.index("paint") <= 2  # an update that has begun is not interrupted
    assert harness.journal.missing_from_gallery(9) == []


# With the scheduler


@pytest.mark.parametrize("gallery", [True, False])
def test_a_gallery_is_kept_where_it_is_configured(tmp_path: Path, gallery: bool) -> None:
    """With `output.gallery: false` no gallery files are written to the outbox."""
    harness = JobHarness(tmp_path / "harness")
    harness.drop()
    output = harness.config.output.model_copy(update={"gallery": gallery})
    harness.engine.on_sync = lambda: None
    factory = OneEngine(harness.engine, can_replace=False)
    config = replace(harness.config, output=output)
    scheduler, _, events = threaded_scheduler(harness, [factory], config)
    events.put(Wakeup())
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    while not harness.finished:
        threading.Event().wait(0.01)
    events.put(StopRequested())
    thread.join(TIMEOUT_SECONDS)
    harness.close()
    in_outbox = {path.name for path in harness.config.outbox.iterdir()}
    assert in_outbox == ({"oil", "gallery.html", "gallery_files"} if gallery else {"oil"})
    assert len(records(harness.config.outbox)) == int(gallery)


@pytest.mark.parametrize("error", [RuntimeError("no memory"), MemoryError(), ValueError("no")])
def test_a_small_picture_is_no_reason_to_fail_a_job(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An exception while thumbnails are made does not fail the job."""
    make_failing(monkeypatch, error, method="write_thumbs")
    harness.drop()
    run_to_the_end(harness)
    assert (harness.states(), harness.job().attempts) == (["done"], 1)
    assert "photo.png.json" in str(harness.files("outbox"))


def test_whatever_goes_wrong_with_the_page_the_daemon_goes_on(
    harness: JobHarness, logs: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception in an update is logged, shown in the state and retried."""
    make_failing(monkeypatch, RuntimeError("nobody has thought of this"), times=1)
    harness.drop()
    run_to_the_end(harness)
    assert [line["event"] for line in logs].count("gallery.internal_error") == 1
    assert "nobody has thought" in harness.journal.get_state()["gallery_problem"]
    harness.advance(61)
    run_to_the_end(harness)
    assert len(shown(harness)) == 1
    assert harness.journal.get_state()["gallery_problem"] == ""


def test_what_ends_during_a_stop_is_shown_before_the_end(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is published during a stop is added to the gallery before the process ends."""
    publish = harness.publisher.publish_sidecar

    def stop_and_publish(*args: object) -> None:
        harness.request_stop()
        publish(*args)  # type: ignore[arg-type]  # arguments are passed through

    monkeypatch.setattr(harness.publisher, "publish_sidecar", stop_and_publish)
    harness.drop()
    harness.work()
    assert harness.scheduler.is_over
    assert shown(harness) == [("result", "photo.png")]


def test_a_journal_that_is_found_damaged_ends_the_process(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged journal raises `JournalDamaged`; the next start makes a new one."""

    def damaged(job_ids: object) -> None:
        raise JournalDamaged("the journal is damaged")

    monkeypatch.setattr(harness.journal, "mark_in_gallery", damaged)
    harness.drop()
    with pytest.raises(JournalDamaged):
        harness.work()

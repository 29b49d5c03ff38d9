"""Hanging what has ended in the gallery: each piece once, and no job the worse for it."""

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
from styled.jobs.events import StopRequested, Wakeup
from styled.jobs.gallery_updates import ENTRIES_AT_ONCE, RETRY_SECONDS, UPDATE_SECONDS
from styled.jobs.journal_rebuild import enter_finished
from styled.jobs.upkeep import GALLERY_SECONDS
from styled.ops.pulse import Pulse
from styled.stages import Stages
from tests.jobs.conftest import PATIENCE_SECONDS, Died, Dropped, JobHarness, LogLines, OneEngine


@pytest.fixture
def shop(tmp_path: Path, logs: LogLines) -> Iterator[JobHarness]:
    """Return a working folder with a gallery."""
    workshop = JobHarness(tmp_path / "shop", gallery=True)
    yield workshop
    workshop.close()


def records(outbox: Path) -> list[dict[str, Any]]:
    """Return all that hangs, the first first; nothing if there is no page."""
    paths = sorted((outbox / "gallery_files/pages").glob("*.js"))
    found: list[dict[str, Any]] = [r for path in paths for r in records_in(path.read_bytes())]
    if found:
        html = (outbox / "gallery.html").read_text()
        (text,) = re.findall(r'<script id="manifest" type="application/json">(.*?)</script>', html)
        manifest = json.loads(text)
        assert manifest["results"] + manifest["rejected"] == len(found)
    return found


def shown(shop: JobHarness) -> list[tuple[str, str]]:
    """Return kind and name of all that hangs."""
    return [(record["kind"], record["name"]) for record in records(shop.config.outbox)]


def run_to_the_end(shop: JobHarness) -> None:
    """Have the scheduler work until nothing is left to do."""
    shop.work()


def failing(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, times: int = 1, method: str = "add"
) -> list[int]:
    """Have the next calls to the gallery fail; the list counts all calls."""
    real, calls = getattr(Gallery, method), [0]

    def fail(self: Gallery, *arguments: object) -> None:
        calls[0] += 1
        if calls[0] <= times:
            raise error
        real(self, *arguments)

    monkeypatch.setattr(Gallery, method, fail)
    return calls


def test_each_result_hangs_once(shop: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its small pictures, after its job and not again."""
    for name in ("a.png", "trip/b.png"):
        shop.drop(name)
    run_to_the_end(shop)
    assert shown(shop) == [("result", "a.png"), ("result", "trip/b.png")]
    assert shop.journal.missing_from_gallery(9) == []
    for record in records(shop.config.outbox):
        for which in ("before", "after", "result", "sidecar"):
            assert (shop.config.outbox / record[which]).is_file()
    calls = failing(monkeypatch, AssertionError(), 0)
    run_to_the_end(shop)
    shop.restart()
    run_to_the_end(shop)
    assert calls == [0]


def test_what_was_rejected_hangs_once_it_has_left_the_inbox(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that there is nothing that one could look at."""
    shop.drop("broken.png", b"no picture at all")
    place = shop.publisher.take_original
    seen: list[int] = []

    def look(*arguments: Any, **options: Any) -> bool:
        shop.gallery_updater.update()
        seen.append(len(shown(shop)))
        return place(*arguments, **options)

    monkeypatch.setattr(shop.publisher, "take_original", look)
    run_to_the_end(shop)
    assert (shop.states(), seen) == (["rejected"], [0])
    (record,) = records(shop.config.outbox)
    assert (record["kind"], record["failure"]) == ("rejected", "input")
    assert record["file"] == "../rejected/oil/broken.png"
    assert (shop.config.rejected / "oil/broken.png").read_bytes() == b"no picture at all"


def test_one_photo_in_two_styles_hangs_twice(shop: JobHarness) -> None:
    """Each of them is a job."""
    shop.drop("photo.png", None, "oil", "ink")
    run_to_the_end(shop)
    assert [record["style"] for record in records(shop.config.outbox)] == ["oil", "ink"]


def test_cancelled_on_request_hangs_as_rejected(shop: JobHarness) -> None:
    """It lies with what was rejected, and can be had back from there."""
    shop.drop()
    shop.request_cancel(shop.job())
    run_to_the_end(shop)
    (record,) = records(shop.config.outbox)
    assert (record["kind"], record["failure"]) == ("rejected", "cancelled")


@pytest.mark.parametrize("why", ["gone", "style"])
def test_cancelled_for_other_reasons_does_not_hang(shop: JobHarness, why: str) -> None:
    """A photo that was taken away is nowhere, and one whose style is gone waits for it."""
    path = shop.drop()
    if why == "gone":
        path.unlink()
    else:
        del shop.styles["oil"]
    run_to_the_end(shop)
    assert shop.states() == ["cancelled"]
    assert shown(shop) == []
    assert shop.journal.missing_from_gallery(9) == []


@pytest.mark.parametrize("after_success", ["keep", "delete"])
def test_a_photo_that_is_not_archived_hangs_all_the_same(
    shop: JobHarness, after_success: str
) -> None:
    """With its picture, though the file may be gone."""
    shop.configure("output", after_success=after_success)
    shop.drop()
    run_to_the_end(shop)
    (record,) = records(shop.config.outbox)
    assert record["before"] is not None
    assert (shop.config.outbox / record["before"]).is_file()


def test_a_transparent_photo_hangs_on_white(shop: JobHarness) -> None:
    """So does its painting, which is as transparent."""
    image = Image.new("RGBA", (64, 64), "#00800000")
    image.paste("navy", (0, 0, 32, 64))
    file = io.BytesIO()
    image.save(file, "png")
    shop.drop("photo.png", file.getvalue())
    run_to_the_end(shop)
    (record,) = records(shop.config.outbox)
    for which in ("before", "after"):
        with Image.open(shop.config.outbox / record[which]) as shown:
            levels = np.asarray(shown.convert("L"))
        assert levels[8:56, 40:56].min() > 245
        assert levels[8:56, 8:24].max() < 60


# Trouble


@pytest.mark.parametrize("error", [ResourceUnavailable("it is full"), OSError("it is full")])
def test_trouble_is_told_and_tried_again_after_a_minute(
    shop: JobHarness, logs: LogLines, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """In the log and for `styled status`, until all is well again; all jobs are done meanwhile."""
    calls = failing(monkeypatch, error, times=2)
    for name in ("a.png", "b.png", "c.png"):
        shop.drop(name)
    run_to_the_end(shop)
    assert (shop.states(), calls) == (["done"] * 3, [1])
    assert [line["reason"] for line in logs if line["event"] == "gallery.failed"] == ["it is full"]
    assert shop.journal.get_state()["gallery_trouble"] == "it is full"
    shop.now += RETRY_SECONDS
    assert not shop.gallery_updater.update()
    assert (calls, shown(shop)) == ([2], [])
    shop.now += RETRY_SECONDS
    assert not shop.gallery_updater.update()
    assert [name for _, name in shown(shop)] == ["a.png", "b.png", "c.png"]
    assert shop.journal.get_state()["gallery_trouble"] == ""


def test_within_the_minute_nothing_is_tried(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many jobs end."""
    calls = failing(monkeypatch, ResourceUnavailable("it is full"), times=9)
    shop.drop()
    shop.work()
    for seconds in (0.0, RETRY_SECONDS - 1, 0.5):
        shop.now += seconds
        assert not shop.gallery_updater.update()
    assert calls == [1]
    shop.now += 0.5
    shop.gallery_updater.update()
    assert calls == [2]


def test_the_page_of_somebody_else_stops_no_job(shop: JobHarness) -> None:
    """It stays, and its reason can be read."""
    page = shop.config.outbox / "gallery.html"
    page.write_text("<h1>My wedding</h1>")
    shop.drop()
    run_to_the_end(shop)
    assert shop.states() == ["done"]
    assert page.read_text() == "<h1>My wedding</h1>"
    assert str(page) in shop.journal.get_state()["gallery_trouble"]


def test_pictures_that_cannot_be_kept_are_made_of_files(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is published all the same."""
    failing(monkeypatch, ResourceUnavailable("it is full"), method="keep_pictures")
    shop.drop()
    run_to_the_end(shop)
    (record,) = records(shop.config.outbox)
    assert shop.states() == ["done"]
    assert (record["before"] is None, record["after"] is None) == (False, False)


def test_a_journal_that_fails_stops_no_scheduler(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be remembered hangs just once."""
    note, calls = shop.journal.mark_in_gallery, [0]

    def fail(jobs: Sequence[Any]) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise ResourceUnavailable("the journal can't be used")
        note(jobs)

    monkeypatch.setattr(shop.journal, "mark_in_gallery", fail)
    shop.drop()
    run_to_the_end(shop)
    shop.run_for(GALLERY_SECONDS)
    assert (len(shown(shop)), shop.journal.missing_from_gallery(9)) == (1, [])


# Ends of a process


def test_what_a_killed_process_has_not_hung_hangs_at_the_next_start(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result had been published."""

    def die(pieces: Sequence[Any]) -> None:
        raise Died

    shop.drop()
    with monkeypatch.context() as patch:
        patch.setattr(shop.gallery, "add", die)
        with pytest.raises(Died):
            shop.work()
    assert (shop.states(), shown(shop)) == (["done"], [])
    shop.restart()
    run_to_the_end(shop)
    assert shown(shop) == [("result", "photo.png")]


@pytest.mark.parametrize("written", ["nothing", "data page", "page"])
def test_a_process_that_is_killed_while_it_hangs_doubles_nothing(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """Nor does it lose anything."""
    shop.drop("a.png")
    run_to_the_end(shop)
    shop.drop("b.png")
    refused = {"nothing": ".js", "data page": ".html", "page": ""}[written]

    def die(path: Path, data: bytes) -> None:
        if refused and path.name.endswith(refused):
            raise Died
        atomic_write(path, data)

    def die_too(jobs: Sequence[Any]) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(gallery_module, "atomic_write", die)
        patch.setattr(shop.journal, "mark_in_gallery", die_too)
        with pytest.raises(Died):
            shop.work()
    shop.restart()
    run_to_the_end(shop)
    assert [name for _, name in shown(shop)] == ["a.png", "b.png"]


def test_what_was_published_before_a_crash_hangs(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process finds the result, and hangs it."""
    shop.drop()

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(shop.journal, "finish", die)
        with pytest.raises(Died):
            shop.work()
    shop.restart()
    run_to_the_end(shop)
    assert (shop.engine.begun, shown(shop)) == ([0], [("result", "photo.png")])


def test_imported_results_are_not_added_again(shop: JobHarness) -> None:
    """A new journal made of the outbox knows that the page shows them, or `styled gallery` will."""

    class Done:
        job_id, style, input_sha256 = "a1", "oil", "0" * 64
        result, result_sha256 = "oil/a.png", "0" * 64
        degraded = ()

    arrival = Dropped("a.png", 1, 2, {"oil": "a.png"})
    assert enter_finished(shop.journal, [(arrival, [Done()])], 7.0) == 1  # type: ignore[list-item]  # it has all that matters
    assert shop.journal.missing_from_gallery(9) == []


# Time


def test_a_turn_has_its_time(shop: JobHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not added in one turn is added in the next, and jobs are painted in between."""
    sizes: list[int] = []

    def slow(self: Gallery, pieces: Sequence[object]) -> None:
        sizes.append(len(pieces))
        shop.advance(0.6 * UPDATE_SECONDS)

    monkeypatch.setattr(Gallery, "add", slow)
    arrivals = [Dropped(f"{n}.png", 1, 2, {"oil": f"{n}.png"}) for n in range(5 * ENTRIES_AT_ONCE)]
    shop.journal.submit(arrivals, shop.now)
    for job in shop.jobs():
        shop.journal.finish(job, type(job.state)("done"), shop.now)
    assert shop.gallery_updater.update()
    assert sizes == [ENTRIES_AT_ONCE] * 2
    assert shop.gallery_updater.update()
    assert not shop.gallery_updater.update()
    assert sizes == [ENTRIES_AT_ONCE] * 5


def test_a_photo_is_painted_before_the_rest_hangs(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue comes first."""
    order: list[str] = []

    def slow(self: Gallery, pieces: Sequence[object]) -> None:
        order.append("add")
        shop.advance(UPDATE_SECONDS)

    monkeypatch.setattr(Gallery, "add", slow)
    shop.engine.at_step = lambda step: order.append("paint") if step == 1 else None
    arrivals = [Dropped(f"{n}.png", 1, 2, {"oil": f"{n}.png"}) for n in range(2 * ENTRIES_AT_ONCE)]
    shop.journal.submit(arrivals, shop.now)
    for job in shop.jobs():
        shop.journal.finish(job, type(job.state)("done"), shop.now)
    shop.drop("a.png")
    shop.drop("b.png")
    run_to_the_end(shop)
    assert order.count("paint") == 2
    assert order.index("paint") <= 2  # updates that had begun by then have their time
    assert shop.journal.missing_from_gallery(9) == []


# The whole


@pytest.mark.parametrize("gallery", [True, False])
def test_a_gallery_is_kept_where_it_is_configured(tmp_path: Path, gallery: bool) -> None:
    """`output.gallery: false` leaves nothing of it in the outbox."""
    shop = JobHarness(tmp_path / "shop")
    shop.drop()
    output = shop.config.output.model_copy(update={"gallery": gallery})
    stages = Stages(replace(shop.config, output=output), Pulse())
    shop.engine.on_sync = lambda: None
    factory = OneEngine(shop.engine, can_replace=False)
    scheduler, _ = stages.make_scheduler(shop.journal, shop.publisher, [factory], observer=shop)
    stages.events.put(Wakeup())
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    while not shop.finished:
        threading.Event().wait(0.01)
    stages.events.put(StopRequested())
    thread.join(PATIENCE_SECONDS)
    shop.close()
    in_outbox = {path.name for path in shop.config.outbox.iterdir()}
    assert in_outbox == ({"oil", "gallery.html", "gallery_files"} if gallery else {"oil"})
    assert len(records(shop.config.outbox)) == int(gallery)


@pytest.mark.parametrize("error", [RuntimeError("no memory"), MemoryError(), ValueError("no")])
def test_a_small_picture_is_no_reason_to_fail_a_job(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The result lies there complete, after one attempt."""
    failing(monkeypatch, error, method="keep_pictures")
    shop.drop()
    run_to_the_end(shop)
    assert (shop.states(), shop.job().attempts) == (["done"], 1)
    assert "photo.png.json" in str(shop.files("outbox"))


def test_whatever_goes_wrong_with_the_page_the_daemon_goes_on(
    shop: JobHarness, logs: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told with its traceback, and tried again."""
    failing(monkeypatch, RuntimeError("nobody has thought of this"), times=1)
    shop.drop()
    run_to_the_end(shop)
    assert [line["event"] for line in logs].count("gallery.crashed") == 1
    assert "nobody has thought" in shop.journal.get_state()["gallery_trouble"]
    shop.advance(61)
    run_to_the_end(shop)
    assert len(shown(shop)) == 1
    assert shop.journal.get_state()["gallery_trouble"] == ""


def test_what_ends_during_a_stop_is_shown_before_the_end(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was being published when the stop came."""
    publish = shop.publisher.publish_sidecar

    def stop_and_publish(*args: object) -> None:
        shop.request_stop()
        publish(*args)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(shop.publisher, "publish_sidecar", stop_and_publish)
    shop.drop()
    shop.work()
    assert shop.scheduler.is_over
    assert shown(shop) == [("result", "photo.png")]


def test_a_journal_that_is_found_damaged_ends_the_process(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever request: the next start makes a new one."""

    def damaged(job_ids: object) -> None:
        raise JournalDamaged("the journal is damaged")

    monkeypatch.setattr(shop.journal, "mark_in_gallery", damaged)
    shop.drop()
    with pytest.raises(JournalDamaged):
        shop.work()

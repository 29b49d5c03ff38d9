"""The thread beside the engine's: what it does, and what becomes of a job whose end lies there."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

from styled.errors import (
    ConfigError,
    DeviceLost,
    JournalDamaged,
    ResourceUnavailable,
    StyledError,
)
from styled.jobs.backstage import ON_LEAVE_SECONDS, Backstage, HandOver
from styled.jobs.hanging import HangingBackstage
from styled.jobs.job import Job, JobState
from styled.jobs.preparation import Prepared, prepare
from tests.jobs.conftest import PATIENCE_SECONDS, Died, LogLines, Workshop, picture


def nothing() -> None:
    """Do nothing."""


def let_it_catch_up(shop: Workshop) -> None:
    """Wait until all is done that somebody backstage has been told to do so far."""
    assert shop.backstage is not None
    shop.backstage.do(nothing).result(PATIENCE_SECONDS)


def at(shop: Workshop, painting: int, step: int, do: Callable[[], object]) -> None:
    """Have something done before a step of a painting, both counted from one."""

    def at_step(present: int) -> None:
        if (len(shop.engine.begun), present) == (painting, step):
            do()

    shop.engine.at_step = at_step


def refuse(
    shop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    *,
    times: int,
    error: BaseException | None = None,
    painting: int = 0,
) -> None:
    """Have the outbox refuse the first so many results, for lack of room if nothing is said.

    It says no only when so many paintings have begun, however quick it is.
    """
    publish_result = shop.publisher.publish_result
    left = iter(range(times))

    def publish(path: Path, data: bytes) -> None:
        if next(left, None) is not None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while len(shop.engine.begun) < painting:
                assert time.monotonic() < deadline, "the next painting has not begun"
                time.sleep(0.001)
            raise error or ResourceUnavailable("the outbox is full")
        publish_result(path, data)

    monkeypatch.setattr(shop.publisher, "publish_result", publish)


def results(shop: Workshop) -> list[str]:
    """Return what lies in the outbox, the gallery left out."""
    return [name for name in shop.files("outbox") if name.startswith(("oil/", "ink/"))]


def events(logs: LogLines) -> list[str]:
    return [line["event"] for line in logs]


def a_job(shop: Workshop) -> Job:
    shop.drop()
    return shop.job()


# The thread


@pytest.fixture
def beats() -> list[float]:
    """Return the list that every sign of life of `backstage` goes into."""
    return []


@pytest.fixture
def backstage(beats: list[float]) -> Iterator[Backstage]:
    """Return a thread that has nothing to do yet."""
    backstage = Backstage(beats.append)
    yield backstage
    backstage.close()


def test_tasks_are_done_in_their_order_one_at_a_time(backstage: Backstage) -> None:
    """None begins before the one before it has ended, whatever the others wait for."""
    go, said = threading.Event(), list[str]()

    def task(name: str) -> str:
        said.append(f"{name} begins")
        assert go.wait(PATIENCE_SECONDS)
        said.append(f"{name} ends")
        return name

    futures = [backstage.do(partial(task, name)) for name in "abc"]
    assert not futures[0].done()
    go.set()
    assert [future.result(PATIENCE_SECONDS) for future in futures] == ["a", "b", "c"]
    assert said == ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]


@pytest.mark.parametrize("error", [ZeroDivisionError("surprise"), Died()])
def test_a_failure_goes_to_whoever_asked(backstage: Backstage, error: BaseException) -> None:
    """The thread goes on with the next task, whatever it was."""

    def fail() -> None:
        raise error

    failing, next_one = backstage.do(fail), backstage.do(lambda: 7)
    assert failing.exception(PATIENCE_SECONDS) is error
    assert next_one.result(PATIENCE_SECONDS) == 7


def test_what_is_cancelled_in_time_is_not_done(backstage: Backstage, beats: list[float]) -> None:
    """What is being done already can't be cancelled; what waits is left out without a word."""
    begun, go = threading.Event(), threading.Event()
    done: list[str] = []

    def first() -> None:
        begun.set()
        assert go.wait(PATIENCE_SECONDS)
        done.append("first")

    present, waiting = backstage.do(first), backstage.do(lambda: done.append("second"))
    third = backstage.do(lambda: done.append("third"))
    assert begun.wait(PATIENCE_SECONDS)
    assert not present.cancel()
    assert waiting.cancel()
    go.set()
    third.result(PATIENCE_SECONDS)
    with pytest.raises(CancelledError):
        waiting.result(PATIENCE_SECONDS)
    assert done == ["first", "third"]
    assert beats.count(0.0) == 2


def test_it_gives_a_sign_of_life_at_each_task_and_rests_after_it(
    backstage: Backstage, beats: list[float]
) -> None:
    """What fails is no exception: whoever is silent after it is on leave, not stuck."""
    seen: list[list[float]] = []

    def look() -> None:
        seen.append(list(beats))

    def fail() -> None:
        look()
        raise Died

    for task in (look, fail, look):
        backstage.do(task)
    backstage.do(look).result(PATIENCE_SECONDS)
    one_task = [0.0, ON_LEAVE_SECONDS]
    assert seen == [one_task * n + [0.0] for n in range(4)]


def test_it_ends_once_all_is_done(backstage: Backstage) -> None:
    """What it was told before it was closed is done; then the thread ends."""
    thread = backstage.do(threading.current_thread).result(PATIENCE_SECONDS)
    assert (thread.is_alive(), thread.daemon) == (True, True)
    go = threading.Event()
    futures = [backstage.do(partial(go.wait, PATIENCE_SECONDS)) for _ in range(3)]
    backstage.close()
    go.set()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert [future.result(0) for future in futures] == [True] * 3


def test_only_whoever_started_it_computes_on_all_cores() -> None:
    """The thread itself has one; the starter, and whoever comes later, have as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    backstage = Backstage()
    try:
        assert torch.get_num_threads() == 3
        assert backstage.do(torch.get_num_threads).result(PATIENCE_SECONDS) == 1
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
        assert backstage.do(torch.get_num_threads).result(PATIENCE_SECONDS) == 1
        assert torch.get_num_threads() == 3
    finally:
        backstage.close()
        torch.set_num_threads(before)


class Picture:
    """Something that takes up much memory."""


@pytest.mark.parametrize("error", [None, ZeroDivisionError], ids=["done", "failed"])
def test_nothing_that_is_done_is_kept(backstage: Backstage, error: type[Exception] | None) -> None:
    """Neither what a task was about nor what it returned, however long nothing else comes."""
    given, returned = Picture(), Picture()
    gone = [threading.Event(), threading.Event()]
    kept = [
        weakref.ref(given, lambda _: gone[0].set()),
        weakref.ref(returned, lambda _: gone[1].set()),
    ]

    def task(given: Picture, returned: list[Picture]) -> Picture:
        if error is not None:
            raise error
        return returned.pop()

    future = backstage.do(partial(task, given, [returned]))
    del given, returned
    assert isinstance(future.exception(PATIENCE_SECONDS), error or type(None))
    del future
    assert [event.wait(PATIENCE_SECONDS / 6) for event in gone] == [True, True]
    assert [ref() for ref in kept] == [None, None]


# Handing over


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whoever waits give a sign of life every hundredth of a second."""
    monkeypatch.setattr("styled.jobs.backstage.LOOK_SECONDS", 0.01)


@pytest.mark.usefixtures("quick_looks")
def test_whoever_hands_over_waits_for_the_one_before(backstage: Backstage, shop: Workshop) -> None:
    """One picture waits at most; and whoever waits for it gives signs of life."""
    said: list[str] = []
    may_end = threading.Event()

    def beat(rest_seconds: float) -> None:
        said.append("beat")
        if len(said) == 5:
            may_end.set()

    def publish(name: str) -> None:
        said.append(f"{name} published" if may_end.wait(PATIENCE_SECONDS) else "it never ended")

    hand_over = HandOver(backstage, beat, nothing)
    hand_over.give(a_job(shop), partial(publish, "first"))
    said.append("first given")
    hand_over.give(shop.job(), partial(publish, "second"))
    said.append("second given")
    hand_over.finish()
    assert said[0] == "first given"
    assert said[1:5] == ["beat"] * 4
    assert said.index("first published") < said.index("second given")
    assert "second published" in said
    assert "it never ended" not in said


def test_what_is_held_up_is_told_once(backstage: Backstage, shop: Workshop) -> None:
    """With its reason, whether somebody has waited for it or not."""
    job, error = a_job(shop), ResourceUnavailable("the outbox is full")

    def refused() -> None:
        raise error

    hand_over = HandOver(backstage, lambda rest_seconds: None, nothing)
    assert hand_over.held_up() == []
    hand_over.give(job, refused)
    hand_over.give(job, nothing)
    hand_over.finish()
    assert hand_over.held_up() == [(job, error)]
    assert hand_over.held_up() == []


@pytest.mark.parametrize("error", [DeviceLost("gone"), JournalDamaged("damaged"), Died()])
@pytest.mark.parametrize("way", ["give", "finish", "held_up"])
def test_what_ends_the_process_is_raised_once(
    backstage: Backstage, shop: Workshop, error: BaseException, way: str
) -> None:
    """By whatever is asked next; after that nothing is being published any more."""
    job = a_job(shop)

    def fail() -> None:
        raise error

    hand_over = HandOver(backstage, lambda rest_seconds: None, nothing)
    asked: dict[str, Callable[[], object]] = {
        "give": lambda: hand_over.give(job, nothing),
        "finish": hand_over.finish,
        "held_up": hand_over.held_up,
    }
    hand_over.give(job, fail)
    backstage.do(nothing).result(PATIENCE_SECONDS)
    with pytest.raises(type(error)):
        asked[way]()
    hand_over.finish()
    assert hand_over.held_up() == []


def test_whoever_is_woken_learns_what_was_held_up(backstage: Backstage, shop: Workshop) -> None:
    """However quick: or it would be found only when something else wakes the scheduler."""
    woken, has_looked = threading.Event(), threading.Event()

    def wake() -> None:
        woken.set()
        has_looked.wait(1.0)

    def refused() -> None:
        raise ResourceUnavailable("the outbox is full")

    hand_over = HandOver(backstage, lambda rest_seconds: None, wake)
    hand_over.give(a_job(shop), refused)
    found: list[tuple[Job, ResourceUnavailable]] = []
    while not found and woken.wait(2.0):  # as the scheduler does, which else sleeps for a minute
        woken.clear()
        found = hand_over.held_up()
        has_looked.set()
    assert [str(error) for _, error in found] == ["the outbox is full"]


# Publishing while the next is painted


def test_a_picture_is_published_while_the_next_is_painted(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result and sidecar lie there, and it hangs, before the next one's first step is taken."""
    is_painting, was_painting = threading.Event(), list[bool]()
    publish_result = busy.publisher.publish_result

    def publish(path: Path, data: bytes) -> None:
        was_painting.append(is_painting.wait(PATIENCE_SECONDS / 6))
        publish_result(path, data)

    monkeypatch.setattr(busy.publisher, "publish_result", publish)
    seen: list[object] = []

    def look() -> None:
        is_painting.set()
        let_it_catch_up(busy)
        seen.extend([busy.states(), results(busy), busy.files("archive")])
        seen.append(len(busy.journal.not_hanging(9)))
        seen.append((busy.config.outbox / "gallery.html").exists())

    at(busy, 2, 1, look)
    busy.drop("one.png")
    busy.drop("two.png", picture("olive"))
    busy.run()
    assert was_painting == [True, True]
    assert seen == [
        ["done", "running"], ["oil/one.png", "oil/one.png.json"], ["oil/one.png"], 0, True,
    ]  # fmt: skip
    assert busy.states() == ["done", "done"]
    assert busy.files("archive") == ["oil/one.png", "oil/two.png"]
    assert busy.files("inbox") == busy.files("state/checkpoints") == []


def test_the_result_is_the_one_that_is_made_without_it(busy: Workshop, tmp_path: Path) -> None:
    """To the byte, and the sidecar says the same, times and ids left out."""
    alone = Workshop(tmp_path / "alone", gallery=True)
    sidecars = []
    for shop in (alone, busy):
        for name, colour in (("one.png", "teal"), ("two.png", "olive")):
            shop.drop(name, picture(colour))
        shop.work()
        sidecars.append([shop.sidecar(f"outbox/oil/{name}.png.json") for name in ("one", "two")])
    assert results(alone) == results(busy)
    for name in ("oil/one.png", "oil/two.png"):
        same = {(shop.config.outbox / name).read_bytes() for shop in (alone, busy)}
        assert len(same) == 1
    for one, other in zip(*sidecars, strict=True):
        for sidecar in (one, other):
            del sidecar["timing"], sidecar["job"]["id"], sidecar["style"]
            sidecar["job"] = {k: v for k, v in sidecar["job"].items() if not k.endswith("_at")}
            sidecar["input"].pop("mtime", None)
        assert one == other
    alone.close()


@pytest.mark.usefixtures("quick_looks")
def test_one_picture_waits_to_be_published_at_most(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third is not begun before the first is published, however slow the outbox is."""
    said: list[str] = []
    may_end = threading.Event()
    publish_result = busy.publisher.publish_result

    class Beats(list[tuple[float, float]]):
        """Lets the first be published at the tenth sign of life after the second is painted."""

        def append(self, beat: tuple[float, float]) -> None:
            super().append(beat)
            if busy.engine.layers_run == 2 * busy.engine.steps:
                said.append("waiting")
                if len(said) >= 10:
                    may_end.set()

    def publish(path: Path, data: bytes) -> None:
        in_time = may_end.wait(PATIENCE_SECONDS / 6)
        publish_result(path, data)
        said.append(f"{path.name} published" if in_time else "it never ended")

    busy.beats = Beats()
    monkeypatch.setattr(busy.publisher, "publish_result", publish)
    at(busy, 3, 1, lambda: said.append("third begun"))
    for name, colour in (("one.png", "teal"), ("two.png", "olive"), ("three.png", "plum")):
        busy.drop(name, picture(colour))
    busy.work()
    assert busy.states() == ["done"] * 3
    assert said[:10] == ["waiting"] * 10
    assert said.index("one.png published") < said.index("third begun")


def test_what_is_logged_while_publishing_names_its_own_job(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one that is being painted meanwhile."""
    bound: list[tuple[object, object]] = []
    publish_sidecar = busy.publisher.publish_sidecar

    def publish(path: Path, sidecar: object) -> None:
        bound.append((path.name, structlog.contextvars.get_contextvars().get("input")))
        publish_sidecar(path, sidecar)  # type: ignore[arg-type]  # it is one

    monkeypatch.setattr(busy.publisher, "publish_sidecar", publish)
    at(busy, 2, 1, partial(let_it_catch_up, busy))
    busy.drop("one.png")
    busy.drop("two.png", picture("olive"))
    busy.work()
    assert bound == [("one.png", "one.png"), ("two.png", "two.png")]


def test_nothing_of_what_is_published_is_kept(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once all is done, no photo and no painting takes up memory."""
    photos, gone = list[weakref.ref[torch.Tensor]](), threading.Event()

    def preparing(*args: Any, **options: Any) -> Prepared:
        prepared = prepare(*args, **options)
        photos.append(weakref.ref(prepared.content, lambda _: gone.set()))
        return prepared

    monkeypatch.setattr("styled.jobs.worker.prepare", preparing)
    for name, colour in (("one.png", "teal"), ("two.png", "olive"), ("three.png", "plum")):
        busy.drop(name, picture(colour))
    busy.work()
    let_it_catch_up(busy)
    assert len(photos) == 3
    while any(photo() is not None for photo in photos) and gone.wait(PATIENCE_SECONDS / 6):
        gone.clear()
    assert [photo() for photo in photos] == [None] * 3


# What goes wrong while publishing


def test_an_outbox_that_refuses_pauses_the_queue_and_costs_nothing(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """The first is queued again after the next is painted, and published as it was painted."""
    busy.configure("queue", max_attempts=1)
    refuse(busy, monkeypatch, times=1, painting=2)
    at(busy, 2, 1, partial(let_it_catch_up, busy))
    in_pause: list[str] = []
    busy.stop.on_wait = lambda: in_pause.append(busy.states()[0])
    busy.drop("one.png")
    busy.drop("two.png", picture("olive"))
    busy.run()
    assert in_pause == ["queued"]
    assert busy.stop.waits == [1]
    assert events(logs).count("queue.paused") == 1
    assert busy.states() == ["done", "done"]
    assert [job.attempts for job in busy.jobs()] == [1, 1]
    assert busy.engine.begun == [0, 0, 3]
    assert busy.engine.layers_run == 2 * busy.engine.steps
    assert results(busy) == [
        "oil/one.png", "oil/one.png.json", "oil/two.png", "oil/two.png.json",
    ]  # fmt: skip
    assert busy.files("state/checkpoints") == busy.files("rejected") == busy.files("inbox") == []


def test_two_that_are_refused_are_both_published_in_the_end(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is painted twice, and neither is blamed."""
    busy.configure("queue", max_attempts=1)
    refuse(busy, monkeypatch, times=2)
    busy.drop("one.png")
    busy.drop("two.png", picture("olive"))
    busy.run()
    assert busy.states() == ["done", "done"]
    assert [job.attempts for job in busy.jobs()] == [1, 1]
    assert sorted(busy.engine.begun) == [0, 0, 3, 3]
    assert busy.engine.layers_run == 2 * busy.engine.steps
    assert busy.failed_attempts == []


def test_an_outbox_that_goes_on_refusing_is_asked_ever_more_seldom(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """As without anybody backstage: what has only been painted is no reason to hope."""
    refuse(busy, monkeypatch, times=4)
    states: list[str] = []
    busy.stop.on_wait = lambda: states.append(busy.journal.read_daemon()["state"])
    busy.drop()
    busy.work()
    assert busy.states() == ["done"]
    assert busy.stop.waits == [1, 2, 4, 8]
    assert states == ["paused: the outbox is full"] * 4
    assert events(logs).count("queue.resumed") == 1
    assert busy.journal.read_daemon()["state"] == "running"


def test_what_is_held_up_is_not_blamed_for_a_death(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for room in the outbox; the process died at the next one, an hour later."""
    refuse(busy, monkeypatch, times=1, painting=2)

    def at_step(step: int) -> None:
        if len(busy.engine.begun) == 2:
            let_it_catch_up(busy)
            busy.advance(2.0)  # long enough to look around
            if step == 3:
                raise Died

    busy.engine.at_step = at_step
    busy.drop("one.png")
    busy.drop("two.png", picture("olive"))
    with pytest.raises(Died):
        busy.work()
    busy.restart()
    assert [(str(job.state), job.attempts) for job in busy.jobs()] == [("queued", 0), ("queued", 1)]


def test_what_no_attempt_could_publish_is_rejected(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the next is painted, which is none the worse for it."""
    refuse(busy, monkeypatch, times=1, error=ConfigError("a PNG can't hold that", "be modest"))
    seen: list[list[str]] = []

    def look() -> None:
        let_it_catch_up(busy)
        seen.append(busy.states())

    at(busy, 2, 1, look)
    busy.drop("one.png")
    busy.drop("two.png", picture("olive"))
    busy.run()
    assert seen == [["rejected", "running"]]
    assert busy.states() == ["rejected", "done"]
    assert busy.files("rejected") == ["oil/one.png", "oil/one.png.json"]
    rejected = busy.sidecar("rejected/oil/one.png.json")["rejected"]
    assert rejected["failure"] == "configuration"
    assert rejected["reason"] == "a PNG can't hold that"
    assert rejected["remedies"] == ["be modest"]
    assert results(busy) == ["oil/two.png", "oil/two.png.json"]
    assert busy.files("inbox") == busy.files("state/checkpoints") == []
    assert busy.worker.rejected == 1


def test_an_unexpected_error_is_an_attempt_and_the_painting_is_kept(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """It is tried again when its time has come, from where it had got to."""
    refuse(busy, monkeypatch, times=1, error=ZeroDivisionError("surprise"))
    seen: list[tuple[str, float]] = []

    def look() -> None:
        let_it_catch_up(busy)
        seen.append((busy.states()[0], busy.jobs()[0].not_before - busy.now))

    at(busy, 2, 1, look)
    busy.drop("one.png")
    busy.drop("two.png", picture("olive"))
    busy.run()
    assert seen == [("queued", 10.0)]
    assert busy.states() == ["done", "done"]
    assert busy.engine.begun == [0, 0, 3]
    assert [job.attempts for job in busy.jobs()] == [2, 1]
    assert busy.failed_attempts == ["internal"]
    assert events(logs).count("job.crashed") == events(logs).count("job.failed") == 1
    assert "queue.paused" not in events(logs)


def test_an_unexpected_error_each_time_rejects_the_photo(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many attempts as any other; the engine has painted it once."""
    refuse(busy, monkeypatch, times=3, error=ZeroDivisionError("surprise"))
    busy.drop()
    busy.run()
    assert busy.states() == ["rejected"]
    assert busy.engine.begun == [0, 3, 3]
    assert busy.job().failure == "internal"
    assert "ZeroDivisionError: surprise (after 3 attempts)" in str(busy.job().reason)
    assert busy.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]


@pytest.mark.parametrize("is_last", [True, False], ids=["idle", "painting"])
@pytest.mark.parametrize("error", [DeviceLost("gone"), JournalDamaged("it is damaged")])
def test_what_ends_the_process_comes_out_of_the_scheduler(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch, error: StyledError, is_last: bool
) -> None:
    """Whether it is idle or paints the next; and the next process does what was left."""
    with monkeypatch.context() as patch:
        refuse(busy, patch, times=1, error=error, painting=1 if is_last else 2)
        busy.drop("one.png")
        if not is_last:
            busy.drop("two.png", picture("olive"))
        with pytest.raises(type(error)):
            busy.run()
        assert set(busy.states()) == {"running"}
        assert results(busy) == busy.files("rejected") == []
    busy.restart()
    busy.run()
    assert set(busy.states()) == {"done"}


@pytest.mark.parametrize("pauses", [1, 3])
def test_a_full_archive_keeps_the_original_and_the_result_backstage_too(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch, pauses: int
) -> None:
    """If only the original can't be moved, the job stays done and the move is repeated."""

    def refuse_to_move(source: Path, destination: Path) -> None:
        raise ResourceUnavailable("the archive is full")

    states: list[str] = []

    def mend() -> None:
        states.extend(busy.states())
        if len(busy.stop.waits) == pauses:
            monkeypatch.undo()

    monkeypatch.setattr("styled.delivery.publisher.move_whole", refuse_to_move)
    busy.stop.on_wait = mend
    busy.drop()
    busy.work()
    assert busy.stop.waits == [1, 2, 4][:pauses]
    assert states == ["done"] * pauses
    assert busy.engine.begun == [0]
    assert busy.files("archive") == ["oil/photo.png"]
    assert busy.files("inbox") == []


# Stopping


def test_a_stop_waits_for_what_is_being_published(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been painted is published, and hung, before the scheduler leaves."""
    is_publishing, may_end = threading.Event(), threading.Event()
    said: list[str] = []
    publish_result, finish_publishing = busy.publisher.publish_result, busy.worker.finish_publishing

    def publish(path: Path, data: bytes) -> None:
        is_publishing.set()
        said.append("was waited for" if may_end.wait(5) else "nobody waited")
        publish_result(path, data)

    def finish() -> None:
        if busy.stop.is_set():
            may_end.set()
        finish_publishing()

    def stop() -> None:
        assert is_publishing.wait(PATIENCE_SECONDS)
        busy.stop.set()
        busy.wake.set()

    monkeypatch.setattr(busy.publisher, "publish_result", publish)
    monkeypatch.setattr(busy.worker, "finish_publishing", finish)
    busy.wake.on_wait = stop
    busy.drop()
    busy.scheduler.run()
    assert busy.states() == ["done"]
    assert said == ["was waited for"]
    assert busy.journal.not_hanging(9) == []
    assert (busy.config.outbox / "gallery.html").exists()
    assert busy.files("archive") == ["oil/photo.png"]


def test_a_stop_amid_the_next_painting_waits_too(busy: Workshop) -> None:
    """The one is done, the other is saved and queued; the next process paints on from there."""
    at(busy, 2, 2, busy.stop.set)
    busy.drop("one.png")
    busy.drop("two.png", picture("olive"))
    busy.scheduler.run()
    assert busy.states() == ["done", "queued"]
    assert busy.journal.not_hanging(9) == []
    busy.restart()
    busy.run()
    assert busy.states() == ["done", "done"]
    assert busy.engine.begun == [0, 0, 2]
    assert [job.attempts for job in busy.jobs()] == [1, 1]


@pytest.mark.parametrize("is_last", [True, False], ids=["idle", "painting"])
def test_a_stop_leaves_what_the_outbox_refuses_in_the_queue(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch, is_last: bool
) -> None:
    """At no cost, with its painting; the next process only publishes it."""
    busy.configure("queue", max_attempts=1)
    with monkeypatch.context() as patch:
        refuse(busy, patch, times=9, painting=1 if is_last else 2)
        busy.drop("one.png")
        if is_last:
            busy.wake.on_wait = busy.stop.set
        else:
            busy.drop("two.png", picture("olive"))
            at(busy, 2, 2, busy.stop.set)
        busy.stop.on_wait = busy.stop.set
        busy.scheduler.run()
        assert {(str(job.state), job.attempts) for job in busy.jobs()} == {("queued", 0)}
        assert f"{busy.jobs()[0].id}.ckpt" in busy.files("state/checkpoints")
        assert results(busy) == []
    busy.restart()
    busy.run()
    assert set(busy.states()) == {"done"}
    # How often it was tried again before the stop is a matter of time; nothing is painted anew.
    anew = 1 if is_last else 2
    assert busy.engine.begun[:anew] == [0] * anew
    assert set(busy.engine.begun[anew:]) == ({3} if is_last else {3, 2})
    assert {job.attempts for job in busy.jobs()} == {1}


# Hanging


def test_hanging_waits_for_its_turn_once(backstage: Backstage, shop: Workshop) -> None:
    """However often it is asked for meanwhile; at the end it is done once more."""
    go, calls = threading.Event(), list[str]()

    class Counting:
        def hang(self) -> bool:
            calls.append(threading.current_thread().name)
            return False

    hanging = HangingBackstage(Counting(), backstage, nothing)  # type: ignore[arg-type]  # it plays the hanger
    backstage.do(partial(go.wait, PATIENCE_SECONDS))
    assert [hanging.hang() for _ in range(3)] == [False] * 3
    assert calls == []
    go.set()
    backstage.do(nothing).result(PATIENCE_SECONDS)
    assert calls == ["backstage"]
    hanging.finish()
    assert calls == ["backstage"] * 2


def test_whoever_is_woken_may_hang_the_rest(backstage: Backstage) -> None:
    """However quick: or the rest would hang only when something else wakes the scheduler."""
    woken, has_asked, has_all = threading.Event(), threading.Event(), threading.Event()
    left = [2, 1, 0]

    class Slow:
        def hang(self) -> bool:
            if left.pop(0) == 0:
                has_all.set()
                return False
            return True

    def wake() -> None:
        woken.set()
        has_asked.wait(1.0)

    hanging = HangingBackstage(Slow(), backstage, wake)  # type: ignore[arg-type]  # it plays the hanger
    hanging.hang()
    while not has_all.is_set() and woken.wait(2.0):  # as the scheduler does
        woken.clear()
        hanging.hang()
        has_asked.set()
    assert has_all.wait(2.0)


# Several styles


def count_leaving(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that every departure of a photo from the inbox goes into."""
    taken: list[str] = []
    take_original = shop.publisher.take_original

    def take(source: Path, *args: object, **options: object) -> bool:
        taken.append(source.name)
        return take_original(source, *args, **options)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(shop.publisher, "take_original", take)
    return taken


def cancelled_while_the_other_is_published(shop: Workshop) -> None:
    """Have one style painted and published while the other is cancelled on request."""
    shop.drop("photo.png", picture(), "oil", "ink")
    oil, ink = shop.jobs()[-2:]
    at(shop, len(shop.engine.begun) + 1, 3, lambda: shop.journal.request_cancel(ink))
    shop.work()
    assert [shop.journal.job(job.id).state for job in (oil, ink)] == [  # type: ignore[union-attr]  # they are there
        JobState.DONE, JobState.CANCELLED,
    ]  # fmt: skip


def test_an_input_leaves_once_though_two_find_that_it_may(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one is published as the other is cancelled, and both see that all have ended."""
    taken = count_leaving(busy, monkeypatch)
    both_retire, both_have_looked = threading.Barrier(2), threading.Barrier(2)
    retire, jobs_of_input = busy.worker.retire, busy.journal.jobs_of_input
    met: list[bool] = []

    def meet(barrier: threading.Barrier, seconds: float) -> bool:
        try:
            barrier.wait(seconds)
        except threading.BrokenBarrierError:
            return False
        return True

    def retiring(job: Job, *, again: bool = False) -> None:
        met.append(meet(both_retire, PATIENCE_SECONDS / 6))
        retire(job, again=again)

    def looking(job: Job) -> list[Job]:
        jobs = jobs_of_input(job)
        meet(both_have_looked, 0.5)  # in vain, since one of them is let in only after the other
        return jobs

    monkeypatch.setattr(busy.worker, "retire", retiring)
    monkeypatch.setattr(busy.journal, "jobs_of_input", looking)
    cancelled_while_the_other_is_published(busy)
    assert met == [True, True]
    assert taken == ["photo.png"]
    assert busy.files("inbox") == []
    assert busy.files("archive") == ["oil/photo.png"]
    assert busy.files("rejected") == ["ink/photo.png", "ink/photo.png.json"]


@pytest.mark.parametrize("after_success", ["archive", "delete", "keep"])
def test_an_input_leaves_once_however_it_comes(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch, after_success: str
) -> None:
    """The same photo, again and again, as quick as both threads happen to be."""
    busy.configure("output", after_success=after_success)
    taken = count_leaving(busy, monkeypatch)
    for count in range(1, 9):
        cancelled_while_the_other_is_published(busy)
        if after_success == "keep":
            assert busy.files("inbox") == ["photo.png"]
            (busy.config.inbox / "photo.png").unlink()
            busy.scheduler.tidy()
        else:
            assert taken == ["photo.png"] * count
        assert busy.files("inbox") == []
        archived = count if after_success == "archive" else 0
        assert len(busy.files("archive")) == archived
        assert len(busy.files("rejected")) == 2 * count
        busy.journal.prune(before=busy.now + 1, keep=0)


def test_an_original_leaves_only_after_its_last_style_backstage_too(busy: Workshop) -> None:
    """The one style is published while the other is painted; the photo stays until then."""
    seen: list[object] = []

    def look() -> None:
        let_it_catch_up(busy)
        seen.extend([busy.states(), busy.files("inbox"), busy.files("archive"), results(busy)])

    at(busy, 2, 1, look)
    busy.drop("photo.png", None, "oil", "ink")
    busy.run()
    assert seen == [
        ["done", "running"], ["photo.png"], [], ["oil/photo.png", "oil/photo.png.json"],
    ]  # fmt: skip
    assert busy.files("inbox") == []
    assert busy.files("archive") == ["ink/photo.png", "oil/photo.png"]
    assert busy.engine.begun == [0, 0]


@pytest.mark.parametrize(("free", "where"), [(10**9, Backstage.NAME), (10**5, "MainThread")])
def test_a_picture_that_takes_much_memory_is_published_before_the_next_is_painted(
    busy: Workshop, monkeypatch: pytest.MonkeyPatch, free: int, where: str
) -> None:
    """Beside a painting, which counts on the rest, it may have a tenth of what is free."""
    monkeypatch.setattr("styled.jobs.lookahead.free_bytes", lambda device: free)
    threads = []
    publish = busy.publisher.publish_result

    def publish_noting(path: Path, data: bytes) -> None:
        threads.append(threading.current_thread().name)
        publish(path, data)

    monkeypatch.setattr(busy.publisher, "publish_result", publish_noting)
    busy.drop("a.png")
    busy.drop("b.png")
    busy.run()
    assert busy.states() == ["done", "done"]
    assert threads == [where, where]

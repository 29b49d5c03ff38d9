"""Reading the next photo while the present one is painted: what is used of it, and what is not."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from styled.config import Style
from styled.errors import ResourceUnavailable
from styled.jobs.backstage import Backstage
from styled.jobs.job import Job
from styled.jobs.lookahead import BYTES_PER_PIXEL, SHARE_OF_FREE, Lookahead
from styled.jobs.preparation import Prepared, prepare
from styled.jobs.worker import MENDED_SECONDS
from tests.jobs.conftest import PATIENCE_SECONDS, Died, Dropped, LogLines, Workshop, picture

AHEAD, IN_ITS_TURN = "ahead", "in its turn"


class Readings:
    """All readings of photos, in order: of which one, and when.

    Attributes:
        before: Called with a photo's name and when, before it is read; may raise.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.all: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda name, when: None
        self.photos: list[weakref.ref[torch.Tensor]] = []
        monkeypatch.setattr("styled.jobs.worker.prepare", self._prepare)

    def _prepare(self, path: Path, *args: Any, **options: Any) -> Prepared:
        is_ahead = threading.current_thread().name == "backstage"
        when = AHEAD if is_ahead else IN_ITS_TURN
        self.all.append((path.name, when))
        self.before(path.name, when)
        prepared = prepare(path, *args, **options)
        self.photos.append(weakref.ref(prepared.content))
        return prepared

    def of(self, name: str) -> list[str]:
        """Return when a photo was read."""
        return [when for present, when in self.all if present == name]


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    """Return all readings of photos from now on."""
    return Readings(monkeypatch)


def let_it_catch_up(shop: Workshop) -> None:
    """Wait until all is done that somebody backstage has been told to do so far."""
    assert shop.backstage is not None
    shop.backstage.do(lambda: None).result(PATIENCE_SECONDS)


def while_the_first_is_painted(shop: Workshop, *happens: Callable[[], object]) -> None:
    """Have the next photo read, and then something happen at each step, a second apart."""
    world = iter(happens)

    def at_step(step: int) -> None:
        if len(shop.engine.begun) == 1:
            shop.advance(1.0)  # so that it looks around after the step
            let_it_catch_up(shop)
            next(world, lambda: None)()

    shop.engine.at_step = at_step


def drop_two(shop: Workshop) -> tuple[Path, Path]:
    return shop.drop("one.png"), shop.drop("two.png", picture("olive"))


# What is read ahead is used


def test_the_next_photo_is_read_while_the_present_one_is_painted(
    busy: Workshop, readings: Readings
) -> None:
    """Once; the one after it is not read yet."""
    seen: list[list[tuple[str, str]]] = []
    while_the_first_is_painted(busy, lambda: seen.append(list(readings.all)))
    drop_two(busy)
    busy.drop("three.png", picture("plum"))
    busy.work()
    assert seen == [[("one.png", IN_ITS_TURN), ("two.png", AHEAD)]]
    assert readings.of("two.png") == [AHEAD]
    assert len(readings.of("three.png")) == 1
    assert busy.states() == ["done"] * 3
    assert [job.attempts for job in busy.jobs()] == [1] * 3


def test_each_photo_gives_its_own_result(busy: Workshop, readings: Readings) -> None:
    """The sidecars tell which bytes were painted, and the results are those of their photos."""
    busy.engine.at_step = lambda step: let_it_catch_up(busy)
    colours = ["teal", "olive", "plum", "sienna"]
    for colour in colours:
        busy.drop(f"{colour}.png", picture(colour))
    busy.work()
    assert [when for _, when in readings.all] == [IN_ITS_TURN, AHEAD, AHEAD, AHEAD]
    for colour in colours:
        sidecar = busy.sidecar(f"outbox/oil/{colour}.png.json")
        assert sidecar["input"]["sha256"] == hashlib.sha256(picture(colour)).hexdigest()
    pictures = {(busy.config.outbox / f"oil/{colour}.png").read_bytes() for colour in colours}
    assert len(pictures) == len(colours)


def test_a_photo_that_arrives_while_painting_is_read_too(
    busy: Workshop, readings: Readings
) -> None:
    """Within about a second, once nothing else is next."""
    seen: list[list[str]] = []
    while_the_first_is_painted(
        busy,
        lambda: busy.drop("two.png", picture("olive")),
        lambda: busy.drop("three.png", picture("plum")),
        lambda: seen.append([name for name, _ in readings.all]),
    )
    busy.drop("one.png")
    busy.work()
    assert seen == [["one.png", "two.png"]]
    assert readings.of("two.png") == [AHEAD]
    assert busy.states() == ["done"] * 3


def test_both_styles_of_a_photo_are_read(busy: Workshop, readings: Readings) -> None:
    """Each with its own pictures."""
    while_the_first_is_painted(busy)
    busy.drop("photo.png", None, "oil", "ink")
    busy.work()
    assert readings.of("photo.png") == [IN_ITS_TURN, AHEAD]
    for style in ("oil", "ink"):
        (image,) = busy.sidecar(f"outbox/{style}/photo.png.json")["style"]["images"]
        assert image["path"].endswith(f"{style}.png")


def test_a_job_that_waits_for_its_time_is_not_read(busy: Workshop, readings: Readings) -> None:
    """The one whose turn is next is."""
    (busy.base / "styles/ink.png").unlink()
    busy.drop("waiting.png", None, "ink")
    busy.work()
    assert busy.states() == ["queued"]
    while_the_first_is_painted(busy)
    drop_two(busy)
    busy.work()
    assert readings.of("waiting.png") == [IN_ITS_TURN]
    assert readings.of("two.png") == [AHEAD]


# Its turn comes before it is read


@pytest.fixture
def backstage() -> Iterator[Backstage]:
    """Return a thread that has nothing to do yet."""
    backstage = Backstage()
    yield backstage
    backstage.close()


def ahead_of(
    shop: Workshop,
    backstage: Backstage,
    read: Callable[[Job, Style, int], Prepared],
    beat: Callable[[float], None] = lambda rest_seconds: None,
) -> Lookahead:
    return Lookahead(
        backstage, shop.config, shop.journal, lambda: shop.styles, read, beat, lambda: shop.now
    )


def test_whoever_needs_a_photo_waits_while_it_is_read(
    shop: Workshop, backstage: Backstage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With signs of life; it is not read twice."""
    monkeypatch.setattr("styled.jobs.lookahead.LOOK_SECONDS", 0.01)
    has_begun, may_end, beats = threading.Event(), threading.Event(), list[float]()

    def read(job: Job, style: Style, max_pixels: int) -> Prepared:
        has_begun.set()
        assert may_end.wait(PATIENCE_SECONDS)
        return prepare(shop.config.inbox / job.input, style, max_pixels=max_pixels)

    def beat(rest_seconds: float) -> None:
        beats.append(rest_seconds)
        if len(beats) == 5:
            may_end.set()

    shop.drop()
    ahead = ahead_of(shop, backstage, read, beat)
    ahead.look()
    assert has_begun.wait(PATIENCE_SECONDS)
    prepared = ahead.take(shop.job(), shop.styles["oil"])
    assert prepared is not None
    assert prepared.read.sha256 == hashlib.sha256(picture()).hexdigest()
    assert len(beats) >= 5
    assert set(beats) == {0.0}
    assert ahead.take(shop.job(), shop.styles["oil"]) is None  # it is handed out once


def test_what_has_not_begun_when_its_turn_comes_is_read_in_its_turn(
    busy: Workshop, readings: Readings
) -> None:
    """Whatever is done backstage may take long; the engine does not wait for it."""
    assert busy.backstage is not None
    may_end = threading.Event()
    in_time = busy.backstage.do(partial(may_end.wait, PATIENCE_SECONDS / 6))

    def at_step(step: int) -> None:
        if len(busy.engine.begun) == 2:
            may_end.set()

    busy.engine.at_step = at_step
    drop_two(busy)
    busy.work()
    let_it_catch_up(busy)
    assert in_time.result(0)
    assert readings.of("two.png") == [IN_ITS_TURN]
    assert busy.states() == ["done", "done"]


@pytest.mark.parametrize(
    "error", [MemoryError(), ResourceUnavailable("the drive sleeps"), TimeoutError("so does this")]
)
def test_what_goes_wrong_while_reading_ahead_is_no_news(
    busy: Workshop, readings: Readings, logs: LogLines, error: Exception
) -> None:
    """The photo is read again in its turn, and no attempt is counted."""

    def fail(name: str, when: str) -> None:
        if when == AHEAD:
            raise error

    readings.before = fail
    while_the_first_is_painted(busy)
    drop_two(busy)
    busy.work()
    assert readings.of("two.png") == [AHEAD, IN_ITS_TURN]
    assert busy.states() == ["done", "done"]
    assert [job.attempts for job in busy.jobs()] == [1, 1]
    assert {line["log_level"] for line in logs} <= {"info", "debug"}


# What lies there has changed


def test_a_photo_replaced_after_it_was_read_ahead_is_a_new_job(
    busy: Workshop, readings: Readings
) -> None:
    """Only the new content is painted, once."""
    new = picture("plum", (44, 44))
    while_the_first_is_painted(busy, lambda: busy.drop("two.png", new))
    drop_two(busy)
    busy.work()
    assert readings.of("two.png")[0] == AHEAD
    assert busy.states() == ["done", "cancelled", "done"]
    assert busy.jobs()[1].reason == "the input was replaced by another file before its turn"
    assert busy.engine.begun == [0, 0]
    assert (busy.config.archive / "oil/two.png").read_bytes() == new
    sidecar = busy.sidecar("outbox/oil/two.png.json")
    assert sidecar["input"]["sha256"] == hashlib.sha256(new).hexdigest()


def test_a_photo_rewritten_after_it_was_read_ahead_is_read_again(
    busy: Workshop, readings: Readings
) -> None:
    """Though it has kept its size and its date, what lies there in its turn is painted."""
    path = busy.config.inbox / "two.png"

    def rewrite() -> None:
        facts, old = path.stat(), path.read_bytes()
        # Behind its end a PNG may have anything.
        path.write_bytes(old[:-1] + bytes([old[-1] ^ 1]))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    while_the_first_is_painted(busy, rewrite)
    busy.drop("one.png")
    busy.drop("two.png", picture("olive") + b"first")
    busy.work()
    assert readings.of("two.png") == [AHEAD, IN_ITS_TURN]
    sidecar = busy.sidecar("outbox/oil/two.png.json")
    painted = (busy.config.archive / "oil/two.png").read_bytes()
    assert painted.endswith(b"firsu")
    assert sidecar["input"]["sha256"] == hashlib.sha256(painted).hexdigest()


def test_a_photo_removed_after_it_was_read_ahead_is_cancelled(
    busy: Workshop, readings: Readings
) -> None:
    """It gives no result and no rejection, and may come again."""
    facts: list[os.stat_result] = []

    def remove() -> None:
        facts.append((busy.config.inbox / "two.png").stat())
        (busy.config.inbox / "two.png").unlink()

    while_the_first_is_painted(busy, remove)
    _, path = drop_two(busy)
    busy.work()
    assert readings.of("two.png") == [AHEAD]
    assert busy.states() == ["done", "cancelled"]
    assert busy.jobs()[1].reason == "the input was removed before its turn"
    assert busy.files("rejected") == []
    path.write_bytes(picture("olive"))
    os.utime(path, ns=(facts[0].st_atime_ns, facts[0].st_mtime_ns))
    assert busy.rescan() == 1


def test_a_photo_replaced_before_it_is_read_ahead_is_left_alone(
    busy: Workshop, readings: Readings
) -> None:
    """What lies there is not what the job is about: that is found in its turn."""
    _, two = drop_two(busy)
    two.write_bytes(picture("plum", (44, 44)))
    while_the_first_is_painted(busy)
    busy.work()
    assert readings.of("two.png") == []
    assert busy.states() == ["done", "cancelled"]


def test_a_photo_replaced_while_it_is_read_ahead_is_not_painted(
    busy: Workshop, readings: Readings
) -> None:
    """Neither what was read of it nor what lies there now, which is a new job's."""
    new = picture("plum", (44, 44))

    def replace_it(name: str, when: str) -> None:
        if (name, when) == ("two.png", AHEAD) and len(readings.of(name)) == 1:
            busy.drop("two.png", new)

    readings.before = replace_it
    while_the_first_is_painted(busy)
    drop_two(busy)
    busy.work()
    assert busy.states() == ["done", "cancelled", "done"]
    sidecar = busy.sidecar("outbox/oil/two.png.json")
    assert sidecar["input"]["sha256"] == hashlib.sha256(new).hexdigest()
    assert busy.engine.begun == [0, 0]


def test_a_folder_that_became_a_link_is_not_read_through(
    busy: Workshop, readings: Readings, tmp_path: Path
) -> None:
    """It could lead anywhere, even to a file that looks the same."""
    busy.drop("one.png")
    busy.drop("trip/two.png", picture("olive"))
    shutil.copytree(busy.config.inbox / "trip", tmp_path / "elsewhere")
    shutil.rmtree(busy.config.inbox / "trip")
    (busy.config.inbox / "trip").symlink_to(tmp_path / "elsewhere")
    while_the_first_is_painted(busy)
    busy.work()
    assert readings.of("two.png") == []
    assert busy.states() == ["done", "cancelled"]


def test_a_folder_that_becomes_a_link_later_is_not_followed(
    busy: Workshop, readings: Readings, tmp_path: Path
) -> None:
    """What was read ahead is not painted either."""

    def link() -> None:
        shutil.copytree(busy.config.inbox / "trip", tmp_path / "elsewhere")
        shutil.rmtree(busy.config.inbox / "trip")
        (busy.config.inbox / "trip").symlink_to(tmp_path / "elsewhere")

    while_the_first_is_painted(busy, link)
    busy.drop("one.png")
    busy.drop("trip/two.png", picture("olive"))
    busy.work()
    assert readings.of("two.png") == [AHEAD]
    assert busy.states() == ["done", "cancelled"]
    assert busy.engine.begun == [0]


def test_an_inbox_that_goes_away_is_waited_for(busy: Workshop, readings: Readings) -> None:
    """Though the photo has been read ahead: its original could not be put away."""
    away = busy.base / "elsewhere"

    def mount() -> None:
        if away.exists():
            away.rename(busy.config.inbox)

    while_the_first_is_painted(busy, lambda: busy.config.inbox.rename(away))
    busy.stop.on_wait = mount
    drop_two(busy)
    busy.work()
    assert busy.stop.waits != []
    assert busy.states() == ["done", "done"]
    assert busy.files("archive") == ["oil/one.png", "oil/two.png"]


def test_a_style_picture_that_changed_is_read_again(busy: Workshop, readings: Readings) -> None:
    """The next painting is in the style as it is now."""
    new = picture("orange", (50, 40))
    while_the_first_is_painted(busy, lambda: (busy.base / "styles/oil.png").write_bytes(new))
    drop_two(busy)
    busy.work()
    assert readings.of("two.png") == [AHEAD, IN_ITS_TURN]
    (image,) = busy.sidecar("outbox/oil/two.png.json")["style"]["images"]
    assert image["sha256"] == hashlib.sha256(new).hexdigest()


def test_a_style_picture_that_is_gone_holds_its_job_up(busy: Workshop, readings: Readings) -> None:
    """As it does where nothing was read ahead; at no cost."""
    image = busy.base / "styles/oil.png"
    while_the_first_is_painted(busy, image.unlink)
    drop_two(busy)
    busy.work()
    assert readings.of("two.png") == [AHEAD, IN_ITS_TURN]
    assert busy.states() == ["done", "queued"]
    job = busy.jobs()[1]
    assert (job.attempts, job.failure) == (0, "waiting")
    assert job.not_before <= busy.now + MENDED_SECONDS
    image.write_bytes(picture("crimson", (48, 40)))
    busy.work_and_wait()
    assert busy.states() == ["done", "done"]


@pytest.mark.parametrize("at_step", [1, 3], ids=["early", "late"])
def test_a_style_that_was_configured_anew_is_read_again(
    busy: Workshop, readings: Readings, at_step: int
) -> None:
    """While the present one is painted if there is time, or else in its turn."""

    def configure() -> None:
        ink = busy.styles["ink"]
        busy.styles["oil"] = replace(ink, recipe=replace(ink.recipe, steps=7))

    while_the_first_is_painted(busy, *[gc.collect] * (at_step - 1), configure)
    drop_two(busy)
    busy.work()
    assert readings.of("two.png") in ([AHEAD, AHEAD], [AHEAD, IN_ITS_TURN])
    if at_step == 1:
        assert readings.of("two.png") == [AHEAD, AHEAD]
    (image,) = busy.sidecar("outbox/oil/two.png.json")["style"]["images"]
    assert image["path"].endswith("ink.png")


def test_a_style_changed_at_the_last_moment_is_read_again(
    shop: Workshop, backstage: Backstage
) -> None:
    """Though nobody has looked around since."""

    def read(job: Job, style: Style, max_pixels: int) -> Prepared:
        return prepare(shop.config.inbox / job.input, style, max_pixels=max_pixels)

    shop.drop()
    oil = shop.styles["oil"]
    ahead = ahead_of(shop, backstage, read)
    for style, is_used in (
        (oil, True),
        (shop.styles["ink"], False),
        (replace(oil, recipe=replace(oil.recipe, steps=7)), False),
    ):
        ahead.look()
        backstage.do(lambda: None).result(PATIENCE_SECONDS)
        assert (ahead.take(shop.job(), style) is not None) == is_used


def test_a_style_that_was_removed_paints_nothing_that_was_read(
    busy: Workshop, readings: Readings
) -> None:
    """The photo stays, and is painted once the style is back."""
    ink = busy.styles["ink"]
    while_the_first_is_painted(busy, lambda: busy.styles.pop("ink"))
    busy.drop("one.png")
    busy.drop("two.png", picture("olive"), "ink")
    busy.work()
    assert readings.of("two.png") == [AHEAD]
    assert busy.states() == ["done", "cancelled"]
    assert busy.files("inbox") == ["two.png"]
    busy.styles["ink"] = ink
    busy.rescan()
    busy.work()
    assert busy.states() == ["done", "cancelled", "done"]


# What can't be painted


def test_a_hopeless_photo_is_rejected_in_its_turn(busy: Workshop, readings: Readings) -> None:
    """Not while another is painted, with the usual reason, and the others are done."""
    seen: list[list[str]] = []
    while_the_first_is_painted(busy, lambda: seen.append(busy.states()))
    busy.drop("one.png")
    busy.drop("bad.png", b"Dear diary, this is not a picture." * 9)
    busy.drop("two.png", picture("olive"))
    busy.work()
    assert seen == [["running", "queued", "queued"]]
    assert readings.of("bad.png") == [AHEAD, IN_ITS_TURN]
    assert busy.states() == ["done", "rejected", "done"]
    assert [job.attempts for job in busy.jobs()] == [1] * 3
    rejected = busy.sidecar("rejected/oil/bad.png.json")["rejected"]
    assert rejected["failure"] == "input"
    assert "not a picture" in rejected["reason"]
    assert busy.files("inbox") == []


def test_a_photo_that_is_cut_off_is_rejected_in_its_turn(
    busy: Workshop, readings: Readings
) -> None:
    """Not when it is read ahead: by its turn there may be another one."""
    while_the_first_is_painted(busy)
    busy.drop("one.png")
    busy.drop("cut.png", picture("olive")[:-40])
    busy.work()
    assert readings.of("cut.png")[:2] == [AHEAD, IN_ITS_TURN]
    assert busy.states() == ["done", "rejected"]
    assert busy.jobs()[1].failure == "incomplete"


PIXELS = 40 * 36


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (0, [AHEAD, IN_ITS_TURN]),
        (int((PIXELS - 1) * BYTES_PER_PIXEL / SHARE_OF_FREE), [AHEAD, IN_ITS_TURN]),
        (1 << 40, [AHEAD]),
        (None, [AHEAD]),
    ],
    ids=["none", "too little", "much", "nobody knows"],
)
def test_a_photo_for_which_there_is_no_room_yet_is_read_in_its_turn(
    busy: Workshop,
    readings: Readings,
    monkeypatch: pytest.MonkeyPatch,
    free: int | None,
    expected: list[str],
) -> None:
    """It is as good as any other: then all the room is its own."""
    monkeypatch.setattr("styled.jobs.lookahead.free_bytes", lambda device: free)
    while_the_first_is_painted(busy)
    drop_two(busy)
    busy.work()
    assert readings.of("two.png") == expected
    assert busy.states() == ["done", "done"]
    assert busy.files("rejected") == []


def test_what_is_too_large_for_any_turn_is_rejected(busy: Workshop, readings: Readings) -> None:
    """However much room there is: `max_pixels` counts ahead as well."""
    busy.configure("intake", max_pixels=PIXELS)
    while_the_first_is_painted(busy)
    busy.drop("one.png")
    busy.drop("large.png", picture("olive", (40, 37)))
    (busy.base / "styles/oil.png").write_bytes(picture("crimson", (36, 36)))
    busy.work()
    assert readings.of("large.png") == [AHEAD, IN_ITS_TURN]
    assert busy.states() == ["done", "rejected"]


def test_a_photo_that_kills_the_process_as_it_is_read_is_blamed_itself(
    busy: Workshop, readings: Readings
) -> None:
    """Not the innocent one that is painted while it is read, and which is done in the end."""
    has_died = threading.Event()

    def kill(name: str, when: str) -> None:
        if name == "killer.png":
            has_died.set()
            raise Died

    def at_step(step: int) -> None:
        let_it_catch_up(busy)
        if has_died.is_set():
            raise Died  # in whichever thread it was: the process is gone

    readings.before = kill
    busy.drop("good.png")
    busy.drop("killer.png", picture("olive"))
    for _ in range(12):
        has_died.clear()
        busy.engine.at_step = at_step
        try:
            busy.work()
        except Died:
            busy.restart()
        else:
            break
    assert busy.states() == ["done", "rejected"]
    assert busy.jobs()[1].failure == "crash"


# Nobody wants it any more


def test_a_job_cancelled_after_its_photo_was_read_is_never_painted(
    busy: Workshop, readings: Readings
) -> None:
    """Asked for while another is painted; the one after it is read in its place."""
    while_the_first_is_painted(busy, lambda: busy.journal.request_cancel(busy.jobs()[1]))
    drop_two(busy)
    busy.drop("three.png", picture("plum"))
    busy.work()
    assert busy.states() == ["done", "cancelled", "done"]
    assert busy.engine.begun == [0, 0]
    assert readings.of("two.png") == [AHEAD]
    assert readings.of("three.png") == [AHEAD]
    assert busy.files("rejected") == ["oil/two.png", "oil/two.png.json"]


def test_a_job_cancelled_in_the_last_moment_is_never_painted(
    busy: Workshop, readings: Readings
) -> None:
    """Though nobody has looked around since it was asked for."""

    def at_step(step: int) -> None:
        if (len(busy.engine.begun), step) == (1, 3):
            let_it_catch_up(busy)
            busy.journal.request_cancel(busy.jobs()[1])

    busy.engine.at_step = at_step
    drop_two(busy)
    busy.drop("three.png", picture("plum"))
    busy.work()
    assert readings.of("two.png") == [AHEAD]
    assert busy.states() == ["done", "cancelled", "done"]
    assert busy.engine.begun == [0, 0]


def test_what_nobody_wants_any_more_is_not_kept(busy: Workshop, readings: Readings) -> None:
    """Such a photo takes up memory while another is painted."""
    kept: list[bool] = []

    def look() -> None:
        gc.collect()
        kept.append(readings.photos[1]() is not None)

    def cancel() -> None:
        look()
        busy.journal.request_cancel(busy.jobs()[1])

    while_the_first_is_painted(busy, cancel, lambda: None, look)
    drop_two(busy)
    busy.work()
    assert readings.of("two.png") == [AHEAD]
    assert kept == [True, False]


def test_what_is_read_for_another_job_is_not_read_on(shop: Workshop, backstage: Backstage) -> None:
    """If another's turn has come first, a reading that has not begun would only be in the way."""
    read: list[str] = []

    def note(job: Job, style: Style, max_pixels: int) -> Prepared:
        read.append(job.input)
        return prepare(shop.config.inbox / job.input, style, max_pixels=max_pixels)

    drop_two(shop)
    _, two = shop.jobs()
    may_end = threading.Event()
    ahead = ahead_of(shop, backstage, note)
    backstage.do(partial(may_end.wait, PATIENCE_SECONDS))
    ahead.look()
    assert ahead.take(two, shop.styles["oil"]) is None
    may_end.set()
    backstage.do(lambda: None).result(PATIENCE_SECONDS)
    assert read == []


def test_what_was_read_for_another_job_is_not_used(shop: Workshop, backstage: Backstage) -> None:
    """Though its file looks the same from outside."""

    def read(job: Job, style: Style, max_pixels: int) -> Prepared:
        return prepare(shop.config.inbox / job.input, style, max_pixels=max_pixels)

    for name, colour in (("one.bmp", "teal"), ("two.bmp", "olive")):
        path, data = shop.config.inbox / name, picture(colour, format="bmp")
        path.write_bytes(data)
        os.utime(path, ns=(10**18, 10**18))
        shop.journal.submit([Dropped(name, len(data), 10**18, {"oil": name})], shop.now)
    one, two = shop.jobs()
    assert (one.size, one.mtime_ns) == (two.size, two.mtime_ns)
    ahead = ahead_of(shop, backstage, read)
    for job, is_used in ((two, False), (one, True)):
        ahead.look()
        backstage.do(lambda: None).result(PATIENCE_SECONDS)
        assert (ahead.take(job, shop.styles["oil"]) is not None) == is_used

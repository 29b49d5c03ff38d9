"""Photos that are prepared while others are painted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from styled import photos
from styled.jobs import prefetch, prepare_request
from styled.jobs.events import StylesChanged
from styled.jobs.job import JobState, Phase
from styled.jobs.prefetch import SHARE_OF_FREE, may_claim, pixels_beside
from tests.jobs.conftest import JobHarness, LogLines, picture

SMALL, LARGE = picture("olive", (40, 36)), picture("olive", (90, 80))


@pytest.fixture
def pair(tmp_path: Path, logs: LogLines) -> Iterator[JobHarness]:
    """Return a harness with two engines."""
    harness = JobHarness(tmp_path / "shop", engines=2)
    yield harness
    harness.close()


def room_for(monkeypatch: pytest.MonkeyPatch, *, reading: int = 10**9, publishing: int = 10**9):  # type: ignore[no-untyped-def]  # nothing
    """Have room for so many pixels beside a painting."""
    room = {
        prefetch.READING_BYTES_PER_PIXEL: reading,
        prefetch.PUBLISHING_BYTES_PER_PIXEL: publishing,
    }
    monkeypatch.setattr(prepare_request, "pixels_beside", room.__getitem__)


def phases(shop: JobHarness) -> dict[str, Phase | None]:
    return {job.input: job.phase for job in shop.jobs() if job.phase is not None}


def test_the_next_photo_is_prepared_while_one_is_painted(shop: JobHarness) -> None:
    """One, and not all of them: it takes memory."""
    for name in ("a.png", "b.png", "c.png"):
        shop.drop(name, SMALL)
    seen: list[dict[str, Phase | None]] = []
    shop.engine.at_step = lambda step: seen.append(phases(shop))
    shop.work()
    assert seen[0] == {"a.png": Phase.PAINTING, "b.png": Phase.READY}
    assert seen[3]["b.png"] == Phase.PAINTING
    assert seen[5] == {"b.png": Phase.PAINTING, "c.png": Phase.READY}
    assert seen[8] == {"c.png": Phase.PAINTING}
    assert shop.states() == ["done"] * 3


def test_a_photo_that_arrives_while_painting_is_prepared_too(shop: JobHarness) -> None:
    """As soon as it is submitted."""
    seen: list[dict[str, Phase | None]] = []

    def at_step(step: int) -> None:
        if step == 1 and not seen:
            shop.drop("b.png", SMALL)
        seen.append(phases(shop))

    shop.drop("a.png", SMALL)
    shop.engine.at_step = at_step
    shop.work()
    assert seen[1] == {"a.png": Phase.PAINTING, "b.png": Phase.READY}


@pytest.mark.parametrize(
    ("engines", "free", "waiting", "expected"),
    [(0, 0, 0, False), (1, 0, 0, True), (1, 0, 1, False), (1, 1, 1, True), (1, 1, 2, False),
     (8, 0, 7, True), (8, 0, 8, False), (8, 3, 8, True), (8, 3, 9, False)],
)  # fmt: skip
def test_at_most_one_more_than_there_are_engines(
    engines: int, free: int, waiting: int, expected: bool
) -> None:
    """Enough that none of them waits; none without an engine."""
    assert may_claim(engines=engines, free=free, waiting=waiting) == expected


def test_a_photo_takes_a_part_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody tells how much there is, there is enough."""
    free: list[int | None] = [10**9, None]
    monkeypatch.setattr("styled.engine.memory.free_bytes", lambda device: free.pop(0))
    assert pixels_beside(20) == int(10**9 * SHARE_OF_FREE / 20)
    assert pixels_beside(20) > 10**15
    assert prefetch.READING_BYTES_PER_PIXEL > 0


def test_what_is_too_large_beside_others_waits_until_it_is_alone(
    pair: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is begun before it, so that its turn comes; it costs no attempt."""
    room_for(monkeypatch, reading=40 * 36)
    for name, data in (("a.png", SMALL), ("large.png", LARGE), ("c.png", SMALL), ("d.png", SMALL)):
        pair.drop(name, data)
    begun: list[list[str]] = []

    def at_step(step: int) -> None:
        running = [job for job in pair.jobs() if job.phase is Phase.PAINTING]
        begun.append([job.input for job in running])

    for engine in pair.engines:
        engine.at_step = at_step
    pair.work()
    assert pair.states() == ["done"] * 4
    assert {job.attempts for job in pair.jobs()} == {1}
    ended = sorted(pair.jobs(), key=lambda job: job.finished_at or 0.0)
    order = [one.job.input for one in pair.finished]
    assert order.index("large.png") < order.index("d.png")
    assert len(ended) == 4
    # Of those that were being painted when it was its turn none was left.
    first = next(names for names in begun if "large.png" in names)
    assert "a.png" not in first


def test_a_style_image_that_is_too_large_beside_others_is_not_at_fault(
    pair: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The style's photos do not wait for somebody to mend it."""
    room_for(monkeypatch, reading=40 * 36)
    (pair.base / "styles/ink.png").write_bytes(LARGE)
    pair.drop("a.png", SMALL)
    pair.drop("b.png", SMALL, "ink")
    pair.work()
    assert pair.states() == ["done", "done"]
    assert [job.failure for job in pair.jobs()] == [None, None]


def test_what_is_too_large_in_any_case_is_rejected(
    pair: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much room there is."""
    room_for(monkeypatch, reading=40 * 36)
    pair.configure("intake", max_pixels=50 * 50)
    pair.drop("a.png", SMALL)
    pair.drop("large.png", LARGE)
    pair.work()
    assert pair.states() == ["done", "rejected"]
    assert "the limit is 2500 pixels" in str(pair.jobs()[1].reason)


def test_a_hopeless_photo_is_rejected_at_once(shop: JobHarness) -> None:
    """Whatever is painted meanwhile."""
    shop.drop("a.png", SMALL)
    shop.drop("bad.png", b"no photo")
    seen: list[list[str]] = []
    shop.engine.at_step = lambda step: seen.append(shop.states())
    shop.work()
    assert seen[-1] == ["running", "rejected"]


def test_a_photo_replaced_before_its_turn_is_not_painted_as_it_was(shop: JobHarness) -> None:
    """Though it was prepared; the new photo is a job of its own."""
    new = picture("navy", (50, 44))

    def at_step(step: int) -> None:
        if step == 2 and len(shop.engine.begun) == 1:
            shop.drop("b.png", new)

    shop.drop("a.png", SMALL)
    shop.drop("b.png", SMALL)
    shop.engine.at_step = at_step
    shop.work()
    assert shop.states() == ["done", "cancelled", "done"]
    assert len(shop.engine.begun) == 2
    assert not shop.sidecar("outbox/oil/b.png.json")["input"]["changed"]
    assert (shop.config.archive / "oil/b.png").read_bytes() == new


def test_a_photo_removed_before_its_turn_is_cancelled(shop: JobHarness) -> None:
    """Though it was prepared; at no cost."""
    shop.drop("a.png", SMALL)
    second = shop.drop("b.png", SMALL)
    shop.engine.at_step = lambda step: second.unlink(missing_ok=True) if step == 2 else None
    shop.work()
    assert shop.states() == ["done", "cancelled"]
    assert len(shop.engine.begun) == 1


def test_a_style_image_replaced_before_its_turn_is_read_again(shop: JobHarness) -> None:
    """The sidecar names what was used."""
    new = picture("gold", (48, 40))
    shop.drop("a.png", SMALL)
    shop.drop("b.png", SMALL)
    image = shop.base / "styles/oil.png"
    shop.engine.at_step = lambda step: None if image.read_bytes() == new else replace_by(image, new)
    shop.work()
    digests = [
        shop.sidecar(f"outbox/oil/{name}.png.json")["style"]["images"][0]["sha256"] for name in "ab"
    ]
    assert digests[0] != digests[1]
    assert digests[1] == hashlib.sha256(new).hexdigest()


def replace_by(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def test_a_style_that_was_configured_anew_is_prepared_again(shop: JobHarness) -> None:
    """What is painted stays as it was begun; what is only prepared is of the new style."""
    size = shop.styles["oil"].recipe.size

    def at_step(step: int) -> None:
        if step == 2 and len(shop.engine.begun) == 1:
            style = shop.styles["oil"]
            recipe = replace(style.recipe, seed=7, size=size)
            shop.styles["oil"] = replace(style, recipe=recipe)
            shop.events.put(StylesChanged(dict(shop.styles)))

    shop.drop("a.png", SMALL)
    shop.drop("b.png", SMALL)
    shop.engine.at_step = at_step
    shop.work()
    seeds = [shop.sidecar(f"outbox/oil/{name}.png.json")["engine"]["seed"] for name in "ab"]
    assert seeds == [0, 7]
    assert {job.attempts for job in shop.jobs()} == {1}


def test_a_result_that_needs_much_memory_is_published_alone(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next painting begins after it."""
    room_for(monkeypatch, publishing=40 * 36)
    order: list[str] = []
    finish = photos.finish

    def finished(*args: object) -> object:
        order.append("published")
        return finish(*args)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(photos, "finish", finished)
    shop.engine.at_step = lambda step: order.append("painted") if step == 1 else None
    for name in ("a.png", "b.png"):
        shop.drop(name, LARGE)
    shop.work()
    assert order == ["painted", "published", "painted", "published"]


def test_a_folder_that_becomes_a_link_is_not_followed(shop: JobHarness) -> None:
    """What is behind it is none of ours, whenever that happens."""
    elsewhere = shop.base / "elsewhere"
    inside = shop.drop("sub/b.png", SMALL).parent

    def at_step(step: int) -> None:
        if not inside.is_symlink():
            os.rename(inside, elsewhere)
            inside.symlink_to(elsewhere)

    shop.drop("a.png", SMALL)
    shop.engine.at_step = at_step
    shop.work()
    assert shop.files("elsewhere") == ["b.png"]
    assert JobState.DONE in [job.state for job in shop.jobs()]

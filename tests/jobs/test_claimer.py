"""Preparing the next photos while others are painted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from styled import photos
from styled.job_io import prepare_request
from styled.job_io.memory_budget import CONCURRENT_SHARE_OF_FREE, bytes_beside_painting
from styled.jobs.claimer import claimable
from styled.jobs.events import StylesChanged
from styled.journal.job import JobState, Phase
from tests.job_harness import JobHarness, LogLines, picture

SMALL, LARGE = picture("olive", (40, 36)), picture("olive", (90, 80))


@pytest.fixture
def pair(tmp_path: Path, logs: LogLines) -> Iterator[JobHarness]:
    """Return a harness with two engines."""
    harness = JobHarness(tmp_path / "harness", engines=2)
    yield harness
    harness.close()


def limit_pixels(monkeypatch: pytest.MonkeyPatch, *, reading: int = 10**9, publishing: int = 10**9):  # type: ignore[no-untyped-def]  # returns None
    """Limit the pixels that may be read or published while an image is painted."""
    usable = 10**12
    monkeypatch.setattr(prepare_request, "bytes_beside_painting", lambda: usable)
    monkeypatch.setattr(prepare_request, "READING_BYTES_PER_PIXEL", usable // reading)
    monkeypatch.setattr(prepare_request, "PUBLISHING_BYTES_PER_PIXEL", usable // publishing)


def phases(harness: JobHarness) -> dict[str, Phase | None]:
    return {job.input: job.phase for job in harness.jobs() if job.phase is not None}


def test_the_next_photo_is_prepared_while_one_is_painted(harness: JobHarness) -> None:
    """While a photo is painted one more is prepared, and not all, because that takes memory."""
    for name in ("a.png", "b.png", "c.png"):
        harness.drop(name, SMALL)
    seen: list[dict[str, Phase | None]] = []
    harness.engine.at_step = lambda step: seen.append(phases(harness))
    harness.work()
    assert seen[0] == {"a.png": Phase.PAINTING, "b.png": Phase.READY}
    assert seen[3]["b.png"] == Phase.PAINTING
    assert seen[5] == {"b.png": Phase.PAINTING, "c.png": Phase.READY}
    assert seen[8] == {"c.png": Phase.PAINTING}
    assert harness.states() == ["done"] * 3


def test_a_photo_that_arrives_while_painting_is_prepared_too(harness: JobHarness) -> None:
    """A photo submitted while another is painted is prepared at once."""
    seen: list[dict[str, Phase | None]] = []

    def at_step(step: int) -> None:
        if step == 1 and not seen:
            harness.drop("b.png", SMALL)
        seen.append(phases(harness))

    harness.drop("a.png", SMALL)
    harness.engine.at_step = at_step
    harness.work()
    assert seen[1] == {"a.png": Phase.PAINTING, "b.png": Phase.READY}


@pytest.mark.parametrize(
    ("engines", "free_engines", "prefetched", "expected"),
    [(0, 0, 0, 0), (1, 0, 0, 1), (1, 0, 1, 0), (1, 1, 1, 1), (1, 1, 2, 0), (1, 1, 3, 0),
     (8, 0, 7, 1), (8, 0, 8, 0), (8, 3, 8, 1), (8, 3, 9, 0), (8, 8, 0, 9)],
)  # fmt: skip
def test_at_most_one_more_than_there_are_engines(
    engines: int, free_engines: int, prefetched: int, expected: int
) -> None:
    """At most one job more than there are engines waits to be painted; none without engines."""
    assert claimable(engines=engines, free_engines=free_engines, prefetched=prefetched) == expected


def test_a_photo_takes_a_part_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is a share of the free memory; if that is unknown there is no limit."""
    free: list[int | None] = [10**9, None]
    monkeypatch.setattr("styled.engine.memory.free_bytes", lambda device: free.pop(0))
    assert bytes_beside_painting() == int(10**9 * CONCURRENT_SHARE_OF_FREE)
    assert bytes_beside_painting() > 10**15


def test_what_is_too_large_beside_others_waits_until_it_is_alone(
    pair: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo too large to be read beside others waits until it is alone; none overtakes it."""
    limit_pixels(monkeypatch, reading=40 * 36)
    for name, data in (("a.png", SMALL), ("large.png", LARGE), ("c.png", SMALL), ("d.png", SMALL)):
        pair.drop(name, data)
    painting: list[list[str]] = []

    def at_step(step: int) -> None:
        running = [job for job in pair.jobs() if job.phase is Phase.PAINTING]
        painting.append([job.input for job in running])

    for engine in pair.engines:
        engine.at_step = at_step
    pair.work()
    assert pair.states() == ["done"] * 4
    assert {job.attempts for job in pair.jobs()} == {1}
    ended_jobs = sorted(pair.jobs(), key=lambda job: job.finished_at or 0.0)
    order = [one.job.input for one in pair.finished]
    assert order.index("large.png") < order.index("d.png")
    assert len(ended_jobs) == 4
    # The photo that was painted when its turn came had been finished.
    first = next(names for names in painting if "large.png" in names)
    assert "a.png" not in first


def test_a_style_image_that_is_too_large_beside_others_is_not_at_fault(
    pair: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A style image too large for concurrent reading waits, and does not count as broken."""
    limit_pixels(monkeypatch, reading=40 * 36)
    (pair.base / "styles/ink.png").write_bytes(LARGE)
    pair.drop("a.png", SMALL)
    pair.drop("b.png", SMALL, "ink")
    pair.work()
    assert pair.states() == ["done", "done"]
    assert [job.failure for job in pair.jobs()] == [None, None]


def test_what_is_too_large_in_any_case_is_rejected(
    pair: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo above `max_pixels` is rejected, whatever the memory limit."""
    limit_pixels(monkeypatch, reading=40 * 36)
    pair.configure("intake", max_pixels=50 * 50)
    pair.drop("a.png", SMALL)
    pair.drop("large.png", LARGE)
    pair.work()
    assert pair.states() == ["done", "rejected"]
    assert "the limit is 2500 pixels" in str(pair.jobs()[1].reason)


def test_a_hopeless_photo_is_rejected_at_once(harness: JobHarness) -> None:
    """An invalid photo is rejected while another is painted."""
    harness.drop("a.png", SMALL)
    harness.drop("bad.png", b"no photo")
    seen: list[list[str]] = []
    harness.engine.at_step = lambda step: seen.append(harness.states())
    harness.work()
    assert seen[-1] == ["running", "rejected"]


def test_a_photo_replaced_before_its_turn_is_not_painted_as_it_was(harness: JobHarness) -> None:
    """If a prepared photo is replaced, its job is cancelled and the new photo is painted."""
    new = picture("navy", (50, 44))

    def at_step(step: int) -> None:
        if step == 2 and len(harness.engine.start_steps) == 1:
            harness.drop("b.png", new)

    harness.drop("a.png", SMALL)
    harness.drop("b.png", SMALL)
    harness.engine.at_step = at_step
    harness.work()
    assert harness.states() == ["done", "cancelled", "done"]
    assert len(harness.engine.start_steps) == 2
    assert not harness.sidecar("outbox/oil/b.png.json")["input"]["changed"]
    assert (harness.config.archive / "oil/b.png").read_bytes() == new


def test_a_photo_removed_before_its_turn_is_cancelled(harness: JobHarness) -> None:
    """If a prepared photo is removed, its job is cancelled."""
    harness.drop("a.png", SMALL)
    second = harness.drop("b.png", SMALL)
    harness.engine.at_step = lambda step: second.unlink(missing_ok=True) if step == 2 else None
    harness.work()
    assert harness.states() == ["done", "cancelled"]
    assert len(harness.engine.start_steps) == 1


def test_a_style_image_replaced_before_its_turn_is_read_again(harness: JobHarness) -> None:
    """If a style image is replaced, prepared jobs read it again, and the sidecar has its digest."""
    new = picture("gold", (48, 40))
    harness.drop("a.png", SMALL)
    harness.drop("b.png", SMALL)
    image = harness.base / "styles/oil.png"
    harness.engine.at_step = lambda step: (
        None if image.read_bytes() == new else replace_by(image, new)
    )
    harness.work()
    digests = [
        harness.sidecar(f"outbox/oil/{name}.png.json")["style"]["images"][0]["sha256"]
        for name in "ab"
    ]
    assert digests[0] != digests[1]
    assert digests[1] == hashlib.sha256(new).hexdigest()


def replace_by(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def test_a_style_that_was_changed_is_prepared_again(harness: JobHarness) -> None:
    """A changed style applies to prepared jobs, but not to the one that is being painted."""
    size = harness.styles["oil"].recipe.size

    def at_step(step: int) -> None:
        if step == 2 and len(harness.engine.start_steps) == 1:
            style = harness.styles["oil"]
            recipe = replace(style.recipe, seed=7, size=size)
            harness.styles["oil"] = replace(style, recipe=recipe)
            harness.events.put(StylesChanged(dict(harness.styles)))

    harness.drop("a.png", SMALL)
    harness.drop("b.png", SMALL)
    harness.engine.at_step = at_step
    harness.work()
    seeds = [harness.sidecar(f"outbox/oil/{name}.png.json")["engine"]["seed"] for name in "ab"]
    assert seeds == [0, 7]
    assert {job.attempts for job in harness.jobs()} == {1}


def test_a_result_that_needs_much_memory_is_published_alone(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result above the concurrent limit is published before the next painting starts."""
    limit_pixels(monkeypatch, publishing=40 * 36)
    order: list[str] = []
    original = photos.export_image

    def record(*args: object) -> object:
        order.append("published")
        return original(*args)  # type: ignore[arg-type]  # arguments are passed through

    monkeypatch.setattr(photos, "export_image", record)
    harness.engine.at_step = lambda step: order.append("painted") if step == 1 else None
    for name in ("a.png", "b.png"):
        harness.drop(name, LARGE)
    harness.work()
    assert order == ["painted", "published", "painted", "published"]


def test_a_folder_that_becomes_a_link_is_not_followed(harness: JobHarness) -> None:
    """A folder replaced by a symlink while a photo waits is not followed."""
    elsewhere = harness.base / "elsewhere"
    folder = harness.drop("sub/b.png", SMALL).parent

    def at_step(step: int) -> None:
        if not folder.is_symlink():
            os.rename(folder, elsewhere)
            folder.symlink_to(elsewhere)

    harness.drop("a.png", SMALL)
    harness.engine.at_step = at_step
    harness.work()
    assert harness.files("elsewhere") == ["b.png"]
    assert JobState.DONE in [job.state for job in harness.jobs()]

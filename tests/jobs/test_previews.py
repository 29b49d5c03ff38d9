"""Previews: one small picture of the job that runs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from styled.delivery.atomic import make_folder, write_whole
from styled.engine.checkpoint import Checkpoint
from styled.engine.progress import Progress, Stylized
from styled.jobs.job import Job
from styled.jobs.previews import PreviewStore
from styled.recipes import Recipe
from tests.jobs.conftest import ScriptedEngine, Workshop


def test_a_running_job_has_a_preview_and_an_ended_one_has_none(shop: Workshop) -> None:
    """It is a picture of what there is after that step, named in the journal."""
    shop.drop()
    seen: list[tuple[tuple[int, int], str | None]] = []

    def look(step: int) -> None:
        shop.advance(6.0)
        job = shop.job()
        if step > 1:
            assert job.progress is not None
            assert job.progress.preview is not None
            with Image.open(job.progress.preview) as picture:
                seen.append((picture.size, picture.format))

    shop.engine.at_step = look
    shop.work()
    assert seen == [((40, 36), "JPEG")] * 2
    assert shop.states() == ["done"]
    assert shop.files("state/previews") == []


def test_a_preview_is_made_every_few_seconds_only(shop: Workshop) -> None:
    """Painting is what the time is for."""
    shop.engine.steps = 12
    made: list[float] = []
    show = shop.previews.show

    def noting(job: Job, image: Tensor) -> Path | None:
        made.append(shop.now)
        return show(job, image)

    shop.previews.show = noting  # type: ignore[method-assign]  # a spy
    shop.engine.at_step = lambda step: shop.advance(1.5)
    shop.drop()
    shop.work()
    assert len(made) == 3
    assert all(later - earlier >= 5.0 for earlier, later in pairwise(made))


def test_a_folder_that_is_full_stops_nobody(shop: Workshop) -> None:
    """Without a preview the job goes on, and says that there is none."""
    (shop.base / "state/previews").write_text("in the way")
    shop.engine.at_step = lambda step: shop.advance(6.0)
    shop.drop()
    shop.work()
    assert shop.states() == ["done"]
    job = shop.job()
    assert job.progress is not None
    assert job.progress.preview is None


def test_numbers_that_are_no_colours_are_not_shown(shop: Workshop, tmp_path: Path) -> None:
    """The guard will roll them back; a preview is no reason to fail."""
    shop.drop()
    store = PreviewStore(tmp_path / "previews", write_whole, make_folder)
    image = torch.full((1, 3, 8, 8), torch.nan)
    assert store.show(shop.job(), image) is None
    assert store.show(shop.job(), torch.zeros(1, 3, 8, 8)) is not None


def test_what_a_dead_process_left_is_swept(shop: Workshop) -> None:
    """Whatever it is of: nothing runs yet."""
    shop.drop()
    path = shop.previews.show(shop.job(), torch.zeros(1, 3, 8, 8))
    assert path is not None
    other = path.with_name("notes.txt")
    other.write_text("mine")
    shop.previews.sweep()
    assert (path.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("ending", ["cancelled", "rejected"])
def test_no_preview_outlives_its_job(shop: Workshop, ending: str) -> None:
    """However it ends."""

    def end(step: int) -> None:
        shop.advance(6.0)
        if step == 3 and ending == "cancelled":
            shop.journal.request_cancel(shop.job())
        elif step == 3:
            raise RuntimeError("broken")

    shop.engine.steps = 4
    shop.engine.at_step = end
    shop.configure("queue", max_attempts=1)
    shop.engine.at_step = end
    shop.drop()
    shop.work()
    assert shop.states() == [ending]
    assert shop.files("state/previews") == []


def test_a_preview_that_fails_is_no_failure_of_the_job(shop: Workshop) -> None:
    """Its colours may need numbers that the guard is about to roll back, or memory."""

    class Blind(ScriptedEngine):
        def stylize(
            self,
            content: Tensor,
            styles: Sequence[tuple[Tensor, float]],
            recipe: Recipe,
            resume: Checkpoint | None = None,
            painted_size: tuple[int, int] | None = None,
        ) -> Generator[Progress, None, Stylized]:
            def fail(edge_px: int) -> Tensor:
                found: Tensor = torch.linalg.eigh(torch.full((2, 2), torch.nan))[0]
                return found

            steps = super().stylize(content, styles, recipe, resume)
            while True:
                try:
                    yield replace(next(steps), preview=fail)
                except StopIteration as finished:
                    painted: Stylized = finished.value
                    return painted

    shop.worker._painter._engine = Blind()
    shop.worker._painter._engine.at_step = lambda step: shop.advance(6.0)
    shop.drop()
    shop.work()
    assert shop.states() == ["done"]

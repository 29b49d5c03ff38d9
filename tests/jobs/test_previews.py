"""Previews: one small picture of the job that runs."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from styled.engine.checkpoint import Checkpoint
from styled.engine.progress import Progress, Stylized
from styled.engine_api import PaintTask
from styled.jobs.job_files import JobFiles
from tests.jobs.conftest import JobHarness, ScriptedEngine


def test_a_running_job_has_a_preview_and_an_ended_one_has_none(shop: JobHarness) -> None:
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


def test_a_preview_is_made_every_few_seconds_only(shop: JobHarness) -> None:
    """Painting is what the time is for."""
    shop.engine.steps = 12
    made: list[float] = []
    save = shop.files_of_jobs.save_preview

    def noting(job_id: str, image: Tensor) -> Path | None:
        made.append(shop.now)
        return save(job_id, image)

    shop.files_of_jobs.save_preview = noting  # type: ignore[method-assign]  # a spy
    shop.engine.at_step = lambda step: shop.advance(1.5)
    shop.drop()
    shop.work()
    assert len(made) == 3  # after 1.5, 7.5 and 13.5 seconds
    assert all(later - earlier >= 5.0 for earlier, later in pairwise(made))


def test_a_folder_that_is_full_stops_nobody(shop: JobHarness) -> None:
    """Without a preview the job goes on, and says that there is none."""
    (shop.base / "state/previews").write_text("in the way")
    shop.engine.at_step = lambda step: shop.advance(6.0)
    shop.drop()
    shop.work()
    assert shop.states() == ["done"]
    job = shop.job()
    assert job.progress is not None
    assert job.progress.preview is None


def test_numbers_that_are_no_colours_are_not_shown(tmp_path: Path) -> None:
    """The guard will roll them back; a preview is no reason to fail."""
    files = JobFiles(tmp_path)
    assert files.save_preview("4a", torch.full((1, 3, 8, 8), torch.nan)) is None
    assert files.save_preview("4a", torch.zeros(1, 3, 8, 8)) is not None


def test_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    """Whatever it is of: nothing runs yet."""
    files = JobFiles(tmp_path)
    path = files.save_preview("4a", torch.zeros(1, 3, 8, 8))
    assert path is not None
    other = path.with_name("notes.txt")
    other.write_text("mine")
    files.sweep(keep=["4a"])
    assert (path.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("ending", ["cancelled", "rejected"])
def test_no_preview_outlives_its_job(shop: JobHarness, ending: str) -> None:
    """However it ends."""

    def end(step: int) -> None:
        shop.advance(6.0)
        if step == 3 and ending == "cancelled":
            shop.request_cancel(shop.job())
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


def test_a_preview_that_fails_is_no_failure_of_the_job(shop: JobHarness) -> None:
    """Its colours may need numbers that the guard is about to roll back, or memory."""

    class Blind(ScriptedEngine):
        def paint(
            self, task: PaintTask, resume: Checkpoint | None
        ) -> Generator[Progress, None, Stylized]:
            def fail(edge_px: int) -> Tensor:
                found: Tensor = torch.linalg.eigh(torch.full((2, 2), torch.nan))[0]
                return found

            steps = super().paint(task, resume)
            while True:
                try:
                    yield replace(next(steps), preview=fail)
                except StopIteration as finished:
                    painted: Stylized = finished.value
                    return painted

    shop.engine = Blind()
    shop.restart()
    shop.engine.at_step = lambda step: shop.advance(6.0)
    shop.drop()
    shop.work()
    assert shop.states() == ["done"]

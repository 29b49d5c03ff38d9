"""Previews: a small image of each running job."""

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
from styled.engine.events import StepProgress, Stylized
from styled.engine_api import PaintTask
from styled.job_io.job_files import JobFiles
from tests.job_harness import JobHarness, ScriptedEngine


def test_a_running_job_has_a_preview_and_an_ended_one_has_none(harness: JobHarness) -> None:
    """A running job has a preview, whose path is in the journal; it is deleted at the end."""
    harness.drop()
    seen: list[tuple[tuple[int, int], str | None]] = []

    def check(step: int) -> None:
        harness.advance(6.0)
        job = harness.job()
        if step > 1:
            assert job.progress is not None
            assert job.progress.preview is not None
            with Image.open(job.progress.preview) as picture:
                seen.append((picture.size, picture.format))

    harness.engine.at_step = check
    harness.work()
    assert seen == [((40, 36), "JPEG")] * 2
    assert harness.states() == ["done"]
    assert harness.files("state/previews") == []


def test_a_preview_is_made_every_few_seconds_only(harness: JobHarness) -> None:
    """Previews are at least 5 seconds apart."""
    harness.engine.steps = 12
    times: list[float] = []
    save = harness.job_files.save_preview

    def record(job_id: str, image: Tensor) -> Path | None:
        times.append(harness.now)
        return save(job_id, image)

    harness.job_files.save_preview = record  # type: ignore[method-assign]  # a spy
    harness.engine.at_step = lambda step: harness.advance(1.5)
    harness.drop()
    harness.work()
    assert len(times) == 3  # after 1.5, 7.5 and 13.5 seconds
    assert all(later - earlier >= 5.0 for earlier, later in pairwise(times))


def test_a_folder_that_is_full_stops_nobody(harness: JobHarness) -> None:
    """If previews cannot be written the job is done without them."""
    (harness.base / "state/previews").write_text("in the way")
    harness.engine.at_step = lambda step: harness.advance(6.0)
    harness.drop()
    harness.work()
    assert harness.states() == ["done"]
    job = harness.job()
    assert job.progress is not None
    assert job.progress.preview is None


def test_numbers_that_are_no_colours_are_not_shown(tmp_path: Path) -> None:
    """No preview is saved for an image with NaN values, which the guard will roll back."""
    files = JobFiles(tmp_path)
    assert files.save_preview("4a", torch.full((1, 3, 8, 8), torch.nan)) is None
    assert files.save_preview("4a", torch.zeros(1, 3, 8, 8)) is not None


def test_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    """At the start all previews are deleted, because no job is running yet."""
    files = JobFiles(tmp_path)
    path = files.save_preview("4a", torch.zeros(1, 3, 8, 8))
    assert path is not None
    other = path.with_name("notes.txt")
    other.write_text("mine")
    files.sweep(keep=["4a"])
    assert (path.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("ending", ["cancelled", "rejected"])
def test_no_preview_outlives_its_job(harness: JobHarness, ending: str) -> None:
    """The previews of cancelled and rejected jobs are deleted."""

    def end(step: int) -> None:
        harness.advance(6.0)
        if step == 3 and ending == "cancelled":
            harness.request_cancel(harness.job())
        elif step == 3:
            raise RuntimeError("broken")

    harness.engine.steps = 4
    harness.engine.at_step = end
    harness.configure("queue", max_attempts=1)
    harness.engine.at_step = end
    harness.drop()
    harness.work()
    assert harness.states() == [ending]
    assert harness.files("state/previews") == []


def test_a_preview_that_fails_is_no_failure_of_the_job(harness: JobHarness) -> None:
    """An exception while a preview is made does not fail the job."""

    class FailingPreviews(ScriptedEngine):
        def paint(
            self, task: PaintTask, resume: Checkpoint | None
        ) -> Generator[StepProgress, None, Stylized]:
            def fail(edge_px: int) -> Tensor:
                eigenvalues: Tensor = torch.linalg.eigh(torch.full((2, 2), torch.nan))[0]
                return eigenvalues

            steps = super().paint(task, resume)
            while True:
                try:
                    yield replace(next(steps), preview=fail)
                except StopIteration as finished:
                    painted: Stylized = finished.value
                    return painted

    harness.engine = FailingPreviews()
    harness.restart()
    harness.engine.at_step = lambda step: harness.advance(6.0)
    harness.drop()
    harness.work()
    assert harness.states() == ["done"]

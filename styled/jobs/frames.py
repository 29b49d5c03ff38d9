"""Frames: small pictures of a painting's making, kept for those who make films of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import structlog

from styled import photos
from styled.engine.progress import Progress
from styled.engine.scales import resize
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.jobs.job import Job

log = structlog.get_logger()

LONG_EDGE_PX = 1920
QUALITY = 90


class FrameStore:
    """Keeps the frames of unfinished jobs, until they are published beside the result."""

    def __init__(
        self,
        folder: Path,
        every_steps: int | None,
        write_whole: Callable[[Path, bytes], None],
        make_folder: Callable[[Path], None],
    ) -> None:
        """Keep a frame of every so many steps in `folder`; None: keep none."""
        self._folder = folder
        self._every_steps = every_steps
        self._write_whole = write_whole
        self._make_folder = make_folder

    def show(self, job: Job, progress: Progress, steps_before: int) -> None:
        """Keep a frame if it is time for one.

        All frames of a painting have one size, even in pixels as video codecs want it: that
        of the result, but no longer than `LONG_EDGE_PX`. What is worked on at a smaller scale
        is enlarged.

        Args:
            job: What is painted.
            progress: After a step.
            steps_before: How many steps all scales before the present one took.
        """
        number = steps_before + progress.step
        if self._every_steps is None or number % self._every_steps:
            return
        path = self._of(job) / f"{number:05}.jpg"
        try:
            self._make_folder(path.parent)
            image = resize(progress.preview(LONG_EDGE_PX), *_frame_size(*progress.plan[-1]))
            self._write_whole(path, photos.encode(image, "jpeg", QUALITY))
        # Full disks, an image of numbers that are none, just before it is rolled back, or no
        # memory: a frame is no reason to fail, and what is lasting will say so again.
        except (ResourceUnavailable, ValueError, RuntimeError, MemoryError) as error:
            log.warning("frame.failed", reason=str(error), path=readable(path))

    def kept(self, job: Job) -> list[Path]:
        """Return the frames of a job, in order."""
        return sorted(self._of(job).glob("*.jpg"))

    def drop(self, job: Job) -> None:
        """Take the job's frames away, if there are any."""
        shutil.rmtree(self._of(job), ignore_errors=True)

    def sweep(self, keep: Collection[str]) -> None:
        """Take away the frames of all jobs but those with the ids in `keep`."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                if name not in keep:
                    shutil.rmtree(self._folder / name, ignore_errors=True)

    def _of(self, job: Job) -> Path:
        return self._folder / job.id


def _frame_size(width: int, height: int) -> tuple[int, int]:
    factor = min(1.0, LONG_EDGE_PX / max(width, height))
    return max(2, round(width * factor / 2) * 2), max(2, round(height * factor / 2) * 2)

"""The folder of previews: for the job that runs, one small picture of how it looks just now."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
from torch import Tensor

from styled import photos
from styled.errors import ResourceUnavailable
from styled.jobs.job import Job

log = structlog.get_logger()

LONG_EDGE_PX = 256
QUALITY = 80


class PreviewStore:
    """Shows and takes away the previews of jobs. Nothing depends on them: failures are no news."""

    def __init__(
        self,
        folder: Path,
        write_whole: Callable[[Path, bytes], None],
        make_folder: Callable[[Path], None],
    ) -> None:
        """Keep previews in `folder`, written by `write_whole`."""
        self._folder = folder
        self._write_whole = write_whole
        self._make_folder = make_folder

    def show(self, job: Job, image: Tensor) -> Path | None:
        """Show `image`, 1x3xhxw in [0, 1], in place of the one before; return where, if at all."""
        path = self._path(job)
        try:
            self._make_folder(self._folder)
            self._write_whole(path, photos.encode(image, "jpeg", QUALITY))
        # A picture may be full of numbers that are none, just before the guard rolls it back.
        except (ResourceUnavailable, ValueError) as error:
            log.debug("preview.failed", reason=str(error))
            return None
        return path

    def drop(self, job: Job) -> None:
        """Take the job's preview away, if there is one."""
        with suppress(OSError):
            self._path(job).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Take away what a dead process has left behind."""
        for path in self._folder.glob("*.jpg"):
            with suppress(OSError):
                path.unlink()

    def _path(self, job: Job) -> Path:
        return self._folder / f"{job.id}.jpg"

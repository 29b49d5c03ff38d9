"""Files beside the gallery page that show what is being painted now.

The page loads `gallery_files/live/now.js` every few seconds, and the previews that it names. The
whole folder is removed when nothing is painted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from pydantic import JsonValue

from styled.delivery.gallery_files import FILES, NOW, GalleryFiles, read_regular
from styled.delivery.page import live_file


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A job that is being painted.

    Attributes:
        id: Of the job.
        name: The photo, relative to the inbox, as text.
        style: Its style.
        fraction: Share of the work that is done, in [0, 1].
        seconds_left: Estimated remaining time; None: unknown.
        size: (width, height) of the current scale in pixels; None before the first step.
        preview: A small JPEG of the current image; None before there is one.
    """

    id: str
    name: str
    style: str
    fraction: float
    seconds_left: float | None
    size: tuple[int, int] | None
    preview: Path | None


class LiveFiles:
    """Writes and removes the files.

    Attributes:
        is_empty: Whether there are none, as far as is known.
    """

    def __init__(self, files: GalleryFiles) -> None:
        """Keep them among `files`."""
        self._files = files
        self.is_empty = False
        self._previews: dict[str, int] = {}  # job -> mtime_ns of the preview that was copied

    def write(self, jobs: Sequence[LiveJob], waiting: int) -> None:
        """Show these jobs, and the number of those that wait.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        entries: list[JsonValue] = [
            {
                "id": job.id,
                "name": job.name,
                "style": job.style,
                "fraction": round(job.fraction, 4),
                "seconds_left": None if job.seconds_left is None else round(job.seconds_left),
                "width": None if job.size is None else job.size[0],
                "height": None if job.size is None else job.size[1],
                "preview": self._copy_preview(job),
            }
            for job in jobs
        ]
        self.is_empty = False
        written = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._files.write_live(
            NOW, live_file({"written": written, "waiting": waiting, "jobs": entries})
        )
        for job_id in self._previews.keys() - {job.id for job in jobs}:
            del self._previews[job_id]
            self._files.delete_live(_preview_name(job_id))

    def clear(self) -> None:
        """Remove all files, also those of an earlier process.

        Raises:
            ResourceUnavailable: the outbox is read-only or gone.
        """
        self._previews.clear()
        self._files.clear_live()
        self.is_empty = True

    def _copy_preview(self, job: LiveJob) -> str | None:
        """Copy a job's preview beside the page if it is new; return its URL."""
        if job.preview is None:
            return None
        try:
            modified = os.stat(job.preview).st_mtime_ns
        except OSError:  # the job has just ended
            return None
        name = _preview_name(job.id)
        if self._previews.get(job.id) != modified:
            data = read_regular(job.preview)
            if data is None:
                return None
            self._files.write_live(name, data)
            self._previews[job.id] = modified
        # The number makes browsers load a new preview of the same name.
        return f"{FILES}/live/{quote(name)}?{modified // 1_000_000}"


def _preview_name(job_id: str) -> str:
    return f"{job_id}.jpg"

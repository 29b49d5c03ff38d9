"""The folder of checkpoints: one file for each job that has been interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

import structlog

from styled.engine.checkpoint import Checkpoint
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.jobs.job import Job
from styled.jobs.protocols import Engine

log = structlog.get_logger()


class CheckpointStore:
    """Saves and finds the checkpoints of jobs."""

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        write_streamed: Callable[[Path, Callable[[IO[bytes]], None]], None],
        make_folder: Callable[[Path], None],
    ) -> None:
        """Keep checkpoints in `folder`, written by `write_streamed`, in the engine's format."""
        self._make_folder = make_folder
        self._folder = folder
        self._engine = engine
        self._write_streamed = write_streamed

    def save(self, job: Job, checkpoint: Checkpoint, fingerprint: str) -> None:
        """Save a checkpoint, replacing the one before.

        A checkpoint that can't be written is logged and nothing else: it only would
        have saved time.
        """
        try:
            self._make_folder(self._folder)  # somebody may have tidied up
            self._write_streamed(
                self._path(job),
                lambda stream: self._engine.dump_checkpoint(checkpoint, fingerprint, stream),
            )
        except ResourceUnavailable as error:
            log.warning("checkpoint.failed", reason=error.message)

    def find(self, job: Job, fingerprint: str) -> Checkpoint | None:
        """Return the job's checkpoint if there is one that belongs to exactly this work."""
        try:
            with open(self._path(job), "rb") as stream:
                return self._engine.load_checkpoint(stream, fingerprint)
        except OSError:
            return None
        except ValueError as error:
            log.warning("checkpoint.ignored", reason=str(error))
            return None

    def drop(self, job: Job) -> None:
        """Delete the job's checkpoint, if there is one."""
        self._delete(self._path(job))

    def sweep(self, keep: set[str]) -> None:
        """Delete all checkpoints but those of the jobs whose ids are in `keep`."""
        for path in self._folder.glob("*.ckpt"):
            if path.stem not in keep:
                self._delete(path)

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            # It only takes up space, which is no reason to fail a job that is done.
            log.warning("checkpoint.kept", path=readable(path), reason=error.strerror)

    def _path(self, job: Job) -> Path:
        return self._folder / f"{job.id}.ckpt"

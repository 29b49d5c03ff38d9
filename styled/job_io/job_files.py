"""Files of unfinished jobs in the state folder: checkpoints, paintings, previews and frames."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, TYPE_CHECKING

import structlog

from styled.atomic import AtomicWriter, atomic_write, make_folder
from styled.degradation import Degradation
from styled.engine_api import EngineInfo, Painted, PaintTask, TraceRow
from styled.errors import NodeLost, ResourceUnavailable
from styled.files import readable

if TYPE_CHECKING:
    from torch import Tensor

log = structlog.get_logger()

PREVIEW_PX = 256
PREVIEW_QUALITY = 80
FRAME_PX = 1920
FRAME_QUALITY = 90


class JobFiles:
    """Stores files by job id. All of them are optional: failures to write are only logged."""

    def __init__(self, state: Path) -> None:
        """Store the files in sub-folders of `state`."""
        self._checkpoints = state / "checkpoints"
        self._previews = state / "previews"
        self._frames = state / "frames"

    # Checkpoints

    def checkpoint_writer(self, job_id: str) -> CheckpointWriter:
        """Return a writer for the job's checkpoints."""
        return CheckpointWriter(self._checkpoint(job_id))

    def open_checkpoint(self, job_id: str) -> IO[bytes] | None:
        """Open the job's last checkpoint; return None if there is none."""
        try:
            return open(self._checkpoint(job_id), "rb")  # closed by the caller
        except OSError:
            return None

    def _checkpoint(self, job_id: str) -> Path:
        return self._checkpoints / f"{job_id}.ckpt"

    # Paintings that could not be published

    def save_painted(self, task: PaintTask, engine: EngineInfo, painted: Painted) -> None:
        """Save a painting that could not be published, so that it is not painted again.

        Args:
            task: The task that was painted.
            engine: The engine that painted it.
            painted: The painting.
        """
        import torch

        from styled.engine.checkpoint import task_fingerprint

        path = self._painting(task.job_id)
        try:
            task, painted = task.loaded(), painted.loaded()
        except NodeLost as error:
            log.warning("painting.not_saved", reason=error.message)
            return
        parts = {field.name: getattr(painted, field.name) for field in fields(Painted)}
        parts["degraded"] = [asdict(one) for one in painted.degraded]
        parts["trace"] = [tuple(row) for row in painted.trace]
        work = _painting_key(task_fingerprint(task, engine.weights_sha256), engine)
        content = {"work": work, "painted": parts}
        try:
            make_folder(path.parent)
            writer = AtomicWriter(path)
            torch.save(content, _Stream(writer))  # type: ignore[arg-type]  # only written to
            writer.commit()
        except ResourceUnavailable as error:
            log.warning("painting.not_saved", reason=error.message)

    def load_painted(self, task: PaintTask, engine: EngineInfo) -> Painted | None:
        """Return the saved painting of a task, None if there is none.

        A painting of a task with other inputs, or by an engine with another `EngineInfo`, is
        ignored.
        """
        path = self._painting(task.job_id)
        if not path.exists():
            return None
        import torch

        from styled.engine.checkpoint import task_fingerprint

        try:
            content = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            log.warning("painting.ignored", reason=str(error))
            return None
        try:
            fingerprint = task_fingerprint(task.loaded(), engine.weights_sha256)
        except NodeLost as error:  # the engine finds out as well; the photo is prepared again
            log.warning("painting.ignored", reason=error.message)
            return None
        if content["work"] != _painting_key(fingerprint, engine):
            return None
        parts = content["painted"]
        parts["degraded"] = tuple(Degradation(**one) for one in parts["degraded"])
        parts["trace"] = tuple(TraceRow(*row) for row in parts["trace"])
        return Painted(**parts)

    def _painting(self, job_id: str) -> Path:
        return self._checkpoints / f"{job_id}.painting"

    # Previews

    def save_preview(self, job_id: str, image: Tensor) -> Path | None:
        """Replace the job's preview.

        Args:
            image: 1x3xHxW, sRGB in [0, 1].

        Returns:
            Its path, None if it could not be written.
        """
        from styled import photos

        path = self._previews / f"{job_id}.jpg"
        try:
            make_folder(self._previews)
            atomic_write(path, photos.encode_image(image, "jpeg", PREVIEW_QUALITY))
        # The image may contain NaNs that the engine's guard has not rolled back yet.
        except (ResourceUnavailable, ValueError, RuntimeError, MemoryError) as error:
            log.debug("preview.failed", reason=str(error))
            return None
        return path

    # Frames

    def save_frame(self, job_id: str, number: int, image: Tensor) -> None:
        """Save a frame; `number` is its step, `image` as for a preview."""
        from styled import photos

        path = self._frames / job_id / f"{number:05}.jpg"
        try:
            make_folder(path.parent)
            atomic_write(path, photos.encode_image(image, "jpeg", FRAME_QUALITY))
        except (ResourceUnavailable, ValueError, RuntimeError, MemoryError) as error:
            log.warning("frame.failed", reason=str(error), path=readable(path))

    def frames(self, job_id: str) -> list[Path]:
        """Return the job's frames, in order."""
        folder = self._frames / job_id
        return sorted(folder.glob("*.jpg")) if os.path.isdir(folder) else []

    def drop_frames(self, job_id: str) -> None:
        """Delete the job's frames, because it is painted from the start again."""
        shutil.rmtree(self._frames / job_id, ignore_errors=True)

    # All files

    def drop(self, job_id: str) -> None:
        """Delete all files of a job that has ended."""
        _delete(self._checkpoint(job_id))
        _delete(self._painting(job_id))
        _delete(self._previews / f"{job_id}.jpg")
        self.drop_frames(job_id)

    def sweep(self, keep: Collection[str]) -> None:
        """Delete the files of all jobs that are not in `keep`, and all previews."""
        for path in (*self._checkpoints.glob("*.ckpt"), *self._checkpoints.glob("*.painting")):
            if path.stem not in keep:
                _delete(path)
        for path in self._previews.glob("*.jpg"):
            _delete(path)
        with suppress(FileNotFoundError):
            for name in os.listdir(self._frames):
                if name not in keep:
                    shutil.rmtree(self._frames / name, ignore_errors=True)


class CheckpointWriter:
    """Writes checkpoints piece by piece; each one atomically replaces the previous one.

    If a checkpoint can't be written, this is only logged: a checkpoint just saves time.
    """

    def __init__(self, path: Path) -> None:
        """Write to `path`."""
        self._path = path
        self._writer: AtomicWriter | None = None
        self._has_failed = False

    def write(self, piece: bytes, *, is_last: bool) -> bool:
        """Write a piece; return whether this has completed a checkpoint."""
        try:
            if not self._has_failed:
                if self._writer is None:
                    make_folder(self._path.parent)  # somebody may have deleted it
                    self._writer = AtomicWriter(self._path)
                self._writer.write(piece)
                if is_last:
                    self._writer.commit()
        except ResourceUnavailable as error:
            self._has_failed = True
            self.discard()
            log.warning("checkpoint.failed", reason=error.message)
        if not is_last:
            return False
        is_complete = not self._has_failed
        self._writer, self._has_failed = None, False
        return is_complete

    def discard(self) -> None:
        """Discard the pieces of an incomplete checkpoint."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None


class _Stream:
    """A write-only file object for `torch.save`."""

    def __init__(self, writer: AtomicWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> int:
        self._writer.write(data)
        return len(data)

    def flush(self) -> None:
        pass


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        # The file only takes up space: no reason to fail a finished job.
        log.warning("job_file.not_deleted", path=readable(path), reason=error.strerror)


def _painting_key(fingerprint: str, engine: EngineInfo) -> tuple[str, str]:
    """Return what decides the pixels of a painting, without the engine's device and node."""
    return fingerprint, repr(replace(engine, device="", node=None))

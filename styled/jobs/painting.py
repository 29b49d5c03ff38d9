"""Painting one job: step by step, saved now and then, until it is done or has to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from styled.engine.checkpoint import Checkpoint
from styled.engine.progress import Progress, Stylized
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.jobs.checkpoints import CheckpointStore
from styled.jobs.degradations import JobDegradations
from styled.jobs.estimate import Estimate, Experience
from styled.jobs.frames import FrameStore
from styled.jobs.job import Job, JobProgress
from styled.jobs.journal import Journal
from styled.jobs.preparation import Prepared
from styled.jobs.previews import LONG_EDGE_PX, PreviewStore
from styled.jobs.protocols import Beat, Engine

log = structlog.get_logger()

PROGRESS_SECONDS = 1.0
"""How often a running job's progress is written down."""

PREVIEW_SECONDS = 5.0
"""How often its preview is."""

SAVING_SHARE = 10
"""Between two checkpoints at least so many times the seconds go by that one takes to write."""

SLOW_STEP_SECONDS = 2.0
"""After such a step a checkpoint is due at once: the next step may be too long for a stop."""


class Stopped(Exception):
    """The daemon is stopping: the job has been saved and goes back to the queue."""


class Cancelled(Exception):
    """A person does not want this job any more."""


@dataclass(frozen=True, slots=True)
class Painting:
    """A finished painting.

    Attributes:
        resumed: Whether it went on from a checkpoint.
        save: Saves its last checkpoint, for when it can't be delivered just now.
    """

    stylized: Stylized
    resumed: bool
    save: Callable[[], None]


class Painter:
    """Has the engine paint, and keeps what would be lost by a crash."""

    def __init__(
        self,
        engine: Engine,
        checkpoints: CheckpointStore,
        previews: PreviewStore,
        frames: FrameStore,
        journal: Journal,
        checkpoint_seconds: float,
        stop: threading.Event,
        clock: Callable[[], float],
        beat: Beat,
        look_around: Callable[[], None],
    ) -> None:
        """Paint until `stop` is set, saving every `checkpoint_seconds` of `clock`.

        `look_around` is called about once a second: others may be waiting in vain. It may
        raise ResourceUnavailable, which stops nobody.
        """
        self._engine = engine
        self._checkpoints = checkpoints
        self._previews = previews
        self._frames = frames
        self._beat = beat
        self._look_around = look_around
        self._experience: dict[str, Experience] = {}  # by the recipe's name
        self._journal = journal
        self._checkpoint_seconds = checkpoint_seconds
        self._stop = stop
        self._clock = clock

    def paint(self, job: Job, prepared: Prepared, degradations: JobDegradations) -> Painting:
        """Paint from the start, or from the job's checkpoint where there is one.

        What has to be given up on the way is noted in `degradations` when it happens.

        Raises:
            Stopped: told to stop; a checkpoint has been saved.
            Cancelled: it is not wanted any more.
            EngineFailure, DeviceLost: as the engine says.
        """
        styles = prepared.weighted_styles()
        fingerprint = self._engine.fingerprint(prepared.content, styles, prepared.recipe)
        resume = self._checkpoints.find(job, fingerprint)
        resumed = resume is not None
        steps_of_scales = _steps_of_scales(resume)
        if resume is None:
            self._frames.drop(job)  # of an attempt that left no way to go on from it
        if resume is not None:
            log.info("job.resumed", scale=resume.scale, step=resume.step)
        steps = self._engine.stylize(
            prepared.content, styles, prepared.recipe, resume, prepared.painted_size
        )
        del resume  # its images would take up memory to the end
        saved_at = noted_at = stepped_at = self._clock()
        saving_seconds = 0.0
        preview = _Preview(self._previews, job)
        recipe = prepared.recipe
        estimate = Estimate(self._experience.get(recipe.name, Experience.of(recipe)))
        progress: Progress | None = None

        def save() -> None:
            if progress is not None:
                self._checkpoints.save(job, progress.checkpoint(), fingerprint)

        while True:
            try:
                progress = next(steps)
            except StopIteration as finished:
                self._experience[prepared.recipe.name] = estimate.learnt()
                degradations.note("painting", finished.value.degraded)
                if progress is not None and not progress.finished:
                    _log_scale(progress)  # it was ended for lack of memory
                return Painting(finished.value, resumed, save)
            now = self._clock()
            self._beat(0.0)
            degradations.note("painting", progress.degraded)
            if progress.finished:
                _log_scale(progress)
            estimate.note(progress, now - stepped_at)
            steps_before = sum(n for at, n in steps_of_scales.items() if at < progress.scale)
            steps_of_scales[progress.scale] = progress.step
            self._frames.show(job, progress, steps_before)
            if self._stop.is_set():
                save()
                raise Stopped
            is_slow = now - stepped_at >= SLOW_STEP_SECONDS
            interval = 0.0 if is_slow else self._checkpoint_seconds
            # A large picture's state takes long to write: most of the time is for painting.
            if now - saved_at >= max(interval, SAVING_SHARE * saving_seconds):
                save()
                saved_at = self._clock()
                saving_seconds = saved_at - now
            if now - noted_at >= PROGRESS_SECONDS:
                self._note(job, progress, estimate, preview.at(now, progress))
                noted_at = now
            stepped_at = self._clock()

    def _note(self, job: Job, progress: Progress, estimate: Estimate, preview: str | None) -> None:
        noted = JobProgress(
            fraction=progress.fraction,
            scale=progress.scale,
            scales=progress.scales,
            width=progress.width,
            height=progress.height,
            step=progress.step,
            steps=progress.steps,
            loss=progress.losses.total,
            step_seconds=estimate.step_seconds(),
            seconds_left=estimate.seconds_left(),
            preview=preview,
        )
        is_cancelled = False
        with suppress(ResourceUnavailable):  # what matters will say so again
            is_cancelled = self._journal.note_progress(job, noted)
            self._look_around()
        if is_cancelled:
            raise Cancelled


def _log_scale(progress: Progress) -> None:
    """Log the end of a scale, so that a job that takes an hour can be followed."""
    log.info(
        "scale.finished",
        scale=progress.scale,
        scales=progress.scales,
        width=progress.width,
        height=progress.height,
        steps=progress.step,
        loss=round(progress.losses.total, 6),
        fraction=round(progress.fraction, 3),
    )


def _steps_of_scales(resume: Checkpoint | None) -> dict[int, int]:
    """Return how many steps were taken at each scale before a snapshot, by its trace."""
    return {} if resume is None else {int(row[0]): int(row[1]) for row in resume.trace}


class _Preview:
    """The preview of one painting, made anew every now and then."""

    def __init__(self, previews: PreviewStore, job: Job) -> None:
        self._previews = previews
        self._job = job
        self._shown_at = -PREVIEW_SECONDS
        self._path: str | None = None

    def at(self, now: float, progress: Progress) -> str | None:
        """Return the preview's path, after making it anew if it is time."""
        if now - self._shown_at >= PREVIEW_SECONDS:
            self._shown_at = now
            # Of an image that is no numbers, just before the guard rolls it back, or for lack
            # of memory: a preview is no reason to fail, and what is lasting will say so again.
            with suppress(RuntimeError, MemoryError):
                path = self._previews.show(self._job, progress.preview(LONG_EDGE_PX))
                self._path = None if path is None else readable(path)
        return self._path

"""Converts the steps of a painting into the engine events that its task requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from math import inf
from statistics import median

from styled.degradation import Degradation
from styled.engine.checkpoint import Checkpoint, checkpoint_pieces
from styled.engine.events import StepProgress, Stylized
from styled.engine.scales import resize
from styled.engine_api import (
    CheckpointPiece,
    Degraded,
    EngineEvent,
    Frame,
    Painted,
    PaintTask,
    PixelSize,
    Preview,
    Progress,
    Stopped,
)

LATEST_STEPS = 15
"""The number of recent steps over which the median step time is taken."""

SAVE_INTERVAL_FACTOR = 10
"""The interval between checkpoints is at least this multiple of the time that saving one takes."""

SLOW_STEP_SECONDS = 2.0
"""A step this long makes a checkpoint due at once: a stop may not wait for the next step's end."""


class TaskRun:
    """One run of one task.

    Measured times include what the consumer does between two events: the time to save a
    checkpoint includes writing its pieces.
    """

    def __init__(
        self,
        task: PaintTask,
        fingerprint: str,
        resume: Checkpoint | None,
        is_stopped: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        """Prepare a run; `is_stopped` is called after each step."""
        self._task = task
        self._fingerprint = fingerprint
        self._is_stopped = is_stopped
        self._clock = clock
        self._resumed = resume is not None
        # Steps taken at each scale so far.
        self._steps = {} if resume is None else {int(row[0]): int(row[1]) for row in resume.trace}
        self._scale: tuple[int, PixelSize] | None = None
        self._first_step_seconds = 0.0
        self._latest: deque[float] = deque(maxlen=LATEST_STEPS)

    def events(self, painting: Generator[StepProgress, None, Stylized]) -> Iterator[EngineEvent]:
        """Run a painting to its end, or until it is stopped."""
        task, clock = self._task, self._clock
        stepped_at = saved_at = clock()
        reported_at = previewed_at = -inf
        saving_seconds = 0.0
        step: StepProgress | None = None
        degradations: tuple[Degradation, ...] = ()
        while True:
            try:
                step = next(painting)
            except StopIteration as ended:
                if step is not None and not step.finished:  # it ended early for lack of memory
                    yield replace(self._progress(step), finished=True)
                yield self._painted(ended.value)
                return
            now = clock()
            seconds = now - stepped_at
            self._record_step(step, seconds)
            if step.degraded != degradations:
                degradations = step.degraded
                yield Degraded(degradations)
            yield from self._frame(step)
            is_stopped = self._is_stopped()
            if is_stopped or self._is_save_due(now - saved_at, seconds, saving_seconds):
                started_at = clock()
                yield from _checkpoint(step, self._fingerprint)
                saved_at = clock()
                saving_seconds = saved_at - started_at
            if is_stopped:
                yield Stopped()
                return
            if step.finished or now - reported_at >= task.progress_seconds:
                reported_at = now
                yield self._progress(step)
            if task.preview_seconds is not None and now - previewed_at >= task.preview_seconds:
                previewed_at = now
                yield from _preview(step, task.preview_px)
            stepped_at = clock()

    def _is_save_due(self, elapsed: float, step_seconds: float, saving_seconds: float) -> bool:
        checkpoint_seconds = self._task.checkpoint_seconds
        if checkpoint_seconds is None:
            return False
        interval = 0.0 if step_seconds >= SLOW_STEP_SECONDS else checkpoint_seconds
        # A large picture's state takes long to write: limit the share of time spent on that.
        return elapsed >= max(interval, SAVE_INTERVAL_FACTOR * saving_seconds)

    def _record_step(self, step: StepProgress, seconds: float) -> None:
        scale = step.scale, PixelSize(step.width, step.height)
        if scale != self._scale:  # the next scale, or a size reduced for lack of memory
            self._scale, self._first_step_seconds = scale, seconds
            self._latest.clear()
        else:
            self._latest.append(seconds)
        self._steps[step.scale] = step.step

    def _progress(self, step: StepProgress) -> Progress:
        return Progress(
            plan=tuple(PixelSize(*size) for size in step.plan),
            budget=tuple(step.steps_at(scale) for scale in range(1, step.scales + 1)),
            scale=step.scale,
            step=step.step,
            finished=step.finished,
            loss=step.losses.total,
            first_step_seconds=self._first_step_seconds,
            step_seconds=median(self._latest) if self._latest else None,
            expected_steps=step.expected_steps,
        )

    def _frame(self, step: StepProgress) -> Iterator[Frame]:
        every = self._task.frame_every_steps
        number = sum(n for scale, n in self._steps.items() if scale <= step.scale)
        if every is None or number % every:
            return
        # It fails if the image is NaN (and about to be rolled back) or if memory is short. That is
        # no reason to fail the job; a lasting problem shows up in the next step.
        try:
            image = resize(step.preview(self._task.frame_px), *self._frame_size(step))
        except (RuntimeError, MemoryError, ValueError):
            return
        yield Frame(number, image)

    def _frame_size(self, step: StepProgress) -> PixelSize:
        """Return the result's size within `frame_px`, with even edges for video codecs."""
        width, height = step.plan[-1]
        factor = min(1.0, self._task.frame_px / max(width, height))
        return PixelSize(*(max(2, round(edge * factor / 2) * 2) for edge in (width, height)))

    def _painted(self, stylized: Stylized) -> Painted:
        return Painted(
            image=stylized.image,
            trace=stylized.trace,
            degraded=stylized.degraded,
            tile_px=stylized.tile_px,
            precision=stylized.precision,
            detail_steps=stylized.detail_steps,
            resumed=self._resumed,
        )


def _checkpoint(step: StepProgress, fingerprint: str) -> Iterator[CheckpointPiece]:
    """Yield the pieces of a checkpoint; the last one is marked, so each waits for the next."""
    pieces = checkpoint_pieces(step.checkpoint(), fingerprint)
    data = next(pieces)
    for next_data in pieces:
        yield CheckpointPiece(data, is_last=False)
        data = next_data
    yield CheckpointPiece(data, is_last=True)


def _preview(step: StepProgress, long_edge_px: int) -> Iterator[Preview]:
    try:
        image = step.preview(long_edge_px)
    except (RuntimeError, MemoryError, ValueError):  # as in `_frame`
        return
    yield Preview(image)

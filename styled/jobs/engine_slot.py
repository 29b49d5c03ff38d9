"""A slot: one engine, and the one thread that it works in."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import structlog

from styled.engine_api import (
    CheckpointIgnored,
    CheckpointPiece,
    Engine,
    Failed,
    Frame,
    PaintTask,
    Preview,
    Resumed,
    Stopped,
)
from styled.errors import DeviceLost, EngineDied, StyledError, UnexpectedError
from styled.jobs.events import (
    CheckpointSaved,
    EngineLost,
    EngineReady,
    EngineSaid,
    Event,
    PreviewSaved,
)
from styled.jobs.job_files import JobFiles
from styled.jobs.job_log import job_log_context
from styled.jobs.prefetch import Stamps, have_changed
from styled.jobs.protocols import Heartbeats

log = structlog.get_logger()

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
"""How long a slot waits before it replaces its engine: twice as long after each further loss
without a finished task in between, up to the longest."""


class EngineFactory(Protocol):
    """Makes the engine of a slot, and its replacement once it is lost."""

    @property
    def can_replace(self) -> bool:
        """Whether a lost engine can be replaced within this process."""

    def make(self) -> Engine:
        """Make an engine, in the thread that it will work in.

        Raises:
            StyledError: there is none to be had.
        """


@dataclass(frozen=True, slots=True)
class Assignment:
    """A task for a slot.

    Attributes:
        run: A number that no other assignment has.
        log_context: What the log says about it.
        stamps: Of the files that the task was made of: if they have changed, it is not begun.
    """

    run: int
    task: PaintTask
    log_context: dict[str, str]
    stamps: Stamps = ()


class EngineSlot:
    """Feeds the events of its engine into the queue.

    It writes checkpoints, previews and frames to disk itself: only that they are there is news.
    """

    def __init__(
        self,
        name: str,
        factory: EngineFactory,
        files: JobFiles,
        events: SimpleQueue[Event],
        heartbeats: Heartbeats,
    ) -> None:
        """Post to `events`, once started."""
        self.name = name
        self._factory = factory
        self._files = files
        self._events = events
        self._heartbeats = heartbeats
        self._worker: _Worker | None = None

    def start(self) -> None:
        """Start the thread; `EngineReady` or `EngineLost` tells what came of it."""
        self._worker = self._new_worker(losses=0)

    def assign(self, assignment: Assignment) -> None:
        """Paint this next."""
        if self._worker is not None:
            self._worker.assignments.put(assignment)

    def stop(self, job_id: str) -> None:
        """Have the engine stop a job at its next step."""
        if self._worker is not None and self._worker.engine is not None:
            self._worker.engine.stop(job_id)

    def replace(self) -> bool:
        """Give up an engine that has stalled, with its thread; return whether that is possible."""
        if self._worker is None or not self._factory.can_replace:
            return False
        self._worker.close()
        self._worker = self._new_worker(losses=self._worker.losses + 1)
        return True

    def close(self) -> None:
        """Have the thread end after what it is at; nobody waits for it here."""
        if self._worker is not None:
            self._worker.close()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the thread; return whether it has ended."""
        return self._worker is None or self._worker.join(timeout)

    def _new_worker(self, losses: int) -> _Worker:
        return _Worker(
            self.name, self._factory, self._files, self._events, self._heartbeats, losses
        )

    @property
    def ops_done(self) -> int:
        """A number that grows as long as the engine computes."""
        engine = self._worker.engine if self._worker is not None else None
        return 0 if engine is None else engine.ops_done


class _Worker:
    """The thread of a slot, from the first engine until the slot is closed or replaces it."""

    def __init__(
        self, name: str, factory: EngineFactory, files: JobFiles, events: SimpleQueue[Event],
        heartbeats: Heartbeats, losses: int,
    ) -> None:  # fmt: skip
        self._name = name
        self._factory = factory
        self._files = files
        self._events = events
        self._heartbeats = heartbeats
        self.losses = losses
        self.engine: Engine | None = None
        self.assignments: SimpleQueue[Assignment | None] = SimpleQueue()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_closed.set()
        self.assignments.put(None)

    def join(self, timeout: float | None) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _post(self, event: Event) -> None:
        if not self._is_closed.is_set() or isinstance(event, EngineSaid):
            self._events.put(event)

    def _beat(self, rest_seconds: float) -> None:
        if not self._is_closed.is_set():  # or its successor would seem to be alive
            self._heartbeats.beat(self._name, rest_seconds)

    def _work(self) -> None:
        factory, name = self._factory, self._name
        while not self._is_closed.is_set():
            failure = self._use_one_engine()
            self.engine = None
            if failure is None or self._is_closed.is_set():
                return
            wait = min(FIRST_RETRY_SECONDS * 2**self.losses, LONGEST_RETRY_SECONDS)
            self.losses = min(self.losses + 1, 10)
            self._post(EngineLost(name, failure, wait if factory.can_replace else None))
            if not factory.can_replace:
                return
            self._beat(wait)
            self._is_closed.wait(wait)

    def _use_one_engine(self) -> StyledError | None:
        """Make an engine and work with it; return why it is lost, None if the slot was closed."""
        try:
            self._beat(math.inf)  # a download may take an hour
            self.engine = self._factory.make()
            self._post(EngineReady(self._name, self.engine.info))
            while True:
                self._beat(math.inf)
                assignment = self.assignments.get()
                if assignment is None:
                    self.engine.close()
                    return None
                self._beat(0.0)
                with job_log_context(assignment.log_context):
                    failure = self._paint(self.engine, assignment)
                del assignment  # it holds images, and nothing may come after it for hours
                if failure is not None:
                    return failure
                self.losses = 0
        except StyledError as error:
            return error
        # The one broad boundary of this thread: an engine never dies in silence.
        except BaseException as error:  # the scheduler is told
            log.exception("engine.crashed", engine=self._name)
            return UnexpectedError.of(error)

    def _paint(self, engine: Engine, assignment: Assignment) -> StyledError | None:
        """Run a task to its end; return why the engine is lost by it, None if it is not."""
        files, task = self._files, assignment.task
        if have_changed(assignment.stamps):
            self._post(EngineSaid(self._name, assignment.run, Stopped()))
            return None
        height, width = task.content.shape[-2:]
        log.info("job.started", width=width, height=height, engine=self._name)
        kept = files.load_painting(task, engine.info)
        if kept is not None:
            self._post(EngineSaid(self._name, assignment.run, kept))
            return None
        writer = files.checkpoint_writer(task.job_id)
        checkpoint = files.open_checkpoint(task.job_id)
        if checkpoint is None:
            files.drop_frames(task.job_id)  # of an attempt that left nothing to go on from
        try:
            for event in engine.run(task, checkpoint):
                self._beat(0.0)
                match event:
                    case CheckpointPiece(data, is_last):
                        if writer.write(data, is_last=is_last):
                            self._post(CheckpointSaved(task.job_id))
                    case CheckpointIgnored(reason):
                        log.warning("checkpoint.ignored", reason=reason)
                        files.drop_frames(task.job_id)
                    case Resumed(scale, step):
                        log.info("job.resumed", scale=scale, step=step)
                    case Preview(image):
                        if path := files.save_preview(task.job_id, image):
                            self._post(PreviewSaved(task.job_id, path))
                    case Frame(number, image):
                        files.save_frame(task.job_id, number, image)
                    case Failed(DeviceLost() | EngineDied() as error):
                        return error
                    case _:
                        self._post(EngineSaid(self._name, assignment.run, event))
        finally:
            writer.discard()
            if checkpoint is not None:
                checkpoint.close()
        return None

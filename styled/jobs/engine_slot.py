"""A slot: one engine and the thread that it runs in; a lost engine is replaced with back-off."""

from __future__ import annotations

import math
import threading
from queue import Empty, SimpleQueue

import structlog

from styled.engine_api import (
    CheckpointIgnored,
    CheckpointPiece,
    Engine,
    EngineFactory,
    Failed,
    Frame,
    Preview,
    Resumed,
    Stopped,
)
from styled.errors import DeviceLost, EngineDied, StyledError, UnexpectedError
from styled.files import have_changed
from styled.job_io.job_files import JobFiles
from styled.job_io.job_log import job_log_context
from styled.job_io.protocols import HeartbeatsProtocol
from styled.jobs.events import (
    Assignment,
    CheckpointSaved,
    EngineLost,
    EngineReady,
    EngineReported,
    Event,
    PreviewSaved,
)

log = structlog.get_logger()

FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0
"""Back-off before a lost engine is replaced: doubles with each further loss until a task is
finished, up to the longest."""

CHECK_SECONDS = 10.0
"""How often an idle engine is checked."""


class EngineSlot:
    """Runs an engine in a thread of its own and posts the engine's events to the queue.

    The thread writes checkpoints, previews and frames to disk itself, and only posts that a
    checkpoint or a preview was saved.
    """

    def __init__(
        self,
        name: str,
        factory: EngineFactory,
        files: JobFiles,
        events: SimpleQueue[Event],
        heartbeats: HeartbeatsProtocol,
    ) -> None:
        """Create a slot; no thread runs before `start`.

        Args:
            name: Of the slot; also of its thread and in the heartbeats.
            factory: Makes the engines.
            files: Where checkpoints, previews and frames are kept.
            events: The scheduler's queue, which receives the events.
            heartbeats: Receives the thread's heartbeats.
        """
        self.name = name
        self._factory = factory
        self._files = files
        self._events = events
        self._heartbeats = heartbeats
        self._worker: _Worker | None = None

    def start(self) -> None:
        """Start the thread, which makes an engine and posts `EngineReady` or `EngineLost`."""
        self._worker = self._new_worker(lost_engines=0)

    def assign(self, assignment: Assignment) -> None:
        """Queue a task for the engine."""
        if self._worker is not None:
            self._worker.assignments.put(assignment)

    def stop(self, job_id: str) -> None:
        """Make the engine stop a job at its next step."""
        if self._worker is not None and self._worker.engine is not None:
            self._worker.engine.stop(job_id)

    def replace(self) -> bool:
        """Abandon a stalled engine and its thread, and start anew; return False if impossible."""
        if self._worker is None or not self._factory.can_replace:
            return False
        self._worker.close()
        if self._worker.engine is not None:
            self._worker.engine.close()
        self._worker = self._new_worker(lost_engines=self._worker.lost_engines + 1)
        return True

    def close(self) -> None:
        """Let the thread end after its current task; does not wait for it."""
        if self._worker is not None:
            self._worker.close()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended; return False on timeout."""
        return self._worker is None or self._worker.join(timeout)

    def _new_worker(self, lost_engines: int) -> _Worker:
        return _Worker(
            self.name, self._factory, self._files, self._events, self._heartbeats, lost_engines
        )

    @property
    def ops_done(self) -> int:
        """A counter that increases while the engine computes."""
        engine = self._worker.engine if self._worker is not None else None
        return 0 if engine is None else engine.ops_done


class _Worker:
    """The thread of a slot; it ends when the slot is closed, or abandons it for a new one."""

    def __init__(
        self, name: str, factory: EngineFactory, files: JobFiles, events: SimpleQueue[Event],
        heartbeats: HeartbeatsProtocol, lost_engines: int,
    ) -> None:  # fmt: skip
        self._name = name
        self._factory = factory
        self._files = files
        self._events = events
        self._heartbeats = heartbeats
        self.lost_engines = lost_engines
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
        if not self._is_closed.is_set() or isinstance(event, EngineReported):
            self._events.put(event)

    def _heartbeat(self, idle_for: float) -> None:
        if not self._is_closed.is_set():  # otherwise the new thread would seem to be alive
            self._heartbeats.beat(self._name, idle_for)

    def _work(self) -> None:
        factory, name = self._factory, self._name
        while not self._is_closed.is_set():
            failure = self._use_one_engine()
            self.engine = None
            if failure is None or self._is_closed.is_set():
                return
            wait = min(FIRST_RETRY_SECONDS * 2**self.lost_engines, MAX_RETRY_SECONDS)
            self.lost_engines = min(self.lost_engines + 1, 10)
            self._post(EngineLost(name, failure, wait if factory.can_replace else None))
            if not factory.can_replace:
                return
            self._heartbeat(wait)
            self._is_closed.wait(wait)

    def _use_one_engine(self) -> StyledError | None:
        """Make an engine and run tasks on it.

        Returns:
            Why the engine was lost; None if the slot was closed.
        """
        try:
            self._heartbeat(math.inf)  # a download may take an hour
            self.engine = self._factory.make()
            self._post(EngineReady(self._name, self.engine.info))
            while True:
                self._heartbeat(math.inf)
                assignment = self._next_assignment(self.engine)
                if assignment is None:
                    self.engine.close()
                    return None
                self._heartbeat(0.0)
                with job_log_context(assignment.log_context):
                    failure = self._paint(self.engine, assignment)
                del assignment  # it holds images, and the next one may be hours away
                if failure is not None:
                    return failure
                self.lost_engines = 0
        except StyledError as error:
            return error
        # The outermost handler of this thread: every loss of an engine is reported.
        except BaseException as error:  # returned, and posted as `EngineLost`
            log.exception("engine.internal_error", engine=self._name)
            return UnexpectedError.of(error)

    def _next_assignment(self, engine: Engine) -> Assignment | None:
        """Wait for a task; None: the slot was closed.

        Raises:
            StyledError: the engine was lost while it was idle.
        """
        while True:
            try:
                return self.assignments.get(timeout=CHECK_SECONDS)
            except Empty:
                engine.check()

    def _paint(self, engine: Engine, assignment: Assignment) -> StyledError | None:
        """Run a task to its end; return why the engine was lost, None if it was not."""
        files, task = self._files, assignment.task
        if have_changed(assignment.stamps):
            self._post(EngineReported(self._name, assignment.assignment_id, Stopped()))
            return None
        height, width = task.content.shape[-2:]
        log.info("job.painting_started", width=width, height=height, engine=self._name)
        saved_painting = files.load_painted(task, engine.info)
        if saved_painting is not None:
            self._post(EngineReported(self._name, assignment.assignment_id, saved_painting))
            return None
        writer = files.checkpoint_writer(task.job_id)
        checkpoint = files.open_checkpoint(task.job_id)
        if checkpoint is None:
            files.drop_frames(task.job_id)  # of an attempt that left no checkpoint
        try:
            for event in engine.run(task, checkpoint):
                self._heartbeat(0.0)
                match event:
                    case CheckpointPiece(data, is_last):
                        if writer.write(data, is_last=is_last):
                            self._post(CheckpointSaved(task.job_id))
                    case CheckpointIgnored(reason):
                        log.warning("checkpoint.ignored", reason=reason)
                        files.drop_frames(task.job_id)
                        self._post(EngineReported(self._name, assignment.assignment_id, event))
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
                        self._post(EngineReported(self._name, assignment.assignment_id, event))
        finally:
            writer.discard()
            if checkpoint is not None:
                checkpoint.close()
        return None

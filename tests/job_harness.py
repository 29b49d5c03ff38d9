"""Harness of the tests of jobs: scripted engines and a simulated clock, the rest is real.

The journal is a real SQLite file, the publisher writes real files, and the photos are real images.
Only the painting and the passing of time are simulated.
"""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

import pytest
import structlog
import torch
from PIL import Image

from styled.app import build_scheduler
from styled.config import Config, load_config
from styled.degradation import Degradation
from styled.delivery.gallery import Gallery
from styled.delivery.publisher import Publisher
from styled.engine.checkpoint import Checkpoint, load_checkpoint, task_fingerprint
from styled.engine.events import StepProgress, Stylized
from styled.engine.objective import Losses
from styled.engine.task_run import TaskRun
from styled.engine_api import (
    CheckpointIgnored,
    Engine,
    EngineEvent,
    EngineFactory,
    EngineInfo,
    Failed,
    Painted,
    PaintTask,
    Resumed,
    Stopped,
    TraceRow,
)
from styled.errors import StyledError, UnexpectedError
from styled.job_io.gallery_updates import GalleryUpdater
from styled.job_io.input_cleanup import InputCleanup
from styled.job_io.io_context import IoContext, JournalRetention
from styled.job_io.io_pool import InlineIoPool
from styled.job_io.job_files import JobFiles
from styled.jobs.engine_slot import EngineSlot
from styled.jobs.events import (
    EngineLost,
    EngineReady,
    EngineReported,
    Event,
    StopRequested,
    Wakeup,
)
from styled.jobs.request_poller import POLL_SECONDS
from styled.jobs.scheduler import Scheduler
from styled.journal.job import Job, JobFinished, JobProgress
from styled.journal.journal import Journal
from styled.mounts import Mounts
from styled.ops.heartbeats import Heartbeats

LogLines = list[MutableMapping[str, Any]]

TIMEOUT_SECONDS = 60.0
"""Timeout for waiting for another thread, which normally takes milliseconds."""

STUB = Degradation("weights", "it is only a stub")
"""The degradation that the scripted engine reports."""

CONFIGURATION = """\
default_style: oil
styles:
  oil: {image: styles/oil.png}
  ink: {image: styles/ink.png}
output: {min_free: 0}
"""


class Died(BaseException):
    """Simulates the death of the process (SIGKILL): no `except Exception` catches it."""


def picture(colour: str = "teal", size: tuple[int, int] = (40, 36), format: str = "png") -> bytes:
    """Return an image file that is not of a single colour; `size` is (width, height)."""
    image = Image.new("RGB", size, colour)
    image.paste("gold", (4, 4, size[0] // 2, size[1] // 2))
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


class ScriptedEngine:
    """An engine that darkens the photo a little in each step, without a network.

    After each step it waits until the queue has handled its events, so that tests are
    deterministic.

    Attributes:
        start_steps: For each run, the step after which it began: 0, or that of the checkpoint.
        at_step: Called before each step; may raise, or change files.
        degraded: The degradations that it reports after each step.
        on_sync: Waits until the queue has handled all events so far.
        on_death: Called with the exception if `at_step` raises `Died`.
    """

    info = EngineInfo(
        "untrained", "0" * 64, "cpu", "a processor", "float32", "2.0", 2, (STUB,)
    )  # fmt: skip

    def __init__(self, steps: int = 3) -> None:
        self.steps = steps
        self.clock: Callable[[], float] = time.monotonic
        self.ops_done = 0
        self.start_steps: list[int] = []
        self.at_step: Callable[[int], None] = lambda step: None
        self.degraded: tuple[Degradation, ...] = ()
        self.on_sync: Callable[[], None] = lambda: None
        self.on_death: Callable[[Died], None] = lambda died: None
        self._to_stop: set[str] = set()

    def run(self, task: PaintTask, checkpoint: IO[bytes] | None = None) -> Iterator[EngineEvent]:
        fingerprint = task_fingerprint(task, self.info.weights_sha256)
        resume = None
        if checkpoint is not None:
            try:
                resume = load_checkpoint(checkpoint, fingerprint, torch.device("cpu"))
            except ValueError as error:
                yield CheckpointIgnored(str(error))
            else:
                yield Resumed(resume.scale, resume.step)
        run = TaskRun(task, fingerprint, resume, lambda: task.job_id in self._to_stop, self.clock)
        try:
            for event in run.events(self.paint(task, resume)):
                yield replace(event, peak_memory_bytes=1) if isinstance(event, Painted) else event
        except Died as died:
            self.on_death(died)
        except StyledError as error:
            yield Failed(error)
        except Exception as error:  # noqa: BLE001  # like the real engine
            yield Failed(UnexpectedError.of(error))
        finally:
            self._to_stop.discard(task.job_id)

    def stop(self, job_id: str) -> None:
        self._to_stop.add(job_id)

    def check(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        pass

    def paint(
        self, task: PaintTask, resume: Checkpoint | None
    ) -> Generator[StepProgress, None, Stylized]:
        image = task.content[:, :3] if resume is None else resume.image
        trace = [] if resume is None else [TraceRow(*row) for row in resume.trace]
        first = 0 if resume is None else resume.step
        self.start_steps.append(first)
        height, width = task.content.shape[-2:]
        for step in range(first + 1, self.steps + 1):
            self.on_sync()
            self.at_step(step)
            self.on_sync()
            image = image * 0.9
            loss = Losses.of(1.0 / step, 0.25 / step, 0.5 / step, 0.25 / step)
            trace.append(TraceRow(1, step, loss.total, loss.content, loss.style, loss.tv))
            snapshot = Checkpoint(
                1, step, False, image, image, loss.total, loss.total, {}, {}, {},
                [tuple(r) for r in trace],
            )  # fmt: skip
            yield StepProgress(
                ((width, height),), 1, step, self.steps, step == self.steps, loss,
                checkpoint=lambda s=snapshot: s,  # type: ignore[misc]  # mypy can't infer a default argument's type
                preview=lambda edge_px, i=image: i[..., :edge_px, :edge_px],  # type: ignore[misc]  # likewise
                degraded=self.degraded,
            )  # fmt: skip
            self.ops_done += 1
        return Stylized(image, tuple(trace), self.degraded)


class OneEngine:
    """An engine factory that returns the same engine each time."""

    def __init__(self, engine: Engine, *, can_replace: bool) -> None:
        self.engine = engine
        self.can_replace = can_replace

    def make(self) -> Engine:
        return self.engine


@dataclass(frozen=True)
class Sync:
    """An event by which an engine waits until all earlier events have been handled."""

    handled: threading.Event


def ends_a_batch(event: object) -> bool:
    """Return whether no more events follow by themselves: the engine waits, or has ended."""
    engine_event = event.event if isinstance(event, EngineReported) else None
    is_end = isinstance(engine_event, Painted | Stopped | Failed)
    return is_end or isinstance(event, Sync | Died | EngineLost)


@dataclass(frozen=True)
class Dropped:
    """An input file that has settled, as the intake submits it."""

    path: str
    size: int
    mtime_ns: int
    destinations: Mapping[str, str]


class JobHarness:
    """A working folder and a scheduler with scripted engines.

    The scheduler, the slots with their threads, the journal and the files are real. The I/O pool
    runs tasks inline. The clock only moves by `advance` and by waits, which end at once.

    Attributes:
        now: The monotonic clock, in seconds.
        wall_clock_offset: Time of day minus `now`, in seconds.
        waits: The pauses of the scheduler that were waited for, in seconds.
        on_wait: Called before each of these waits.
        on_turn: Called after each turn of the scheduler's loop.
        finished: All jobs that have ended.
        failed_attempts: The failure kinds of all attempts after which the job was requeued.
        beats: All heartbeats: part, time, and for how long the part expects to be idle.
    """

    def __init__(self, base: Path, *, engines: int = 1, gallery: bool = False) -> None:
        self.base = base
        (base / "styles").mkdir(parents=True, exist_ok=True)
        (base / "styles/oil.png").write_bytes(picture("crimson", (48, 40)))
        (base / "styles/ink.png").write_bytes(picture("navy", (48, 40)))
        (base / "config.yaml").write_text(CONFIGURATION)
        self.config: Config = load_config(base / "config.yaml")
        self.styles = dict(self.config.styles)
        for folder in (self.config.inbox, self.config.state / "checkpoints"):
            folder.mkdir(parents=True, exist_ok=True)
        self.now = 1_000_000.0
        self.wall_clock_offset = 0.0
        self.engines = [ScriptedEngine() for _ in range(engines)]
        self.history = JournalRetention(seconds=1e6, jobs=1000)
        self.gallery_is_on = gallery
        self.can_replace = False
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None
        self.on_turn: Callable[[], None] = lambda: None
        self.finished: list[JobFinished] = []
        self.failed_attempts: list[str] = []
        self._styles_by_name: dict[str, Sequence[str]] = {}
        self._open()

    @property
    def engine(self) -> ScriptedEngine:
        """The first engine; an engine assigned here is used from the next restart."""
        return self.engines[0]

    @engine.setter
    def engine(self, engine: ScriptedEngine) -> None:
        self.engines[0] = engine

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def time_of_day(self) -> float:
        return self.now + self.wall_clock_offset

    def configure(self, section: str, **changes: object) -> None:
        """Change keys of a section of the configuration, and restart."""
        new_section = getattr(self.config, section).model_copy(update=changes)
        self.config = replace(self.config, **{section: new_section})
        self.close()
        self._open()

    def _open(self) -> None:
        config = self.config
        self.events: SimpleQueue[Any] = SimpleQueue()
        self.journal = Journal.open(config.state / "journal.sqlite3")
        self.journal.set_state(activity="running")
        self.mounts = Mounts(config.state / "mounts.json")
        self.publisher = Publisher(config.outbox, config.rejected, config.archive)
        self.publisher.prepare()
        self.job_files = JobFiles(config.state)
        self.gallery = Gallery(config.outbox, self.mounts)
        self.gallery_updater = GalleryUpdater(
            self.journal, self.gallery, config.outbox, config.inbox, clock=lambda: self.now
        )
        self.beats: list[tuple[str, float, float]] = []
        self.context = IoContext(
            config, self.journal, self.publisher, self.job_files, self.mounts,
            InputCleanup(config, self.journal, self.publisher, self.mounts, self.time_of_day),
            self.history,
            self.gallery if self.gallery_is_on else None,
            self.gallery_updater if self.gallery_is_on else None,
            now=self.time_of_day,
            clock=lambda: self.now,
        )  # fmt: skip
        self.slots = []
        for number, engine in enumerate(self.engines):
            engine.clock = lambda: self.now
            engine.on_sync = self._sync
            engine.on_death = self.events.put
            self.slots.append(
                EngineSlot(
                    f"engine-{number}",
                    OneEngine(engine, can_replace=self.can_replace),
                    self.job_files,
                    self.events,
                    self,
                )
            )
        self.pool = InlineIoPool(self.events)
        self.scheduler = Scheduler(
            self.context, self.slots, self.pool, self.events, self.styles, self, self
        )
        self._is_started = False

    # Callbacks of the scheduler and the engine slots

    def beat(self, part: str, idle_for: float = 0.0) -> None:
        self.beats.append((part, self.now, idle_for))

    def engine_ready(self, name: str, info: EngineInfo) -> None:
        pass

    def job_finished(self, finished: JobFinished) -> None:
        self.finished.append(finished)

    def attempt_failed(self, failure: str) -> None:
        self.failed_attempts.append(failure)

    def _sync(self) -> None:
        """Wait until all events in the queue have been handled; called in an engine's thread."""
        handled = threading.Event()
        self.events.put(Sync(handled))
        handled.wait(TIMEOUT_SECONDS)

    # Start, stop and work

    def start(self) -> None:
        """Start the engines; wait until each is ready or lost, however slow its thread is."""
        if not self._is_started:
            self._is_started = True
            self.scheduler.start()
            events, starting = [], len(self.slots)
            while starting:
                events.append(self.events.get(timeout=TIMEOUT_SECONDS))
                starting -= isinstance(events[-1], (EngineReady, EngineLost))
            for event in events:
                self.events.put(event)  # for the first turn

    def close(self) -> None:
        """Stop all engines, release waiting threads and close the journal."""
        for slot in self.slots:
            slot.close()
        while True:  # engines that wait for their events to be handled must not wait forever
            try:
                event = self.events.get_nowait()
            except Empty:
                break
            if isinstance(event, Sync):
                event.handled.set()
        self.journal.close()

    def restart(self) -> None:
        """Simulate a restart of the process: new objects on the same folders, then a scan."""
        for engine in self.engines:
            engine.at_step = lambda step: None
        self.close()
        self._open()
        self.scheduler.recover()
        self.rescan()
        self.start()

    def drop(self, name: str = "photo.png", data: bytes | None = None, *styles: str) -> Path:
        """Put a file into the inbox and submit it, in the style `oil` unless styles are given."""
        path = self.config.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture() if data is None else data)
        self._styles_by_name[name] = styles or ("oil",)
        self.rescan()
        return path

    def rescan(self) -> int:
        """Submit the dropped files that exist, for their configured styles.

        Returns:
            The number of new jobs.
        """
        arrivals = []
        for name, styles in self._styles_by_name.items():
            path = self.config.inbox / name
            destinations = {style: name for style in styles if style in self.styles}
            if path.exists():
                stat = path.stat()
                arrivals.append(Dropped(name, stat.st_size, stat.st_mtime_ns, destinations))
        submitted = self.journal.submit(arrivals, self.now)
        self.events.put(Wakeup())
        return submitted

    def request_stop(self) -> None:
        """Request a stop of the scheduler."""
        self.events.put(StopRequested())

    def request_cancel(self, job: Job) -> bool:
        """Request a cancellation as another process does it: `styled cancel`."""
        journal = Journal.open_for_requests(self.config.state / "journal.sqlite3")
        is_accepted = journal.request_cancel(job)
        journal.close()
        self.advance(POLL_SECONDS)  # so that the scheduler polls for requests
        self.events.put(Wakeup())
        return is_accepted

    def _turn(self, events: list[Any]) -> None:
        syncs = [event for event in events if isinstance(event, Sync)]
        for event in events:
            if isinstance(event, Died):
                raise event
        self.scheduler.turn([event for event in events if not isinstance(event, Sync)])
        self.on_turn()
        for sync in syncs:
            sync.handled.set()

    def _events(self) -> list[Any]:
        """Return the events in the queue; wait if a task is running that will send one.

        While an engine paints, this waits until the engine waits or has ended: so the same events
        are handled together in each run of a test.
        """
        events: list[Any] = []
        try:
            while self.scheduler.is_busy and not events:
                events.append(self.events.get(timeout=TIMEOUT_SECONDS))
            while self.scheduler.is_painting and not any(map(ends_a_batch, events)):
                events.append(self.events.get(timeout=TIMEOUT_SECONDS))
            while not events or not isinstance(events[-1], Sync):
                events.append(self.events.get_nowait())
        except Empty:
            assert events or not self.scheduler.is_busy, "an engine has fallen silent"
        return events

    def work(self, until: Callable[[], bool] = lambda: False) -> None:
        """Run the scheduler until nothing is due or a condition is true; skip its pauses."""
        self.start()
        for _ in range(10_000):
            events = self._events()
            if self.scheduler.is_over:
                return
            if not events and self.scheduler.seconds_to_wait() != 0.0:
                if not self.scheduler.pauses.is_paused:
                    self._turn([])
                    if self._is_idle():
                        return
                    continue
                self.waits.append(self.scheduler.pauses.until - self.now)
                self.on_wait()
                self.now = max(self.now, self.scheduler.pauses.until)
            self._turn(events)
            if until():
                return
        raise AssertionError("the queue never ends")

    def _is_idle(self) -> bool:
        return self.scheduler.seconds_to_wait() != 0.0

    def work_on_one(self) -> None:
        """Run the scheduler until one more job has ended, or an attempt has failed."""
        before = len(self.finished)

        def is_over() -> bool:
            return len(self.finished) > before or bool(self.failed_attempts)

        self.work(until=is_over)

    def run_for(self, seconds: float, on_wait: Callable[[], None] = lambda: None) -> None:
        """Run the scheduler for some time, even if idle; `on_wait` is called after each wait."""
        until = self.now + seconds
        while self.now < until:
            self.work()
            self.advance(max(0.01, self.scheduler.seconds_to_wait()))
            on_wait()
            self._turn([])
        self.work()

    def run_cleanup(self) -> None:
        """Run the clean-up that normally follows many jobs."""
        self.scheduler.maintenance.cleanup_soon()
        self.work()

    def work_and_wait(self) -> None:
        """Run the scheduler until no job is left, advancing the clock to the next retry."""
        self.work()
        while (due := self.journal.next_due()) is not None:
            self.now = max(self.now, due - self.wall_clock_offset)
            self.work()

    # Results

    def jobs(self) -> list[Job]:
        """Return all jobs in the order of their submission."""
        return self.journal._jobs("1 ORDER BY seq")

    def job(self) -> Job:
        """Return the only job."""
        (job,) = self.jobs()
        return job

    def states(self) -> list[str]:
        return [str(job.state) for job in self.jobs()]

    def files(self, root: str) -> list[str]:
        """Return the relative paths of all files below a folder, hidden files included."""
        top = self.base / root
        paths = (Path(folder) / name for folder, _, names in os.walk(top) for name in names)
        return sorted(str(path.relative_to(top)) for path in paths)

    def sidecar(self, path: str) -> dict[str, Any]:
        """Return the content of a sidecar, by its path below the working folder."""
        content: dict[str, Any] = json.loads((self.base / path).read_bytes())
        return content


def threaded_scheduler(
    harness: JobHarness, factories: Sequence[EngineFactory], config: Config | None = None
) -> tuple[Scheduler, Sequence[EngineSlot], SimpleQueue[Event]]:
    """Return a scheduler like the daemon's, with an I/O pool that runs threads."""
    events: SimpleQueue[Event] = SimpleQueue()
    config = config or harness.config
    scheduler = build_scheduler(
        config, harness.journal, harness.publisher, harness.mounts, JobFiles(config.state),
        factories, None, events, harness, Heartbeats(),
    )  # fmt: skip
    return scheduler, scheduler.slots, events


@pytest.fixture
def harness(tmp_path: Path, logs: LogLines) -> Iterator[JobHarness]:
    """Return a working folder with two styles, `oil` and `ink`, and an empty queue."""
    harness = JobHarness(tmp_path / "harness")
    yield harness
    harness.close()


@pytest.fixture
def logs() -> Iterator[LogLines]:
    """Return the list of all log events."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def progress(fraction: float, seconds_left: float | None = None) -> JobProgress:
    """Return the progress of a running job, with fixed values for all other fields."""
    return JobProgress(
        fraction=fraction, scale=2, scales=3, width=64, height=48, step=4, steps=10, loss=0.5,
        step_seconds=0.25, seconds_left=seconds_left, preview=None,
    )  # fmt: skip

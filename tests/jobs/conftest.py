"""What the tests of jobs share: a scripted engine, clocks that stand still, and all the rest real.

The journal is a real SQLite file, the publisher writes real files, the photos are real
pictures. Only the painting and the passing of time are played.
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

from styled.atomic import atomic_write
from styled.config import Config, load_config
from styled.degradation import Degradation
from styled.delivery.gallery import Gallery
from styled.delivery.publisher import Publisher
from styled.engine.checkpoint import Checkpoint, load_checkpoint, task_fingerprint
from styled.engine.objective import Losses
from styled.engine.progress import Progress, Stylized
from styled.engine.task_run import TaskRun
from styled.engine_api import (
    CheckpointIgnored,
    Engine,
    EngineEvent,
    EngineInfo,
    Failed,
    Painted,
    PaintTask,
    Resumed,
    Stopped,
    TraceRow,
)
from styled.errors import StyledError, UnexpectedError
from styled.jobs.cancelling import POLL_SECONDS
from styled.jobs.engine_slot import EngineSlot
from styled.jobs.events import EngineLost, EngineSaid, StopRequested, Wakeup
from styled.jobs.gallery_updates import GalleryUpdater
from styled.jobs.input_cleanup import InputCleanup
from styled.jobs.io_context import History, IoContext
from styled.jobs.io_pool import InlineIoPool
from styled.jobs.job import Job, JobFinished, JobProgress
from styled.jobs.job_files import JobFiles
from styled.jobs.journal import Journal
from styled.jobs.scheduler import Scheduler
from styled.mounts import Mounts

LogLines = list[MutableMapping[str, Any]]

PATIENCE_SECONDS = 60.0
"""How long tests wait for another thread, at the most; it takes milliseconds."""

STUB = Degradation("weights", "it is only a stub")
"""What the scripted engine does without."""

CONFIGURATION = """\
default_style: oil
styles:
  oil: {image: styles/oil.png}
  ink: {image: styles/ink.png}
"""


class Died(BaseException):
    """The process dies here; nothing catches it, as nothing catches SIGKILL."""


def picture(colour: str = "teal", size: tuple[int, int] = (40, 36), format: str = "png") -> bytes:
    """Return a picture file with something in it."""
    image = Image.new("RGB", size, colour)
    image.paste("gold", (4, 4, size[0] // 2, size[1] // 2))
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


class ScriptedEngine:
    """Darkens the photo a little at each of a few steps; `at_step` may interfere.

    After each step it waits until the queue has taken what it was told, so that tests see the same
    each time.

    Attributes:
        begun: For each painting, the step that it began after: 0 unless it was resumed.
        at_step: Called before each step; may raise, or change files.
        degraded: What it has had to give up so far, as it says after each step.
    """

    info = EngineInfo(
        "untrained", "0" * 64, "cpu", "a processor", "float32", "2.0", 2, (STUB,)
    )  # fmt: skip

    def __init__(self, steps: int = 3) -> None:
        self.steps = steps
        self.clock: Callable[[], float] = time.monotonic
        self.ops_done = 0
        self.begun: list[int] = []
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
        except Exception as error:  # noqa: BLE001  # as the engine that ships
            yield Failed(UnexpectedError.of(error))
        finally:
            self._to_stop.discard(task.job_id)

    def stop(self, job_id: str) -> None:
        self._to_stop.add(job_id)

    def close(self) -> None:
        pass

    def paint(
        self, task: PaintTask, resume: Checkpoint | None
    ) -> Generator[Progress, None, Stylized]:
        image = task.content[:, :3] if resume is None else resume.image
        trace = [] if resume is None else [TraceRow(*row) for row in resume.trace]
        first = 0 if resume is None else resume.step
        self.begun.append(first)
        height, width = task.content.shape[-2:]
        for step in range(first + 1, self.steps + 1):
            self.on_sync()
            self.at_step(step)
            self.on_sync()
            image = image * 0.9
            loss = Losses(1.0 / step, 0.25 / step, 0.5 / step, 0.25 / step)
            trace.append(TraceRow(1, step, loss.total, loss.content, loss.style, loss.tv))
            snapshot = Checkpoint(
                1, step, False, image, image, loss.total, loss.total, loss.total, {}, {},
                [tuple(r) for r in trace],
            )  # fmt: skip
            yield Progress(
                ((width, height),), 1, step, self.steps, step == self.steps, loss,
                checkpoint=lambda s=snapshot: s,  # type: ignore[misc]  # mypy can't infer a default argument's type
                preview=lambda edge_px, i=image: i[..., :edge_px, :edge_px],  # type: ignore[misc]  # likewise
                degraded=self.degraded,
            )  # fmt: skip
            self.ops_done += 1
        return Stylized(image, tuple(trace), self.degraded)


class OneEngine:
    """Makes the same engine each time."""

    def __init__(self, engine: Engine, *, can_replace: bool) -> None:
        self.engine = engine
        self.can_replace = can_replace

    def make(self) -> Engine:
        return self.engine


@dataclass(frozen=True)
class Sync:
    """Is put into the queue by an engine that waits until all before it has been handled."""

    handled: threading.Event


def ends_a_batch(event: object) -> bool:
    """Tell whether nothing follows an event by itself: the engine waits, or has ended."""
    said = event.event if isinstance(event, EngineSaid) else None
    is_end = isinstance(said, Painted | Stopped | Failed)
    return is_end or isinstance(event, Sync | Died | EngineLost)


@dataclass(frozen=True)
class Dropped:
    """A settled input."""

    path: str
    size: int
    mtime_ns: int
    destinations: Mapping[str, str]


class JobHarness:
    """One working folder, and a daemon's worth of objects around scripted engines.

    The scheduler, the slots with their threads, the journal and the files are real. The I/O pool
    works inline. Time stands still but for `advance`, and for waits, which are over at once.
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
        self.jump = 0.0  # of the time of day, against the clock that measures
        self.engines = [ScriptedEngine() for _ in range(engines)]
        self.history = History(seconds=1e6, jobs=1000)
        self.gallery_is_on = gallery
        self.can_replace = False
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None
        self.on_turn: Callable[[], None] = lambda: None
        self.finished: list[JobFinished] = []
        self.failed_attempts: list[str] = []
        self._wanted: dict[str, Sequence[str]] = {}
        self._open()

    @property
    def engine(self) -> ScriptedEngine:
        """The first engine; another one begins with the next start."""
        return self.engines[0]

    @engine.setter
    def engine(self, engine: ScriptedEngine) -> None:
        self.engines[0] = engine

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def time_of_day(self) -> float:
        return self.now + self.jump

    def configure(self, section: str, **changes: object) -> None:
        """Change the configuration, which takes a restart."""
        changed = getattr(self.config, section).model_copy(update=changes)
        self.config = replace(self.config, **{section: changed})
        self.close()
        self._open()

    def _open(self) -> None:
        config = self.config
        self.events: SimpleQueue[Any] = SimpleQueue()
        self.journal = Journal.open(config.state / "journal.sqlite3")
        self.journal.set_state(state="running")
        self.mounts = Mounts(config.state / "mounts.json", atomic_write)
        self.publisher = Publisher(config.outbox, config.rejected, config.archive)
        self.publisher.prepare()
        self.files_of_jobs = JobFiles(config.state)
        self.gallery = Gallery(config.outbox, self.mounts.require_mounted)
        self.gallery_updater = GalleryUpdater(
            self.journal, self.gallery, config.outbox, config.inbox, clock=lambda: self.now
        )
        self.beats: list[tuple[str, float, float]] = []
        self.context = IoContext(
            config, self.journal, self.publisher, self.files_of_jobs, self.mounts,
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
                    self.files_of_jobs,
                    self.events,
                    self,
                )
            )
        self.pool = InlineIoPool(self.events)
        self.scheduler = Scheduler(
            self.context, self.slots, self.pool, self.events, self.styles, self, self
        )
        self._is_started = False

    # What the scheduler tells

    def beat(self, part: str, rest_seconds: float = 0.0) -> None:
        self.beats.append((part, self.now, rest_seconds))

    def engine_ready(self, name: str, info: EngineInfo) -> None:
        pass

    def job_finished(self, finished: JobFinished) -> None:
        self.finished.append(finished)

    def attempt_failed(self, failure: str) -> None:
        self.failed_attempts.append(failure)

    def _sync(self) -> None:
        """In an engine's thread: wait until all is handled that has been put into the queue."""
        handled = threading.Event()
        self.events.put(Sync(handled))
        handled.wait(PATIENCE_SECONDS)

    # Its life

    def start(self) -> None:
        """Start the engines."""
        if not self._is_started:
            self._is_started = True
            self.scheduler.start()
            for _ in self.slots:
                self._turn([self.events.get(timeout=PATIENCE_SECONDS)])

    def close(self) -> None:
        """Let everything end that has been opened."""
        for slot in self.slots:
            slot.close()
        while True:  # whoever waits for the queue waits in vain
            try:
                event = self.events.get_nowait()
            except Empty:
                break
            if isinstance(event, Sync):
                event.handled.set()
        self.journal.close()

    def restart(self) -> None:
        """Start another process on the same folders, and let it look at the inbox."""
        for engine in self.engines:
            engine.at_step = lambda step: None
        self.close()
        self._open()
        self.scheduler.recover()
        self.rescan()
        self.start()

    def drop(self, name: str = "photo.png", data: bytes | None = None, *styles: str) -> Path:
        """Put a file into the inbox and submit it, in the style `oil` if no other is named."""
        path = self.config.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture() if data is None else data)
        self._wanted[name] = styles or ("oil",)
        self.rescan()
        return path

    def rescan(self) -> int:
        """Submit whatever lies in the inbox and is wanted in a configured style."""
        arrivals = []
        for name, styles in self._wanted.items():
            path = self.config.inbox / name
            wanted = {style: name for style in styles if style in self.styles}
            if path.exists():
                found = path.stat()
                arrivals.append(Dropped(name, found.st_size, found.st_mtime_ns, wanted))
        submitted = self.journal.submit(arrivals, self.now)
        self.events.put(Wakeup())
        return submitted

    def request_stop(self) -> None:
        """Have the scheduler stop."""
        self.events.put(StopRequested())

    def request_cancel(self, job: Job) -> bool:
        """Ask as another process does: `styled cancel`."""
        other = Journal.open_for_requests(self.config.state / "journal.sqlite3")
        is_accepted = other.request_cancel(job)
        other.close()
        self.advance(POLL_SECONDS)  # so that the scheduler looks
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
        """Return what is in the queue; wait if something is being done that ends in an event.

        While an engine paints, that is until it waits or has ended: so the same events come
        together each time.
        """
        events: list[Any] = []
        try:
            while self.scheduler.is_busy and not events:
                events.append(self.events.get(timeout=PATIENCE_SECONDS))
            while self.scheduler.is_painting and not any(map(ends_a_batch, events)):
                events.append(self.events.get(timeout=PATIENCE_SECONDS))
            while not events or not isinstance(events[-1], Sync):
                events.append(self.events.get_nowait())
        except Empty:
            assert events or not self.scheduler.is_busy, "an engine has fallen silent"
        return events

    def work(self, until: Callable[[], bool] = lambda: False) -> None:
        """Work until nothing is due, or until something is so; pauses are waited out."""
        self.start()
        for _ in range(10_000):
            events = self._events()
            if self.scheduler.is_over:
                return
            if not events and not self.scheduler.has_something_due:
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
        return not self.scheduler.has_something_due

    def work_on_one(self) -> None:
        """Work until one job more has ended or is back in the queue."""
        before = len(self.finished)

        def is_over() -> bool:
            return len(self.finished) > before or bool(self.failed_attempts)

        self.work(until=is_over)

    def run_for(self, seconds: float, on_wait: Callable[[], None] = lambda: None) -> None:
        """Work for so long, though nothing may be left to do; `on_wait` plays the world."""
        until = self.now + seconds
        while self.now < until:
            self.work()
            self.advance(max(0.01, self.scheduler.seconds_to_wait()))
            on_wait()
            self._turn([])
        self.work()

    def tidy(self) -> None:
        """Tidy up as after many jobs."""
        self.scheduler.upkeep.tidy_soon()
        self.work()

    def work_and_wait(self) -> None:
        """Work until nothing is left, letting the time pass that waiting jobs wait for."""
        self.work()
        while (due := self.journal.next_due()) is not None:
            self.now = max(self.now, due - self.jump)
            self.work()

    # What has come of it

    def jobs(self) -> list[Job]:
        """Return all jobs in the order of their arrival."""
        return self.journal._jobs("1 ORDER BY seq")

    def job(self) -> Job:
        """Return the only job."""
        (job,) = self.jobs()
        return job

    def states(self) -> list[str]:
        return [str(job.state) for job in self.jobs()]

    def files(self, root: str) -> list[str]:
        """Return the files below a folder of the working folder, hidden ones included."""
        top = self.base / root
        found = (Path(folder) / name for folder, _, names in os.walk(top) for name in names)
        return sorted(str(path.relative_to(top)) for path in found)

    def sidecar(self, path: str) -> dict[str, Any]:
        """Return a sidecar's content, once it is known to keep its format."""
        content: dict[str, Any] = json.loads((self.base / path).read_bytes())
        return content


@pytest.fixture
def shop(tmp_path: Path, logs: LogLines) -> Iterator[JobHarness]:
    """Return a working folder with two styles, `oil` and `ink`, and nothing to do yet."""
    harness = JobHarness(tmp_path / "shop")
    yield harness
    harness.close()


@pytest.fixture
def logs() -> Iterator[LogLines]:
    """Return the list that every logged event goes into."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def progress(fraction: float, seconds_left: float | None = None) -> JobProgress:
    """Return where a job stands."""
    return JobProgress(
        fraction=fraction, scale=2, scales=3, width=64, height=48, step=4, steps=10, loss=0.5,
        step_seconds=0.25, seconds_left=seconds_left, preview=None,
    )  # fmt: skip

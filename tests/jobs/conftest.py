"""What the tests of jobs share: a scripted engine, clocks that stand still, and all the rest real.

The journal is a real SQLite file, the publisher writes real files, the photos are real
pictures. Only the painting and the passing of time are played.
"""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
import structlog
from PIL import Image
from torch import Tensor

from styled.config import Config, load_config
from styled.degradation import Degradation
from styled.delivery.atomic import make_folder, write_streamed, write_whole
from styled.delivery.gallery import Gallery
from styled.delivery.publisher import Publisher
from styled.engine.checkpoint import Checkpoint, dump_checkpoint, fingerprint_of, load_checkpoint
from styled.engine.local import EngineFacts
from styled.engine.objective import Losses
from styled.engine.progress import Progress, Stylized, TraceRow
from styled.jobs.backstage import Backstage
from styled.jobs.checkpoints import CheckpointStore
from styled.jobs.ending import Ending
from styled.jobs.frames import FrameStore
from styled.jobs.hanging import Hanger, HangingBackstage
from styled.jobs.job import Job, JobProgress
from styled.jobs.journal import Journal
from styled.jobs.previews import PreviewStore
from styled.jobs.scheduler import History, Scheduler
from styled.jobs.worker import Collaborators, Worker
from styled.mounts import Mounts
from styled.recipes import Recipe

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

    Attributes:
        begun: For each painting, the step that it began after: 0 unless it was resumed.
        at_step: Called before each step; may raise, set an event, or change files.
        degraded: What it has had to give up so far, as it says after each step.
    """

    facts = EngineFacts(
        "untrained", "0" * 64, "cpu", "float32", "2.0", (STUB,),
        device_model="a processor", threads=2,
    )  # fmt: skip

    def __init__(self, steps: int = 3) -> None:
        self.steps = steps
        self.layers_run = 0
        self.begun: list[int] = []
        self.at_step: Callable[[int], None] = lambda step: None
        self.degraded: tuple[Degradation, ...] = ()

    def stylize(
        self,
        content: Tensor,
        styles: Sequence[tuple[Tensor, float]],
        recipe: Recipe,
        resume: Checkpoint | None = None,
        painted_size: tuple[int, int] | None = None,
    ) -> Generator[Progress, None, Stylized]:
        image = content[:, :3] if resume is None else resume.image
        trace = [] if resume is None else [TraceRow(*row) for row in resume.trace]
        first = 0 if resume is None else resume.step
        self.begun.append(first)
        height, width = content.shape[-2:]
        for step in range(first + 1, self.steps + 1):
            self.at_step(step)
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
            self.layers_run += 1
        return Stylized(image, tuple(trace), self.degraded)

    def fingerprint(
        self, content: Tensor, styles: Sequence[tuple[Tensor, float]], recipe: Recipe
    ) -> str:
        return fingerprint_of(content, *(part for style in styles for part in style), recipe)

    def dump_checkpoint(self, checkpoint: Checkpoint, fingerprint: str, stream: IO[bytes]) -> None:
        dump_checkpoint(checkpoint, fingerprint, stream)

    def load_checkpoint(self, stream: IO[bytes], fingerprint: str) -> Checkpoint:
        import torch

        return load_checkpoint(stream, fingerprint, torch.device("cpu"))

    def peak_memory_bytes(self) -> int:
        return 1


class ScriptedEvent(threading.Event):
    """An event on which nobody waits: the clock jumps instead, and `on_wait` plays the world."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "a wait without an end can't be left"
        self.waits.append(timeout)
        assert len(self.waits) < 100, "it waits for ever"
        if not self.is_set():
            self._advance(timeout)
            self.on_wait()
        return self.is_set()


class AwaitedEvent(ScriptedEvent):
    """An event that is waited for in earnest, since another thread sets it.

    Nobody waits long: whatever comes to pass without it having been set is a bug of its own,
    and has a test of its own.
    """

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "a wait without an end can't be left"
        self.waits.append(timeout)
        assert len(self.waits) < 100, "it waits for ever"
        self.on_wait()
        return threading.Event.wait(self, min(timeout, 1.0))


@dataclass(frozen=True)
class Dropped:
    """A settled input."""

    path: str
    size: int
    mtime_ns: int
    destinations: Mapping[str, str]


class Workshop:
    """One working folder, and a daemon's worth of objects around the scripted engine."""

    def __init__(self, base: Path, *, gallery: bool = False, backstage: bool = False) -> None:
        """Have a gallery, and a thread beside the engine's, or neither."""
        self.base = base
        self._has_gallery = gallery
        self._has_backstage = backstage
        (base / "styles").mkdir(parents=True, exist_ok=True)
        (base / "styles/oil.png").write_bytes(picture("crimson", (48, 40)))
        (base / "styles/ink.png").write_bytes(picture("navy", (48, 40)))
        (base / "config.yaml").write_text(CONFIGURATION)
        self.config: Config = load_config(base / "config.yaml")
        self.styles = dict(self.config.styles)
        for folder in (self.config.inbox, self.config.state / "checkpoints"):
            folder.mkdir(parents=True, exist_ok=True)
        self.engine = ScriptedEngine()
        self.now = 1_000_000.0
        self.jump = 0.0  # of the time of day, against the clock that measures
        self.history = History(seconds=1e6, jobs=1000)
        self._wanted: dict[str, Sequence[str]] = {}
        self._open()

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
        self.stop = ScriptedEvent(self.advance)
        self.wake = (AwaitedEvent if self._has_backstage else ScriptedEvent)(self.advance)
        self.backstage_beats: list[float] = []
        self.backstage = Backstage(self.backstage_beats.append) if self._has_backstage else None
        if self.backstage is not None:
            self._thread = self.backstage.do(threading.current_thread).result(PATIENCE_SECONDS)
        self.journal = Journal.open(config.state / "journal.sqlite3")
        self.mounts = Mounts(config.state / "mounts.json", write_whole)
        self.publisher = Publisher(config.outbox, config.rejected, config.archive)
        self.publisher.prepare()
        self.checkpoints = CheckpointStore(
            config.state / "checkpoints", self.engine, write_streamed, make_folder
        )
        self.previews = PreviewStore(config.state / "previews", write_whole, make_folder)
        self.frames = FrameStore(
            config.state / "frames", config.output.keep_frames, write_whole, make_folder
        )
        self.gallery = Gallery(config.outbox, self.mounts.require_mounted)
        self.hanger = Hanger(
            self.journal, self.gallery, config.outbox, config.inbox, clock=lambda: self.now
        )
        self.beats: list[tuple[float, float]] = []
        self.endings: list[Ending] = []
        self.failed_attempts: list[str] = []
        self.worker = Worker(
            config,
            Collaborators(
                self.journal,
                self.engine,
                self.publisher,
                self.checkpoints,
                self.previews,
                self.frames,
                lambda: self.styles,
                require_inbox=lambda: self.mounts.require(config.inbox),
                beat=self._beat,
                on_ended=self.endings.append,
                on_failed_attempt=self.failed_attempts.append,
                wake=self.wake.set,
                gallery=self.gallery if self._has_gallery else None,
                backstage=self.backstage,
            ),
            self.stop,
            now=self.time_of_day,
            clock=lambda: self.now,
        )
        hang, leave = self.hanger.hang, self._leave
        if self.backstage is not None:
            hanging = HangingBackstage(self.hanger, self.backstage, self.wake.set)
            hang, leave = hanging.hang, partial(self._leave, hanging)
        self.scheduler = Scheduler(
            self.journal,
            self.worker,
            stop=self.stop,
            wake=self.wake,
            history=self.history,
            now=self.time_of_day,
            clock=lambda: self.now,
            beat=lambda rest_seconds: self.beats.append((self.now, rest_seconds)),
            hang=hang if self._has_gallery else lambda: False,
            leave=leave,
        )

    def _leave(self, hanging: HangingBackstage | None = None) -> None:
        if hanging is not None and self._has_gallery:
            hanging.finish()
        if self.backstage is not None:
            self.backstage.close()

    def close(self) -> None:
        """Let everything end that has been opened."""
        if self.backstage is not None:
            self.backstage.close()
            self._thread.join(PATIENCE_SECONDS)
        self.journal.close()

    def _beat(self, rest_seconds: float) -> None:
        if threading.current_thread().name == Backstage.NAME:
            self.backstage_beats.append(rest_seconds)
        else:
            self.beats.append((self.now, rest_seconds))

    def restart(self) -> None:
        """Start another process on the same folders, and let it look at the inbox."""
        self.engine.at_step = lambda step: None
        self.close()
        self._open()
        self.scheduler.recover()
        self.checkpoints.sweep(keep=self.journal.unfinished_ids())
        self.frames.sweep(keep=self.journal.unfinished_ids())
        self.scheduler.tidy()
        self.rescan()

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
                facts = path.stat()
                arrivals.append(Dropped(name, facts.st_size, facts.st_mtime_ns, wanted))
        return self.journal.submit(arrivals, self.now)

    def work(self) -> None:
        """Work until nothing is due."""
        for _ in range(50):
            if not self.scheduler.run_one():
                if self.backstage is None:
                    return
                self.worker.finish_publishing()
                if not self.scheduler.run_one():
                    return
        raise AssertionError("the queue never ends")

    def run(self) -> None:
        """Have the scheduler run, with somebody backstage, until nothing is left to do."""

        def look() -> None:
            due = self.journal.next_due()
            if not self.journal.unfinished_ids():
                self.stop.set()
                self.wake.set()
            elif due is not None and due > self.time_of_day():
                self.now = due - self.jump
                self.wake.set()

        self.wake.on_wait = look
        self.scheduler.run()

    def work_and_wait(self) -> None:
        """Work until nothing is left, letting the time pass that waiting jobs wait for."""
        self.work()
        while (due := self.journal.next_due()) is not None:
            self.now = max(self.now, due - self.jump)
            self.work()

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
def shop(tmp_path: Path, logs: LogLines) -> Iterator[Workshop]:
    """Return a working folder with two styles, `oil` and `ink`, and nothing to do yet."""
    workshop = Workshop(tmp_path / "shop")
    yield workshop
    workshop.close()


@pytest.fixture
def busy(tmp_path: Path, logs: LogLines) -> Iterator[Workshop]:
    """Return a working folder as `shop`, with a gallery and with somebody backstage."""
    workshop = Workshop(tmp_path / "shop", gallery=True, backstage=True)
    yield workshop
    workshop.close()


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

"""A slot: one engine in one thread, whose events become those of the queue."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import pytest
import torch

from styled.engine_api import (
    CheckpointIgnored,
    CheckpointPiece,
    EngineEvent,
    EngineInfo,
    Failed,
    Frame,
    Painted,
    PaintTask,
    PixelSize,
    Preview,
    Progress,
    Resumed,
    Stopped,
    TraceRow,
)
from styled.errors import DeviceLost, EngineDied, EngineFailure, StyledError
from styled.jobs import engine_slot
from styled.jobs.engine_slot import Assignment, EngineSlot
from styled.jobs.events import CheckpointSaved, EngineLost, EngineReady, EngineSaid, PreviewSaved
from styled.jobs.job_files import JobFiles
from styled.recipes import PYRAMID
from tests.jobs.conftest import PATIENCE_SECONDS, LogLines, ScriptedEngine

IMAGE = torch.zeros(1, 3, 8, 8)
PAINTED = Painted(IMAGE, (TraceRow(1, 1, 1.0, 0.5, 0.25, 0.25),))
STEP = Progress((PixelSize(8, 8),), (9,), 1, 3, False, 0.5, 0.1, 0.1)


def task(job_id: str = "4a") -> PaintTask:
    return PaintTask(job_id, IMAGE, ((IMAGE, 1.0),), PYRAMID)


class PlayedEngine:
    """Yields what it is given, and raises what is an exception."""

    info: EngineInfo = ScriptedEngine.info
    ops_done = 7

    def __init__(self, *events: EngineEvent | BaseException) -> None:
        self.events = events
        self.checkpoints: list[bytes | None] = []
        self.stopped: list[str] = []
        self.is_closed = False

    def run(self, task: PaintTask, checkpoint: IO[bytes] | None = None) -> Iterator[EngineEvent]:
        self.checkpoints.append(None if checkpoint is None else checkpoint.read())
        for event in self.events:
            if isinstance(event, BaseException):
                raise event
            yield event

    def stop(self, job_id: str) -> None:
        self.stopped.append(job_id)

    def close(self) -> None:
        self.is_closed = True


class Engines:
    """Makes one engine after the other; an exception is raised in place of one."""

    def __init__(self, *engines: Any, can_replace: bool = True) -> None:
        self.engines = list(engines)
        self.can_replace = can_replace

    def make(self) -> Any:
        engine = self.engines.pop(0)
        if isinstance(engine, BaseException):
            raise engine
        return engine


class SlotHarness:
    """A slot, and what it says."""

    def __init__(self, base: Path) -> None:
        self.files = JobFiles(base)
        self.events: SimpleQueue[Any] = SimpleQueue()
        self.beats: list[float] = []
        self.slot: EngineSlot | None = None

    def beat(self, part: str, rest_seconds: float = 0.0) -> None:
        assert part == "engine-0"
        self.beats.append(rest_seconds)

    def start(self, *engines: Any, can_replace: bool = True) -> EngineSlot:
        factory = Engines(*engines, can_replace=can_replace)
        self.slot = EngineSlot("engine-0", factory, self.files, self.events, self)
        self.slot.start()
        return self.slot

    def said(self) -> Any:
        return self.events.get(timeout=PATIENCE_SECONDS)


@pytest.fixture
def harness(
    tmp_path: Path, logs: LogLines, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlotHarness]:
    monkeypatch.setattr(engine_slot, "FIRST_RETRY_SECONDS", 0.01)
    harness = SlotHarness(tmp_path)
    yield harness
    if harness.slot is not None:
        harness.slot.close()
        assert harness.slot.join(PATIENCE_SECONDS)


def assigned(slot: EngineSlot, run: int = 1, job_id: str = "4a") -> None:
    slot.assign(Assignment(run, task(job_id), {"job": job_id}))


def test_it_says_what_its_engine_says(harness: SlotHarness) -> None:
    """With the number of the assignment; files are written, and that is said."""
    pieces = CheckpointPiece(b"half ", is_last=False), CheckpointPiece(b"whole", is_last=True)
    slot = harness.start(PlayedEngine(*pieces, STEP, Preview(IMAGE), Frame(2, IMAGE), PAINTED))
    assert harness.said() == EngineReady("engine-0", ScriptedEngine.info)
    assigned(slot, run=5)
    assert harness.said() == CheckpointSaved("4a")
    stream = harness.files.open_checkpoint("4a")
    assert stream is not None
    with stream:
        assert stream.read() == b"half whole"
    assert harness.said() == EngineSaid("engine-0", 5, STEP)
    preview = harness.said()
    assert isinstance(preview, PreviewSaved)
    assert preview.path.exists()
    assert harness.said() == EngineSaid("engine-0", 5, PAINTED)
    assert [path.name for path in harness.files.frames("4a")] == ["00002.jpg"]
    assert harness.beats[0] == math.inf  # while it is made
    assert harness.beats.count(0.0) == 7  # at the assignment, and at each event


def test_it_goes_on_from_a_checkpoint(harness: SlotHarness, logs: LogLines) -> None:
    """Frames of before stay; if the engine can't use it they go."""
    harness.files.checkpoint_writer("4a").write(b"kept", is_last=True)
    harness.files.save_frame("4a", 1, IMAGE)
    first = PlayedEngine(Resumed(1, 2), EngineFailure("no"))
    second = PlayedEngine(CheckpointIgnored("it is damaged"), PAINTED)
    slot = harness.start(first, second)
    harness.said()
    assigned(slot)
    assert isinstance(harness.said(), EngineLost)
    assert first.checkpoints == [b"kept"]
    assert len(harness.files.frames("4a")) == 1
    harness.said()
    assigned(slot)
    harness.said()
    assert harness.files.frames("4a") == []
    assert {"job.resumed", "checkpoint.ignored"} <= {line["event"] for line in logs}


def test_what_was_kept_is_not_painted_again(harness: SlotHarness) -> None:
    """Its result could not be published the last time."""
    harness.files.save_painting(task(), ScriptedEngine.info, PAINTED)
    engine = PlayedEngine()
    slot = harness.start(engine)
    harness.said()
    assigned(slot)
    said = harness.said()
    assert said.event.trace == PAINTED.trace
    assert engine.checkpoints == []


@pytest.mark.parametrize(
    "death",
    [Failed(DeviceLost("the GPU broke")), Failed(EngineDied("killed")), EngineFailure("raised"),
     RuntimeError("surprise"), SystemExit(1)],
)  # fmt: skip
def test_an_engine_that_dies_is_replaced(harness: SlotHarness, death: Any) -> None:
    """However it dies; the slot is said to be lost, and then to be ready again."""
    slot = harness.start(PlayedEngine(death), PlayedEngine(PAINTED))
    harness.said()
    assigned(slot)
    lost = harness.said()
    assert (type(lost), lost.slot, lost.retry_seconds) == (EngineLost, "engine-0", 0.01)
    assert isinstance(harness.said(), EngineReady)
    assigned(slot, run=2)
    assert harness.said() == EngineSaid("engine-0", 2, PAINTED)


def test_the_back_off_grows_until_a_task_is_done(harness: SlotHarness) -> None:
    """Twice as long each time, whether it dies at work or can't be made."""
    broken = StyledError("there is none")
    slot = harness.start(broken, broken, broken, PlayedEngine(PAINTED), broken)
    waits = [harness.said().retry_seconds for _ in range(3)]
    assert waits == [0.01, 0.02, 0.04]
    assert isinstance(harness.said(), EngineReady)
    assigned(slot)
    harness.said()


def test_the_longest_back_off(harness: SlotHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not longer than that, however often it fails."""
    monkeypatch.setattr(engine_slot, "LONGEST_RETRY_SECONDS", 0.02)
    broken = StyledError("there is none")
    harness.start(*[broken] * 4, PlayedEngine())
    assert [harness.said().retry_seconds for _ in range(4)] == [0.01, 0.02, 0.02, 0.02]
    harness.said()


def test_an_engine_that_cannot_be_replaced_is_gone(harness: SlotHarness) -> None:
    """It is for the scheduler to decide what follows."""
    slot = harness.start(StyledError("no weights"), can_replace=False)
    lost = harness.said()
    assert (lost.error.message, lost.retry_seconds) == ("no weights", None)
    assert slot.join(PATIENCE_SECONDS)
    assert not slot.replace()


def test_a_failure_of_a_task_is_no_loss(harness: SlotHarness) -> None:
    """The engine goes on with the next."""
    failed = Failed(EngineFailure("it diverged"))
    slot = harness.start(PlayedEngine(failed))
    harness.said()
    for run in (1, 2):
        assigned(slot, run)
        assert harness.said() == EngineSaid("engine-0", run, failed)


def test_an_engine_that_hangs_is_left_behind(harness: SlotHarness) -> None:
    """What it says later is nobody's; its successor works."""
    may_go_on = threading.Event()

    class Hanging(PlayedEngine):
        def run(self, task: PaintTask, checkpoint: Any = None) -> Iterator[EngineEvent]:
            may_go_on.wait(PATIENCE_SECONDS)
            yield Stopped()

    slot = harness.start(Hanging(), PlayedEngine(PAINTED))
    harness.said()
    assigned(slot, run=1)
    assert slot.replace()
    assert isinstance(harness.said(), EngineReady)
    assigned(slot, run=2)
    assert harness.said() == EngineSaid("engine-0", 2, PAINTED)
    may_go_on.set()
    assert harness.said().run == 1  # by which the scheduler knows that it is nobody's


def test_a_stop_goes_to_the_engine(harness: SlotHarness) -> None:
    """Whichever it is just now; and where there is none, nowhere."""
    EngineSlot("engine-0", Engines(), harness.files, harness.events, harness).stop("4a")
    engine = PlayedEngine(PAINTED)
    slot = harness.start(engine)
    harness.said()
    slot.stop("4a")
    assert engine.stopped == ["4a"]
    assert slot.ops_done == 7


def test_a_closed_slot_gives_its_engine_back(harness: SlotHarness) -> None:
    """Once what it is at is done."""
    engine = PlayedEngine(PAINTED)
    slot = harness.start(engine)
    harness.said()
    assigned(slot)
    slot.close()
    assert slot.join(PATIENCE_SECONDS)
    assert engine.is_closed
    assert harness.said() == EngineSaid("engine-0", 1, PAINTED)

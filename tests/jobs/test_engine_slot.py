"""The engine slot: runs one engine in a thread and puts its events into the scheduler's queue."""

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
from styled.job_io.job_files import JobFiles
from styled.jobs import engine_slot
from styled.jobs.engine_slot import EngineSlot
from styled.jobs.events import (
    Assignment,
    CheckpointSaved,
    EngineLost,
    EngineReady,
    EngineReported,
    PreviewSaved,
)
from styled.recipes import PYRAMID
from tests.job_harness import TIMEOUT_SECONDS, LogLines, ScriptedEngine

IMAGE = torch.zeros(1, 3, 8, 8)
PAINTED = Painted(IMAGE, (TraceRow(1, 1, 1.0, 0.5, 0.25, 0.25),))
STEP = Progress((PixelSize(8, 8),), (9,), 1, 3, False, 0.5, 0.1, 0.1)


def task(job_id: str = "4a") -> PaintTask:
    return PaintTask(job_id, IMAGE, ((IMAGE, 1.0),), PYRAMID)


class FakeEngine:
    """An engine that yields the given events; an exception among them is raised."""

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

    def check(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        self.is_closed = True


class FakeFactory:
    """A factory that returns the given engines in order; an exception among them is raised."""

    def __init__(self, *engines: Any, can_replace: bool = True) -> None:
        self.engines = list(engines)
        self.can_replace = can_replace

    def make(self) -> Any:
        engine = self.engines.pop(0)
        if isinstance(engine, BaseException):
            raise engine
        return engine


class SlotHarness:
    """A slot, and the events that it puts into the queue."""

    def __init__(self, base: Path) -> None:
        self.files = JobFiles(base)
        self.events: SimpleQueue[Any] = SimpleQueue()
        self.beats: list[float] = []
        self.slot: EngineSlot | None = None

    def beat(self, part: str, idle_for: float = 0.0) -> None:
        assert part == "engine-0"
        self.beats.append(idle_for)

    def start(self, *engines: Any, can_replace: bool = True) -> EngineSlot:
        factory = FakeFactory(*engines, can_replace=can_replace)
        self.slot = EngineSlot("engine-0", factory, self.files, self.events, self)
        self.slot.start()
        return self.slot

    def next_event(self) -> Any:
        return self.events.get(timeout=TIMEOUT_SECONDS)


@pytest.fixture
def harness(
    tmp_path: Path, logs: LogLines, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlotHarness]:
    monkeypatch.setattr(engine_slot, "FIRST_RETRY_SECONDS", 0.01)
    harness = SlotHarness(tmp_path)
    yield harness
    if harness.slot is not None:
        harness.slot.close()
        assert harness.slot.join(TIMEOUT_SECONDS)


def assign(slot: EngineSlot, run: int = 1, job_id: str = "4a") -> None:
    slot.assign(Assignment(run, task(job_id), {"job": job_id}))


def test_it_says_what_its_engine_says(harness: SlotHarness) -> None:
    """The slot forwards engine events with the run's number; it saves files and reports that."""
    pieces = CheckpointPiece(b"half ", is_last=False), CheckpointPiece(b"whole", is_last=True)
    slot = harness.start(FakeEngine(*pieces, STEP, Preview(IMAGE), Frame(2, IMAGE), PAINTED))
    assert harness.next_event() == EngineReady("engine-0", ScriptedEngine.info)
    assign(slot, run=5)
    assert harness.next_event() == CheckpointSaved("4a")
    stream = harness.files.open_checkpoint("4a")
    assert stream is not None
    with stream:
        assert stream.read() == b"half whole"
    assert harness.next_event() == EngineReported("engine-0", 5, STEP)
    preview = harness.next_event()
    assert isinstance(preview, PreviewSaved)
    assert preview.path.exists()
    assert harness.next_event() == EngineReported("engine-0", 5, PAINTED)
    assert [path.name for path in harness.files.frames("4a")] == ["00002.jpg"]
    assert harness.beats[0] == math.inf  # while the engine is made
    assert harness.beats.count(0.0) == 7  # at the assignment, and at each event


def test_it_goes_on_from_a_checkpoint(harness: SlotHarness, logs: LogLines) -> None:
    """The engine gets the saved checkpoint; if it ignores it, the earlier frames are deleted."""
    harness.files.checkpoint_writer("4a").write(b"kept", is_last=True)
    harness.files.save_frame("4a", 1, IMAGE)
    first = FakeEngine(Resumed(1, 2), EngineFailure("no"))
    second = FakeEngine(CheckpointIgnored("it is damaged"), PAINTED)
    slot = harness.start(first, second)
    harness.next_event()
    assign(slot)
    assert isinstance(harness.next_event(), EngineLost)
    assert first.checkpoints == [b"kept"]
    assert len(harness.files.frames("4a")) == 1
    harness.next_event()
    assign(slot)
    harness.next_event()
    assert harness.files.frames("4a") == []
    assert {"job.resumed", "checkpoint.ignored"} <= {line["event"] for line in logs}


def test_what_was_kept_is_not_painted_again(harness: SlotHarness) -> None:
    """A saved painting, whose result could not be published, is not painted again."""
    harness.files.save_painted(task(), ScriptedEngine.info, PAINTED)
    engine = FakeEngine()
    slot = harness.start(engine)
    harness.next_event()
    assign(slot)
    reported = harness.next_event()
    assert reported.event.trace == PAINTED.trace
    assert engine.checkpoints == []


@pytest.mark.parametrize(
    "death",
    [Failed(DeviceLost("the GPU broke")), Failed(EngineDied("killed")), EngineFailure("raised"),
     RuntimeError("surprise"), SystemExit(1)],
)  # fmt: skip
def test_an_engine_that_dies_is_replaced(harness: SlotHarness, death: Any) -> None:
    """After any death of its engine the slot reports the loss, and then a new engine."""
    slot = harness.start(FakeEngine(death), FakeEngine(PAINTED))
    harness.next_event()
    assign(slot)
    lost = harness.next_event()
    assert (type(lost), lost.engine_name, lost.retry_seconds) == (EngineLost, "engine-0", 0.01)
    assert isinstance(harness.next_event(), EngineReady)
    assign(slot, run=2)
    assert harness.next_event() == EngineReported("engine-0", 2, PAINTED)


def test_the_back_off_grows_until_a_task_is_done(harness: SlotHarness) -> None:
    """The retry interval doubles after each failure, whether in a run or in making an engine."""
    broken = StyledError("there is none")
    slot = harness.start(broken, broken, broken, FakeEngine(PAINTED), broken)
    waits = [harness.next_event().retry_seconds for _ in range(3)]
    assert waits == [0.01, 0.02, 0.04]
    assert isinstance(harness.next_event(), EngineReady)
    assign(slot)
    harness.next_event()


def test_the_longest_back_off(harness: SlotHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The retry interval is limited to `MAX_RETRY_SECONDS`."""
    monkeypatch.setattr(engine_slot, "MAX_RETRY_SECONDS", 0.02)
    broken = StyledError("there is none")
    harness.start(*[broken] * 4, FakeEngine())
    assert [harness.next_event().retry_seconds for _ in range(4)] == [0.01, 0.02, 0.02, 0.02]
    harness.next_event()


def test_a_slot_that_waits_is_no_slot_that_hangs(harness: SlotHarness) -> None:
    """Its heartbeat announces the whole wait before it begins."""
    harness.start(StyledError("there is none"), FakeEngine())
    assert harness.next_event().retry_seconds == 0.01
    assert isinstance(harness.next_event(), EngineReady)
    assert 0.01 in harness.beats


def test_an_engine_that_cannot_be_replaced_is_gone(harness: SlotHarness) -> None:
    """If the engine cannot be replaced, the slot reports the loss without a retry, and ends."""
    slot = harness.start(StyledError("no weights"), can_replace=False)
    lost = harness.next_event()
    assert (lost.error.message, lost.retry_seconds) == ("no weights", None)
    assert slot.join(TIMEOUT_SECONDS)
    assert not slot.replace()


def test_a_failure_of_a_task_is_no_loss(harness: SlotHarness) -> None:
    """After a failed task the same engine runs the next one."""
    failed = Failed(EngineFailure("it diverged"))
    slot = harness.start(FakeEngine(failed))
    harness.next_event()
    for run in (1, 2):
        assign(slot, run)
        assert harness.next_event() == EngineReported("engine-0", run, failed)


def test_an_engine_that_hangs_is_left_behind(harness: SlotHarness) -> None:
    """A hanging engine can be replaced; its later events have the number of the old run."""
    resume = threading.Event()

    class Hanging(FakeEngine):
        def run(self, task: PaintTask, checkpoint: Any = None) -> Iterator[EngineEvent]:
            resume.wait(TIMEOUT_SECONDS)
            yield Stopped()

    slot = harness.start(Hanging(), FakeEngine(PAINTED))
    harness.next_event()
    assign(slot, run=1)
    assert slot.replace()
    assert isinstance(harness.next_event(), EngineReady)
    assign(slot, run=2)
    assert harness.next_event() == EngineReported("engine-0", 2, PAINTED)
    resume.set()
    assert harness.next_event().assignment_id == 1  # the scheduler ignores events of old runs


def test_a_stop_goes_to_the_engine(harness: SlotHarness) -> None:
    """A stop is forwarded to the current engine; without one it has no effect."""
    EngineSlot("engine-0", FakeFactory(), harness.files, harness.events, harness).stop("4a")
    engine = FakeEngine(PAINTED)
    slot = harness.start(engine)
    harness.next_event()
    slot.stop("4a")
    assert engine.stopped == ["4a"]
    assert slot.ops_done == 7


def test_a_closed_slot_gives_its_engine_back(harness: SlotHarness) -> None:
    """A closed slot finishes its task, then closes the engine."""
    engine = FakeEngine(PAINTED)
    slot = harness.start(engine)
    harness.next_event()
    assign(slot)
    slot.close()
    assert slot.join(TIMEOUT_SECONDS)
    assert engine.is_closed
    assert harness.next_event() == EngineReported("engine-0", 1, PAINTED)

"""The I/O pool and its requests, which are functions of their data and run in any thread."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import pytest
import torch

from styled.codec.encode import encode
from styled.codec.prepare import Prepared, prepare
from styled.codec.source_files import SourceFiles, read_source_files
from styled.config import OutputConfig, Style, StyleImage
from styled.engine_api import (
    CheckpointIgnored,
    CheckpointPiece,
    Degraded,
    Failed,
    Frame,
    Painted,
    Preview,
    Progress,
    Resumed,
    Stopped,
    TraceRow,
)
from styled.errors import DeviceLost, EngineFailure, InputRejected, UnexpectedError
from styled.job_io.io_pool import InlineIoPool, IoDone, IoPool, ThreadIoPool
from styled.job_io.protocols import SendHeartbeat
from styled.jobs.events import StopRequested
from styled.ops.heartbeats import Heartbeats
from styled.recipes import PYRAMID, Size
from tests.engine.conftest import task_of
from tests.job_harness import (
    STUB,
    TIMEOUT_SECONDS,
    Dropped,
    JobHarness,
    LogLines,
    OneEngine,
    ScriptedEngine,
    picture,
    threaded_scheduler,
)

RECIPE = replace(PYRAMID, size=Size(long_edge=64))


@dataclass(frozen=True)
class FakeRequest:
    """A request that returns its answer, or raises it if it is an exception."""

    part: ClassVar[str] = "ask"
    answer: object = None

    @property
    def log_context(self) -> dict[str, str]:
        return {"job": "4a"}

    def run(self, heartbeat: SendHeartbeat) -> object:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def pools(events: SimpleQueue[IoDone]) -> list[IoPool]:
    return [ThreadIoPool(2, events, Heartbeats()), InlineIoPool(events)]


@pytest.mark.parametrize("which", [0, 1], ids=["threads", "inline"])
def test_each_request_ends_in_an_event(which: int, logs: LogLines) -> None:
    """Each request gives an event with a result or an error; unexpected errors are also logged."""
    events: SimpleQueue[IoDone] = SimpleQueue()
    pool = pools(events)[which]
    rejected = InputRejected("it is no photo")
    for answer in (7, rejected, ZeroDivisionError("surprise"), SystemExit(0)):
        request = FakeRequest(answer)
        pool.submit(request)
        done = events.get(timeout=TIMEOUT_SECONDS)
        assert done.request is request
        if answer == 7:
            assert (done.result, done.error) == (7, None)
        elif answer is rejected:
            assert done.error is rejected
        else:
            assert isinstance(done.error, UnexpectedError)
            assert type(answer).__name__ in done.error.traceback
    assert [line["event"] for line in logs] == ["io.internal_error"] * 2
    pool.close()


def test_a_thread_gives_signs_of_life_while_it_is_at_something() -> None:
    """A pool thread sends a heartbeat for its request, and may be silent afterwards."""
    beats: list[tuple[str, float]] = []

    class Heartbeats:
        def beat(self, part: str, idle_for: float = 0.0) -> None:
            beats.append((part, idle_for))

    events: SimpleQueue[IoDone] = SimpleQueue()
    pool = ThreadIoPool(1, events, Heartbeats())
    pool.submit(FakeRequest())
    events.get(timeout=TIMEOUT_SECONDS)
    pool.close()
    assert beats == [("ask-0", 0.0), ("ask-0", math.inf)]


# Pure functions


@pytest.fixture
def inputs(tmp_path: Path) -> SourceFiles:
    photo, style = tmp_path / "photo.jpg", tmp_path / "style.png"
    photo.write_bytes(picture(size=(80, 60), format="jpeg"))
    style.write_bytes(picture("crimson", (48, 40)))
    return read_source_files(photo, Style((StyleImage(style),), RECIPE))


def prepare_and_encode(data: bytes) -> bytes:
    """Prepare and encode a photo; inputs and results are pickled."""
    prepared = prepare(pickle.loads(data), RECIPE, max_pixels=10**6)
    painted = Painted(prepared.content * 0.5, (TraceRow(1, 1, 1.0, 0.5, 0.25, 0.25),))
    prepared, painted = pickle.loads(pickle.dumps((prepared, painted)))
    return pickle.dumps((prepared, encode(prepared, painted, "jpeg", OutputConfig())))


def test_preparing_and_encoding_give_the_same_anywhere(inputs: SourceFiles) -> None:
    """Preparing and encoding give the same result in another process."""
    local_prepared, local_result = pickle.loads(prepare_and_encode(pickle.dumps(inputs)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        data = pool.submit(prepare_and_encode, pickle.dumps(inputs)).result(TIMEOUT_SECONDS)
    remote_prepared, remote_result = pickle.loads(data)
    assert isinstance(remote_prepared, Prepared)
    assert torch.equal(remote_prepared.content, local_prepared.content)
    assert remote_result.data == local_result.data
    assert remote_result.sha256 == local_result.sha256


def test_what_engines_say_travels() -> None:
    """Every kind of engine event can be pickled and restored."""
    engine = ScriptedEngine(steps=4)
    engine.degraded = (STUB,)
    task = task_of(
        torch.rand(1, 3, 9, 8), [(torch.rand(1, 3, 8, 8), 1.0)], PYRAMID,
        checkpoint_seconds=0.0, preview_seconds=0.0, frame_every_steps=1,
    )  # fmt: skip
    events = list(engine.run(pickle.loads(pickle.dumps(task))))
    events += [Resumed(1, 2), CheckpointIgnored("damaged"), Stopped()]
    events += [Failed(EngineFailure("no", "a remedy")), Failed(UnexpectedError.of(KeyError("x")))]
    events += [Failed(DeviceLost("it broke"))]
    kinds = {Progress, Preview, Frame, Degraded, CheckpointPiece, Painted, Resumed}
    assert kinds | {CheckpointIgnored, Stopped, Failed} == {type(event) for event in events}
    for event in events:
        copy: Any = pickle.loads(pickle.dumps(event))
        assert copy.__class__.__name__ == event.__class__.__name__
        if isinstance(event, Preview | Frame | Painted):
            assert torch.equal(copy.image, event.image)
            assert event.image.device.type == "cpu"
        elif isinstance(event, Failed):
            assert copy.error.args == event.error.args
            assert getattr(copy.error, "traceback", None) == getattr(event.error, "traceback", None)
        else:
            assert copy == event


def test_the_scheduler_needs_no_torch() -> None:
    """Importing the scheduler and the engine API does not import torch."""
    code = "import sys, styled.jobs.scheduler, styled.engine_api; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# With threads and engines


@pytest.mark.usefixtures("logs")
def test_photos_of_one_name_that_end_at_once_get_names_of_their_own(tmp_path: Path) -> None:
    """Photos of the same name get different result names if eight engines finish at once."""
    harness = JobHarness(tmp_path / "harness", engines=8)
    photos = {f"{n}/photo.png": picture(size=(40 + n % 8, 36 + n // 8)) for n in range(48)}
    for name, data in photos.items():
        path = harness.config.inbox / name
        path.parent.mkdir()
        path.write_bytes(data)
    all_paint = threading.Barrier(8, timeout=TIMEOUT_SECONDS)
    waited: set[int] = set()

    def wait_for_all() -> None:
        """In the first job of each engine, wait until all engines paint."""
        if threading.get_ident() not in waited:
            waited.add(threading.get_ident())
            all_paint.wait()

    for engine in harness.engines:
        engine.on_sync = wait_for_all
    factories = [OneEngine(engine, can_replace=False) for engine in harness.engines]
    scheduler, slots, events = threaded_scheduler(harness, factories)
    stats = [(name, (harness.config.inbox / name).stat()) for name in photos]
    harness.journal.submit(
        [Dropped(name, f.st_size, f.st_mtime_ns, {"oil": "photo.png"}) for name, f in stats], 1.0
    )
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while harness.files("inbox") and time.monotonic() < deadline:
        time.sleep(0.01)
    events.put(StopRequested())
    thread.join(TIMEOUT_SECONDS)
    assert all(slot.join(TIMEOUT_SECONDS) for slot in slots)
    names = ["photo.png", *(f"photo-{number}.png" for number in range(2, 49))]
    results = [name for name in harness.files("outbox/oil") if name.endswith(".png")]
    assert sorted(results) == sorted(names)
    assert sorted(harness.files("archive/oil")) == sorted(names)
    archived = [(harness.config.archive / "oil" / name).read_bytes() for name in names]
    assert sorted(archived) == sorted(photos.values())
    sources = set()
    for name in names:
        sidecar = json.loads((harness.config.outbox / "oil" / f"{name}.json").read_bytes())
        sources.add(sidecar["input"]["path"])
        assert sidecar["result"]["path"] == f"oil/{name}"
    assert sources == set(photos)
    assert {job.engine for job in harness.jobs()} == {f"engine-{number}" for number in range(8)}
    harness.close()

"""The I/O pool, and what its requests do: pure functions of data, in any thread or process."""

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
from styled.jobs.events import StopRequested
from styled.jobs.io_pool import InlineIoPool, IoDone, IoPool, ThreadIoPool
from styled.jobs.prepare import Inputs, Prepared, prepare, read_inputs
from styled.jobs.protocols import Beat
from styled.jobs.publish import encode
from styled.ops.pulse import Pulse
from styled.recipes import PYRAMID, Size
from styled.stages import Stages
from tests.engine.conftest import task_of
from tests.jobs.conftest import (
    PATIENCE_SECONDS,
    STUB,
    Dropped,
    JobHarness,
    LogLines,
    OneEngine,
    ScriptedEngine,
    picture,
)

RECIPE = replace(PYRAMID, size=Size(long_edge=64))


@dataclass(frozen=True)
class Ask:
    """Returns or raises what it is told to."""

    part: ClassVar[str] = "ask"
    answer: object = None

    @property
    def log_context(self) -> dict[str, str]:
        return {"job": "4a"}

    def run(self, beat: Beat) -> object:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def pools(events: SimpleQueue[IoDone]) -> list[IoPool]:
    return [ThreadIoPool(2, events, Pulse()), InlineIoPool(events)]


@pytest.mark.parametrize("which", [0, 1], ids=["threads", "inline"])
def test_each_request_ends_in_an_event(which: int, logs: LogLines) -> None:
    """With its result, our error, or any other as an unexpected one, which is in the log."""
    events: SimpleQueue[IoDone] = SimpleQueue()
    pool = pools(events)[which]
    rejected = InputRejected("it is no photo")
    for answer in (7, rejected, ZeroDivisionError("surprise")):
        request = Ask(answer)
        pool.submit(request)
        done = events.get(timeout=PATIENCE_SECONDS)
        assert done.request is request
        if answer == 7:
            assert (done.result, done.error) == (7, None)
        elif answer is rejected:
            assert done.error is rejected
        else:
            assert isinstance(done.error, UnexpectedError)
            assert "ZeroDivisionError" in done.error.traceback
    assert [line["event"] for line in logs] == ["io.crashed"]
    pool.close()


def test_a_thread_gives_signs_of_life_while_it_is_at_something() -> None:
    """Named after what it is at; afterwards it may be silent for ever."""
    beats: list[tuple[str, float]] = []

    class Heartbeats:
        def beat(self, part: str, rest_seconds: float = 0.0) -> None:
            beats.append((part, rest_seconds))

    events: SimpleQueue[IoDone] = SimpleQueue()
    pool = ThreadIoPool(1, events, Heartbeats())
    pool.submit(Ask())
    events.get(timeout=PATIENCE_SECONDS)
    pool.close()
    assert beats == [("ask-0", 0.0), ("ask-0", math.inf)]


# Pure functions


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    photo, style = tmp_path / "photo.jpg", tmp_path / "style.png"
    photo.write_bytes(picture(size=(80, 60), format="jpeg"))
    style.write_bytes(picture("crimson", (48, 40)))
    return read_inputs(photo, Style((StyleImage(style),), RECIPE))


def prepare_and_encode(data: bytes) -> bytes:
    """Do in another process what is done in this one."""
    prepared = prepare(pickle.loads(data), RECIPE, max_pixels=10**6)
    painted = Painted(prepared.content * 0.5, (TraceRow(1, 1, 1.0, 0.5, 0.25, 0.25),))
    prepared, painted = pickle.loads(pickle.dumps((prepared, painted)))
    return pickle.dumps((prepared, encode(prepared, painted, "jpeg", OutputConfig())))


def test_preparing_and_encoding_give_the_same_anywhere(inputs: Inputs) -> None:
    """They are functions of data alone, which travels."""
    here_prepared, here = pickle.loads(prepare_and_encode(pickle.dumps(inputs)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        sent = pool.submit(prepare_and_encode, pickle.dumps(inputs)).result(PATIENCE_SECONDS)
    there_prepared, there = pickle.loads(sent)
    assert isinstance(there_prepared, Prepared)
    assert torch.equal(there_prepared.content, here_prepared.content)
    assert there.data == here.data
    assert there.sha256 == here.sha256


def test_what_engines_say_travels() -> None:
    """Every kind of event comes back from another process as it was."""
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
        again: Any = pickle.loads(pickle.dumps(event))
        assert again.__class__.__name__ == event.__class__.__name__
        if isinstance(event, Preview | Frame | Painted):
            assert torch.equal(again.image, event.image)
            assert event.image.device.type == "cpu"
        elif isinstance(event, Failed):
            assert again.error.args == event.error.args
            assert getattr(again.error, "traceback", None) == getattr(
                event.error, "traceback", None
            )
        else:
            assert again == event


def test_the_scheduler_needs_no_torch() -> None:
    """Its thread never computes; where engines are elsewhere, nor does its process."""
    code = "import sys, styled.jobs.scheduler, styled.engine_api; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# All together


@pytest.mark.usefixtures("logs")
def test_photos_of_one_name_that_end_at_once_get_names_of_their_own(tmp_path: Path) -> None:
    """Eight engines, and the threads that publish what they paint, choose names at once."""
    shop = JobHarness(tmp_path / "shop", engines=8)
    photos = {f"{n}/photo.png": picture(size=(40 + n % 8, 36 + n // 8)) for n in range(48)}
    for name, data in photos.items():
        path = shop.config.inbox / name
        path.parent.mkdir()
        path.write_bytes(data)
    for engine in shop.engines:
        engine.on_sync = lambda: None
    stages = Stages(shop.config, Pulse())
    factories = [OneEngine(engine, can_replace=False) for engine in shop.engines]
    scheduler, slots = stages.make_scheduler(shop.journal, shop.publisher, factories, observer=shop)
    found = [(name, (shop.config.inbox / name).stat()) for name in photos]
    shop.journal.submit(
        [Dropped(name, f.st_size, f.st_mtime_ns, {"oil": "photo.png"}) for name, f in found], 1.0
    )
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while shop.files("inbox") and time.monotonic() < deadline:
        time.sleep(0.01)
    stages.events.put(StopRequested())
    thread.join(PATIENCE_SECONDS)
    assert all(slot.join(PATIENCE_SECONDS) for slot in slots)
    names = ["photo.png", *(f"photo-{number}.png" for number in range(2, 49))]
    results = [name for name in shop.files("outbox/oil") if name.endswith(".png")]
    assert sorted(results) == sorted(names)
    assert sorted(shop.files("archive/oil")) == sorted(names)
    archived = [(shop.config.archive / "oil" / name).read_bytes() for name in names]
    assert sorted(archived) == sorted(photos.values())
    sources = set()
    for name in names:
        sidecar = json.loads((shop.config.outbox / "oil" / f"{name}.json").read_bytes())
        sources.add(sidecar["input"]["path"])
        assert sidecar["result"]["path"] == f"oil/{name}"
    assert sources == set(photos)
    assert {job.engine for job in shop.jobs()} == {f"engine-{number}" for number in range(8)}
    shop.close()

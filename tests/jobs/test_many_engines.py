"""The scheduler with any number of engines that work, fail, die and stall, in random order."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from styled.config import load_config
from styled.delivery.publisher import Publisher
from styled.engine_api import EngineInfo, Failed, Painted, PixelSize, Progress, Stopped, TraceRow
from styled.errors import EngineFailure, NodeLost, ResourceUnavailable, StyledError
from styled.job_io.input_cleanup import InputCleanup
from styled.job_io.io_context import IoContext, JournalRetention
from styled.job_io.io_pool import do
from styled.job_io.job_files import JobFiles
from styled.job_io.prepare_request import PrepareRequest
from styled.job_io.requests import CleanupRequest
from styled.jobs.events import (
    Assignment,
    EngineLost,
    EngineReady,
    EngineReported,
    EngineStalled,
    SlotAdded,
    SlotRemoved,
    StopRequested,
    StylesChanged,
)
from styled.jobs.scheduler import Scheduler
from styled.journal.job import JobFinished, JobState, Phase
from styled.journal.journal import Journal
from styled.mounts import Mounts
from tests.job_harness import CONFIGURATION, Dropped, ScriptedEngine, picture

PHOTO, STYLE = picture(size=(33, 34)), picture("crimson", (33, 33))
NO_PHOTO = b"this is no picture"


class FakeSlot:
    """A fake engine slot whose events are chosen by the test."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.assignment: Assignment | None = None
        self.is_ready = False
        self.has_left = self.is_closed = False
        self.to_stop: set[str] = set()
        self.ops_done = 0

    def start(self) -> None:
        pass

    def assign(self, assignment: Assignment) -> None:
        assert self.is_ready, "a task was assigned to an engine that is not ready"
        assert self.assignment is None, "a task was assigned to an engine that is painting"
        assert not self.is_closed, "a task was assigned to a slot that ends"
        self.assignment = assignment

    def stop(self, job_id: str) -> None:
        self.to_stop.add(job_id)

    def replace(self) -> bool:
        self.assignment, self.is_ready = None, False
        return True

    def close(self) -> None:
        self.is_closed = True

    def join(self, timeout: float | None = None) -> bool:
        return True

    # What can happen next

    def choices(self) -> list[str]:
        if self.has_left:
            return ["join"]
        if not self.is_ready:
            return ["come", "leave"]
        if self.assignment is None:
            return ["leave"]
        if self.assignment.task.job_id in self.to_stop:
            return ["stop"]
        return ["step", "step", "paint", "paint", "paint", "fail", "die", "stall", "leave",
                "node"]  # fmt: skip

    def do(self, choice: str) -> list[Any]:
        """Return the events that a choice causes."""
        if choice == "join":
            self.has_left = self.is_closed = False
            return [SlotAdded(self)]  # type: ignore[arg-type]  # it is a fake
        if choice == "leave":
            self.has_left, self.is_ready, self.assignment = True, False, None
            return [SlotRemoved(self.name, "its machine has left")]
        if choice == "come":
            self.is_ready = True
            info: EngineInfo = ScriptedEngine.info
            return [EngineReady(self.name, info)]
        assignment = self.assignment
        assert assignment is not None
        if choice == "step":
            size = PixelSize(33, 34)
            return [self.report(Progress((size,), (9,), 1, 3, False, 0.5, 0.1, 0.1))]
        self.assignment = None
        match choice:
            case "paint":
                image = assignment.task.content[:, :3] * 0.5
                return [
                    self.report(Painted(image, (TraceRow(1, 1, 1.0, 0.5, 0.25, 0.25),)), assignment)
                ]
            case "fail":
                return [self.report(Failed(EngineFailure("it diverged")), assignment)]
            case "stop":
                self.to_stop.discard(assignment.task.job_id)
                return [self.report(Stopped(), assignment)]
            case "die":
                self.is_ready = False
                return [EngineLost(self.name, StyledError("it is gone"), 1.0)]
            case "node":
                self.is_ready = False
                return [EngineLost(self.name, NodeLost("its machine is gone"), 1.0)]
        self.assignment = assignment  # the engine hangs until the scheduler replaces it
        return [EngineStalled(self.name)]

    def report(self, event: Any, assignment: Assignment | None = None) -> EngineReported:
        assignment = assignment or self.assignment
        assert assignment is not None
        return EngineReported(self.name, assignment.assignment_id, event)


class FakePool:
    """A fake I/O pool; the test chooses when a request is run."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def submit(self, request: Any) -> None:
        self.requests.append(request)

    def close(self) -> None:
        pass


class World:
    """A scheduler with fake slots and a fake pool, and real files."""

    def __init__(self, base: Path, engines: int, photos: Sequence[tuple[str, bytes, str]]) -> None:
        (base / "styles").mkdir()
        for name in ("oil", "ink"):
            (base / f"styles/{name}.png").write_bytes(STYLE)
        (base / "config.yaml").write_text(CONFIGURATION)
        config = self.config = load_config(base / "config.yaml")
        (config.state / "checkpoints").mkdir(parents=True)
        self.base = base
        self.now = 1000.0
        self.journal = Journal.open(config.state / "journal.sqlite3")
        self.is_journal_full = False
        transaction = self.journal.transaction

        def transaction_if_there_is_room() -> AbstractContextManager[sqlite3.Cursor]:
            if self.is_journal_full:
                raise ResourceUnavailable("the journal can't be written: the disk is full")
            return transaction()

        self.journal.transaction = transaction_if_there_is_room  # type: ignore[method-assign, assignment]  # fails when the test says
        mounts = Mounts(config.state / "mounts.json", read_only=True)
        publisher = Publisher(config.outbox, config.rejected, config.archive)
        publisher.prepare()
        for name, data, _ in photos:
            path = config.inbox / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.journal.submit(
            [
                Dropped(name, (config.inbox / name).stat().st_size,
                        (config.inbox / name).stat().st_mtime_ns, {style: Path(name).name})
                for name, _, style in photos
            ],
            1.0,
        )  # fmt: skip
        self.context = IoContext(
            config, self.journal, publisher, JobFiles(config.state), mounts,
            InputCleanup(config, self.journal, publisher, mounts, lambda: self.now),
            JournalRetention(1e9, 10**6), now=lambda: self.now, clock=lambda: self.now,
        )  # fmt: skip
        self.slots = [FakeSlot(f"engine-{number}", self) for number in range(engines)]
        self.pool = FakePool()
        self.finished: list[JobFinished] = []
        self.scheduler = Scheduler(
            self.context, self.slots, self.pool, None, config.styles, self, self,  # type: ignore[arg-type]  # slots and pool are fakes
        )  # fmt: skip

    def beat(self, part: str, idle_for: float = 0.0) -> None:
        pass

    def engine_ready(self, name: str, info: EngineInfo) -> None:
        pass

    def job_finished(self, finished: JobFinished) -> None:
        self.finished.append(finished)

    def attempt_failed(self, failure: str) -> None:
        pass

    def check(self) -> None:
        """Check the invariants that hold after each turn of the scheduler."""
        running = self.journal.in_state(JobState.RUNNING, limit=-1)
        phases = Counter(job.phase for job in running)
        engines = len(self.slots)
        assert phases[Phase.PREPARING] + phases[Phase.READY] <= engines + 1
        assert phases[Phase.PAINTING] <= engines
        suspects = [job for job in running if job.is_suspect]
        assert not suspects or len(running) == 1

    def files(self, root: str) -> list[str]:
        return sorted(
            str(path.relative_to(self.base / root))
            for path in (self.base / root).rglob("*")
            if path.is_file()
        )


def play(data: st.DataObject, world: World, *, calm_after: int, full: int = 0) -> None:
    """Let things happen in random order until nothing can; no failures after `calm_after` moves.

    Before that, writes of one turn in `full` fail; 0: none.
    """
    moves = 0
    world.scheduler.turn([])
    while True:
        choices: list[tuple[Any, Any]] = [
            (slot, choice) for slot in world.slots for choice in slot.choices()
        ]
        if moves > calm_after:
            excluded = ("fail", "die", "stall", "step", "leave", "node")
            choices = [pair for pair in choices if pair[1] not in excluded]
        choices += [(world.pool, request) for request in world.pool.requests]
        if world.scheduler.seconds_to_wait() == 0.0:
            choices = [(None, None)]
        if not choices and world.scheduler.pauses.is_paused and not world.scheduler.is_over:
            moves += 1
            assert moves < 5000, "the pause does not end"
            world.now = max(world.now + 1.0, world.scheduler.pauses.until)
            world.scheduler.turn([])
            continue
        if not choices:
            due = world.journal.next_due()
            if due is None or world.scheduler.is_over:
                return
            world.now = max(world.now + 1.0, due)
            world.scheduler.turn([])
            continue
        moves += 1
        assert moves < 5000, "the jobs do not end"
        actor, choice = data.draw(st.sampled_from(choices)) if len(choices) > 1 else choices[0]
        if actor is None:
            events: list[Any] = []
            world.now += 0.01
        elif actor is world.pool:
            world.pool.requests.remove(choice)
            events = [do(choice, lambda idle_for: None)]
        else:
            events = actor.do(choice)
        if full and moves < calm_after:
            world.is_journal_full = data.draw(st.integers(1, full)) == full
        world.scheduler.turn(events)
        world.is_journal_full = False
        world.check()


PHOTOS = st.lists(st.sampled_from(["good", "bad"]), min_size=1, max_size=9)


@pytest.mark.parametrize("engines", [1, 2, 3, 8])
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), kinds=PHOTOS, full=st.sampled_from([0, 3, 10]))
def test_every_job_ends_once_and_no_file_is_lost(
    engines: int, data: st.DataObject, kinds: list[str], full: int
) -> None:
    """Each job ends once and no file is lost, in whatever order engines and requests act.

    Nor if the journal can't be written in between.
    """
    photos = [
        (f"{number}/photo.png", NO_PHOTO if kind == "bad" else PHOTO, ("oil", "ink")[number % 2])
        for number, kind in enumerate(kinds)
    ]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        world = World(Path(folder), engines, photos)
        stack.callback(world.journal.close)
        play(data, world, calm_after=60, full=full)
        jobs = world.journal._jobs("1 ORDER BY seq")
        assert all(job.state in ("done", "rejected") for job in jobs)
        assert Counter(end.job.id for end in world.finished) == Counter(job.id for job in jobs)
        done = [job for job in jobs if job.state is JobState.DONE]
        assert world.files("inbox") == []
        assert len(world.files("archive")) == len(done)
        outbox = world.files("outbox")
        assert sorted(str(job.result) for job in done) == [n for n in outbox if n.endswith("png")]
        assert len(outbox) == 2 * len(done)
        assert len(world.files("rejected")) == 2 * (len(jobs) - len(done))
        assert world.files("state/checkpoints") == []
        # An invalid photo is rejected as such, and no other photo is.
        for job, kind in zip(jobs, kinds, strict=True):
            assert (job.failure == "input") == (kind == "bad")


@pytest.mark.parametrize("engines", [1, 3, 8])
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), moves=st.integers(0, 40), full=st.sampled_from([0, 2]))
def test_a_stop_at_any_moment_leaves_nothing_amiss(
    engines: int, data: st.DataObject, moves: int, full: int
) -> None:
    """After a stop at any moment each job is queued without a counted attempt, or has ended."""
    photos = [(f"{number}/photo.png", PHOTO, "oil") for number in range(6)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        world = World(Path(folder), engines, photos)
        stack.callback(world.journal.close)
        world.scheduler.turn([])
        for _ in range(moves):
            choices: list[tuple[Any, Any]] = [
                (slot, choice) for slot in world.slots for choice in slot.choices()
                if choice in ("come", "step", "paint")
            ]  # fmt: skip
            choices += [(world.pool, request) for request in world.pool.requests]
            if not choices:
                break
            actor, choice = data.draw(st.sampled_from(choices))
            world.is_journal_full = bool(full) and data.draw(st.integers(1, full)) == full
            if actor is world.pool:
                world.pool.requests.remove(choice)
                world.scheduler.turn([do(choice, lambda idle_for: None)])
            else:
                world.scheduler.turn(actor.do(choice))
        world.is_journal_full = False
        world.scheduler.turn([StopRequested()])
        play(data, world, calm_after=0)
        assert world.scheduler.is_over
        jobs = world.journal._jobs("1 ORDER BY seq")
        assert {job.state for job in jobs} <= {JobState.QUEUED, JobState.DONE}
        assert {job.attempts for job in jobs if job.state is JobState.QUEUED} <= {0}
        done = [job for job in jobs if job.state is JobState.DONE]
        if full:  # inputs may have to wait for the cleanup of the next start
            world.context.is_stopping.clear()
            do(CleanupRequest(world.context), lambda idle_for: None)
        assert len(world.files("outbox")) == 2 * len(done)
        assert len(world.files("archive")) == len(done)
        assert len(world.files("inbox")) == len(jobs) - len(done)


def test_what_comes_from_an_engine_that_was_given_up_is_ignored(tmp_path: Path) -> None:
    """Late events of a stalled engine are ignored once another engine has its job."""
    world = World(tmp_path, 2, [("photo.png", PHOTO, "oil")])
    first, second = world.slots
    world.scheduler.turn(first.do("come"))
    for _ in range(3):
        while world.pool.requests:
            world.scheduler.turn([do(world.pool.requests.pop(0), lambda idle_for: None)])
        world.scheduler.turn([])
    stalled = first.assignment
    assert stalled is not None
    world.scheduler.turn(first.do("stall"))
    world.scheduler.turn(second.do("come"))
    for _ in range(3):
        while world.pool.requests:
            world.scheduler.turn([do(world.pool.requests.pop(0), lambda idle_for: None)])
        world.scheduler.turn([])
    assert second.assignment is not None
    late = Painted(torch.zeros(1, 3, 34, 33), (TraceRow(1, 1, 1.0, 0.5, 0.25, 0.25),))
    world.scheduler.turn([EngineReported(first.name, stalled.assignment_id, late)])
    assert world.pool.requests == []
    (job,) = world.journal.in_state(JobState.RUNNING, limit=-1)
    assert (job.phase, job.engine) == (Phase.PAINTING, "engine-1")
    world.journal.close()


def finish_requests(world: World) -> None:
    """Run all requests, and those that follow from them."""
    while world.pool.requests:
        world.scheduler.turn([do(world.pool.requests.pop(0), lambda idle_for: None)])
        world.scheduler.turn([])


@pytest.mark.parametrize("how", ["leave", "node"])
def test_a_lost_machine_counts_from_the_third_time_on(tmp_path: Path, how: str) -> None:
    """The job goes on elsewhere; only one that loses one machine after another is suspected."""
    world = World(tmp_path, 1, [("photo.png", PHOTO, "oil")])
    (slot,) = world.slots
    attempts = []
    for _ in range(5):
        if slot.has_left:
            world.scheduler.turn(slot.do("join"))
        world.scheduler.turn(slot.do("come"))
        finish_requests(world)
        if slot.assignment is None:
            break
        world.scheduler.turn(slot.do(how))
        world.now += 100.0  # later ones wait a little
        world.scheduler.turn([])
        (job,) = world.journal._jobs("1")
        attempts.append((job.state, job.attempts))
    max_attempts = world.config.queue.max_attempts
    assert max_attempts == 3
    queued, rejected = JobState.QUEUED, JobState.REJECTED
    assert attempts == [(queued, 0), (queued, 0), (queued, 1), (queued, 2), (rejected, 3)]
    world.journal.close()


def test_an_engine_that_joins_is_used_and_one_that_leaves_is_not(tmp_path: Path) -> None:
    """The scheduler's slots, which health and stop read, follow."""
    world = World(tmp_path, 1, [("photo.png", PHOTO, "oil")])
    other = FakeSlot("engine-7", world)
    other.has_left = True
    world.scheduler.turn(world.slots[0].do("leave"))
    assert list(world.scheduler.slots) == []
    assert world.journal.in_state(JobState.RUNNING, limit=-1) == []
    world.scheduler.turn(other.do("join"))
    assert [slot.name for slot in world.scheduler.slots] == ["engine-7"]
    world.scheduler.turn(other.do("come"))
    finish_requests(world)
    assert other.assignment is not None
    late = world.slots[0]
    world.scheduler.turn([EngineReady(late.name, ScriptedEngine.info)])
    assert [slot.name for slot in world.scheduler.slots] == ["engine-7"]
    world.journal.close()


def test_what_was_prepared_for_an_earlier_style_is_ignored(tmp_path: Path) -> None:
    """If the style changes while a job is prepared, only the latest preparation is used."""
    world = World(tmp_path, 1, [("photo.png", PHOTO, "oil")])
    world.scheduler.turn(world.slots[0].do("come"))
    (first,) = [request for request in world.pool.requests if isinstance(request, PrepareRequest)]
    style = world.config.styles["oil"]
    changed = replace(style, recipe=replace(style.recipe, seed=7))
    world.scheduler.turn([StylesChanged({"oil": changed})])
    second = world.pool.requests[-1]
    assert (second.style, first.style) == (changed, style)
    world.scheduler.turn([do(first, lambda idle_for: None)])
    assert phases(world) == [Phase.PREPARING]
    world.scheduler.turn([do(second, lambda idle_for: None)])
    world.scheduler.turn([])
    assignment = world.slots[0].assignment
    assert assignment is not None
    assert assignment.task.recipe.seed == 7
    world.journal.close()


def phases(world: World) -> list[Phase | None]:
    return [job.phase for job in world.journal.in_state(JobState.RUNNING, limit=-1)]


def test_a_cancel_while_the_journal_is_full_ends_the_job(tmp_path: Path) -> None:
    """A stop that reaches the engine before its delayed task holds for that task."""
    world = World(tmp_path, 1, [("photo.png", PHOTO, "oil")])
    (slot,) = world.slots
    world.scheduler.turn(slot.do("come"))
    (prepared,) = [
        do(request, lambda idle_for: None)
        for request in world.pool.requests
        if isinstance(request, PrepareRequest)
    ]
    world.pool.requests.clear()
    world.is_journal_full = True
    world.scheduler.turn([prepared])
    assert slot.choices() == ["leave"], "the commit has failed, so it has no task"
    world.is_journal_full = False
    (job,) = world.journal._jobs("1")
    command = Journal.open(world.config.state / "journal.sqlite3")  # of `styled cancel`
    assert command.request_cancel(job)
    command.close()
    for _ in range(3):
        world.now += 100.0
        world.scheduler.turn([])
    assert slot.choices() == ["stop"]
    world.scheduler.turn(slot.do("stop"))
    finish_requests(world)
    (job,) = world.journal._jobs("1")
    assert (job.state, world.files("outbox")) == (JobState.CANCELLED, [])
    world.journal.close()

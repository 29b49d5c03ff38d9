"""Engines on a Ray cluster: efficiency of two, overhead per job, and up to 128 that only sleep.

1. Two engines of a local cluster, with one thread each, and a daemon whose own engine has one
thread. All photos have one size, and the number of steps is fixed. Throughput is the number of jobs
divided by the time from the first `job.painting_started` to the last `job.published`; efficiency is
that of two engines, divided by twice that of the daemon without a cluster. Two such daemons at once
show how much is lost because two processes share the machine's caches and memory.

2. Tiny jobs, on one engine of a cluster and on the daemon's own engine, in turn. The overhead is
the difference of the times per job.

3. Up to 128 engines whose jobs are 2 s of sleep and eight reports of progress. They are threads of
a few actors, which together hold all CPUs in Ray's accounts, as engines do. The rest is real: the
scheduler and its slots, decoding, encoding, the transport of images, the journal, publishing and
the gallery. The baseline has sleeping threads of the daemon instead, which decodes and encodes. Of
N engines the busy share is 2 s x (jobs - N) / (N x the time from the start of job N to that of the
last job), in which jobs - N jobs start. All processes share the machine's cores: `jobs/s` can't
exceed cores / (CPU time per job of head and workers). Bytes through the head are those of the
photo, the result and their thumbnails; jobs this short have neither previews nor checkpoints.

CPU time of the head is that of the daemon's process, with all its threads; workers are all
processes below it, Ray's own included. A value of `--sizes` other than the default is the long edge
in the first part. `--device` and `--paintings` are ignored.
"""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from statistics import mean, median
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import skimage.data
import torch
from PIL import Image

from styled.app import build_scheduler, precision_record
from styled.atomic import make_folder
from styled.codec.source_files import read_source_files
from styled.config import Config, load_config
from styled.delivery.publisher import Publisher
from styled.engine_api import (
    Engine,
    EngineEvent,
    EngineFactory,
    Painted,
    PaintTask,
    PixelSize,
    Progress,
    TraceRow,
)
from styled.job_io.job_files import JobFiles
from styled.job_io.protocols import PhotoCodec
from styled.jobs.events import Event, StopRequested
from styled.journal.journal import Journal
from styled.mounts import Mounts
from styled.ops.heartbeats import Heartbeats
from styled.ops.logs import configure_logs
from tests.benchmarks import queue
from tests.cluster.ray_cluster import processes_below
from tests.daemon_harness import Daemon, DaemonHarness, make_harness

if TYPE_CHECKING:  # it imports ray, which must not be imported before `prepare_environment`
    from styled.cluster.fleet import Fleet

CONFIGURATION = """\
default_style: swirls
styles:
  swirls:
    image: styles/swirls.png
    overrides: {{size: {{long_edge: {edge}}}, steps: {steps}, min_improvement: 0}}
  short:
    image: styles/swirls.png
    overrides: {{size: {{long_edge: {edge}}}, scales: null, steps: 1}}
  tiny:
    image: styles/swirls.png
    recipe: udacity
    overrides: {{size: {{long_edge: 48}}, steps: 1, content_layers: {{relu2_1: 1}},
                style_layers: {{relu1_1: 1, relu2_1: 1}}}}
engine: {{weights: untrained, device: cpu, precision: float32, threads: 1}}
intake: {{settle_seconds: 0.3}}
"""
CLUSTER = "cluster: {{address: local, engines: {engines}, cpus_per_engine: 1}}\n"
PHOTOS, PHOTO_SIZE = ("coffee", "astronaut", "chelsea", "rocket"), (512, 344)
DEFAULT_SIZES, EDGE, STEPS = [128], 192, 24  # 10 to 15 s on one core
JOBS, EFFICIENCY_GOAL = 4, 0.9  # jobs for each engine
TINY_JOBS, ROUNDS = 40, 5
SCRIPTED_JOBS = {8: 48, 32: 160, 128: 512}  # by number of engines
PAINT_SECONDS, REPORTS, THREADS_PER_ACTOR = 2.0, 8, 32
TASKS = 4  # photos that are decoded or encoded at once; the machine has no cores for more
TRACE = (TraceRow(1, REPORTS, 1.0, 0.5, 0.25, 0.25),)
POLL_SECONDS, TIMEOUT_SECONDS = 0.5, 1800.0


class Cpu(NamedTuple):
    """CPU seconds of a process, and of all processes below it."""

    head: float
    workers: float


class CpuMeter:
    """Adds up CPU seconds from now on; also of processes that end, until the last `read`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._workers: dict[int, float] = {}
        self._before = Cpu(0.0, 0.0)
        self._before = self.read()

    def read(self) -> Cpu:
        for pid, _ in processes_below(self._pid):
            with suppress(OSError):  # it has just ended
                self._workers[pid] = _cpu_seconds(pid)
        head, workers = _cpu_seconds(self._pid), sum(self._workers.values())
        return Cpu(head - self._before.head, workers - self._before.workers)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Batch:
    """Jobs that were done: Unix times in order, and the CPU seconds meanwhile."""

    started: list[float]
    published: list[float]
    cpu: Cpu

    @property
    def seconds(self) -> float:
        """The time from the first start to the last result."""
        return self.published[-1] - self.started[0]


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a table for each part."""
    with tempfile.TemporaryDirectory() as folder:
        _compare_daemons(Path(folder), EDGE if list(sizes) == DEFAULT_SIZES else sizes[0])
        _compare_tiny_jobs(Path(folder))
    print(f"engines that sleep for {PAINT_SECONDS:.0f} s a job; photos of {PHOTO_SIZE[0]} px")
    print(f"{'engines':<9}{'in':>9}{'jobs':>6}{'busy':>9}{'jobs/s':>8}{'at most':>9}"
          f"{'CPU ms a job: head':>20}{'workers':>9}{'kB a job':>10}")  # fmt: skip
    for engines, jobs in SCRIPTED_JOBS.items():
        for place in ("daemon", "cluster"):
            _print_scripted(place, engines, jobs)


# Daemons


def _harness(folder: Path, edge: int = EDGE, engines: int | None = None) -> DaemonHarness:
    """Make a working folder whose daemon has `engines` on a local cluster, or its own engine."""
    text = CONFIGURATION.format(edge=edge, steps=STEPS)
    return make_harness(folder, text + (CLUSTER.format(engines=engines) if engines else ""))


@cache
def _photos() -> list[bytes]:
    """Return real photos as JPEG files, all of one size."""
    files = [io.BytesIO() for _ in PHOTOS]
    for file, name in zip(files, PHOTOS, strict=True):
        photo = Image.fromarray(getattr(skimage.data, name)())
        photo.resize(PHOTO_SIZE).save(file, "jpeg", quality=90)
    return [file.getvalue() for file in files]


@contextmanager
def _running(harness: DaemonHarness, engines: int = 1) -> Iterator[tuple[Daemon, int]]:
    """Run the daemon until the context ends; yields it and its process ID, with all engines."""
    with harness.running_from_scratch() as daemon:
        daemon.wait_for("engine.ready", engines)
        command = harness.command("status", "--json")
        status = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        yield daemon, status["pid"]  # a child of what was started, if there is a cluster


def _paint(harness: DaemonHarness, running: tuple[Daemon, int], style: str, count: int) -> Batch:
    """Drop photos at once, and wait for their results."""
    daemon, pid = running
    inbox, done_before = harness.folder / "inbox" / style, len(daemon.events("job.published"))
    make_folder(inbox)
    names = [f"{time.time_ns()}-{number}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (harness.folder / name).write_bytes(_photos()[number % len(PHOTOS)])
    meter, deadline = CpuMeter(pid), time.monotonic() + TIMEOUT_SECONDS
    for name in names:
        (harness.folder / name).rename(inbox / name)
    # Not `Daemon.wait_for`, which polls more often: engines use all cores.
    while len(daemon.events("job.published")) < done_before + count:
        assert daemon.process.poll() is None, daemon.log.read_text()
        assert time.monotonic() < deadline, daemon.log.read_text()
        meter.read()
        time.sleep(POLL_SECONDS)
    return _batch(daemon, done_before, meter.read())


def _batch(daemon: Daemon, skipped: int, cpu: Cpu) -> Batch:
    """Read the times of all but the first jobs from the log."""
    started, published = (
        [datetime.fromisoformat(str(one["timestamp"])).timestamp() for one in daemon.events(name)]
        for name in ("job.painting_started", "job.published")
    )
    assert len(started) == len(published), daemon.log.read_text()
    return Batch(sorted(started)[skipped:], sorted(published)[skipped:], cpu)


def _compare_daemons(folder: Path, edge: int) -> None:
    print(f"engines with one thread each, pyramid at {edge} px, {STEPS} steps; torch "
          f"{torch.__version__}, {os.cpu_count()} CPUs, untrained network")  # fmt: skip
    print(f"{'':<26}{'jobs':>6}{'s a job':>10}{'jobs/h':>9}{'efficiency':>12}"
          f"{'CPU s a job: head':>20}{'workers':>9}{'goal':>7}{'reached':>9}")  # fmt: skip
    (one,) = batches = _paint_at_once(folder / "one", edge, 1, None)
    _print_throughput("a daemon", batches, one, 1)
    _print_throughput("two daemons", _paint_at_once(folder / "two", edge, 2, None), one, 2)
    batches = _paint_at_once(folder / "cluster", edge, 1, 2)
    _print_throughput("two engines of a cluster", batches, one, 2, EFFICIENCY_GOAL)


def _paint_at_once(folder: Path, edge: int, daemons: int, engines: int | None) -> list[Batch]:
    """Run daemons, each with its own engine or with `engines` on a cluster of its own."""
    barrier, count = threading.Barrier(daemons), engines or 1

    def paint(number: int) -> Batch:
        harness = _harness(folder / str(number), edge, engines)
        try:
            with _running(harness, count) as running:
                _paint(harness, running, "short", 2 * count)  # loads what is loaded on demand
                barrier.wait()
                return _paint(harness, running, "swirls", JOBS * count)
        finally:
            barrier.abort()  # if this one has failed, the other one must not wait for it

    with ThreadPoolExecutor(daemons) as pool:
        return list(pool.map(paint, range(daemons)))


def _print_throughput(
    name: str, batches: list[Batch], one: Batch, engines: int, goal: float | None = None
) -> None:
    jobs = sum(len(batch.started) for batch in batches)
    rate = sum(len(batch.started) / batch.seconds for batch in batches)
    efficiency = rate / engines / (len(one.started) / one.seconds)
    reached = "" if goal is None else "yes" if efficiency >= goal else "NO"
    print(f"{name:<26}{jobs:>6}{engines / rate:>10.2f}{3600 * rate:>9.1f}{efficiency:>12.3f}"
          f"{sum(batch.cpu.head for batch in batches) / jobs:>20.2f}"
          f"{sum(batch.cpu.workers for batch in batches) / jobs:>9.2f}"
          f"{goal or '':>7}{reached:>9}", flush=True)  # fmt: skip


def _compare_tiny_jobs(folder: Path) -> None:
    print(f"ms a job, {ROUNDS} times {TINY_JOBS} tiny jobs")
    print(f"{'':<26}{'median':>9}{'least':>9}{'most':>9}{'CPU: head':>12}{'workers':>9}")
    here, there = _harness(folder / "here"), _harness(folder / "there", engines=1)
    batches: list[list[Batch]] = [[], []]
    with _running(here) as local, _running(there) as remote:
        for _ in range(ROUNDS + 1):
            batches[0].append(_paint(here, local, "tiny", TINY_JOBS))
            batches[1].append(_paint(there, remote, "tiny", TINY_JOBS))
    medians = []
    for name, (_, *ours) in zip(("the daemon's engine", "a cluster's"), batches, strict=True):
        times = [1000 * batch.seconds / TINY_JOBS for batch in ours]
        medians.append(median(times))
        print(f"{name:<26}{medians[-1]:>9.1f}{min(times):>9.1f}{max(times):>9.1f}"
              f"{1000 * mean(batch.cpu.head for batch in ours) / TINY_JOBS:>12.1f}"
              f"{1000 * mean(batch.cpu.workers for batch in ours) / TINY_JOBS:>9.1f}",
              flush=True)  # fmt: skip
    print(f"{'overhead':<26}{medians[1] - medians[0]:>9.1f}", flush=True)


# Engines that sleep


def _print_scripted(place: str, engines: int, jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "wb") as log:
        command = [sys.executable, "-m", __name__, folder, place, str(engines), str(jobs)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        try:
            answer = process.communicate(timeout=TIMEOUT_SECONDS)[0]
        finally:
            process.kill()
        daemon = Daemon(process, Path(log.name))
        assert process.returncode == 0, daemon.log.read_text()
        moved, *cpu = json.loads(answer)
        batch = _batch(daemon, 0, Cpu(*cpu))
    rate = (jobs - engines) / (batch.started[-1] - batch.started[engines - 1])
    print(f"{engines:<9}{place:>9}{jobs:>6}{rate * PAINT_SECONDS / engines:>9.1%}{rate:>8.1f}"
          f"{engines / PAINT_SECONDS:>9.1f}{1000 * batch.cpu.head / jobs:>20.1f}"
          f"{1000 * batch.cpu.workers / jobs:>9.1f}{moved / 1000:>10.0f}", flush=True)  # fmt: skip


def _reports(task: PaintTask) -> Iterator[EngineEvent]:
    """Sleep instead of painting: the result is the photo."""
    size = PixelSize(task.content.shape[-1], task.content.shape[-2])
    for step in range(1, REPORTS + 1):
        time.sleep(PAINT_SECONDS / REPORTS)
        yield Progress((size,), (REPORTS,), 1, step, step == REPORTS, 1.0, 0.1, 0.1)
    yield Painted(task.content[:, :3], TRACE)


class Sleeping(queue.Sleeping):
    """An engine in the daemon."""

    def run(self, task: PaintTask, checkpoint: IO[bytes] | None = None) -> Iterator[EngineEvent]:
        yield from _reports(task)


class SleepingActor:
    """Engines of a cluster, one in each thread; answers calls as `EngineActor` does."""

    def __init__(self) -> None:
        import_module("styled.cluster.remote_images")  # with torch, which takes a second

    def run(self, task: PaintTask, checkpoint: bytes | None) -> Iterator[Any]:
        from styled.cluster.engine_actor import IMAGE_FOLLOWS

        for event in _reports(task.loaded()):
            if isinstance(event, Painted):
                yield IMAGE_FOLLOWS
                yield event.image
                event = replace(event, image=event.image.to("meta"))
            yield event

    def ops_done(self) -> int:
        return 0


@dataclass(frozen=True)
class Made:
    """The factory of an engine that exists already."""

    engine: Engine
    can_replace = False

    def make(self) -> Engine:
        return self.engine


def _scripted(folder: Path, place: str, engines: int, jobs: int) -> tuple[float, ...]:
    """Do all jobs; return bytes through the head per job, and the CPU seconds of all jobs."""
    configure_logs()
    config = load_config(_harness(folder / "work", PHOTO_SIZE[0]).config)
    make_folder(config.inbox)
    for number in range(jobs):
        (config.inbox / f"{number}.jpg").write_bytes(_photos()[number % len(PHOTOS)])
    if place == "daemon":
        return (0, *_do_all(config, [Sleeping() for _ in range(engines)], None))
    from styled.cluster.environment import prepare_environment

    prepare_environment("local")
    from styled.cluster.connection import Connection

    connection = Connection("local")
    connection.connect()
    try:
        return _scripted_cluster(config, engines)
    finally:
        connection.close()


def _scripted_cluster(config: Config, engines: int) -> tuple[float, ...]:
    import ray

    from styled.cluster.membership import Membership
    from styled.cluster.placement import Placement
    from styled.cluster.remote_codec import CodecNode, CodecNodes, RemotePhotoCodec
    from styled.cluster.remote_engine import RemoteEngine
    from styled.cluster.shared_objects import SharedObjects

    members, nodes = Membership(), CodecNodes()
    while not members.usable:
        members.update()
        time.sleep(POLL_SECONDS)
    (node,) = members.usable
    nodes.set([CodecNode(node.id, node.name, TASKS)])
    objects = SharedObjects(config.engine, precision_record(config), lambda done, total: None)
    codec = RemotePhotoCodec(nodes, objects)
    count = math.ceil(engines / THREADS_PER_ACTOR)
    options = {"num_cpus": node.cpus / count, "max_concurrency": THREADS_PER_ACTOR + 2}
    kind: Any = ray.remote(SleepingActor)
    actors = [kind.options(**options).remote() for _ in range(count)]
    ray.get([actor.ops_done.remote() for actor in actors])
    moved = _warm_up(config, codec)
    place, info = Placement(node, 0, 1, 1), Sleeping.info
    factories = [Made(RemoteEngine(actors[n % count], info, place)) for n in range(engines)]
    fleet = cast("Fleet", SimpleNamespace(codec=codec))  # its engines are there already
    return (moved, *_do_all(config, factories, fleet))


def _warm_up(config: Config, codec: PhotoCodec) -> float:
    """Start the processes that decode and encode; return the bytes through this one per photo."""
    style = config.styles["swirls"]

    def convert(number: int) -> int:
        inputs = read_source_files(config.inbox / f"{number}.jpg", style)
        prepared = codec.prepare(
            inputs, style.recipe, max_pixels=10**8, at_own_size=False, paint_damaged=False
        )
        painted = Painted(prepared.loaded().content[:, :3], TRACE)
        encoded = codec.encode(prepared, painted, "jpeg", config.output)
        return sum(map(len, (inputs.photo, encoded.data, *(encoded.thumbs or ()))))

    with ThreadPoolExecutor(TASKS) as pool:
        return mean(pool.map(convert, range(2 * len(PHOTOS))))


def _do_all(config: Config, factories: Sequence[EngineFactory], fleet: Fleet | None) -> Cpu:
    """Paint all photos."""
    make_folder(config.state / "checkpoints")
    journal = Journal.open(config.state / "journal.sqlite3")
    publisher = Publisher(config.outbox, config.rejected, config.archive)
    publisher.prepare()
    found = [(entry.name, entry.stat()) for entry in os.scandir(config.inbox)]
    arrivals = [queue.SettledFile(n, f.st_size, f.st_mtime_ns, {"swirls": n}) for n, f in found]
    journal.submit(arrivals, time.time())
    watcher, events = queue.Watcher(len(found)), SimpleQueue[Event]()
    scheduler = build_scheduler(
        config, journal, publisher, Mounts(config.state / "mounts.json"), JobFiles(config.state),
        factories, fleet, events, watcher, Heartbeats(),
    )  # fmt: skip
    meter, deadline = CpuMeter(os.getpid()), time.monotonic() + TIMEOUT_SECONDS
    thread = threading.Thread(target=scheduler.run, daemon=True)
    thread.start()
    while not watcher.is_done.wait(POLL_SECONDS):
        assert thread.is_alive(), "a job has failed"
        assert time.monotonic() < deadline, "a job has not ended"
        meter.read()
    cpu = meter.read()
    events.put(StopRequested())
    thread.join()
    journal.close()
    return cpu


if __name__ == "__main__":
    with ThreadPoolExecutor(1) as _pool:  # not the main thread: Ray replaces its signal handlers
        _job = _pool.submit(_scripted, Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
        sys.stdout.write(json.dumps(_job.result()) + "\n")

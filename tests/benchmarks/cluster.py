"""Engines as Ray actors: efficiency of two, overhead per job, and the head process with up to 128.

1. Two engines of a local cluster, with one thread each, against a daemon whose only engine has one
thread. All photos have one size, and the number of steps is fixed. Throughput is the number of jobs
divided by the time from the first `job.started` to the last `job.published`. Efficiency is that of
two engines, divided by twice that of the one daemon. Two daemons at once show how much of the loss
is that of the machine, whose cores share caches and memory.

2. Tiny jobs, with one engine of a cluster and with an engine in the daemon, in turn; the overhead is
the difference of the times per job.

3. Up to 128 engines whose jobs consist of sleeping for 2 s and eight reports of progress. They are
threads of a few actors; scheduler, slots, transport of images, decoding and encoding of photos,
journal and publishing are real. The baseline is the same queue with sleeping threads instead of
actors, and photos decoded and encoded in the daemon. With N engines, the window is from the start
of the Nth job to the start of the last one: while `jobs - N` jobs start, the engines are busy for
2 s x (jobs - N) of N x window. The bytes that pass through the head are those of the photos, of the
results, of thumbnails and of previews. Engines, decoding, encoding and the head share the cores, so
in this part `jobs/s` is limited by the CPU time of all of them.

CPU time is that of a process with all its threads, from the first drop to the last result; workers
are all processes that the head has started, Ray's included. A value of `--sizes` other than the
default is the long edge in the first part. `--device` and `--paintings` are ignored.
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
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, cast

import skimage.data
import torch
from PIL import Image
from torch import Tensor

from styled.app import build_scheduler, precision_record
from styled.atomic import make_folder
from styled.config import Config, OutputConfig, load_config
from styled.delivery.publisher import Publisher
from styled.engine_api import (
    Engine,
    EngineEvent,
    EngineInfo,
    Painted,
    PaintTask,
    PixelSize,
    Progress,
    TraceRow,
)
from styled.jobs.events import Event, StopRequested
from styled.jobs.job_files import JobFiles
from styled.jobs.journal import Journal
from styled.jobs.prepare import Inputs, Prepared, read_inputs
from styled.jobs.protocols import EngineFactory, PhotoWork
from styled.jobs.publish import Encoded
from styled.mounts import Mounts
from styled.ops.heartbeats import Heartbeats
from styled.ops.logs import configure_logs
from styled.recipes import Recipe
from tests.benchmarks.queue import Arrival, Watcher
from tests.cluster.ray_cluster import processes_below
from tests.daemon_harness import Daemon, DaemonHarness, make_harness
from tests.faults.conftest import QUICK

if TYPE_CHECKING:  # it imports ray, whose settings must be in the environment before that
    from styled.cluster.fleet import Fleet

CONFIGURATION = """\
default_style: swirls
styles:
  swirls: {{image: styles/swirls.png, overrides: {{size: {{long_edge: {edge}}}, steps: {steps},
           min_improvement: 0}}}}
  short: {{image: styles/swirls.png, overrides: {{size: {{long_edge: {edge}}}, steps: 1}}}}
  tiny: {{image: styles/swirls.png, recipe: udacity,
         overrides: {{size: {{long_edge: 48}}, {quick}}}}}
engine: {{weights: untrained, device: cpu, precision: float32, threads: 1}}
intake: {{settle_seconds: 0.3}}
"""
CLUSTER = "cluster: {{address: local, engines: {engines}, cpus_per_engine: 1}}\n"
PHOTOS = ("coffee", "astronaut", "chelsea", "rocket")
DEFAULT_SIZES, EDGE, STEPS = [128], 192, 70
JOBS = 4  # for each engine
EFFICIENCY_GOAL = 0.95

TINY_QUICK = QUICK.replace("steps: 2", "steps: 1")
TINY_JOBS, ROUNDS = 40, 5

POLL_SECONDS, TIMEOUT_SECONDS = 0.5, 1800.0

ENGINES = (8, 32, 128)
SCRIPTED_JOBS = {8: 48, 32: 128, 128: 384}
PAINT_SECONDS, REPORTS = 2.0, 8
PHOTO_SIZE, LONG_EDGE = (512, 344), 512
THREADS_PER_ACTOR = 32
TASKS = 4
"""Photos that are decoded or encoded at once: more processes would only wait for a core."""

INFO = EngineInfo("untrained", "0" * 64, "cpu", "none", "float32", torch.__version__, 1)
TRACE = (TraceRow(1, REPORTS, 1.0, 0.5, 0.25, 0.25),)


@dataclass(frozen=True)
class Batch:
    """Jobs that a daemon has done.

    Attributes:
        started: Unix times, in order.
        ended: Likewise.
        head_cpu: CPU seconds of the daemon's process.
        workers_cpu: CPU seconds of the processes below it.
    """

    started: list[float]
    ended: list[float]
    head_cpu: float
    workers_cpu: float

    @property
    def seconds(self) -> float:
        """The time from the first start to the last end."""
        return self.ended[-1] - self.started[0]


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print three tables."""
    edge = EDGE if list(sizes) == DEFAULT_SIZES else sizes[0]
    with tempfile.TemporaryDirectory() as folder:
        _compare_throughput(Path(folder), edge)
        _compare_tiny_jobs(Path(folder))
    _scale()


# Daemons


def _harness(folder: Path, edge: int, engines: int = 0) -> DaemonHarness:
    """Return a working folder; with 0 engines, its daemon uses no cluster."""
    text = CONFIGURATION.format(edge=edge, steps=STEPS, quick=TINY_QUICK)
    return make_harness(folder, text + (CLUSTER.format(engines=engines) if engines else ""))


def _photo_files(size: tuple[int, int]) -> list[bytes]:
    """Return real photos as JPEG files, all of one size."""
    files = []
    for name in PHOTOS:
        file = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()).resize(size).save(file, "jpeg", quality=90)
        files.append(file.getvalue())
    return files


@contextmanager
def _running(harness: DaemonHarness, engines: int = 1) -> Iterator[tuple[Daemon, int]]:
    """Run the daemon until all engines are ready; yields its process ID, too."""
    with harness.running_from_scratch() as daemon:
        daemon.wait_for("engine.ready", engines)
        command = harness.command("status", "--json")
        status = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        yield daemon, json.loads(status)["pid"]


def _paint(harness: DaemonHarness, daemon: Daemon, pid: int, style: str, count: int) -> Batch:
    """Drop `count` photos at once, and wait for their results."""
    files, name = _photo_files((600, 400)), f"{time.time_ns()}"
    staged = [harness.folder / f"{name}-{number}.jpg" for number in range(count)]
    for number, path in enumerate(staged):
        path.write_bytes(files[number % len(files)])
    before = len(daemon.events("job.published"))
    cpu = _cpu_of(pid), _cpu_below(pid)
    inbox = harness.folder / "inbox" / style
    make_folder(inbox)
    for path in staged:
        path.rename(inbox / path.name)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while len(daemon.events("job.published")) < before + count:
        # Not `Daemon.wait_for`, whose polling takes more time from the cores.
        assert daemon.process.poll() is None, daemon.log.read_text()
        assert time.monotonic() < deadline, daemon.log.read_text()
        time.sleep(POLL_SECONDS)
    return _batch(daemon, before, _cpu_of(pid) - cpu[0], _cpu_below(pid) - cpu[1])


def _batch(daemon: Daemon, skipped: int, head_cpu: float, workers_cpu: float) -> Batch:
    """Read the times of all but the first jobs from the log."""
    started, ended = (
        sorted(datetime.fromisoformat(str(event["timestamp"])).timestamp() for event in events)
        for events in (daemon.events("job.started"), daemon.events("job.published"))
    )
    assert len(started) == len(ended), daemon.log.read_text()
    return Batch(started[skipped:], ended[skipped:], head_cpu, workers_cpu)


def _cpu_of(pid: int, *, with_children: bool = False) -> float:
    """Return the CPU seconds of a process, optionally with those of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(map(int, fields[11 : 15 if with_children else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _cpu_below(root: int) -> float:
    """Return the CPU seconds of all processes that descend from `root`."""
    seconds = 0.0
    for pid, _ in processes_below(root):
        with suppress(OSError):  # it has just ended
            seconds += _cpu_of(pid, with_children=True)
    return seconds


def _compare_throughput(folder: Path, edge: int) -> None:
    print(f"engines with one thread each, pyramid at {edge} px, {STEPS} steps, untrained; torch "
          f"{torch.__version__}, {os.cpu_count()} CPUs")  # fmt: skip
    print(f"{'':<28}{'jobs':>6}{'s a job':>9}{'jobs/h':>8}{'efficiency':>12}"
          f"{'head CPU s a job':>18}{'workers':>9}{'goal':>7}{'reached':>9}")  # fmt: skip
    rates = []
    for name, daemons, engines in (
        ("one daemon", 1, 0), ("two daemons", 2, 0), ("one daemon, two engines", 1, 2),
    ):  # fmt: skip
        harnesses = [_harness(folder / f"{name} {n}", edge, engines) for n in range(daemons)]
        with ThreadPoolExecutor(daemons) as pool:
            batches = list(pool.map(_throughput, harnesses, [engines or 1] * daemons))
        jobs = sum(len(batch.ended) for batch in batches)
        seconds = max(b.ended[-1] for b in batches) - min(b.started[0] for b in batches)
        rates.append(jobs / seconds)
        efficiency = rates[-1] / rates[0] / (daemons * max(1, engines))
        reached = ("yes" if efficiency >= EFFICIENCY_GOAL else "NO") if engines else ""
        print(f"{name:<28}{jobs:>6}{seconds * daemons * max(1, engines) / jobs:>9.2f}"
              f"{3600 * rates[-1]:>8.1f}{efficiency:>12.3f}"
              f"{sum(b.head_cpu for b in batches) / jobs:>18.2f}"
              f"{sum(b.workers_cpu for b in batches) / jobs:>9.2f}"
              f"{EFFICIENCY_GOAL if engines else '':>7}{reached:>9}", flush=True)  # fmt: skip


def _throughput(harness: DaemonHarness, engines: int) -> Batch:
    with _running(harness, engines) as (daemon, pid):
        _paint(harness, daemon, pid, "short", 2 * engines)  # the first ones load code on demand
        return _paint(harness, daemon, pid, "swirls", JOBS * engines)


def _compare_tiny_jobs(folder: Path) -> None:
    print(f"ms a job, {TINY_JOBS} tiny jobs, median of {ROUNDS} rounds")
    print(f"{'':<28}{'median':>9}{'least':>9}{'most':>9}{'head CPU':>10}{'workers':>9}")
    here, there = _harness(folder / "here", EDGE), _harness(folder / "there", EDGE, 1)
    batches: dict[str, list[Batch]] = {"engine in the daemon": [], "one engine of a cluster": []}
    with _running(here) as local, _running(there) as remote:
        for number in range(ROUNDS + 1):
            for name, harness, (daemon, pid) in zip(
                batches, (here, there), (local, remote), strict=True
            ):
                batch = _paint(harness, daemon, pid, "tiny", TINY_JOBS)
                if number:  # the first ones load code on demand
                    batches[name].append(batch)
    for name, ours in batches.items():
        times = [1000 * batch.seconds / TINY_JOBS for batch in ours]
        cpu = (1000 * sum(b.head_cpu for b in ours), 1000 * sum(b.workers_cpu for b in ours))
        print(f"{name:<28}{median(times):>9.1f}{min(times):>9.1f}{max(times):>9.1f}"
              f"{cpu[0] / TINY_JOBS / ROUNDS:>10.1f}{cpu[1] / TINY_JOBS / ROUNDS:>9.1f}",
              flush=True)  # fmt: skip
    local_ms, remote_ms = (
        median(1000 * batch.seconds / TINY_JOBS for batch in ours) for ours in batches.values()
    )
    print(f"{'overhead':<28}{remote_ms - local_ms:>9.1f}", flush=True)


# Scripted engines


def _scale() -> None:
    print(f"engines that sleep for {PAINT_SECONDS:.0f} s, photos of {PHOTO_SIZE[0]} px")
    print(f"{'engines':<10}{'of a':>10}{'jobs':>6}{'busy':>9}{'jobs/s':>9}{'at most':>9}"
          f"{'head CPU ms a job':>19}{'workers':>9}{'kB a job':>10}")  # fmt: skip
    for engines in ENGINES:
        for kind in ("daemon", "cluster"):
            _scale_to(engines, kind)


def _scale_to(engines: int, kind: str) -> None:
    jobs = SCRIPTED_JOBS[engines]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.jsonl")
        command = [sys.executable, "-m", __name__, folder, kind, str(engines), str(jobs)]
        with open(log, "wb") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
            stdout, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        assert process.returncode == 0, log.read_text()
        head_cpu, workers_cpu, moved = json.loads(stdout)
        batch = _batch(Daemon(process, log), 0, head_cpu, workers_cpu)
    window = batch.started[-1] - batch.started[engines - 1]
    print(f"{engines:<10}{kind:>10}{jobs:>6}"
          f"{PAINT_SECONDS * (jobs - engines) / engines / window:>9.1%}"
          f"{(jobs - engines) / window:>9.1f}{engines / PAINT_SECONDS:>9.1f}"
          f"{1000 * batch.head_cpu / jobs:>19.1f}{1000 * batch.workers_cpu / jobs:>9.1f}"
          f"{moved / jobs / 1000 if moved else '':>10.0f}", flush=True)  # fmt: skip


def _reports(task: PaintTask) -> Iterator[EngineEvent]:
    """Sleep instead of painting; the result is the photo."""
    size = PixelSize(task.content.shape[-1], task.content.shape[-2])
    for step in range(1, REPORTS + 1):
        time.sleep(PAINT_SECONDS / REPORTS)
        is_last = step == REPORTS
        yield Progress((size,), (REPORTS,), 1, step, is_last, 1.0, 0.1, 0.1)
    yield Painted(task.content[:, :3], TRACE)


class Sleeping:
    """An engine in this process."""

    info = INFO
    ops_done = 0
    can_replace = False

    def make(self) -> Sleeping:
        return self

    def run(self, task: PaintTask, checkpoint: IO[bytes] | None = None) -> Iterator[EngineEvent]:
        yield from _reports(task)

    def stop(self, job_id: str) -> None:
        pass

    def check(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        pass


class SleepingActor:
    """Engines in an actor, one in each of its threads; see `EngineActor`."""

    def run(
        self, task: PaintTask, checkpoint: bytes | None
    ) -> Iterator[EngineEvent | Tensor | str]:
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
class Ready:
    """A factory that returns an engine made before."""

    engine: Engine
    can_replace = False

    def make(self) -> Engine:
        return self.engine


class CountingWork:
    """Adds up the bytes that come to the head: of photos, of results and of thumbnails."""

    def __init__(self, work: PhotoWork) -> None:
        self.uses_own_memory = work.uses_own_memory
        self.moved = 0
        self._work = work
        self._lock = threading.Lock()

    def prepare(
        self, inputs: Inputs, recipe: Recipe, *, max_pixels: int, at_own_size: bool
    ) -> Prepared:
        self._add(len(inputs.photo))
        return self._work.prepare(inputs, recipe, max_pixels=max_pixels, at_own_size=at_own_size)

    def encode(
        self, prepared: Prepared, painted: Painted, format: str, output: OutputConfig
    ) -> Encoded:
        encoded = self._work.encode(prepared, painted, format, output)
        self._add(len(encoded.data) + encoded.image.nbytes + encoded.content.nbytes)
        return encoded

    def _add(self, count: int) -> None:
        with self._lock:
            self.moved += count


def _scripted(folder: Path, kind: str, engines: int, jobs: int) -> tuple[float, float, int]:
    """Do all jobs; return CPU seconds of this process and of those below it, and bytes moved."""
    configure_logs()
    harness = _harness(folder / "work", LONG_EDGE)
    config = load_config(harness.config)
    make_folder(config.inbox)
    files = _photo_files(PHOTO_SIZE)
    for number in range(jobs):
        (config.inbox / f"{number}.jpg").write_bytes(files[number % len(files)])
    if kind == "daemon":
        return (*_do_all(config, [Sleeping() for _ in range(engines)], None), 0)
    return _on_cluster(config, engines)


def _on_cluster(config: Config, engines: int) -> tuple[float, float, int]:
    from styled.cluster.environment import prepare_environment

    prepare_environment("local")
    import ray

    from styled.cluster.connection import Connection
    from styled.cluster.membership import Membership
    from styled.cluster.photo_work import RemotePhotoWork, WorkNode, WorkNodes
    from styled.cluster.places import Place
    from styled.cluster.remote_engine import RemoteEngine
    from styled.cluster.supplies import Supplies

    connection, members, nodes = Connection("local"), Membership(), WorkNodes()
    connection.connect()
    try:
        while not members.usable:
            time.sleep(POLL_SECONDS)
            members.update()
        node = members.usable[0]
        nodes.set([WorkNode(node.id, node.name, TASKS)])
        remote = RemotePhotoWork(nodes)
        remote.connected(
            Supplies(config.engine, precision_record(config), lambda done, total: None)
        )
        _warm_up(config, remote)
        count = math.ceil(engines / THREADS_PER_ACTOR)
        # Together they hold all CPUs, as engines do.
        options = {"num_cpus": node.cpus / count, "max_concurrency": THREADS_PER_ACTOR + 2}
        actors = [ray.remote(SleepingActor).options(**options).remote() for _ in range(count)]
        ray.get([actor.ops_done.remote() for actor in actors])
        place, work = Place(node, 0, 1, 1), CountingWork(remote)
        factories = [Ready(RemoteEngine(actors[n % count], INFO, place)) for n in range(engines)]
        fleet = cast("Fleet", SimpleNamespace(work=work))
        return (*_do_all(config, factories, fleet), work.moved)
    finally:
        connection.close()


def _warm_up(config: Config, work: PhotoWork) -> None:
    """Let the processes that decode and encode load their code."""
    style, painted = config.styles["swirls"], Painted(torch.rand(1, 3, 64, 96), TRACE)

    def convert(number: int) -> None:
        prepared = work.prepare(
            read_inputs(config.inbox / f"{number}.jpg", style), style.recipe,
            max_pixels=10**8, at_own_size=False,
        )  # fmt: skip
        work.encode(prepared, painted, "jpeg", config.output)

    with ThreadPoolExecutor(TASKS) as pool:
        list(pool.map(convert, range(2 * TASKS)))


def _do_all(
    config: Config, factories: Sequence[EngineFactory], fleet: Fleet | None
) -> tuple[float, float]:
    """Paint the whole inbox; return CPU seconds of this process and of those below it."""
    make_folder(config.state / "checkpoints")
    journal = Journal.open(config.state / "journal.sqlite3")
    publisher = Publisher(config.outbox, config.rejected, config.archive)
    publisher.prepare()
    found = [(entry.name, entry.stat()) for entry in os.scandir(config.inbox)]
    journal.submit(
        [Arrival(name, f.st_size, f.st_mtime_ns, {"swirls": name}) for name, f in found], 1.0
    )
    watcher, events = Watcher(len(found)), SimpleQueue[Event]()
    scheduler = build_scheduler(
        config, journal, publisher, Mounts(config.state / "mounts.json"), JobFiles(config.state),
        factories, fleet, events, watcher, Heartbeats(),
    )  # fmt: skip
    cpu = time.process_time(), _cpu_below(os.getpid())
    thread = threading.Thread(target=scheduler.run, daemon=True)
    thread.start()
    assert watcher.is_done.wait(TIMEOUT_SECONDS), "a job has hung"
    spent = time.process_time() - cpu[0], _cpu_below(os.getpid()) - cpu[1]
    events.put(StopRequested())
    thread.join()
    journal.close()
    return spent


if __name__ == "__main__":
    with ThreadPoolExecutor(1) as _pool:  # Ray must not be used in the main thread
        _arguments = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
        sys.stdout.write(json.dumps(_pool.submit(_scripted, *_arguments).result()) + "\n")

"""Throughput of the queue, in jobs per second, with 1 to 256 engines that only sleep for 20 ms.

Everything else is real: the scheduler, the journal with `synchronous=FULL`, threads that decode
photos of 64 x 48 pixels and encode results, and durable file operations. There is no gallery.
Two baselines: the rate of the engines if nothing else took time, and one thread that reads,
decodes, encodes and publishes such photos one after the other, without a queue or a journal.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import IO, TextIO

import skimage.data
import structlog
import torch
from PIL import Image

from styled.app import build_scheduler
from styled.atomic import atomic_write, make_folder
from styled.codec.encode import encode
from styled.codec.prepare import prepare
from styled.codec.source_files import read_source_files
from styled.config import Config, OutputConfig, load_config
from styled.delivery.publisher import Publisher
from styled.engine_api import EngineEvent, EngineInfo, Painted, PaintTask, TraceRow
from styled.job_io.job_files import JobFiles
from styled.jobs.events import Event, StopRequested
from styled.journal.job import JobFinished
from styled.journal.journal import Journal
from styled.mounts import Mounts
from styled.ops.heartbeats import Heartbeats

PAINT_SECONDS = 0.02
ENGINES = (1, 8, 64, 256)
JOBS = {1: 100, 8: 400, 64: 800, 256: 800}
RUNS = 3
GOAL_AT, GOAL = 64, 200.0
CONFIGURATION = """\
default_style: oil
styles: {oil: {image: styles/oil.png, overrides: {size: {long_edge: 64}}}}
output: {gallery: false}
"""


class Sleeping:
    """An engine that sleeps for `PAINT_SECONDS` and returns the photo."""

    info = EngineInfo("untrained", "0" * 64, "cpu", "none", "float32", torch.__version__, 1)
    ops_done = 0
    can_replace = False

    def make(self) -> Sleeping:
        return self

    def run(self, task: PaintTask, checkpoint: IO[bytes] | None = None) -> Iterator[EngineEvent]:
        time.sleep(PAINT_SECONDS)
        yield Painted(task.content[:, :3], (TraceRow(1, 1, 1.0, 0.5, 0.25, 0.25),))

    def stop(self, job_id: str) -> None:
        pass

    def check(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class SettledFile:
    """A photo in the inbox."""

    path: str
    size: int
    mtime_ns: int
    destinations: dict[str, str]


class Watcher:
    """Sets `is_done` when the expected number of jobs has finished."""

    def __init__(self, expected: int) -> None:
        self._remaining = expected
        self.is_done = threading.Event()

    def engine_ready(self, name: str, info: EngineInfo) -> None:
        pass

    def attempt_failed(self, failure: str) -> None:
        raise AssertionError(failure)

    def job_finished(self, finished: JobFinished) -> None:
        assert finished.state == "done", finished
        self._remaining -= 1
        if not self._remaining:
            self.is_done.set()


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Measure, and print a table."""
    with open(os.devnull, "w") as devnull:
        _log_to(devnull)
        # All files are deleted at the end: ext4 searches long for inodes while others were just
        # deleted, which takes up to a fifth of the time.
        with tempfile.TemporaryDirectory() as base:
            _run(Path(base))


def _log_to(stream: TextIO) -> None:
    """Write the log to `stream` in the daemon's format."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(stream),
    )


def _run(base: Path) -> None:
    print("the queue, with engines that take 20 ms a job")
    print(f"{'engines':<10}{'jobs/s':>9}{'of the engines':>16}{'of one thread':>15}"
          f"{'CPU ms a job':>14}{'goal':>8}")  # fmt: skip
    alone = median(_one_thread(base / f"alone-{run}") for run in range(RUNS))
    for engines in ENGINES:
        folders = [base / f"{engines}-{run}" for run in range(RUNS)]
        rates, cpu = zip(*(_queue(one, engines, JOBS[engines]) for one in folders), strict=True)
        rate = median(rates)
        goal = f"{GOAL:.0f}" if engines == GOAL_AT else ""
        print(f"{engines:<10}{rate:>9.0f}{rate * PAINT_SECONDS / engines:>16.2f}"
              f"{rate / alone:>15.2f}{1000 * median(cpu):>14.1f}{goal:>8}")  # fmt: skip
    print(f"one thread without a queue: {alone:.0f} photos a second")


def _photos(folder: Path, count: int) -> Config:
    picture = Image.fromarray(skimage.data.coffee()).resize((64, 48))  # type: ignore[no-untyped-call]  # it has no types
    for name, kind in (("styles/oil.png", "png"), ("inbox/0.jpg", "jpeg")):
        file = io.BytesIO()
        picture.save(file, kind)
        make_folder((folder / name).parent)
        (folder / name).write_bytes(file.getvalue())
    data = (folder / "inbox/0.jpg").read_bytes()
    for number in range(1, count):
        (folder / f"inbox/{number}.jpg").write_bytes(data)
    (folder / "config.yaml").write_text(CONFIGURATION)
    config = load_config(folder / "config.yaml")
    return replace(config, output=config.output.model_copy(update={"after_success": "archive"}))


def _queue(folder: Path, engines: int, jobs: int) -> tuple[float, float]:
    """Return jobs per second, and CPU seconds per job."""
    config = _photos(folder, jobs)
    make_folder(config.state / "checkpoints")
    journal = Journal.open(config.state / "journal.sqlite3")
    publisher = Publisher(config.outbox, config.rejected, config.archive)
    publisher.prepare()
    found = [(entry.name, entry.stat()) for entry in os.scandir(config.inbox)]
    journal.submit(
        [SettledFile(name, f.st_size, f.st_mtime_ns, {"oil": name}) for name, f in found], 1.0
    )
    watcher = Watcher(jobs)
    events: SimpleQueue[Event] = SimpleQueue()
    mounts = Mounts(config.state / "mounts.json")
    factories = [Sleeping() for _ in range(engines)]
    scheduler = build_scheduler(
        config, journal, publisher, mounts, JobFiles(config.state), factories, None, events,
        watcher, Heartbeats(),
    )  # fmt: skip
    start, cpu = time.perf_counter(), time.process_time()
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    watcher.is_done.wait()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    events.put(StopRequested())
    thread.join()
    journal.close()
    return jobs / seconds, cpu_seconds / jobs


def _one_thread(folder: Path, jobs: int = 100) -> float:
    """Return the photos per second that one thread reads, encodes and publishes."""
    torch.set_num_threads(1)
    config = _photos(folder, jobs)
    publisher = Publisher(config.outbox, config.rejected, config.archive)
    publisher.prepare()
    style = config.styles["oil"]
    start = time.perf_counter()
    for number in range(jobs):
        path = config.inbox / f"{number}.jpg"
        prepared = prepare(read_source_files(path, style), style.recipe, max_pixels=10**6)
        painted = Painted(prepared.content, (TraceRow(1, 1, 1.0, 0.5, 0.25, 0.25),))
        encoded = encode(prepared, painted, "jpeg", OutputConfig())
        place = publisher.free_path(config.outbox, f"oil/{path.name}", job_id="a", sidecar=True)
        publisher.publish_result(place, encoded.data)
        atomic_write(place.with_name(f"{place.name}.json"), b"{}")
        found = path.stat()
        archived = publisher.free_path(
            config.archive, f"oil/{path.name}", job_id="a", sidecar=False
        )
        publisher.move_original(
            path, [archived], same_as=(found.st_size, found.st_mtime_ns), keep=False
        )
    return jobs / (time.perf_counter() - start)

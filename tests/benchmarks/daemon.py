"""Latency of an idle daemon, and utilisation of its engine in a backlog.

It runs `styled run` with photos like those of phones: 24 megapixels, 8 to 10 MB. Latency is the
time from when a dropped photo has been unchanged for `settle_seconds` to `job.painting_started`,
just before the first step; the baseline is only to read that photo and its style. In a backlog the
engine is busy for the time that sidecars call `optimise`; the wall time is from the claim of the
first job to the end of painting of the last. The baseline is a job that comes alone, which reads,
paints and publishes in turn; comparing its `optimise` with that of the backlog shows how much
concurrent reading and publishing slow down the engine. A value of `--sizes` other than the default
is the number of photos in the backlog.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, median

import numpy as np
import skimage.data
import torch
from PIL import Image

from styled.codec.prepare import prepare
from styled.codec.source_files import read_source_files
from styled.config import load_config
from styled.delivery.names import sidecar_path
from styled.sidecar import Sidecar
from tests.daemon_harness import Daemon, DaemonHarness, make_harness

CONFIGURATION = """\
default_style: swirls
styles:
  swirls:
    image: styles/swirls.png
    overrides: {{size: {{long_edge: 256}}, scales: null, steps: {steps},
                min_improvement: 0, detail_steps: 0}}
engine: {{weights: untrained, device: {device}}}
intake: {{settle_seconds: 0.3}}
output: {{size: {size}}}
"""
STEPS = 18  # 5 to 8 s on two cores
IDLE_SECONDS = 1.0  # for the inbox to become idle: photos have just left it
TRIES, PHOTOS, LONE = 5, 6, 2
DEFAULT_SIZES = [128]
LARGE, SMALL = (6000, 4000), (600, 400)
GRAIN, QUALITY = 9.0, 93
LATENCY_GOAL, BUSY_GOAL = 0.3, 0.97


def _make_photos(folder: Path, size: tuple[int, int]) -> list[Path]:
    """Write real photographs, enlarged, with added noise."""
    generator, paths = np.random.default_rng(0), []
    for name in ("astronaut", "coffee", "chelsea"):
        photo = Image.fromarray(getattr(skimage.data, name)()).resize(size)
        noise = generator.standard_normal((size[1], size[0], 3), dtype=np.float32) * GRAIN
        pixels = (np.asarray(photo) + noise).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{name} {size[0]}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=QUALITY)
    return paths


def _drop(
    harness: DaemonHarness, daemon: Daemon, photos: Sequence[Path]
) -> tuple[float, list[Sidecar]]:
    """Drop photos at once; return the time of that, and their sidecars once all are published."""
    staged = [harness.folder / f"{time.time_ns()}{photo.suffix}" for photo in photos]
    for path, photo in zip(staged, photos, strict=True):
        shutil.copyfile(photo, path)
    published = len(daemon.events("job.published"))
    time.sleep(IDLE_SECONDS)
    dropped_at = time.time()
    for path in staged:
        path.rename(harness.folder / "inbox" / path.name)
    daemon.wait_for("job.published", published + len(photos), seconds=900)
    results = (harness.folder / "outbox" / "swirls" / path.name for path in staged)
    return dropped_at, [
        Sidecar.model_validate_json(sidecar_path(result).read_bytes()) for result in results
    ]


def _time_idle(harness: DaemonHarness, photos: Sequence[Path]) -> None:
    config = load_config(harness.config)
    print(f"{'photo':<24}{'to the queue':>14}{'to a step':>12}{'in all':>9}{'to read it':>12}"
          f"{'ratio':>8}{'goal':>7}{'reached':>9}")  # fmt: skip
    with harness.running_from_scratch() as daemon:
        daemon.wait_for("daemon.started")
        for photo in photos:
            queued, stepped, read = [], [], []
            for number in range(TRIES + 1):
                dropped_at, (sidecar,) = _drop(harness, daemon, [photo])
                started_at = str(daemon.events("job.painting_started")[-1]["timestamp"])
                submitted_at = sidecar.job.submitted_at.timestamp()
                start = time.perf_counter()
                style = config.styles["swirls"]
                prepare(
                    read_source_files(photo, style),
                    style.recipe,
                    max_pixels=config.intake.max_pixels,
                )
                if number:  # the first one includes code loaded on demand
                    read.append(time.perf_counter() - start)
                    queued.append(submitted_at - dropped_at - config.intake.settle_seconds)
                    stepped.append(datetime.fromisoformat(started_at).timestamp() - submitted_at)
            latency = median(map(sum, zip(queued, stepped, strict=True)))
            print(f"{photo.name:<24}{median(queued):>14.3f}{median(stepped):>12.3f}{latency:>9.3f}"
                  f"{median(read):>12.3f}{latency / median(read):>8.2f}{LATENCY_GOAL:>7}"
                  f"{'yes' if latency <= LATENCY_GOAL else 'NO':>9}", flush=True)  # fmt: skip


def _time_backlog(harness: DaemonHarness, photos: Sequence[Path], count: int, size: str) -> None:
    with harness.running_from_scratch() as daemon:
        daemon.wait_for("daemon.started")
        for _ in range(LONE):  # the first one is slower
            (lone,) = _drop(harness, daemon, photos[:1])[1]
        sidecars = _drop(harness, daemon, [photos[n % len(photos)] for n in range(count)])[1]
    timings = [sidecar.timing for sidecar in sidecars if sidecar.timing is not None]
    assert lone.timing is not None
    assert len(timings) == count
    # A job waits before it is prepared, and again for the engine; `waited` has both.
    painted = [
        sidecar.job.submitted_at.timestamp() + timing.waited + timing.prepare + timing.optimise
        for sidecar, timing in zip(sidecars, timings, strict=True)
    ]
    wall = max(painted) - min(sidecar.job.started_at.timestamp() for sidecar in sidecars)
    optimise = mean(timing.optimise for timing in timings)
    alone = lone.timing.prepare + lone.timing.optimise + lone.timing.publish
    busy, in_turn = optimise * count / wall, lone.timing.optimise / alone
    print(f"{size:<10}{lone.timing.prepare:>9.2f}{lone.timing.optimise:>10.2f}"
          f"{lone.timing.publish:>9.2f}{in_turn:>9.1%}{optimise:>12.2f}{wall / count:>10.2f}"
          f"{busy:>9.1%}{busy / in_turn:>8.3f}{BUSY_GOAL:>7.0%}"
          f"{'yes' if busy >= BUSY_GOAL else 'NO':>9}{alone / (wall / count):>9.2f}",
          flush=True)  # fmt: skip


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print seconds from a settled file to the first step, and then the engine's utilisation."""
    print(f"seconds from a settled file to the first step, median of {TRIES}; torch "
          f"{torch.__version__}, {device}, {os.cpu_count()} CPUs, untrained network")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        large, small = (_make_photos(Path(folder), size) for size in (LARGE, SMALL))

        def harness(name: str, steps: int, size: str) -> DaemonHarness:
            text = CONFIGURATION.format(steps=steps, device=device, size=size)
            return make_harness(Path(folder, name), text)

        _time_idle(harness("idle", 2, "painted"), [small[0], large[0]])
        for count in [PHOTOS] if list(sizes) == DEFAULT_SIZES else sizes:
            print(f"seconds a job, alone and in a backlog of {count} photos of "
                  f"{large[0].stat().st_size / 1e6:.1f} MB and alike")  # fmt: skip
            print(f"{'results':<10}{'prepare':>9}{'optimise':>10}{'publish':>9}{'in turn':>9}"
                  f"{'| optimise':>12}{'wall':>10}{'busy':>9}{'ratio':>8}{'goal':>7}"
                  f"{'reached':>9}{'speed-up':>9}")  # fmt: skip
            for size in ("painted", "input"):
                _time_backlog(harness(f"{size} {count}", STEPS, size), large, count, size)

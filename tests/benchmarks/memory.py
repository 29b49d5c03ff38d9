"""Memory of a step relative to its minimum, and growth of a daemon over hundreds of jobs.

A step, in a process of its own: the growth of the process from before the picture to its peak, once
the optimiser's history is full. The baseline is the minimum, see `need`. The daemon is `styled
once`, on photos of one size and on photos of all different sizes; its baseline is its memory after
the first jobs. `--sizes` are those of the step; the default stands for 512. On a GPU a step's
memory is the device's, but a daemon's growth is always that of the process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

import torch

from styled.engine.memory import (
    configure_allocator,
    empty_cache,
    peak_bytes,
    reset_peak,
    used_bytes,
)
from styled.engine.stylize import stylize
from styled.engine.tiling import stride_of
from styled.engine.vgg import Vgg19
from styled.engine.vgg_layers import channels_of, needed_slice
from styled.engine.weights import untrained
from styled.recipes import PYRAMID, Recipe
from tests.benchmarks.pictures import pairs
from tests.daemon_harness import PYRAMID as CONFIGURATION
from tests.daemon_harness import make_harness

DEFAULT_SIZES, SIZES = [128], [512]
STEPS = PYRAMID.optimizer.history + 3  # the history is full from the second last step on
PROCESSES = 3
GOAL = 1.2

JOBS, FIRST_JOBS, SAMPLES = 200, 50, 10


def need(recipe: Recipe, width: int, height: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the minimum bytes of a step of L-BFGS, by purpose.

    A backward pass without recomputation needs the output of each ReLU and of each pooling layer,
    and two gradients of the widest layer at a time, by its output and by its input. The optimiser
    has two images for each pair of its history, and four more: the current one, the best, that of
    the last step, and its gradient. Not included: temporary memory of libraries, the indices of
    max pooling (for which two bits each would be enough), the photo and the style.
    """

    def numel(layer: str) -> int:
        stride = stride_of(layer)
        return channels_of(layer) * (height // stride) * (width // stride)

    layers = needed_slice({**recipe.content_layers, **recipe.style_layers})
    convolutions = [name for name in layers if name.startswith("conv")]
    return {
        "activations": dtype.itemsize * sum(map(numel, convolutions)),
        "pooled": dtype.itemsize * sum(numel(name) for name in layers if name.startswith("pool")),
        "gradients": dtype.itemsize * 2 * max(map(numel, convolutions)),
        "images": 4 * 3 * width * height * (2 * recipe.optimizer.history + 4),
    }


def probe(device: torch.device, size: int) -> dict[str, int]:
    """Return the result of `need` and the measured bytes, `taken`. Call it in a new process."""
    configure_allocator()
    network = Vgg19(untrained(), device)
    recipe = replace(PYRAMID, scales=None, steps=STEPS, min_improvement=0.0)
    (pair,) = islice(pairs(size, []), 1, 2)
    (small,) = islice(pairs(64, []), 1, 2)
    for _ in stylize(network, small.photo, [(small.painting, 1.0)], recipe):
        pass  # load everything that is loaded on demand
    empty_cache(device)
    before = used_bytes(device)
    reset_peak(device)
    height, width = pair.photo.shape[-2:]
    for progress in stylize(network, pair.photo, [(pair.painting, 1.0)], recipe):
        if progress.step == STEPS - 2:
            reset_peak(device)
    taken = peak_bytes(device) - before
    return {**need(recipe, width, height, network.dtype), "taken": taken}


def _step(device: torch.device, size: int) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.memory", str(device), str(size)]
    results: list[dict[str, int]] = [
        json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(PROCESSES)
    ]
    taken = median(result.pop("taken") for result in results)
    needed = sum(results[0].values())
    parts = "".join(f"{part / 2**20:>13.1f}" for part in results[0].values())
    print(f"{size:<8}{parts}{needed / 2**20:>10.1f}{taken / 2**20:>10.1f}"
          f"{taken / needed:>8.2f}{GOAL:>7}{'yes' if taken / needed <= GOAL else 'NO':>9}",
          flush=True)  # fmt: skip


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _daemon(device: torch.device, name: str, edges: Sequence[int]) -> None:
    """Paint photos with these edges one after the other, and print the growth of the process."""
    configuration = CONFIGURATION.replace(
        "steps: 3\n      scales: {start_px: 64, steps: 2}", "steps: 2\n      scales: null"
    ).replace("device: cpu", f"device: {device}")
    assert "steps: 2" in configuration
    with tempfile.TemporaryDirectory() as folder:
        harness = make_harness(Path(folder, "harness"), configuration)
        for number, edge in enumerate(edges):
            harness.drop(f"swirls/{number:04}.jpg", size=(200, edge))
        resident: list[int] = []
        with subprocess.Popen(
            harness.command("once"), stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if json.loads(line)["event"] == "job.published":
                    resident.append(_resident_bytes(process.pid))
    assert len(resident) == len(edges), f"{len(resident)} of {len(edges)} photos were painted"
    first = median(resident[FIRST_JOBS - SAMPLES : FIRST_JOBS])
    last = median(resident[-SAMPLES:])
    print(f"{name:<30}{len(edges):>8}{first / 2**20:>14.1f}{last / 2**20:>12.1f}"
          f"{(last - first) / 2**20:>12.1f}"
          f"{(last - first) / 2**10 / (len(edges) - FIRST_JOBS):>14.1f}", flush=True)  # fmt: skip


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print the memory of a step and its minimum, and then a daemon's memory after many jobs."""
    print(f"MiB of a step of pyramid; torch {torch.__version__}, {device}, {os.cpu_count()} CPUs, "
          f"untrained network, median of {PROCESSES} processes")  # fmt: skip
    print(f"{'size':<8}{'activations':>13}{'pooled':>13}{'gradients':>13}{'images':>13}"
          f"{'need':>10}{'taken':>10}{'ratio':>8}{'goal':>7}{'reached':>9}")  # fmt: skip
    for size in SIZES if list(sizes) == DEFAULT_SIZES else sizes:
        _step(device, size)
    print(f"MiB of a daemon that paints small photos, medians of {SAMPLES} jobs")
    print(f"{'photos':<30}{'jobs':>8}{f'after {FIRST_JOBS}':>14}{'at the end':>12}"
          f"{'growth':>12}{'KiB a job':>14}")  # fmt: skip
    _daemon(device, "all of one size", [150] * JOBS)
    # Small and large photos in turn, so that the last ones are no larger than the first ones.
    _daemon(device, "no two of one size", [100 + 77 * number % JOBS for number in range(JOBS)])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(torch.device(sys.argv[1]), int(sys.argv[2]))) + "\n")

"""What a step takes over what it needs, and how a daemon grows over hundreds of jobs.

A step, in a process of its own: the growth of the process from before the picture was begun to its
peak, once the optimiser's history is full. The baseline is what has to be kept, see `need`. The
daemon is `styled once`, on photos that are all of one size and on photos of which no two are; its
baseline is what it had after the first jobs. Sizes are those of the step; the default stands for
512. A GPU's memory is meant where the device is one, but a daemon's growth is always the process's.
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
    give_back,
    keep_freed_memory,
    peak_bytes,
    reset_peak,
    used_bytes,
)
from styled.engine.stylize import stylize
from styled.engine.tiling import stride_of
from styled.engine.vgg import Vgg19, channels_of, needed_slice
from styled.engine.weights import untrained
from styled.recipes import PYRAMID, Recipe
from tests.benchmarks.pictures import pairs
from tests.studio import PYRAMID as CONFIGURATION
from tests.studio import make_studio

DEFAULT_SIZES, SIZES = [128], [512]
STEPS = PYRAMID.optimizer.history + 3  # the history is full from the second last on
PROCESSES = 3
GOAL = 1.2

JOBS, FIRST_JOBS, SAMPLES = 200, 50, 10


def need(recipe: Recipe, width: int, height: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the bytes that a step of L-BFGS can't do without, by what they are for.

    A way back that computes nothing twice wants each activation as its ReLU has left it, and each
    pooled one; it has two gradients of the widest layer at a time, one that comes and one that
    goes. The optimiser has two images for each pair of its history, and four besides: the present
    one, the best, that of the last step, and the gradient there. What libraries use for a moment,
    the places of maxima (two bits each would do), the photo and the style are not in it.
    """

    def numbers(layer: str) -> int:
        stride = stride_of(layer)
        return channels_of(layer) * (height // stride) * (width // stride)

    layers = needed_slice({**recipe.content_layers, **recipe.style_layers})
    convolutions = [name for name in layers if name.startswith("conv")]
    return {
        "activations": dtype.itemsize * sum(map(numbers, convolutions)),
        "pooled": dtype.itemsize * sum(numbers(name) for name in layers if name.startswith("pool")),
        "gradients": dtype.itemsize * 2 * max(map(numbers, convolutions)),
        "images": 4 * 3 * width * height * (2 * recipe.optimizer.history + 4),
    }


def probe(device: torch.device, size: int) -> dict[str, int]:
    """Return `need` of a picture, and what it has `taken`. To be called in a fresh process."""
    keep_freed_memory()
    network = Vgg19(untrained(), device)
    recipe = replace(PYRAMID, scales=None, steps=STEPS, min_improvement=0.0)
    (pair,) = islice(pairs(size, []), 1, 2)
    (small,) = islice(pairs(64, []), 1, 2)
    for _ in stylize(network, small.photo, [(small.painting, 1.0)], recipe):
        pass  # what is loaded on demand is loaded now
    give_back(device)
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
    found: list[dict[str, int]] = [
        json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(PROCESSES)
    ]
    taken = median(one.pop("taken") for one in found)
    needed = sum(found[0].values())
    parts = "".join(f"{part / 2**20:>13.1f}" for part in found[0].values())
    print(f"{size:<8}{parts}{needed / 2**20:>10.1f}{taken / 2**20:>10.1f}"
          f"{taken / needed:>8.2f}{GOAL:>7}{'yes' if taken / needed <= GOAL else 'NO':>9}",
          flush=True)  # fmt: skip


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _daemon(device: torch.device, name: str, edges: Sequence[int]) -> None:
    """Paint photos of these edges, one after the other, and print how the process has grown."""
    configuration = CONFIGURATION.replace(
        "size: {long_edge: 96}, steps: 3, scales: {start_px: 64}", "steps: 2, scales: null"
    ).replace("device: cpu", f"device: {device}")
    assert "steps: 2" in configuration
    with tempfile.TemporaryDirectory() as folder:
        studio = make_studio(Path(folder, "studio"), configuration)
        for number, edge in enumerate(edges):
            studio.drop(f"swirls/{number:04}.jpg", size=(200, edge))
        resident: list[int] = []
        with subprocess.Popen(studio.command("once"), stderr=subprocess.PIPE, text=True) as process:
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
    """Print what a step takes and needs, and then what a daemon has after many jobs."""
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
    # Small and large ones in turn: those at the end are no larger than those at the start.
    _daemon(device, "no two of one size", [100 + 77 * number % JOBS for number in range(JOBS)])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(torch.device(sys.argv[1]), int(sys.argv[2]))) + "\n")

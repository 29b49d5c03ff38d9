"""Time and memory of one step of `pyramid` in tiles, with the estimated memory.

`--only tiles --sizes 4096` measures a step at print size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from styled.engine.guard import RunSettings
from styled.engine.memory import (
    MMAP_THRESHOLD_WITH_ARENA,
    configure_allocator,
    empty_cache,
    peak_bytes,
    reset_peak,
    used_bytes,
)
from styled.engine.memory_estimate import MemoryEstimate
from styled.engine.objective import Objective, style_targets
from styled.engine.optimizers import make_optimizer
from styled.engine.scale_run import valid_colors
from styled.engine.scales import pixel_size, resize
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import PYRAMID
from tests.benchmarks.pictures import pairs

TILES_PX = (None, 1024, 512, 256)
WHOLE_AT_MOST_PX = 1024
STYLE_PX = 1024


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a row for each size and tile; the baseline is no tiles, for sizes that allow it."""
    configure_allocator(MMAP_THRESHOLD_WITH_ARENA)  # as in `stylize` on a CPU
    network = Vgg19(untrained(), device)
    print(f"one step in tiles; torch {torch.__version__}, {device}, untrained network")
    print(f"{'size':<14}{'tile':>8}{'evaluate':>12}{'ratio':>8}{'update':>10}"
          f"{'predicted':>13}{'measured':>13}")  # fmt: skip
    for size in sizes:
        (pair,) = islice(pairs(512, paintings), 1, 2)
        height, width = pair.photo.shape[-2:]
        whole_seconds = None
        for tile_px in TILES_PX:
            if size > WHOLE_AT_MOST_PX and tile_px != 512:
                continue
            empty_cache(device)
            before = used_bytes(device)
            reset_peak(device)
            photo = resize(pair.photo, size, round(size * height / width)).to(device)
            style_edge = min(size, STYLE_PX)
            painting = resize(pair.painting, style_edge, style_edge).to(device)
            settings = RunSettings(PYRAMID.optimizer, tile_px=tile_px)
            shape = pixel_size(photo)
            styles = [(painting, 1.0)]
            estimate = MemoryEstimate.of(network, PYRAMID, photo, styles)
            predicted = estimate.peak_bytes(settings, shape)
            targets = style_targets(network, PYRAMID, styles, tile_px)
            objective = Objective(network, PYRAMID, photo, targets, tile_px)
            image = photo.clone()
            updates = make_optimizer(PYRAMID.optimizer, valid_colors(PYRAMID, photo.device))
            start = time.perf_counter()
            losses, gradient = objective.evaluate(image)
            evaluated = time.perf_counter()
            updates.update(image, gradient, losses.total)
            updated = time.perf_counter()
            seconds = evaluated - start
            whole_seconds = whole_seconds or (seconds if tile_px is None else None)
            ratio = f"{seconds / whole_seconds:.2f}" if whole_seconds else ""
            measured = peak_bytes(device) - before
            print(f"{f'{shape[0]} x {shape[1]}':<14}{tile_px or 'whole':>8}{seconds:>10.1f} s"
                  f"{ratio:>8}{updated - evaluated:>8.2f} s{predicted >> 20:>9} MiB"
                  f"{measured >> 20:>9} MiB", flush=True)  # fmt: skip
            del objective, targets, updates, gradient, image, photo, painting, styles, estimate

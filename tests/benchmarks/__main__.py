"""`python -m tests.benchmarks`: runs benchmarks and prints tables; not part of the tests."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tests.benchmarks import (
    backlog,
    cluster,
    daemon,
    gallery,
    kernels,
    memory,
    optimizers,
    precision,
    quality,
    queue,
    schedule,
    start,
    step,
    strength,
    tiles,
)

BENCHMARKS = {
    "optimizers": optimizers.run,
    "schedule": schedule.run,
    "precision": precision.run,
    "tiles": tiles.run,
    "step": step.run,
    "quality": quality.run,
    "daemon": daemon.run,
    "start": start.run,
    "memory": memory.run,
    "backlog": backlog.run,
    "gallery": gallery.run,
    "queue": queue.run,
    "kernels": kernels.run,
    "cluster": cluster.run,
    "strength": strength.run,
}


def main() -> None:
    """Run the selected benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", default=list(BENCHMARKS), nargs="+", choices=BENCHMARKS)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--sizes", default=[128], nargs="+", type=int, help="long edges, in px")
    parser.add_argument("--paintings", default=[], nargs="*", type=Path, help="style images")
    args = parser.parse_args()
    for name in args.only:
        BENCHMARKS[name](args.device, args.sizes, args.paintings)


main()

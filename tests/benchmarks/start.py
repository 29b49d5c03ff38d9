"""Start-up time of the daemon, and run time of commands.

Processes are timed from their start: `styled run` to the event `daemon.started`, the others to
their end. Baselines are the imports that can't be avoided: torch and torchvision for `run`, the
command-line libraries for the others; and a bare interpreter. Programs and baselines run in turn.
The package is compiled beforehand, as pip does it, and all files are in the page cache. `--sizes`
and `--paintings` are ignored.
"""

from __future__ import annotations

import compileall
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch

import styled
from tests.daemon_harness import PYRAMID, DaemonHarness, make_harness

STARTS, COMMAND_RUNS = 5, 7
START_GOAL_SECONDS, COMMAND_GOAL_SECONDS = 5.0, 0.3

COMMANDS = ("--help", "--version", "status", "jobs")

HEAVY = "import torch, torchvision"
LIGHT = "import typer, rich, pydantic"

Args = Sequence[str]


def _seconds_to_end(args: Args, installed: Path) -> float:
    start = time.perf_counter()
    subprocess.run(args, cwd=installed, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _seconds_to_ready(args: Args, installed: Path) -> float:
    """Return the seconds to `daemon.started`, and stop the daemon."""
    start = time.perf_counter()
    with subprocess.Popen(args, cwd=installed, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "daemon.started":
                seconds = time.perf_counter() - start
                process.send_signal(signal.SIGTERM)
                process.communicate()
                return seconds
    raise RuntimeError(f"it did not start: {' '.join(args)}")


def _print_in_turn(
    contenders: dict[str, Callable[[], float]], baseline: str, goal: float, times: int
) -> None:
    """Time all contenders in turn, `times` times, after one round to fill the page cache."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(times + 1):
        for name, seconds_of in contenders.items():
            elapsed = seconds_of()
            if number:
                found[name].append(elapsed)
    for name, seconds in found.items():
        typical = median(seconds)
        ours = name.startswith("styled")
        reached = ("yes" if typical <= goal else "NO") if ours else ""
        print(f"{name:<42}{typical:>9.3f}{min(seconds):>9.3f}{max(seconds):>9.3f}"
              f"{typical / median(found[baseline]):>8.2f}"
              f"{f'{goal:.1f}' if ours else '':>7}{reached:>9}", flush=True)  # fmt: skip


def _with_weights(harness: DaemonHarness, name: str, weights: str) -> Path:
    """Write a configuration for the same folder with other weights; return its path."""
    path = harness.folder / name
    path.write_text(harness.config.read_text().replace("weights: untrained", f"weights: {weights}"))
    return path


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a row for each program; a ratio is to the baseline above it."""
    print(f"seconds from the start of a process, medians of {STARTS} and {COMMAND_RUNS}; torch "
          f"{torch.__version__}, {device}, {os.cpu_count()} CPUs")  # fmt: skip
    print(f"{'':<42}{'median':>9}{'least':>9}{'most':>9}{'ratio':>8}{'goal':>7}{'reached':>9}")
    with tempfile.TemporaryDirectory() as folder:
        installed = Path(folder, "installed")
        package = Path(styled.__file__).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, installed / package.name, ignore=ignored)
        compileall.compile_dir(installed, quiet=1)
        harness = make_harness(
            Path(folder, "harness"), PYRAMID.replace("device: cpu", f"device: {device}")
        )
        program = [sys.executable, "-m", "styled"]
        network = harness.folder / "vgg19.safetensors"
        args = ["weights", "export", str(network), "--weights", "untrained"]
        subprocess.run([*program, *args], cwd=installed, stdout=subprocess.DEVNULL, check=True)
        weights_file_config = _with_weights(harness, "of_a_file.yaml", network.name)

        def python(code: str) -> Callable[[], float]:
            return partial(_seconds_to_end, [sys.executable, "-c", code], installed)

        def ready(config: Path) -> Callable[[], float]:
            return partial(_seconds_to_ready, [*program, "run", "-c", str(config)], installed)

        def answer(command: str) -> Callable[[], float]:
            config = [] if command.startswith("-") else ["-c", str(harness.config)]
            return partial(_seconds_to_end, [*program, command, *config], installed)

        starts = {
            f"python -c '{HEAVY}'": python(HEAVY),
            "styled run, weights of a file": ready(weights_file_config),
            "styled run, untrained": ready(harness.config),
        }
        _print_in_turn(starts, f"python -c '{HEAVY}'", START_GOAL_SECONDS, STARTS)
        answers = {
            "python -c pass": python("pass"),
            f"python -c '{LIGHT}'": python(LIGHT),
            **{f"styled {command}": answer(command) for command in COMMANDS},
        }
        _print_in_turn(answers, f"python -c '{LIGHT}'", COMMAND_GOAL_SECONDS, COMMAND_RUNS)

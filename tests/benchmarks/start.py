"""How soon the daemon is ready, and how soon a command has answered.

Real processes, from their start: `styled run` to the event `daemon.started`, the others to their
end. The baseline is what no program with these libraries can do without: of `run` to import torch
and torchvision, of the others to import what commands are made of; and a bare interpreter. Both
sides run in turn. The package is compiled beforehand, as pip does it, and all files are in the
page cache. Sizes and paintings are not asked for.
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
from tests.studio import PYRAMID, Studio, make_studio

STARTS, ANSWERS = 5, 7
START_GOAL_SECONDS, ANSWER_GOAL_SECONDS = 5.0, 0.3

COMMANDS = ("--help", "--version", "status", "jobs")

HEAVY = "import torch, torchvision"
LIGHT = "import typer, rich, pydantic"

Words = Sequence[str]


def _seconds_to_answer(words: Words, installed: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(words, cwd=installed, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def _seconds_to_ready(words: Words, installed: Path) -> float:
    """Return the seconds to `daemon.started`; the daemon is then stopped."""
    begun = time.perf_counter()
    with subprocess.Popen(words, cwd=installed, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "daemon.started":
                seconds = time.perf_counter() - begun
                process.send_signal(signal.SIGTERM)
                process.communicate()
                return seconds
    raise RuntimeError(f"it did not start: {' '.join(words)}")


def _print_in_turn(
    contenders: dict[str, Callable[[], float]], baseline: str, goal: float, times: int
) -> None:
    """Time all of them in turn, so often; the first round only fills the page cache."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(times + 1):
        for name, seconds_of in contenders.items():
            taken = seconds_of()
            if number:
                found[name].append(taken)
    for name, seconds in found.items():
        typical = median(seconds)
        ours = name.startswith("styled")
        reached = ("yes" if typical <= goal else "NO") if ours else ""
        print(f"{name:<42}{typical:>9.3f}{min(seconds):>9.3f}{max(seconds):>9.3f}"
              f"{typical / median(found[baseline]):>8.2f}"
              f"{f'{goal:.1f}' if ours else '':>7}{reached:>9}", flush=True)  # fmt: skip


def _with_weights(studio: Studio, name: str, weights: str) -> Path:
    """Return a configuration of the same folder with other weights."""
    path = studio.folder / name
    path.write_text(studio.config.read_text().replace("weights: untrained", f"weights: {weights}"))
    return path


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a row for each program; a ratio is to the baseline above it."""
    print(f"seconds from the start of a process, medians of {STARTS} and {ANSWERS}; torch "
          f"{torch.__version__}, {device}, {os.cpu_count()} CPUs")  # fmt: skip
    print(f"{'':<42}{'median':>9}{'least':>9}{'most':>9}{'ratio':>8}{'goal':>7}{'reached':>9}")
    with tempfile.TemporaryDirectory() as folder:
        installed = Path(folder, "installed")
        package = Path(styled.__file__).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, installed / package.name, ignore=ignored)
        compileall.compile_dir(installed, quiet=1)
        studio = make_studio(
            Path(folder, "studio"), PYRAMID.replace("device: cpu", f"device: {device}")
        )
        program = [sys.executable, "-m", "styled"]
        network = studio.folder / "vgg19.safetensors"
        words = ["weights", "export", str(network), "--weights", "untrained"]
        subprocess.run([*program, *words], cwd=installed, stdout=subprocess.DEVNULL, check=True)
        of_a_file = _with_weights(studio, "of_a_file.yaml", network.name)

        def python(code: str) -> Callable[[], float]:
            return partial(_seconds_to_answer, [sys.executable, "-c", code], installed)

        def ready(config: Path) -> Callable[[], float]:
            return partial(_seconds_to_ready, [*program, "run", "-c", str(config)], installed)

        def answer(command: str) -> Callable[[], float]:
            config = [] if command.startswith("-") else ["-c", str(studio.config)]
            return partial(_seconds_to_answer, [*program, command, *config], installed)

        starts = {
            f"python -c '{HEAVY}'": python(HEAVY),
            "styled run, weights of a file": ready(of_a_file),
            "styled run, untrained": ready(studio.config),
        }
        _print_in_turn(starts, f"python -c '{HEAVY}'", START_GOAL_SECONDS, STARTS)
        answers = {
            "python -c pass": python("pass"),
            f"python -c '{LIGHT}'": python(LIGHT),
            **{f"styled {command}": answer(command) for command in COMMANDS},
        }
        _print_in_turn(answers, f"python -c '{LIGHT}'", ANSWER_GOAL_SECONDS, ANSWERS)

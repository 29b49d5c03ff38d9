"""A working folder with real photos and style images, and `styled` commands run as processes."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import skimage.data
from PIL import Image

from styled.cli.demo_pictures import draw_painting
from styled.files import TEMPORARY_PREFIX

PYRAMID = """\
default_style: swirls
styles:
  swirls:
    image: styles/swirls.png
    overrides: &small
      size: {long_edge: 96}
      steps: 3
      scales: {start_px: 60, steps: 2}
      content_layers: {relu2_2: 1.0}
      style_layers: {relu1_1: 0.8, relu2_1: 0.2}
  coffee:
    images: [{path: styles/coffee.jpg, weight: 2}, styles/swirls.png]
    overrides: *small
folders:
  both: [swirls, coffee]
engine: {weights: untrained, device: cpu, precision: float32}
intake: {settle_seconds: 0.3, truncated_grace_seconds: 2}
"""
"""A configuration for fast jobs: the default recipe, small images, few layers, few steps."""

UNTRAINED_WEIGHTS = "untrained-vgg19.safetensors"
"""The name of files with the untrained network: processes that are forked have it in memory."""

SHORTCUTS = os.pathsep.join(
    filter(None, [str(Path(__file__).parent / "shortcuts"), os.environ.get("PYTHONPATH")])
)
"""`PYTHONPATH` with a folder that has `sitecustomize`, where its effect is described."""


class _Descriptor(Protocol):
    """A file descriptor that is passed to another process."""

    def detach(self) -> int:
        """Return the descriptor's number in the receiving process."""


class Process(Protocol):
    """The part of `subprocess.Popen` that tests use."""

    @property
    def pid(self) -> int:
        """The process ID."""

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end; return its exit code."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal to the process."""


@dataclass(frozen=True)
class DaemonHarness:
    """A working folder with a configuration, and methods that run `styled` on it.

    Attributes:
        folder: The working folder, with `config.yaml`, the inbox and the outbox.
        environment: Environment variables for `styled`, in addition to those of the tests. They
            apply only to processes that are forked from the fork server, see `start_styled`.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def take_time(self, step_seconds: float) -> None:
        """Make each optimisation step take at least this long, by sleeping."""
        self.environment["STYLED_TESTS_STEP_SECONDS"] = str(step_seconds)

    @property
    def config(self) -> Path:
        """The path of the configuration file."""
        return self.folder / "config.yaml"

    def configure(self, **replacements: str) -> None:
        """Set top-level keys of the configuration that stand on one line, `key: value`.

        In `output` free space is not required unless the test says so: some disks are small.
        """
        if "output" in replacements and "min_free" not in replacements["output"]:
            replacements["output"] = replacements["output"].replace("{", "{min_free: 0, ", 1)
        lines = self.config.read_text().splitlines()
        for key, value in replacements.items():
            lines = [line for line in lines if not line.startswith(f"{key}:")]
            lines.append(f"{key}: {value}")
        self.config.write_text("\n".join(lines) + "\n")

    def drop(self, name: str, photo: str = "coffee", size: tuple[int, int] | None = None) -> Path:
        """Write one of scikit-image's photos into the inbox, optionally resized; return its path.

        Args:
            name: The path below the inbox.
            photo: The function of `skimage.data` that returns the photo.
            size: (width, height) in pixels.
        """
        path = self.folder / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(getattr(skimage.data, photo)())
        (picture.resize(size) if size else picture).save(path)
        return path

    def status(self) -> Any:
        """Return what `styled status --json` prints."""
        return json.loads(self.do("status", "--json").stdout)

    def files(self, root: str) -> list[str]:
        """Return the relative paths of all files below a folder, except the gallery's.

        While there are temporary files, waits up to 2 seconds for them to get their final names.
        """
        base = self.folder / root
        deadline = time.monotonic() + 2.0
        while True:
            paths = [path for path in base.rglob("*") if path.is_file()]
            is_writing = any(path.name.startswith(TEMPORARY_PREFIX) for path in paths)
            if not is_writing or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        names = (str(path.relative_to(base)) for path in paths)
        return sorted(
            name for name in names if not name.startswith(("gallery.html", "gallery_files"))
        )

    def sidecar(self, path: str) -> dict[str, dict[str, object]]:
        """Return the content of a sidecar, by its path below the working folder."""
        content: dict[str, dict[str, object]] = json.loads((self.folder / path).read_bytes())
        return content

    def command(self, *args: str) -> list[str]:
        """Return the command line of styled with this folder's configuration."""
        return [sys.executable, "-m", "styled", *args, "-c", str(self.config)]

    def do(self, *args: str, timeout: float = 250) -> subprocess.CompletedProcess[str]:
        """Run a `styled` command and wait for it to end; starts fast, see `start_styled`."""
        command = self.command(*args)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = start_styled(command[3:], output.fileno(), errors.fileno(), self.environment)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                raise
            texts = []
            for stream in (output, errors):
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
        return subprocess.CompletedProcess(command, code, *texts)

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        """Run `styled run` until the context ends, then stop it with SIGTERM.

        It starts within a second, see `start_styled`.
        """
        with self._log() as log:
            process = start_styled(
                self.command("run")[3:], log.fileno(), log.fileno(), self.environment
            )
        with _stopped_at_the_end(Daemon(process, Path(log.name))) as daemon:
            yield daemon

    @contextmanager
    def running_from_scratch(self, within: Sequence[str] = ()) -> Iterator[Daemon]:
        """Run `styled run` like `running`, but in a new Python process, as a user starts it.

        Args:
            within: A command that runs it, given before the command line, for instance to run it
                in a namespace.
        """
        with self._log() as log:
            process = subprocess.Popen(
                [*within, *self.command("run")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        with _stopped_at_the_end(Daemon(process, Path(log.name))) as daemon:
            yield daemon

    def _log(self) -> BinaryIO:
        return open(self.folder / f"log-{time.time_ns()}.jsonl", "ab")


@dataclass(frozen=True)
class Daemon:
    """A running `styled run`."""

    process: Process
    log: Path

    def events(self, name: str) -> list[dict[str, object]]:
        """Return all events of one name that have been logged so far."""
        text = self.log.read_text()
        # The last line may be incomplete: a killed process does not finish it.
        complete_lines = text[: text.rfind("\n") + 1].splitlines()
        events = [json.loads(line) for line in complete_lines if f'"event": "{name}"' in line]
        return [event for event in events if event["event"] == name]

    def wait_until(self, condition: Callable[[], object], seconds: float = 200.0) -> None:
        """Poll until a condition is true; fail with the log after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            check_start = time.monotonic()
            if condition():
                return
            assert self.process.poll() is None, f"the daemon died:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"waited too long:\n{self.log.read_text()}"
            # Polling takes CPU time from the daemon: spend at most a fifth of the time on it.
            time.sleep(max(0.05, 4 * (time.monotonic() - check_start)))

    def wait_for(self, event: str, count: int = 1, seconds: float = 200.0) -> None:
        """Wait until an event has been logged at least `count` times."""
        self.wait_until(lambda: len(self.events(event)) >= count, seconds)

    def kill(self) -> None:
        """Kill the daemon with SIGKILL and wait for it to end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def _stopped_at_the_end(daemon: Daemon) -> Iterator[Daemon]:
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGTERM)
            daemon.process.wait(timeout=30)


@cache
def _style_images() -> dict[str, bytes]:
    swirls, coffee = io.BytesIO(), io.BytesIO()
    draw_painting(240, 180).save(swirls, "PNG")
    photo = skimage.data.coffee()  # type: ignore[no-untyped-call]  # it has no types
    Image.fromarray(photo).save(coffee, "JPEG")
    return {"swirls.png": swirls.getvalue(), "coffee.jpg": coffee.getvalue()}


def make_harness(folder: Path, configuration: str = PYRAMID) -> DaemonHarness:
    """Make a working folder with a configuration and two style images.

    No free space is required unless the configuration has a section `output`.
    """
    if "\noutput:" not in configuration:
        configuration += "output: {min_free: 0}\n"
    (folder / "styles").mkdir(parents=True)
    for name, data in _style_images().items():
        (folder / "styles" / name).write_bytes(data)
    (folder / "config.yaml").write_text(configuration)
    return DaemonHarness(folder)


def let_others_in(folder: Path) -> None:
    """Make a folder and its parents accessible to other users; pytest makes them private."""
    temporary = Path(tempfile.gettempdir())
    for parent in (folder, *folder.parents):
        if not parent.is_relative_to(temporary) or parent == temporary:
            break
        parent.chmod(0o755)


# The fork server imports torch and styled once. Processes that are forked from it start with these
# imports done, and with what `tests.preloaded` has prepared.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(
    ["styled.daemon", "styled.cli.main", "styled.cli.entry", "styled.cli.daemon_commands",
     "tests.job_harness", "tests.daemon_harness", "tests.preloaded"]
)  # fmt: skip


class Forked:
    """A function that runs in a process forked from one that has imported torch."""

    def __init__(self, target: Callable[..., object], *args: object) -> None:
        self._process = _FORKSERVER.Process(target=target, args=args)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("styled", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int, /) -> None:
        os.kill(self.pid, number)


def start_styled(
    args: Sequence[str], stdout: int, stderr: int, environment: Mapping[str, str] | None = None
) -> Forked:
    """Start `styled` in a process that is forked from one that has imported torch.

    This saves the start of Python and the imports, which take seconds. Everything else is as for a
    user: the command line, the environment, the current folder and the signals. `tests/faults` has
    tests of the process start itself.

    Args:
        args: The command line, without the program's name.
        stdout: The file descriptor that standard output goes to.
        stderr: The file descriptor that standard error goes to.
        environment: Environment variables in addition to those of this process.
    """
    return Forked(
        _run_styled,
        list(args),
        DupFd(stdout),
        DupFd(stderr),
        {**os.environ, **(environment or {})},
        os.getcwd(),
    )


def _run_styled(
    args: list[str], stdout: _Descriptor, stderr: _Descriptor, environment: dict[str, str],
    folder: str,
) -> None:  # fmt: skip
    """Run the program in this process as its console script does."""
    import torch

    from styled.cli.entry import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # Images this small gain nothing from more threads, and several daemons may run at once.
    torch.set_num_threads(1)
    null = os.open(os.devnull, os.O_RDONLY)
    for standard, descriptor in enumerate((null, stdout.detach(), stderr.detach())):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    # multiprocessing replaces sys.stdin by a stream that reads nothing.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    sys.argv = ["styled", *args]
    main()

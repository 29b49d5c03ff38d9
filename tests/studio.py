"""A working folder with real photographs and paintings, and the daemon as a process."""

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
from typing import BinaryIO, Protocol

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
      scales: {start_px: 64}
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
"""Small pictures by the default recipe on few layers, in a moment."""


class _Descriptor(Protocol):
    """An open file on its way to another process."""

    def detach(self) -> int:
        """Return its number there."""


class Process(Protocol):
    """A process, as `subprocess` has it."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""


@dataclass(frozen=True)
class Studio:
    """A working folder.

    Attributes:
        environment: What programs are given besides what the tests have; only those that
            are forked, see `start_styled`.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def take_time(self, step_seconds: float) -> None:
        """Have each step of a painting take so long at least, without computing."""
        self.environment["STYLED_TESTS_STEP_SECONDS"] = str(step_seconds)

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / "config.yaml"

    def configure(self, **replacements: str) -> None:
        """Replace lines of the configuration by the first word of what they hold."""
        lines = self.config.read_text().splitlines()
        for key, value in replacements.items():
            lines = [line for line in lines if not line.startswith(f"{key}:")]
            lines.append(f"{key}: {value}")
        self.config.write_text("\n".join(lines) + "\n")

    def drop(self, name: str, photo: str = "coffee", size: tuple[int, int] | None = None) -> Path:
        """Put one of scikit-image's photographs into the inbox, by copying it there."""
        path = self.folder / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(getattr(skimage.data, photo)())
        (picture.resize(size) if size else picture).save(path)
        return path

    def files(self, root: str) -> list[str]:
        """Return all files below one of the folders, relative to it, without the gallery's.

        A file that is just being written has a name of its own for a moment; it is waited for.
        """
        base = self.folder / root
        deadline = time.monotonic() + 2.0
        while True:
            found = [path for path in base.rglob("*") if path.is_file()]
            is_written = any(path.name.startswith(TEMPORARY_PREFIX) for path in found)
            if not is_written or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        names = (str(path.relative_to(base)) for path in found)
        return sorted(
            name for name in names if not name.startswith(("gallery.html", "gallery_files"))
        )

    def sidecar(self, path: str) -> dict[str, dict[str, object]]:
        """Return the content of a sidecar."""
        content: dict[str, dict[str, object]] = json.loads((self.folder / path).read_bytes())
        return content

    def command(self, *words: str) -> list[str]:
        """Return the command line of styled with this folder's configuration."""
        return [sys.executable, "-m", "styled", *words, "-c", str(self.config)]

    def do(self, *words: str, timeout: float = 250) -> subprocess.CompletedProcess[str]:
        """Run one of the commands to its end, within a moment: see `start_styled`."""
        command = self.command(*words)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = start_styled(command[3:], output.fileno(), errors.fileno(), self.environment)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                raise
            said = []
            for stream in (output, errors):
                stream.seek(0)
                said.append(stream.read().decode(errors="replace"))
        return subprocess.CompletedProcess(command, code, *said)

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        """Run `styled run` until the context ends, and have it stop by SIGTERM.

        It starts within a second: see `start_styled`.
        """
        with self._log() as log:
            process = start_styled(
                self.command("run")[3:], log.fileno(), log.fileno(), self.environment
            )
        with _stopped_at_the_end(Daemon(process, Path(log.name))) as daemon:
            yield daemon

    @contextmanager
    def running_from_scratch(self, within: Sequence[str] = ()) -> Iterator[Daemon]:
        """Do as `running`, with a Python of its own, as a user would start it.

        Args:
            within: A command that is to run it, for instance in a namespace.
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
        """Return all log events of one name so far."""
        text = self.log.read_text()
        # The last line may be half there: a process that is killed has no time to end it.
        whole = text[: text.rfind("\n") + 1].splitlines()
        lines = [json.loads(line) for line in whole if f'"event": "{name}"' in line]
        return [line for line in lines if line["event"] == name]

    def wait_until(self, condition: Callable[[], object], seconds: float = 200.0) -> None:
        """Wait until something is so; fail with the log if that takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            asked = time.monotonic()
            if condition():
                return
            assert self.process.poll() is None, f"the daemon died:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"waited too long:\n{self.log.read_text()}"
            # To ask takes the processor's time, which the daemon needs as well.
            time.sleep(max(0.05, 4 * (time.monotonic() - asked)))

    def wait_for(self, event: str, count: int = 1, seconds: float = 200.0) -> None:
        """Wait until an event has been logged so often."""
        self.wait_until(lambda: len(self.events(event)) >= count, seconds)

    def kill(self) -> None:
        """Kill it as a power cut would, and wait for its end."""
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
def _paintings() -> dict[str, bytes]:
    swirls, coffee = io.BytesIO(), io.BytesIO()
    draw_painting(240, 180).save(swirls, "PNG")
    photo = skimage.data.coffee()  # type: ignore[no-untyped-call]  # it has no types
    Image.fromarray(photo).save(coffee, "JPEG")
    return {"swirls.png": swirls.getvalue(), "coffee.jpg": coffee.getvalue()}


def make_studio(folder: Path, configuration: str = PYRAMID) -> Studio:
    """Make a working folder with two paintings to use as styles."""
    (folder / "styles").mkdir(parents=True)
    for name, data in _paintings().items():
        (folder / "styles" / name).write_bytes(data)
    (folder / "config.yaml").write_text(configuration)
    return Studio(folder)


def let_others_in(folder: Path) -> None:
    """Let other users walk to a folder; those that pytest makes are closed to them."""
    temporary = Path(tempfile.gettempdir())
    for above in (folder, *folder.parents):
        if not above.is_relative_to(temporary) or above == temporary:
            break
        above.chmod(0o755)


# A process of its own imports torch once, and what the first gradient would import; whoever is
# forked from it starts at once.
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    ["styled.daemon", "styled.cli.main", "styled.cli.entry", "styled.cli.daemon_commands",
     "tests.jobs.conftest", "tests.studio", "tests.preloaded",
     "torch.fx.experimental.symbolic_shapes"]
)  # fmt: skip


class Forked:
    """A function in a process of its own, forked from one that has imported torch."""

    def __init__(self, target: Callable[..., object], *arguments: object) -> None:
        self._process = _FORKING.Process(target=target, args=arguments)
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
    words: Sequence[str], output: int, errors: int, environment: Mapping[str, str] | None = None
) -> Forked:
    """Start `styled` in a process that is forked from one that has imported torch.

    All but the start of Python and the imports, which take seconds, is as it is for a user: the
    command line, the environment, the current folder and the signals. `tests/faults` has tests of
    the start itself.

    Args:
        words: The command line.
        output: The descriptor that standard output goes to.
        errors: The same for standard error.
        environment: Variables besides those of this process.
    """
    return Forked(
        _run_styled,
        list(words),
        DupFd(output),
        DupFd(errors),
        {**os.environ, **(environment or {})},
        os.getcwd(),
    )


def _run_styled(
    words: list[str], output: _Descriptor, errors: _Descriptor, environment: dict[str, str],
    folder: str,
) -> None:  # fmt: skip
    """Run the program as its console script does, in the place of this process."""
    import torch

    from styled.cli.entry import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # Pictures this small gain nothing by more, and several daemons may run at once.
    torch.set_num_threads(1)
    null = os.open(os.devnull, os.O_RDONLY)
    for standard, descriptor in enumerate((null, output.detach(), errors.detach())):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    # multiprocessing leaves a stream here that reads nothing, and `styled` has its own ways.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    sys.argv = ["styled", *words]
    main()

"""A working folder with real photographs and a painting, and the daemon as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from styled.cli.demo_pictures import draw_painting

CONFIGURATION = """\
default_style: swirls
styles:
  swirls:
    image: styles/swirls.png
    overrides: &small {size: {long_edge: 96}, steps: 3, scales: {start_px: 64}}
  coffee:
    images: [{path: styles/coffee.jpg, weight: 2}, styles/swirls.png]
    overrides: *small
folders:
  both: [swirls, coffee]
engine: {weights: untrained, device: cpu}
intake: {settle_seconds: 0.3, truncated_grace_seconds: 2}
"""


@dataclass(frozen=True)
class Studio:
    """A working folder."""

    folder: Path

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / "config.yaml"

    def drop(self, name: str, photo: str) -> Path:
        """Put one of scikit-image's photographs into the inbox, by copying it there."""
        path = self.folder / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(getattr(skimage.data, photo)()).save(path)
        return path

    def files(self, root: str) -> list[str]:
        """Return all files below one of the folders, relative to it."""
        base = self.folder / root
        return sorted(str(p.relative_to(base)) for p in base.rglob("*") if p.is_file())

    def command(self, *words: str) -> list[str]:
        """Return the command line of styled with this folder's configuration."""
        return [sys.executable, "-m", "styled", *words, "-c", str(self.config)]

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        """Run `styled run` until the context ends, and have it stop by SIGTERM."""
        log = self.folder / f"log-{time.time_ns()}.jsonl"
        with open(log, "wb") as stream:
            process = subprocess.Popen(
                self.command("run"), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        daemon = Daemon(process, log)
        try:
            yield daemon
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=30)


@dataclass(frozen=True)
class Daemon:
    """A running `styled run`."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self, name: str) -> list[dict[str, object]]:
        """Return all log events of one name so far."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def wait_until(self, condition: Callable[[], object], seconds: float = 200.0) -> None:
        """Wait until something is so; fail with the log if that takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the daemon died:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"waited too long:\n{self.log.read_text()}"
            time.sleep(0.05)

    def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until an event has been logged so often."""
        self.wait_until(lambda: len(self.events(event)) >= count)


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """Make a working folder with two styles."""
    (tmp_path / "styles").mkdir()
    draw_painting(240, 180).save(tmp_path / "styles" / "swirls.png")
    coffee = skimage.data.coffee()  # type: ignore[no-untyped-call]  # it has no types
    Image.fromarray(coffee).save(tmp_path / "styles" / "coffee.jpg")
    (tmp_path / "config.yaml").write_text(CONFIGURATION)
    return Studio(tmp_path)

"""`styled demo`: the whole of styled on pictures that it draws itself.

It needs no network and no file from outside. The real daemon runs as a process of its
own, on a real folder, just as it would for anybody else.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from styled.atomic import atomic_write
from styled.cli.demo_pictures import draw_photo
from styled.cli.exits import console, errors
from styled.cli.init import WorkingFolder, init_folder
from styled.delivery.gallery_files import PAGE
from styled.delivery.names import sidecar_of
from styled.engine.weights import imagenet_file
from styled.errors import EngineFailure, ResourceUnavailable
from styled.jobs.job import JobState
from styled.jobs.journal import Journal

LONGEST_SECONDS = 600.0
"""When to give up: a machine may be slow, but nobody waits for ever."""

LOOK_SECONDS = 0.2

CONFIGURATION = """\
# Made by `styled demo`. `styled init DIR` makes a folder for real work.
inbox: inbox
outbox: outbox
default_style: {style}
styles:
  {style}:
    image: styles/{style}.png
    overrides:
      size: {{long_edge: 288}}
      steps: 20
OVERRIDES
engine:
  weights: {weights}
intake: {{settle_seconds: 0.2}}
"""

FOR_UNTRAINED = """\
      # The deep layers of an untrained network know nothing of objects: the photo is held
      # on to by a shallow layer, and the strokes are shown larger.
      content_layers: {{relu2_2: 1}}
      content_weight: 0.06
      style_scale: 2.0
"""


def run_demo(out: Path) -> None:
    """Draw, drop, wait, and say where the result is.

    Raises:
        StyledError: the folder can't be made, or the daemon failed.
    """
    begun = time.monotonic()
    trained = imagenet_file().exists()
    if not trained:
        console.print(
            "The pretrained network is not on this machine, so the demo paints with untrained "
            "weights: plainer, but it needs no network.",
            soft_wrap=True,
        )
    made = init_folder(
        out,
        weights="imagenet" if trained else "untrained",
        configuration=CONFIGURATION.replace("OVERRIDES\n", "" if trained else FOR_UNTRAINED),
    )
    buffer = io.BytesIO()
    draw_photo().save(buffer, "jpeg", quality=95)
    with _daemon(made) as process:
        photo = made.inbox / "lighthouse.jpg"
        atomic_write(photo, buffer.getvalue())
        result = made.folder / "outbox" / made.style / photo.name
        _wait(process, made, result)
    console.print(Text(f"Painted in {time.monotonic() - begun:.0f} s."))
    for what, path in (
        ("photo", made.folder / "archive" / made.style / photo.name),
        ("style", made.folder / "styles" / f"{made.style}.png"),
        ("painting", result),
        ("how it was made", sidecar_of(result)),
        ("gallery", made.folder / "outbox" / PAGE),
        ("log", _log_file(made)),
        ("working folder", made.folder),
    ):
        console.print(Text(f"  {what + ':':<17}{path}"), soft_wrap=True)
    console.print(Text("Next: styled init DIR makes a folder for your own photos."))


@contextmanager
def _daemon(made: WorkingFolder) -> Iterator[subprocess.Popen[bytes]]:
    """Run `styled run` on the folder while the context lasts."""
    command = [sys.executable, "-m", "styled", "run", "-c", str(made.config)]
    with open(_log_file(made), "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _log_file(made: WorkingFolder) -> Path:
    return made.folder / "demo.log"


def _wait(process: subprocess.Popen[bytes], made: WorkingFolder, result: Path) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors) as bar:
        task = bar.add_task("starting the daemon", total=1.0)
        while not sidecar_of(result).exists():
            if process.poll() is not None:
                raise EngineFailure(
                    f"the daemon stopped with exit code {process.returncode}",
                    f"its log is {_log_file(made)}",
                )
            if time.monotonic() > deadline:
                raise EngineFailure(
                    f"there was no result within {LONGEST_SECONDS:.0f} s",
                    f"the daemon's log is {_log_file(made)}",
                )
            if (fraction := _fraction_done(made)) is not None:
                bar.update(task, description="painting", completed=fraction)
            time.sleep(LOOK_SECONDS)
        bar.update(task, description="painted", completed=1.0)


def _fraction_done(made: WorkingFolder) -> float | None:
    try:
        journal = Journal.open_read_only(made.folder / "state" / "journal.sqlite3")
    except ResourceUnavailable:
        return None  # the daemon has not made it yet
    try:
        running = journal.in_state(JobState.RUNNING, limit=-1)
    finally:
        journal.close()
    return max((job.fraction for job in running), default=None)

"""`styled demo`: runs the daemon on pictures that it draws itself.

It needs no network and no input files. The daemon is the real one: a separate process that works
on a normal working folder.
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
from styled.cli.exit_codes import console, error_console
from styled.cli.init import WorkingFolder, init_folder
from styled.delivery.gallery_files import PAGE
from styled.delivery.names import sidecar_path
from styled.engine.weights import imagenet_file
from styled.errors import EngineFailure, ResourceUnavailable
from styled.journal.job import JobState
from styled.journal.journal import Journal

TIMEOUT_SECONDS = 600.0
"""Time limit for the painting; generous, for slow machines."""

POLL_SECONDS = 0.2
"""Interval of checks for the result and the progress."""

CONFIGURATION = """\
# Made by `styled demo`. `styled init DIR` makes a folder for real work.
inbox: inbox
outbox: outbox
default_style: {style}
styles:
  {style}:
    image: styles/{style}.png
    overrides:
      size: 288
      steps: 14
      scales: {{steps: 10}}
OVERRIDES
engine:
  weights: {weights}
intake: {{settle_seconds: 0.2}}
"""

FOR_UNTRAINED = """\
      # The deep layers of an untrained network do not represent objects, so a shallow layer
      # is used for the content, and the style image is enlarged for larger strokes, which less
      # smoothing keeps distinct.
      content_layers: {{relu2_2: 1}}
      content_weight: 0.06
      tv_weight: 2.0
      style_scale: 2.0
"""


def run_demo(out: Path) -> None:
    """Create a working folder, paint one photo with the daemon, and print where the files are.

    Raises:
        StyledError: The folder can't be created, or the daemon failed.
    """
    started = time.monotonic()
    has_imagenet = imagenet_file().exists()
    if not has_imagenet:
        console.print(
            "The pretrained network is not on this machine, so the demo paints with untrained "
            "weights: plainer, but nothing is downloaded.",
            soft_wrap=True,
        )
    working_folder = init_folder(
        out,
        weights="imagenet" if has_imagenet else "untrained",
        configuration=CONFIGURATION.replace("OVERRIDES\n", "" if has_imagenet else FOR_UNTRAINED),
    )
    buffer = io.BytesIO()
    draw_photo().save(buffer, "jpeg", quality=95)
    with _daemon(working_folder) as process:
        photo = working_folder.inbox / "lighthouse.jpg"
        atomic_write(photo, buffer.getvalue())
        result = working_folder.folder / "outbox" / working_folder.style / photo.name
        _wait_for_result(process, working_folder, result)
    console.print(Text(f"Painted in {time.monotonic() - started:.0f} s."))
    for label, path in (
        ("photo", working_folder.folder / "archive" / working_folder.style / photo.name),
        ("style", working_folder.folder / "styles" / f"{working_folder.style}.png"),
        ("painting", result),
        ("how it was made", sidecar_path(result)),
        ("gallery", working_folder.folder / "outbox" / PAGE),
        ("log", _log_file(working_folder)),
        ("working folder", working_folder.folder),
    ):
        console.print(Text(f"  {label + ':':<17}{path}"), soft_wrap=True)
    console.print(Text("Next: styled init DIR makes a folder for your own photos."))


@contextmanager
def _daemon(working_folder: WorkingFolder) -> Iterator[subprocess.Popen[bytes]]:
    """Run `styled run` on the folder until the context exits."""
    command = [sys.executable, "-m", "styled", "run", "-c", str(working_folder.config)]
    with open(_log_file(working_folder), "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _log_file(working_folder: WorkingFolder) -> Path:
    return working_folder.folder / "demo.log"


def _wait_for_result(
    process: subprocess.Popen[bytes], working_folder: WorkingFolder, result: Path
) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=error_console, disable=not error_console.is_terminal) as bar:
        task = bar.add_task("starting the daemon", total=1.0)
        lines = _ProgressLines()
        while not sidecar_path(result).exists():
            if process.poll() is not None:
                raise EngineFailure(
                    f"the daemon stopped with exit code {process.returncode}",
                    f"its log is {_log_file(working_folder)}",
                )
            if time.monotonic() > deadline:
                raise EngineFailure(
                    f"there was no result within {TIMEOUT_SECONDS:.0f} s",
                    f"the daemon's log is {_log_file(working_folder)}",
                )
            if (fraction := _fraction_done(working_folder)) is not None:
                bar.update(task, description="painting", completed=fraction)
                lines.print_progress(fraction)
            time.sleep(POLL_SECONDS)
        bar.update(task, description="painted", completed=1.0)


class _ProgressLines:
    """Prints the progress in lines if no terminal shows the bar, such as in a container's log."""

    def __init__(self) -> None:
        self._quarters = -1
        if not error_console.is_terminal:
            error_console.print("starting the daemon; this takes a minute on a slow machine")

    def print_progress(self, fraction: float) -> None:
        """Print the progress, at each quarter."""
        quarters = int(4 * fraction)
        if not error_console.is_terminal and quarters > self._quarters:
            self._quarters = quarters
            error_console.print(f"painting: {fraction:.0%}")


def _fraction_done(working_folder: WorkingFolder) -> float | None:
    try:
        journal = Journal.open_read_only(working_folder.folder / "state" / "journal.sqlite3")
    except ResourceUnavailable:
        return None  # the daemon has not created it yet
    try:
        running = journal.in_state(JobState.RUNNING, limit=-1)
    finally:
        journal.close()
    return max((job.fraction for job in running), default=None)

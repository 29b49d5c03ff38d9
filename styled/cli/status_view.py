"""`styled status`: how the status looks, once or for as long as one cares to watch."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from styled.cli.exits import console
from styled.cli.status import JobStatus, Status, UnfinishedStatus, read_status
from styled.cli.working_folder import find_config
from styled.config import Config
from styled.degradation import Degradation
from styled.jobs.job import JobState, Phase
from styled.ops.lines import printable
from styled.ops.words import duration, size, some

FOLLOW_SECONDS = 1.0
"""How often `--follow` looks."""

BEFORE_PAINTING = (Phase.PREPARING, Phase.READY)

MOST_SHOWN = 5
"""How many files of one kind are named."""

LITTLE_ROOM = 1e9
"""Bytes; less than this is shown in another colour."""


def show_status(named: Path | None, *, as_json: bool, follow: bool) -> None:
    """Print the status; with `follow` again and again, until Ctrl-C.

    Raises:
        ConfigError, ResourceUnavailable: there is nothing to be seen.
    """
    config = find_config(named)
    status = read_status(config)
    if not follow:
        if as_json:
            print(status.model_dump_json(indent=2))
        else:
            console.print(view(status))
        return
    with suppress(KeyboardInterrupt):
        if as_json or not console.is_terminal or console.is_dumb_terminal:
            _print_changes(config, status, as_json=as_json)
        with Live(view(status), console=console, screen=False, auto_refresh=False) as live:
            while True:
                time.sleep(FOLLOW_SECONDS)
                live.update(view(read_status(config)), refresh=True)
    sys.stdout.flush()


def _print_changes(config: Config, status: Status, *, as_json: bool) -> NoReturn:
    """Print the status whenever it has changed: one line of JSON, or the whole in words."""
    last: object = None
    while True:
        # Room on a disk changes all the time, and ages do as they are printed.
        present = status.model_dump(exclude={"disks": {"__all__": {"free"}}})
        if present != last and as_json:
            print(status.model_dump_json(), flush=True)
        elif present != last:
            console.print(view(status), "")
        last = present
        time.sleep(FOLLOW_SECONDS)
        status = read_status(config)


def view(status: Status) -> Group:
    """Return the whole status, to be printed."""
    return Group(*_parts(status))


def _parts(status: Status) -> Iterator[RenderableType]:
    who = f" (process {status.pid})" if status.pid is not None else ""
    colour = "green" if status.state == "running" else "yellow"
    since = (
        f", for {duration((datetime.now(UTC) - status.started_at).total_seconds())}"
        if status.started_at is not None
        else ""
    )
    yield Text.assemble("styled is ", (printable(status.state), colour), who, since)
    if status.running and status.device is not None:
        yield Text(f"on {status.device}, weights {status.weights}, version {status.version}")
    for trouble in status.troubles:
        yield Text(printable(trouble), "bold red")
    for degradation in status.degraded:
        yield Text(f"degraded: {printable(degradation.message)}", "yellow")
    if status.unpaired:
        yield Text(
            f"{some(status.unpaired, 'file')} in the inbox belong to no style: "
            "styled explain says what to do",
            "yellow",
        )
    for one in (*status.unreadable, *status.misspelled, *status.stuck[:MOST_SHOWN]):
        yield Text(f"{printable(one.path)}: {printable(one.reason)}", "yellow")
        for remedy in one.remedies[:1]:
            yield Text(f"  - {printable(remedy)}")
    if status.stuck_count > MOST_SHOWN:
        yield Text(f"{status.stuck_count:,} photos in all can't leave the inbox", "yellow")
    for file in status.unfinished[:MOST_SHOWN]:
        yield Text(f"still arriving: {printable(file.path)} {printable(file.reason)}{_until(file)}")
    if len(status.unfinished) > MOST_SHOWN:
        yield Text(f"still arriving: {some(len(status.unfinished) - MOST_SHOWN, 'more file')}")
    yield Text(", ".join(f"{status.counts.get(state, 0):,} {state}" for state in JobState))
    for disk in status.disks:
        yield Text(
            f"{size(disk.free)} free for {', '.join(disk.folders)}",
            "yellow" if disk.free < LITTLE_ROOM else "",
        )
    for engine in status.engines:
        if engine.device is None:
            why = f": {printable(engine.trouble)}" if engine.trouble else ""
            yield Text(f"{engine.name} is not there{why}", "bold red")
    for job in status.current:
        if job.phase not in BEFORE_PAINTING:
            yield Text()
            yield from _current(job, status.degraded, with_engine=len(status.engines) > 1)
    prepared = [job for job in status.current if job.phase in BEFORE_PAINTING]
    if prepared:
        yield Text()
    for job in prepared[:MOST_SHOWN]:
        yield Text.assemble(
            ("next ", "bold"), printable(job.input), " in ", printable(job.style), f": {job.phase}"
        )
    if len(prepared) > MOST_SHOWN:
        yield Text(f"     {some(len(prepared) - MOST_SHOWN, 'more job')} prepared")
    if len(status.queue) > 1:
        yield Text()
        yield Text(
            "queue: "
            + ", ".join(f"{queue.queued + queue.running:,} {queue.style}" for queue in status.queue)
        )
    for heading, jobs in (
        ("waiting", status.waiting),
        ("last", status.last),
        ("rejected", _not_yet_shown(status)),
    ):
        if jobs:
            yield Text()
            yield table_of(heading, jobs, known=status.degraded)


def _until(file: UnfinishedStatus) -> str:
    if file.until is None:
        return ""
    seconds = max(0.0, (file.until - datetime.now(UTC)).total_seconds())
    return f"; judged as it is in {duration(seconds)}, unless it changes"


def _not_yet_shown(status: Status) -> list[JobStatus]:
    shown = {job.id for job in status.last}
    return [job for job in status.rejections if job.id not in shown]


def _current(
    job: JobStatus, known: Collection[Degradation], *, with_engine: bool
) -> Iterator[RenderableType]:
    where = f" on {job.engine}" if with_engine and job.engine is not None else ""
    yield Text.assemble(
        ("now  ", "bold"), printable(job.input), " in ", printable(job.style), where
    )
    at = job.progress
    words = f"{job.fraction:.0%}"
    if at is not None and at.seconds_left is not None:
        words += f", about {duration(at.seconds_left)} left"
    if job.phase is Phase.PUBLISHING:
        words = "being published"
    if job.cancel_requested:
        words += ", being cancelled"
    line = Table.grid(padding=(0, 1))
    line.add_row(" " * 4, ProgressBar(total=1.0, completed=job.fraction, width=30), Text(words))
    yield line
    for degradation in job.degraded:
        if degradation not in known:
            yield Text(f"     degraded: {printable(degradation.message)}", "yellow")
    if at is None:
        return
    pace = f", {at.step_seconds:.2g} s each" if at.step_seconds is not None else ""
    yield Text(
        f"     scale {at.scale} of {at.scales}, {at.width} x {at.height} pixels; "
        f"step {at.step} of at most {at.steps}{pace}; loss {at.loss:.4g}"
    )
    if at.preview is not None:
        yield Text(f"     preview: {printable(at.preview)}")


def table_of(
    heading: str,
    jobs: list[JobStatus],
    *,
    with_ids: bool = False,
    known: Collection[Degradation] = (),
) -> Table:
    """Return jobs as a table: a line for each, and one for each degradation but the `known`."""
    table = Table(box=None, pad_edge=False)
    if with_ids:
        table.add_column("id", no_wrap=True, min_width=12)  # to be copied
    for column in (heading, "style", "", "when", "result or reason"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        # The names in it come from strangers, and Text knows no markup.
        why = job.reason or job.result or ""
        cells = (job.input, job.style, _state(job), _when(job), why)
        table.add_row(
            *(Text(printable(cell)) for cell in ((job.id, *cells) if with_ids else cells))
        )
        for degradation in job.degraded:
            if degradation not in known:
                note = Text(f"degraded: {printable(degradation.message)}", "yellow")
                table.add_row(*("" for _ in table.columns[1:]), note)
    return table


def _state(job: JobStatus) -> str:
    if job.state is JobState.RUNNING and job.phase in (None, Phase.PAINTING):
        return f"{job.fraction:.0%}"
    if job.state is JobState.RUNNING:
        return str(job.phase)
    if job.cancel_requested and job.state is JobState.QUEUED:
        return "queued, being cancelled"
    return str(job.state)


def _when(job: JobStatus) -> str:
    now = datetime.now(UTC)
    if job.finished_at is not None:
        return f"{duration((now - job.finished_at).total_seconds())} ago"
    if job.state is JobState.QUEUED and job.not_before is not None and job.not_before > now:
        return f"in {duration((job.not_before - now).total_seconds())}"
    since = job.started_at if job.state is JobState.RUNNING else None
    return f"for {duration((now - (since or job.submitted_at)).total_seconds())}"

"""`styled status`: prints the status once, or continuously with `--follow`."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from styled.cli.exit_codes import console
from styled.cli.find_config import find_config_in_use
from styled.cli.status import (
    EngineStatus,
    IncompleteStatus,
    JobStatus,
    PathStatus,
    Status,
    read_status,
)
from styled.config import Config
from styled.degradation import Degradation
from styled.journal.job import BEFORE_PAINTING, JobState, Phase
from styled.journal.pause_request import PAUSE_REQUEST_REASON
from styled.journal.queries import FINISHED
from styled.ops.humanize import format_bytes, format_count, format_duration, printable

FOLLOW_SECONDS = 1.0
"""Refresh interval of `--follow`."""

MAX_LISTED = 5
"""Maximum number of files or jobs of one kind that are listed."""

LOW_DISK_BYTES = 1e9
"""Less free space than this is shown in another colour."""


def show_status(config_path: Path | None, *, as_json: bool, follow: bool) -> None:
    """Print the status; with `follow`, update it until Ctrl-C.

    Raises:
        ConfigError: There is no valid configuration.
        ResourceUnavailable: There is no journal, or it can't be read.
    """
    config = find_config_in_use(config_path)
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
    """Print the status whenever it has changed: one line of JSON, or the full text."""
    last: object = None
    while True:
        # Free disk space changes all the time, so it is not compared. Ages are computed only when
        # they are printed.
        current = status.model_dump(exclude={"disks": {"__all__": {"free"}}})
        if current != last and as_json:
            print(status.model_dump_json(), flush=True)
        elif current != last:
            console.print(view(status), "")
        last = current
        time.sleep(FOLLOW_SECONDS)
        status = read_status(config)


def view(status: Status) -> Group:
    """Return the full status as a rich renderable."""
    return Group(*_sections(status))


def _sections(status: Status) -> Iterator[RenderableType]:
    process = f" (process {status.pid})" if status.pid is not None else ""
    color = "green" if status.state == "running" else "yellow"
    uptime = (
        f", for {format_duration((datetime.now(UTC) - status.started_at).total_seconds())}"
        if status.started_at is not None
        else ""
    )
    yield Text.assemble("styled is ", (printable(status.state), color), process, uptime)
    if (
        status.running
        and status.state.startswith("paused")
        and PAUSE_REQUEST_REASON not in status.state
    ):
        yield Text("it continues by itself once that is over")
    if status.running and status.device is not None:
        yield Text(f"on {status.device}, weights {status.weights}, version {status.version}")
    for problem in status.problems:
        yield Text(printable(problem), "bold red")
    for degradation in status.degraded:
        yield Text(f"degraded: {printable(degradation.message)}", "yellow")
    if status.unpaired:
        yield Text(
            f"{format_count(status.unpaired, 'file')} in the inbox belong to no style: "
            "styled explain says what to do",
            "yellow",
        )
    if status.not_pictures:
        files = format_count(status.not_pictures, "file")
        yield Text(f"{files} in the inbox left alone: no pictures")
    for item in _in_inbox(status):
        yield Text(f"{printable(item.path)}: {printable(item.reason)}", "yellow")
        for remedy in item.remedies[:1]:
            yield Text(f"  - {printable(remedy)}")
    if status.stuck_count > MAX_LISTED:
        yield Text(f"{status.stuck_count:,} photos in all can't leave the inbox", "yellow")
    for file in status.incomplete[:MAX_LISTED]:
        yield Text(f"incomplete: {printable(file.path)} {printable(file.reason)}{_until(file)}")
    if len(status.incomplete) > MAX_LISTED:
        more = format_count(len(status.incomplete) - MAX_LISTED, "more file")
        yield Text(f"incomplete: {more}")
    yield Text(_counts(status))
    for disk in status.disks:
        yield Text(
            f"{format_bytes(disk.free)} free for {', '.join(disk.folders)}",
            "yellow" if disk.free < LOW_DISK_BYTES else "",
        )
    if len(status.engines) > 1 or any(engine.node for engine in status.engines):
        there = [engine for engine in status.engines if engine.device is not None]
        nodes = {engine.node for engine in there if engine.node is not None}
        on_nodes = f" on {format_count(len(nodes), 'machine')}" if nodes else ""
        yield Text(f"{format_count(len(there), 'engine')}{on_nodes}")
    for engine in status.engines:
        if engine.device is None:
            if engine.problem is None:
                yield Text(f"{engine.name} is starting", "yellow")
            else:
                yield Text(f"{engine.name} is lost: {printable(engine.problem)}", "bold red")
    for job in status.current:
        if job.phase not in BEFORE_PAINTING:
            yield Text()
            yield from _current(job, status.degraded, _engine_to_show(job, status.engines))
    prepared = _before_painting(status)
    if prepared:
        yield Text()
    for job in prepared[:MAX_LISTED]:
        yield Text.assemble(
            ("next ", "bold"), printable(job.input), " in ", printable(job.style), f": {job.phase}"
        )
    if len(prepared) > MAX_LISTED:
        yield Text(f"     and {len(prepared) - MAX_LISTED:,} more")
    if len(status.queue) > 1:
        yield Text()
        yield Text(
            "queue: "
            + ", ".join(f"{queue.queued + queue.running:,} {queue.style}" for queue in status.queue)
        )
    for heading, jobs, total in (
        ("waiting", status.waiting, _waiting(status)),
        ("last", status.last, 0),
        ("rejected", _not_yet_shown(status), 0),
    ):
        if jobs:
            yield Text()
            shared = _shared_degradations(jobs, status.degraded)
            yield job_table(heading, jobs, known=(*status.degraded, *shared))
            if total > len(jobs):
                yield Text(f"and {total - len(jobs):,} more: styled jobs")
            for degradation in shared:
                yield Text(f"all of these degraded: {printable(degradation.message)}", "yellow")


def _in_inbox(status: Status) -> Iterator[PathStatus]:
    """Yield what is wrong with files and folders of the inbox, the first ones of each kind."""
    yield from status.skipped
    yield from status.misspelled
    yield from status.invalid_settings[:MAX_LISTED]
    yield from status.stuck[:MAX_LISTED]


def _counts(status: Status) -> str:
    """Return how many jobs are in which state; each is counted once."""
    prepared = len(_before_painting(status))
    counts = {
        "waiting": _waiting(status),
        "prepared": prepared,
        "painting": len(status.current) - prepared,
        **{str(state): status.counts.get(state, 0) for state in FINISHED},
    }
    return ", ".join(f"{count:,} {state}" for state, count in counts.items())


def _before_painting(status: Status) -> list[JobStatus]:
    """Return the running jobs that are painted next: being prepared, or ready."""
    return [job for job in status.current if job.phase in BEFORE_PAINTING]


def _waiting(status: Status) -> int:
    """Return how many jobs wait; those that a dead daemon has left running wait as well."""
    unfinished = status.counts.get(JobState.QUEUED, 0) + status.counts.get(JobState.RUNNING, 0)
    return max(0, unfinished - len(status.current))


def _shared_degradations(
    jobs: Sequence[JobStatus], known: Collection[Degradation]
) -> list[Degradation]:
    """Return what all of several jobs have in common, to be shown once."""
    if len(jobs) < 2:
        return []
    return [
        one
        for one in jobs[0].degraded
        if one not in known and all(one in job.degraded for job in jobs)
    ]


def _until(file: IncompleteStatus) -> str:
    if file.until is None:
        return ""
    seconds = max(0.0, (file.until - datetime.now(UTC)).total_seconds())
    return f"; processed as it is in {format_duration(seconds)}, if it does not change"


def _not_yet_shown(status: Status) -> list[JobStatus]:
    shown = {job.id for job in status.last}
    return [job for job in status.rejections if job.id not in shown]


def _current(
    job: JobStatus, known: Collection[Degradation], engine: EngineStatus | None
) -> Iterator[RenderableType]:
    where = "" if engine is None else f" on {_name_of(engine)}"
    yield Text.assemble(
        ("now  ", "bold"), printable(job.input), " in ", printable(job.style), where
    )
    progress = job.progress
    text = f"{job.fraction:.0%}"
    if progress is not None and progress.seconds_left is not None:
        text += f", about {format_duration(progress.seconds_left)} left"
    if job.phase is Phase.PUBLISHING:
        text = "being published"
    if job.cancel_requested:
        text += ", being cancelled"
    line = Table.grid(padding=(0, 1))
    line.add_row(" " * 4, ProgressBar(total=1.0, completed=job.fraction, width=30), Text(text))
    yield line
    for degradation in job.degraded:
        if degradation not in known:
            yield Text(f"     degraded: {printable(degradation.message)}", "yellow")
    if progress is None:
        return
    pace = f", {progress.step_seconds:.2g} s each" if progress.step_seconds is not None else ""
    yield Text(
        f"     scale {progress.scale} of {progress.scales}, "
        f"{progress.width} x {progress.height} pixels; "
        f"step {progress.step} of at most {progress.steps}{pace}; loss {progress.loss:.4g}"
    )
    if progress.preview is not None:
        yield Text(f"     preview: {printable(progress.preview)}")


def _engine_to_show(job: JobStatus, engines: Sequence[EngineStatus]) -> EngineStatus | None:
    """Return the engine that paints a job, unless it is the daemon's only one."""
    engine = next((one for one in engines if one.name == job.engine), None)
    is_only = len(engines) == 1 and engine is not None and engine.node is None
    return None if is_only else engine


def _name_of(engine: EngineStatus) -> str:
    """Return the name of an engine with its device, if it is on a cluster."""
    if engine.node is None or engine.device is None:
        return engine.name
    return printable(f"{engine.name} ({engine.device} of {engine.node})")


def job_table(
    heading: str,
    jobs: list[JobStatus],
    *,
    with_ids: bool = False,
    known: Collection[Degradation] = (),
) -> Table:
    """Return a table of jobs with one row per job and per degradation that is not in `known`."""
    table = Table(box=None, pad_edge=False)
    if with_ids:
        table.add_column("id", no_wrap=True, min_width=12)  # to be copied, so not truncated
    for column in (heading, "style", "", "when", "result or reason"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        # File names are untrusted: `Text` does not interpret them as markup.
        why = job.reason or job.result or _place_of(job)
        cells = (job.input, job.style, _state(job), _when(job), why)
        table.add_row(
            *(Text(printable(cell)) for cell in ((job.id, *cells) if with_ids else cells))
        )
        for degradation in job.degraded:
            if degradation not in known:
                note = Text(f"degraded: {printable(degradation.message)}", "yellow")
                table.add_row(*("" for _ in table.columns[1:]), note)
    return table


def _place_of(job: JobStatus) -> str:
    """Return where a job is painted, if that is on a cluster."""
    return "" if job.node is None else f"on {job.engine}: {job.device} of {job.node}"


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
        return f"{format_duration((now - job.finished_at).total_seconds())} ago"
    if job.state is JobState.QUEUED and job.not_before is not None and job.not_before > now:
        return f"in {format_duration((job.not_before - now).total_seconds())}"
    started_at = job.started_at if job.state is JobState.RUNNING else None
    return f"for {format_duration((now - (started_at or job.submitted_at)).total_seconds())}"

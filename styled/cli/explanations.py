"""Explanations of the state of photos in the inbox and of jobs."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from styled.cli.provenance import settings_sources
from styled.cli.status import InboxStatus, IncompleteStatus, JobStatus, PathStatus, job_statuses
from styled.config import Config
from styled.config.ignore import IgnoreRules
from styled.errors import NotMounted, ResourceUnavailable
from styled.files import (
    COMPANION_SUFFIXES,
    TEMPORARY_PREFIX,
    has_picture_name,
    is_companion_name,
    readable,
)
from styled.intake.pairing import Pairing
from styled.intake.photo_styles import PhotoStyles
from styled.intake.scanning import IGNORE_MARKER, MAX_FOLDER_DEPTH
from styled.journal.job import ON_REQUEST, Job, JobState, Phase
from styled.journal.queries import JournalReader
from styled.mounts import Mounts
from styled.ops.humanize import format_count, format_duration

Verdict = Literal[
    "painting", "waiting", "done", "rejected", "cancelled", "new", "settling", "ignored",
    "unpaired", "not a picture", "incomplete", "skipped", "unreadable", "not a file", "missing",
    "result", "original", "style", "folder", "elsewhere",
]  # fmt: skip


class Explanation(BaseModel):
    """The state of a path and its reasons; printed by `styled explain --json`.

    Attributes:
        verdict: The state as a keyword.
        reasons: Sentences, the most important one first.
        remedies: What the user can do.
        settings: For each style, which settings come from recipe, style, folder and photo.
        jobs: The jobs of the file, the newest first.
    """

    path: str
    verdict: Verdict
    reasons: list[str]
    remedies: list[str] = []
    settings: list[str] = []
    jobs: list[JobStatus] = []


@dataclass(frozen=True, slots=True)
class ExplainContext:
    """The data that explanations are based on.

    Attributes:
        journal: None if there is no readable journal.
        is_running: Whether the daemon is running.
        problem: Why the daemon processes nothing at the moment, or None.
        inbox: Files in the inbox that are not taken, as reported by the daemon.
        stuck: Inputs that can't be moved out of the inbox.
    """

    config: Config
    journal: JournalReader | None
    is_running: bool
    problem: str | None
    inbox: InboxStatus
    stuck: Sequence[PathStatus]

    def jobs_about(self, column: Literal["input", "result", "original"], path: str) -> list[Job]:
        """Return the jobs whose input, result or original is `path`; empty without a journal."""
        return [] if self.journal is None else self.journal.jobs_about(column, path)


def make_explanation(
    path: Path, verdict: Verdict, *reasons: str, remedies: Iterable[str] = ()
) -> Explanation:
    """Build an explanation without jobs."""
    return Explanation(
        path=readable(path), verdict=verdict, reasons=list(reasons), remedies=list(remedies)
    )


# In the inbox


def explain_inbox_path(path: Path, relative: str, context: ExplainContext) -> Explanation:
    """Explain the state of a file or folder in the inbox; `relative` is relative to the inbox."""
    config = context.config
    try:
        Mounts(config.state / "mounts.json", read_only=True).require(config.inbox)
    except NotMounted as error:
        return make_explanation(path, "waiting", error.message, remedies=error.remedies)
    except ResourceUnavailable:
        pass
    ignored = _ignored(path, relative, config)
    if ignored is not None:
        return ignored
    for item in context.inbox.skipped:
        if relative == item.path or relative.startswith(f"{item.path}{os.sep}"):
            about = "it" if relative == item.path else f"the folder {item.path}"
            return make_explanation(
                path, "skipped", f"{about} {item.reason}, so it is not painted",
                remedies=item.remedies,
            )  # fmt: skip
    try:
        stat_result = os.lstat(path)
    except PermissionError as error:
        return make_explanation(
            path, "unreadable", f"you may not read it: {error.strerror}",
            remedies=["ask as the user that styled runs as (sudo -u styled ...), or as root"],
        )  # fmt: skip
    except OSError:
        return _explain_gone(path, relative, context)
    pairing = Pairing(tuple(config.styles), config.folders, config.default_style)
    if stat.S_ISDIR(stat_result.st_mode):
        styles = pairing.destinations(f"{relative}/photo.jpg")
        for item in context.inbox.misspelled:
            if item.path == readable(relative).split(os.sep)[0]:
                return make_explanation(path, "folder", f"it {item.reason}", remedies=item.remedies)
        return (
            make_explanation(
                path, "folder", f"photos in it are painted in {' and in '.join(styles)}"
            )
            if styles
            else _unpaired(path, "photos in it belong", config)
        )
    if not stat.S_ISREG(stat_result.st_mode):
        return make_explanation(
            path, "not a file",
            f"it is {_file_kind(stat_result.st_mode)}: those are never opened nor moved",
            remedies=["put the photo itself here"],
        )  # fmt: skip
    journal = context.journal
    jobs = (
        []
        if journal is None
        else journal.jobs_of_file(relative, stat_result.st_size, stat_result.st_mtime_ns)
    )
    if jobs:
        explanation = explain_jobs(readable(path), jobs[::-1], context)
        return _with_sources(explanation, path, relative, [job.style for job in jobs], config)
    for file in context.inbox.incomplete:
        if file.path == readable(relative):
            return _incomplete(path, file, context)
    its_styles = PhotoStyles(config.inbox, pairing).styles_of(relative)
    if not its_styles:
        return _with_sources(_unpaired(path, "it belongs", config), path, relative, (), config)
    if (other_file := _other_file(path, config)) is not None:
        return other_file
    explanation = _not_taken_yet(path, stat_result, its_styles, context)
    return _with_sources(explanation, path, relative, its_styles, config)


def _with_sources(
    explanation: Explanation, path: Path, relative: str, styles: Iterable[str], config: Config
) -> Explanation:
    """Return an explanation with where the photo's settings come from."""
    sources = list(settings_sources(path, relative, styles, config))
    return explanation.model_copy(update={"settings": sources})


def _ignored(path: Path, relative: str, config: Config) -> Explanation | None:
    """Return the explanation if a path in the inbox is ignored because of its name or depth."""
    rules = IgnoreRules(config.intake.ignored_names)
    parts = relative.split(os.sep)
    for name in parts:
        if name.startswith(TEMPORARY_PREFIX):
            return make_explanation(path, "ignored", "it is an incomplete file of styled's own")
        if (pattern := rules.pattern_of(name)) is not None:
            key = "ignore" if pattern in config.intake.ignore else "ignore_also"
            return make_explanation(
                path, "ignored",
                f'its name is left alone: "{readable(name)}" matches "{pattern}" in intake.{key}',
                remedies=[f"rename it, or take that pattern out of intake.{key}"],
            )  # fmt: skip
    if is_companion_name(parts[-1]):
        photo = parts[-1]
        for suffix in COMPANION_SUFFIXES:
            photo = photo.removesuffix(suffix)
        return make_explanation(
            path, "ignored", f"it belongs to {readable(photo)} and goes where that goes"
        )
    for depth in range(1, len(parts)):
        folder = os.sep.join(parts[:depth])
        if (config.inbox / folder / IGNORE_MARKER).exists():
            return make_explanation(
                path, "ignored", f"{readable(folder)} is left alone: it holds {IGNORE_MARKER}",
                remedies=[f"delete {IGNORE_MARKER} there"],
            )  # fmt: skip
    if len(parts) - 1 > MAX_FOLDER_DEPTH:
        return make_explanation(
            path, "ignored", f"it lies more than {MAX_FOLDER_DEPTH} folders deep",
            remedies=["move it further up"],
        )  # fmt: skip
    return None


def _explain_gone(path: Path, relative: str, context: ExplainContext) -> Explanation:
    jobs = context.jobs_about("input", relative)
    if not jobs:
        reasons = [] if context.problem is None else [context.problem]
        return make_explanation(
            path, "missing", *reasons, "there is no such file, and no known job is about it"
        )
    latest: dict[str, Job] = {}  # newest job of each style; older attempts are left out
    for job in jobs:
        if (job.size, job.mtime_ns) == (jobs[0].size, jobs[0].mtime_ns):
            latest.setdefault(job.style, job)
    return explain_jobs(readable(path), list(latest.values()), context)


def _unpaired(path: Path, what: str, config: Config) -> Explanation:
    folders = ", ".join(f"{config.inbox}/{name}" for name in (*config.styles, *config.folders))
    return make_explanation(
        path, "unpaired", f"{what} to no style: the folder names none, and there is no "
        "default_style",
        remedies=[f"move it into one of {folders}" if folders else "configure a style",
                  "or name a default_style in the configuration"],
    )  # fmt: skip


def _other_file(path: Path, config: Config) -> Explanation | None:
    """Return the explanation of a file that is not a picture; None if it is one."""
    if config.intake.not_pictures == "reject" or has_picture_name(path.name):
        return None
    from styled.intake.picture_check import PictureCheck  # it imports torch

    check = PictureCheck(path.parent)
    if check.is_picture(path.name):
        return None
    kind = check.kind_of(path.name)
    what = f"it is {kind[0]}" if kind is not None else "its name and its content are no picture"
    return make_explanation(
        path, "not a picture", f"{what}, so it is left where it is",
        remedies=[kind[1]] if kind is not None else
        ["if it is one, save it again in a usual format, such as JPEG or PNG"],
    )  # fmt: skip


def _not_taken_yet(
    path: Path, stat_result: os.stat_result, styles: Iterable[str], context: ExplainContext
) -> Explanation:
    intention = f"it will be painted in {' and in '.join(styles)}"
    if context.problem is not None:
        return make_explanation(path, "new", context.problem, intention)
    if not context.is_running:
        return make_explanation(
            path, "new", f"{intention}, but styled is not running", remedies=_START
        )
    intake = context.config.intake
    if time.time() - stat_result.st_mtime < intake.settle_seconds + 1:
        return make_explanation(
            path,
            "settling",
            f"{intention}, once it has not changed for {intake.settle_seconds:g} s",
        )
    return make_explanation(
        path, "new", f"{intention}; it is taken at the next scan of the inbox, within "
        f"{format_duration(intake.rescan_seconds)}",
    )  # fmt: skip


def _incomplete(path: Path, file: IncompleteStatus, context: ExplainContext) -> Explanation:
    reasons = [f"it is incomplete: it {file.reason}"]
    if file.until is not None:
        seconds = (file.until - datetime.now(UTC)).total_seconds()
        left = format_duration(max(0.0, seconds))
        reasons.append(f"if it does not change, it is processed as it is in {left}")
        return make_explanation(path, "incomplete", *reasons)
    return make_explanation(
        path, "incomplete", *reasons,
        remedies=["let the download go on, or delete the file beside it if it never will"],
    )  # fmt: skip


_START = ["start it: styled run, or systemctl start styled"]


def _file_kind(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
    )  # fmt: skip
    return next((name for is_kind, name in kinds if is_kind(mode)), "no regular file")


# Jobs


def explain_jobs(path: str, jobs: list[Job], context: ExplainContext) -> Explanation:
    """Explain the state of jobs of the same photo, the newest first."""
    reasons: list[str] = []
    remedies: list[str] = []
    for job in jobs:
        reasons.append(f"{job.style}: {_state_text(job, context)}")
        reasons += [f"degraded: {degradation.message}" for degradation in job.degraded]
        remedies += job.remedies
        if job.state is JobState.REJECTED or job.failure == ON_REQUEST:
            is_stuck = job.original is not None and not os.path.lexists(job.original)
            remedies.append(
                "to have it tried once more: change it where it lies, or copy it there again"
                if is_stuck
                else f"to have it tried once more: styled retry {job.id}"
            )
    for item in context.stuck:
        if item.path == readable(jobs[0].input):
            reasons.append(f"the photo can't leave the inbox: {item.reason}")
            remedies += item.remedies
    if any(job.state in _UNFINISHED for job in jobs):
        if not context.is_running:
            reasons.insert(0, "styled is not running")
            remedies += _START
        elif context.problem is not None:
            reasons.insert(0, context.problem)
    order: tuple[Verdict, ...] = ("painting", "waiting", "rejected", "cancelled", "done")
    verdicts = {_verdict(job) for job in jobs}
    if "painting" in verdicts and not context.is_running:
        verdicts.add("waiting")
        verdicts.remove("painting")
    return Explanation(
        path=path,
        verdict=next(verdict for verdict in order if verdict in verdicts),
        reasons=reasons,
        remedies=remedies,
        jobs=job_statuses(jobs),
    )


_UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
_VERDICTS: dict[JobState, Verdict] = {
    JobState.RUNNING: "painting",
    JobState.QUEUED: "waiting",
    JobState.DONE: "done",
    JobState.REJECTED: "rejected",
    JobState.CANCELLED: "cancelled",
}


def _verdict(job: Job) -> Verdict:
    is_before = job.phase in (Phase.PREPARING, Phase.READY)
    return "waiting" if is_before else _VERDICTS[job.state]


def _state_text(job: Job, context: ExplainContext) -> str:
    """Return a sentence about the progress or the result of a job."""
    if job.state is JobState.RUNNING and not context.is_running:
        return f"was interrupted at {job.fraction:.0%}; the next start resumes it"
    if job.phase in (Phase.PREPARING, Phase.READY):
        return "is read and decoded, and painted next"
    if job.phase is Phase.PUBLISHING:
        return "is painted, and being published"
    if job.state is JobState.RUNNING:
        left = job.progress.seconds_left if job.progress is not None else None
        time_left = f", about {format_duration(left)} left" if left is not None else ""
        return f"is being painted, {job.fraction:.0%} done{time_left}"
    if job.state is JobState.QUEUED:
        jobs_ahead = context.journal.count_ahead(job) if context.journal is not None else 0
        position = "is next"
        if jobs_ahead:
            position = f"waits, with {format_count(jobs_ahead, 'job')} before it"
        if job.cancel_requested:
            return f"{position}, and is to be cancelled"
        if job.reason is None:
            return position
        seconds = job.not_before - time.time()
        retry = f"; tried again in {format_duration(seconds)}" if seconds >= 1 else ""
        return f"waits: {job.reason}{retry}"
    ended = f"{format_duration(max(0.0, time.time() - (job.finished_at or time.time())))} ago"
    if job.state is JobState.DONE:
        result_path = context.config.outbox / (job.result or "")
        missing = "" if os.path.exists(result_path) else " (it is not there any more)"
        return f"was painted {ended}: {readable(result_path)}{missing}"
    location = ""
    if job.original:
        is_there = os.path.lexists(job.original)
        location = (
            f"; it lies in {readable(job.original)}" if is_there else "; it never left the inbox"
        )
    if job.failure == ON_REQUEST:
        return f"was cancelled on request {ended}{location}"
    outcome = "was rejected" if job.state is JobState.REJECTED else "was cancelled"
    return f"{outcome} {ended}: {job.reason or 'the reason is unknown'}{location}"

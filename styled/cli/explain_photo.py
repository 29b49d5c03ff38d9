"""What becomes of a photo in the inbox, or of a job, in sentences."""

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

from styled.cli.status import InboxStatus, JobStatus, PathStatus, UnfinishedStatus, listed
from styled.config import Config
from styled.config.ignore import IgnoreRules
from styled.errors import NotMounted, ResourceUnavailable
from styled.files import TEMPORARY_PREFIX, readable
from styled.intake.pairing import Pairing
from styled.intake.scanning import DEEPEST_FOLDER
from styled.jobs.job import ON_REQUEST, Job, JobState, Phase
from styled.jobs.journal_queries import JournalReader
from styled.mounts import Mounts
from styled.ops.words import duration, some

Verdict = Literal[
    "painting", "waiting", "done", "rejected", "cancelled", "new", "settling", "ignored",
    "unpaired", "unfinished", "unreadable", "no file", "missing", "result", "original", "style",
    "folder", "elsewhere",
]  # fmt: skip


class Explanation(BaseModel):
    """What `styled explain --json` prints.

    Attributes:
        verdict: In one word.
        reasons: In sentences, the most important one first.
        remedies: What can be done about it.
        jobs: The jobs that it is about, the newest first.
    """

    path: str
    verdict: Verdict
    reasons: list[str]
    remedies: list[str] = []
    jobs: list[JobStatus] = []


@dataclass(frozen=True, slots=True)
class Scene:
    """What explanations look at.

    Attributes:
        journal: None where there is none.
        lives: Whether the daemon is running.
        trouble: Why it does nothing at all, if so.
        inbox: What lies in the inbox and is not taken, as the daemon has noted it.
        stuck: What can't leave the inbox.
    """

    config: Config
    journal: JournalReader | None
    lives: bool
    trouble: str | None
    inbox: InboxStatus
    stuck: Sequence[PathStatus]

    def jobs_about(self, column: Literal["input", "result", "original"], path: str) -> list[Job]:
        return [] if self.journal is None else self.journal.jobs_about(column, path)


def told(path: Path, verdict: Verdict, *reasons: str, remedies: Iterable[str] = ()) -> Explanation:
    return Explanation(
        path=readable(path), verdict=verdict, reasons=list(reasons), remedies=list(remedies)
    )


# In the inbox


def in_inbox(path: Path, relative: str, scene: Scene) -> Explanation:
    config = scene.config
    try:
        Mounts(config.state / "mounts.json", lambda record, data: None).require(config.inbox)
    except NotMounted as error:
        return told(path, "waiting", error.message, remedies=error.remedies)
    except ResourceUnavailable:
        pass
    left_alone = _left_alone(path, relative, config)
    if left_alone is not None:
        return left_alone
    for one in scene.inbox.unreadable:
        if relative == one.path or relative.startswith(f"{one.path}{os.sep}"):
            about = "it" if relative == one.path else f"the folder {one.path}"
            return told(
                path, "unreadable", f"{about} {one.reason}, so it is not painted",
                remedies=one.remedies,
            )  # fmt: skip
    try:
        found = os.lstat(path)
    except PermissionError as error:
        return told(
            path, "unreadable", f"you may not look at it: {error.strerror}",
            remedies=["ask as the user that styled runs as (sudo -u styled ...), or as root"],
        )  # fmt: skip
    except OSError:
        return _gone(path, relative, scene)
    pairing = Pairing(tuple(config.styles), config.folders, config.default_style)
    if stat.S_ISDIR(found.st_mode):
        styles = pairing.destinations(f"{relative}/photo.jpg")
        for one in scene.inbox.misspelled:
            if one.path == readable(relative).split(os.sep)[0]:
                return told(path, "folder", f"it {one.reason}", remedies=one.remedies)
        return (
            told(path, "folder", f"photos in it are painted in {' and in '.join(styles)}")
            if styles
            else _unpaired(path, "photos in it belong", config)
        )
    if not stat.S_ISREG(found.st_mode):
        return told(
            path, "no file", f"it is {_kind(found.st_mode)}: those are never opened nor moved",
            remedies=["put the photo itself here"],
        )  # fmt: skip
    journal = scene.journal
    jobs = (
        [] if journal is None else journal.jobs_of_file(relative, found.st_size, found.st_mtime_ns)
    )
    if jobs:
        return of_jobs(readable(path), jobs[::-1], scene)
    for file in scene.inbox.unfinished:
        if file.path == readable(relative):
            return _unfinished(path, file, scene)
    styles = pairing.destinations(relative)
    if not styles:
        return _unpaired(path, "it belongs", config)
    return _not_taken_yet(path, found, styles, scene)


def _left_alone(path: Path, relative: str, config: Config) -> Explanation | None:
    """Return why a path below the inbox is left alone because of its name, if it is."""
    rules = IgnoreRules(config.intake.ignore)
    parts = relative.split(os.sep)
    for name in parts:
        if name.startswith(TEMPORARY_PREFIX):
            return told(path, "ignored", "it is an unfinished file of styled's own")
        if (pattern := rules.pattern_of(name)) is not None:
            return told(
                path, "ignored",
                f'its name is left alone: "{readable(name)}" matches "{pattern}" in intake.ignore',
                remedies=["rename it, or take that pattern out of intake.ignore"],
            )  # fmt: skip
    if len(parts) - 1 > DEEPEST_FOLDER:
        return told(
            path, "ignored", f"it lies more than {DEEPEST_FOLDER} folders deep",
            remedies=["move it further up"],
        )  # fmt: skip
    return None


def _gone(path: Path, relative: str, scene: Scene) -> Explanation:
    jobs = scene.jobs_about("input", relative)
    if not jobs:
        reasons = [] if scene.trouble is None else [scene.trouble]
        return told(
            path, "missing", *reasons, "there is no such file, and no known job is about it"
        )
    latest: dict[str, Job] = {}  # by style: what was put back and tried again counts once
    for job in jobs:
        if (job.size, job.mtime_ns) == (jobs[0].size, jobs[0].mtime_ns):
            latest.setdefault(job.style, job)
    return of_jobs(readable(path), list(latest.values()), scene)


def _unpaired(path: Path, what: str, config: Config) -> Explanation:
    places = ", ".join(f"{config.inbox}/{name}" for name in (*config.styles, *config.folders))
    return told(
        path, "unpaired", f"{what} to no style: the folder names none, and there is no "
        "default_style",
        remedies=[f"move it into one of {places}" if places else "configure a style",
                  "or name a default_style in the configuration"],
    )  # fmt: skip


def _not_taken_yet(
    path: Path, found: os.stat_result, styles: Iterable[str], scene: Scene
) -> Explanation:
    wanted = f"it will be painted in {' and in '.join(styles)}"
    if scene.trouble is not None:
        return told(path, "new", scene.trouble, wanted)
    if not scene.lives:
        return told(path, "new", f"{wanted}, but styled is not running", remedies=_START)
    intake = scene.config.intake
    if time.time() - found.st_mtime < intake.settle_seconds + 1:
        return told(
            path, "settling", f"{wanted}, once it has not changed for {intake.settle_seconds:g} s"
        )
    return told(
        path, "new", f"{wanted}; it is taken at the next look at the inbox, within "
        f"{duration(intake.rescan_seconds)}",
    )  # fmt: skip


def _unfinished(path: Path, file: UnfinishedStatus, scene: Scene) -> Explanation:
    reasons = [f"it is still arriving: it {file.reason}"]
    if file.until is not None:
        seconds = (file.until - datetime.now(UTC)).total_seconds()
        reasons.append(
            f"unless it changes, it is judged by what is in it in {duration(max(0.0, seconds))}"
        )
        return told(path, "unfinished", *reasons)
    return told(
        path, "unfinished", *reasons,
        remedies=["let the download go on, or delete the file beside it if it never will"],
    )  # fmt: skip


_START = ["start it: styled run, or systemctl start styled"]


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
    )  # fmt: skip
    return next((name for is_kind, name in kinds if is_kind(mode)), "no regular file")


# Jobs


def of_jobs(path: str, jobs: list[Job], scene: Scene) -> Explanation:
    reasons: list[str] = []
    remedies: list[str] = []
    for job in jobs:
        reasons.append(f"{job.style}: {_story(job, scene)}")
        reasons += [f"degraded: {degradation.message}" for degradation in job.degraded]
        remedies += job.remedies
        if job.state is JobState.REJECTED or job.failure == ON_REQUEST:
            is_stuck = job.original is not None and not os.path.lexists(job.original)
            remedies.append(
                "to have it tried once more: change it where it lies, or put it there anew"
                if is_stuck
                else f"to have it tried once more: styled retry {job.id}"
            )
    for one in scene.stuck:
        if one.path == readable(jobs[0].input):
            reasons.append(f"the photo can't leave the inbox: {one.reason}")
            remedies += one.remedies
    if any(job.state in _UNFINISHED for job in jobs):
        if not scene.lives:
            reasons.insert(0, "styled is not running")
            remedies += _START
        elif scene.trouble is not None:
            reasons.insert(0, scene.trouble)
    order: tuple[Verdict, ...] = ("painting", "waiting", "rejected", "cancelled", "done")
    verdicts = {_verdict(job) for job in jobs}
    if "painting" in verdicts and not scene.lives:
        verdicts.add("waiting")
        verdicts.remove("painting")
    return Explanation(
        path=path,
        verdict=next(verdict for verdict in order if verdict in verdicts),
        reasons=reasons,
        remedies=remedies,
        jobs=listed(jobs),
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


def _story(job: Job, scene: Scene) -> str:
    """Return what has become of a job so far, in a sentence."""
    if job.state is JobState.RUNNING and not scene.lives:
        return f"was interrupted at {job.fraction:.0%}; the next start goes on with it"
    if job.phase in (Phase.PREPARING, Phase.READY):
        return "is read and decoded, and painted next"
    if job.phase is Phase.PUBLISHING:
        return "is painted, and being published"
    if job.state is JobState.RUNNING:
        left = job.progress.seconds_left if job.progress is not None else None
        more = f", about {duration(left)} left" if left is not None else ""
        return f"is being painted, {job.fraction:.0%} done{more}"
    if job.state is JobState.QUEUED:
        before = scene.journal.place_in_queue(job) if scene.journal is not None else 0
        turn = f"waits, with {some(before, 'job')} before it" if before else "is next"
        if job.cancel_requested:
            return f"{turn}, and is to be cancelled"
        if job.reason is None:
            return turn
        seconds = job.not_before - time.time()
        again = f"; tried again in {duration(seconds)}" if seconds >= 1 else ""
        return f"waits: {job.reason}{again}"
    when = f"{duration(max(0.0, time.time() - (job.finished_at or time.time())))} ago"
    if job.state is JobState.DONE:
        place = scene.config.outbox / (job.result or "")
        there = "" if os.path.exists(place) else " (it is not there any more)"
        return f"was painted {when}: {readable(place)}{there}"
    lies = ""
    if job.original:
        is_there = os.path.lexists(job.original)
        lies = f"; it lies in {readable(job.original)}" if is_there else "; it never left the inbox"
    if job.failure == ON_REQUEST:
        return f"was cancelled on request {when}{lies}"
    word = "was rejected" if job.state is JobState.REJECTED else "was cancelled"
    return f"{word} {when}: {job.reason or 'nobody knows why'}{lies}"

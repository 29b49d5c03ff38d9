"""`styled doctor`: everything that may go wrong on this machine, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

from rich.text import Text

from styled import __version__
from styled.cli.exits import BAD_CONFIG, DONE, NOT_AVAILABLE, console, exit_code_of
from styled.cli.status import daemon_facts, inbox_status, stuck_in, troubles_in
from styled.cli.working_folder import find_config
from styled.config import Config
from styled.errors import JournalDamaged, NoJournal, ResourceUnavailable, StyledError
from styled.jobs.job import WAITING, JobState
from styled.jobs.journal import Journal
from styled.jobs.journal_queries import JournalReader
from styled.jobs.journal_schema import open_existing_database
from styled.ops import doctor
from styled.ops.doctor import Finding
from styled.ops.lines import printable
from styled.ops.lock import InstanceLock
from styled.ops.words import duration, size, some

SHORT_MEMORY_BYTES = 2e9

LONG_WAIT_SECONDS = 24 * 3600.0

_REMEDIES = {
    "daemon": "look into its log, then restart it",
    "styles": "replace the image, or name another one in the configuration",
    "weights": "styled weights fetch loads the pretrained network; or name another file in "
    "engine.weights",
    "device": "set engine.device to auto or cpu",
}
"""What to do where an error does not say so itself."""

MOST_BLOCKED, MOST_REASONS = 500, 5
"""How many waiting jobs are looked at, and how many of their reasons are named."""

_COLOURS = {"ok": "bold green", "warn": "bold yellow", "fail": "bold red"}


def examine(named: Path | None, *, as_json: bool) -> int:
    """Check everything, print each finding, return the exit code.

    Raises:
        ConfigError: there is no configuration that could be read.
    """
    config = find_config(named)
    findings = []
    for finding in _findings(config):
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    failed = [finding for finding in findings if finding.level == "fail"]
    if not as_json:
        warned = sum(finding.level == "warn" for finding in findings)
        summary = f"{some(len(failed), 'failure')}, {some(warned, 'warning')}"
        console.print(Text(summary if failed or warned else "all is well", "bold"))
    return failed[0].exit_code if failed else DONE


def _findings(config: Config) -> Iterator[Finding]:
    folders = {
        name: getattr(config, name) for name in ("inbox", "outbox", "rejected", "archive", "state")
    }
    yield Finding("ok", "version", f"styled {__version__}, Python {platform.python_version()}")
    yield Finding("ok", "configuration", f"{config.path}: {some(len(config.styles), 'style')}")
    facts = _facts(config)
    yield from _caught(partial(_daemon, facts), config, "daemon")
    yield from doctor.permissions(folders, _user_of(config))
    yield from doctor.mounted(folders, config.state)
    yield from doctor.room(folders)
    yield from doctor.watches(config.inbox)
    yield from doctor.writers(config.inbox, _user_of(config), _process_of(config))
    yield from _journal(config)
    yield from _caught(_styles, config, "styles")
    yield from _caught(partial(_weights, facts), config, "weights")
    yield from _caught(_device, config, "device")


def _user_of(config: Config) -> int:
    """Return who the daemon runs as, going by whom its files belong to."""
    try:
        return os.stat(config.state / "lock").st_uid
    except OSError:
        return os.geteuid()


def _process_of(config: Config) -> int | None:
    try:
        return InstanceLock(config.state / "lock").owner()
    except ResourceUnavailable:
        return None


def _facts(config: Config) -> Mapping[str, str]:
    """Return what the daemon has noted about itself, nothing where that can't be read."""
    try:
        journal = Journal.open_read_only(config.state / "journal.sqlite3")
        try:
            return daemon_facts(config, journal)
        finally:
            journal.close()
    except (ResourceUnavailable, JournalDamaged):
        return {}  # the journal has a check of its own


def _daemon(facts: Mapping[str, str], config: Config) -> Iterator[Finding]:
    owner = InstanceLock(config.state / "lock").owner()
    if owner is None:
        yield Finding(
            "warn", "daemon", "it is not running on these folders",
            ("start it: styled run, or systemctl start styled",),
        )  # fmt: skip
        return
    yield Finding("ok", "daemon", f"running as process {owner}: {facts.get('state', 'unknown')}")
    if facts.get("version", __version__) != __version__:
        yield Finding(
            "warn", "daemon", f"it is styled {facts['version']}, this is {__version__}",
            ("restart it to use the version that is installed now",),
        )  # fmt: skip
    for trouble in troubles_in(facts):
        yield Finding("fail", "daemon", trouble, ("see its log",), exit_code=75)
    inbox = inbox_status(facts)
    for one in (*inbox.unreadable, *inbox.misspelled, *stuck_in(facts)):
        yield Finding("warn", "inbox", f"{one.path}: {one.reason}", tuple(one.remedies))
    for file in inbox.unfinished:
        yield Finding("ok", "inbox", f"{file.path} {file.reason}")
    if facts.get("state", "").startswith("paused"):
        yield Finding("fail", "queue", facts["state"], ("work goes on by itself after that",))
    for name in ("degraded", "degraded_intake"):
        for note in json.loads(facts.get(name, "[]")):
            yield Finding("warn", "degraded", note["message"], _degradation_remedies(note["kind"]))


def _journal(config: Config) -> Iterator[Finding]:
    path = config.state / "journal.sqlite3"
    try:
        connection = open_existing_database(path, read_only=True)
        try:
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
        if problem != "ok":
            raise JournalDamaged(f"the journal {path} is damaged: {problem}")
        journal = Journal.open_read_only(path)
        try:
            counts, oldest = journal.counts(), journal.oldest_waiting()
            blocked = _blocked(journal)
        finally:
            journal.close()
    except NoJournal:
        yield Finding("ok", "journal", "there is none yet; the first start makes it")
        return
    except StyledError as error:
        yield Finding(
            "fail", "journal", error.message, error.remedies or ("restart styled",), exit_code=75
        )
        return
    for reason, (number, remedies) in blocked.items():
        yield Finding(
            "warn",
            "queue",
            f"{some(number, 'job')} waiting: {reason}",
            remedies or ("see the log",),
        )
    waiting = counts.get(JobState.QUEUED, 0)
    words = f"{size(path.stat().st_size)}, sound; {some(waiting, 'job')} waiting"
    waited = 0.0 if oldest is None else time.time() - oldest
    if waited > LONG_WAIT_SECONDS:
        yield Finding(
            "warn", "journal", f"{words}, the oldest for {duration(waited)}",
            ("see styled jobs: it may wait for something",),
        )  # fmt: skip
    else:
        yield Finding("ok", "journal", words)


def _blocked(journal: JournalReader) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Return for what the first jobs of the queue wait: how many do, and what helps."""
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    for job in journal.in_state(JobState.QUEUED, limit=MOST_BLOCKED):
        if job.failure == WAITING and job.reason is not None:
            found[job.reason] = found.get(job.reason, (0, ()))[0] + 1, job.remedies
    return dict(islice(found.items(), MOST_REASONS))


def _caught(
    check: Callable[[Config], Iterator[Finding]], config: Config, about: str
) -> Iterator[Finding]:
    try:
        yield from check(config)
    except StyledError as error:
        remedies = error.remedies or (_REMEDIES[about],)
        yield Finding("fail", about, error.message, remedies, exit_code_of(error))


def _degradation_remedies(kind: str) -> tuple[str, ...]:
    """Return what to do about something that the service does without."""
    return {
        "device": ("see device, below; to accept that, set engine.device: cpu",),
        "weights": ("set engine.weights to imagenet: styled weights fetch loads it (548 MB)",),
        "polling": ("to accept that, set intake.mode: polling",),
    }.get(kind, ("see the log",))


# These import torch, which takes seconds: they come last.


def _styles(config: Config) -> Iterator[Finding]:
    from styled.stages import check_styles

    check_styles(config)
    if config.styles:
        yield Finding("ok", "styles", "the images of all styles can be read")
    else:
        yield Finding(
            "fail", "styles", "there is none, so nothing is ever painted",
            ("name one under styles: in the configuration",), BAD_CONFIG,
        )  # fmt: skip


def _weights(facts: Mapping[str, str], config: Config) -> Iterator[Finding]:
    from styled.engine.weights import imagenet_file, load_weights

    # A service keeps it elsewhere than whoever asks.
    places = (imagenet_file(), Path(facts.get("weights_file", imagenet_file())))
    if config.engine.weights == "imagenet" and not imagenet_file().exists():
        for place in places:
            if os.path.exists(place):
                yield Finding("ok", "weights", f"the daemon's are at {place}")
                return
        yield Finding(
            "fail", "weights", f"the pretrained network is not at {imagenet_file()}",
            ("styled weights fetch loads it (548 MB); as the daemon's user, with its TORCH_HOME",
             "or name a file made by styled weights export, or untrained, in engine.weights"),
            NOT_AVAILABLE,
        )  # fmt: skip
        return
    weights = load_weights(config.engine.weights)
    words = f"{weights.source}, sha256 {weights.sha256[:12]}..."
    if weights.source == "untrained":
        yield Finding(
            "warn", "weights", f"{words}: pictures are plainer than by the pretrained network",
            ("set engine.weights to imagenet, or to a file made by styled weights export",),
        )  # fmt: skip
    else:
        yield Finding("ok", "weights", words)


def _device(config: Config) -> Iterator[Finding]:
    import torch

    from styled.engine import memory
    from styled.engine.device import choose_device

    device = choose_device(config.engine.device)
    free = memory.free_bytes(device.torch_device)
    words = f"{device.name}, torch {torch.__version__}"
    if free is not None:
        words += f", {size(free)} of memory free"
    if device.degraded is not None:
        yield Finding("warn", "device", f"{words} ({device.degraded.message})", _gpu_remedies())
    elif free is not None and free < SHORT_MEMORY_BYTES:
        yield Finding(
            "warn", "device", words, ("little for large pictures: they are painted in tiles",)
        )
    else:
        yield Finding("ok", "device", words)


def _gpu_remedies() -> tuple[str, ...]:
    import torch

    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/kfd").exists():
        return ("there is no GPU in this machine, or its driver is not loaded: see dmesg",)
    if torch.version.cuda is None and torch.version.hip is None:
        return ("this torch is one for CPUs alone: install one for GPUs",)
    return (
        f"a GPU is there, but this torch ({torch.__version__}, "
        f"{sys.platform}) can't use it: the driver may be too old for it, or /dev/nvidia* may "
        "not be opened by this user",
    )


def _print(finding: Finding) -> None:
    console.print(
        Text.assemble(
            (f"{finding.level:4}  ", _COLOURS[finding.level]),
            (f"{finding.about}: ", "bold"),
            printable(finding.words.replace("\n", " ")),
        ),
        soft_wrap=True,
    )
    for remedy in finding.remedies:
        console.print(Text(f"      - {printable(remedy)}"), soft_wrap=True)

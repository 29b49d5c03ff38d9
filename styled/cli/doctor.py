"""`styled doctor`: finds problems of this machine and says how to fix them."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path

from rich.text import Text

from styled import __version__
from styled.cli.exit_codes import BAD_CONFIG, DONE, NOT_AVAILABLE, TEMPORARY, console, exit_code_of
from styled.cli.find_config import config_or_problem
from styled.cli.status import inbox_status, problems_by_kind, read_daemon_state, stuck_in
from styled.config import Config
from styled.errors import ConfigError, JournalDamaged, NoJournal, ResourceUnavailable, StyledError
from styled.extras import install_command
from styled.journal.job import BLOCKED, JobState
from styled.journal.journal import Journal
from styled.journal.pause_request import PAUSE_REQUEST_REASON
from styled.journal.queries import JournalReader
from styled.journal.schema import open_existing_database
from styled.ops import doctor
from styled.ops.doctor import Finding
from styled.ops.humanize import format_bytes, format_count, format_duration, printable
from styled.ops.lock import InstanceLock

LOW_MEMORY_BYTES = 2e9
"""A device with less free memory gives a warning."""

LONG_WAIT_SECONDS = 24 * 3600.0
"""A job that has waited longer gives a warning."""

_REMEDIES = {
    "daemon": "look into its log, then restart it",
    "styles": "replace the image, or name another one in the configuration",
    "weights": "styled weights fetch downloads the pretrained network; or name another file in "
    "engine.weights",
    "device": "set engine.device to auto or cpu",
    "cluster": "see docs/cluster.md",
}
"""Default remedies, by subject of the check, for errors without remedies."""

_WARNING_REMEDIES = {
    "needs_restart": ("restart it when it suits: systemctl restart styled",),
    "styles_left_out": ("replace the picture, or delete it if it is to be no style",),
}
"""Remedies for problems that are warnings and not failures, by kind."""

_PROBLEM_REMEDIES = {
    "stalled": ("its folders may be on a disk that does not answer: see dmesg",),
    "config_problem": (
        "fix the configuration: styled check; then systemctl reload styled, or kill -HUP PID",
    ),
    "inbox_problem": ("see mounts and permissions, below",),
    "inbox_read_only": ("see permissions, below",),
    "cluster_problem": ("see docs/cluster.md",),
    "style_problems": ("put the picture back, or take the style out of the configuration",),
}
"""Remedies for failures, by kind of problem."""

MAX_BLOCKED_JOBS, MAX_REASONS = 500, 5
"""Maximum number of waiting jobs that are examined, and of their reasons that are shown."""

_COLORS = {"ok": "bold green", "warn": "bold yellow", "fail": "bold red"}


def examine(config_path: Path | None, *, as_json: bool) -> int:
    """Run all checks, print the findings, and return the exit code of the first failure.

    Raises:
        ConfigError: There is no valid configuration, and no daemon that has loaded one.
    """
    config, problem = config_or_problem(config_path)
    findings = []
    for finding in findings_of(config, problem):
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    failed = [finding for finding in findings if finding.level == "fail"]
    if not as_json:
        warned = sum(finding.level == "warn" for finding in findings)
        summary = f"{format_count(len(failed), 'failure')}, {format_count(warned, 'warning')}"
        console.print(Text(summary if failed or warned else "all is well", "bold"))
    return failed[0].exit_code if failed else DONE


def findings_of(config: Config, problem: ConfigError | None = None) -> Iterator[Finding]:
    """Run all checks; yield their findings.

    Args:
        config: The configuration; that of the running daemon, if the file is invalid.
        problem: What is invalid in the file.
    """
    folders = {
        name: getattr(config, name) for name in ("inbox", "outbox", "rejected", "archive", "state")
    }
    yield Finding("ok", "version", f"styled {__version__}, Python {platform.python_version()}")
    yield _formats()
    if problem is None:
        styles = format_count(len(config.styles), "style")
        yield Finding("ok", "configuration", f"{config.path}: {styles}")
    else:
        yield Finding("fail", "configuration", problem.message, problem.remedies, BAD_CONFIG)
    state = read_daemon_state(config)  # if it can't be read, `_journal` reports that
    yield from _errors_as_findings(_daemon(state, config), "daemon")
    yield from doctor.check_permissions(folders, _daemon_user(config))
    yield from doctor.check_mounts(folders, config.state)
    yield from doctor.check_disk_space(folders, config.output.min_free)
    yield from doctor.check_inotify(config.inbox)
    yield from doctor.check_open_files(config.inbox, _daemon_user(config), _daemon_pid(config))
    yield from _journal(config)
    if problem is not None:
        # They would read files and connect to addresses that the daemon's user has named.
        yield Finding(
            "warn", "checks", "styles, weights and device are not checked",
            ("fix the configuration",), BAD_CONFIG,
        )  # fmt: skip
        return
    yield from _errors_as_findings(_styles(config), "styles")
    yield from _errors_as_findings(_weights(state, config), "weights")
    if config.cluster.address is None:
        yield from _errors_as_findings(_device(config), "device")
    else:
        yield from _errors_as_findings(_cluster(config), "cluster")
        yield from _engines(state)


_OPTIONAL = (
    ("pillow-heif", "HEIC"), ("pillow-jxl-plugin", "JPEG XL"), ("rawpy", "raw photos"),
)  # fmt: skip


def _formats() -> Finding:
    """Return which formats can be read with the installed packages."""
    read = ["JPEG, PNG, TIFF, WebP, AVIF, BMP, GIF"]
    missing = []
    for package, name in _OPTIONAL:
        try:
            read.append(f"{name} ({package} {version(package)})")
        except PackageNotFoundError:
            missing.append(f"{name}: {install_command(package)}")
    without = f"; not {', nor '.join(missing)}" if missing else ""
    return Finding("ok", "formats", f"{', '.join(read)}{without}")


def _daemon_user(config: Config) -> int:
    """Return the user id that the daemon runs as: the owner of its lock file."""
    try:
        return os.stat(config.state / "lock").st_uid
    except OSError:
        return os.geteuid()


def _daemon_pid(config: Config) -> int | None:
    try:
        return InstanceLock(config.state / "lock").owner()
    except ResourceUnavailable:
        return None


def _daemon(state: Mapping[str, str], config: Config) -> Iterator[Finding]:
    owner = InstanceLock(config.state / "lock").owner()
    if owner is None:
        yield Finding(
            "warn", "daemon", "it is not running on these folders",
            ("start it: styled run, or systemctl start styled",),
        )  # fmt: skip
        return
    yield Finding("ok", "daemon", f"running as process {owner}: {state.get('activity', 'unknown')}")
    if state.get("version", __version__) != __version__:
        yield Finding(
            "warn", "daemon", f"it is styled {state['version']}, this is {__version__}",
            ("restart it to use the version that is installed now",),
        )  # fmt: skip
    for kind, problem in problems_by_kind(state):
        if kind in _WARNING_REMEDIES:
            yield Finding("warn", "daemon", problem, _WARNING_REMEDIES[kind])
        else:
            yield Finding(
                "fail", "daemon", problem, _PROBLEM_REMEDIES.get(kind, ("see its log",)), TEMPORARY
            )
    inbox = inbox_status(state)
    others = (*inbox.skipped, *inbox.misspelled, *inbox.invalid_settings)
    for item in (*others, *stuck_in(state)):
        yield Finding("warn", "inbox", f"{item.path}: {item.reason}", tuple(item.remedies))
    for file in inbox.incomplete:
        yield Finding("ok", "inbox", f"{file.path} {file.reason}")
    if state.get("activity", "").startswith("paused"):
        if PAUSE_REQUEST_REASON in state["activity"]:
            yield Finding("warn", "queue", state["activity"], ("styled resume",))
        else:
            yield Finding(
                "fail",
                "queue",
                state["activity"],
                ("the queue continues by itself once that is over",),
            )
    for name in ("degraded_engines", "degraded_intake"):
        for note in json.loads(state.get(name, "[]")):
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
            counts, oldest = journal.counts(), journal.oldest_unfinished()
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
    for reason, (count, remedies) in blocked.items():
        yield Finding(
            "warn",
            "queue",
            f"{format_count(count, 'job')} waiting: {reason}",
            remedies or ("see the log",),
        )
    waiting = counts.get(JobState.QUEUED, 0)
    text = f"{format_bytes(path.stat().st_size)}, sound; {format_count(waiting, 'job')} waiting"
    waited_seconds = 0.0 if oldest is None else time.time() - oldest
    if waited_seconds > LONG_WAIT_SECONDS:
        yield Finding(
            "warn", "journal", f"{text}, the oldest for {format_duration(waited_seconds)}",
            ("see styled jobs: it may wait for something",),
        )  # fmt: skip
    else:
        yield Finding("ok", "journal", text)


def _blocked(journal: JournalReader) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Return why the first jobs in the queue wait: reason -> (number of jobs, remedies)."""
    reasons: dict[str, tuple[int, tuple[str, ...]]] = {}
    for job in journal.in_state(JobState.QUEUED, limit=MAX_BLOCKED_JOBS):
        if job.failure == BLOCKED and job.reason is not None:
            reasons[job.reason] = reasons.get(job.reason, (0, ()))[0] + 1, job.remedies
    return dict(islice(reasons.items(), MAX_REASONS))


def _errors_as_findings(findings: Iterator[Finding], subject: str) -> Iterator[Finding]:
    """Yield findings as they are made; an error that ends them is the last one."""
    try:
        yield from findings
    except StyledError as error:
        remedies = error.remedies or (_REMEDIES[subject],)
        yield Finding("fail", subject, error.message, remedies, exit_code_of(error))


def _degradation_remedies(kind: str) -> tuple[str, ...]:
    """Return the remedies for a degradation of the service."""
    return {
        "device": ("see device, below; to accept that, set engine.device: cpu",),
        "weights": ("set engine.weights to imagenet: styled weights fetch downloads it (548 MB)",),
        "polling": ("to accept that, set intake.mode: polling",),
    }.get(kind, ("see the log",))


# The following checks import torch, which takes seconds, so they run last.


def _styles(config: Config) -> Iterator[Finding]:
    from styled.codec.style_check import check_styles

    check_styles(config)
    if config.styles:
        yield Finding("ok", "styles", "the images of all styles can be read")
    else:
        yield Finding(
            "fail", "styles", "there is none, so nothing is ever painted",
            ("name one under styles: in the configuration",), BAD_CONFIG,
        )  # fmt: skip


def _weights(state: Mapping[str, str], config: Config) -> Iterator[Finding]:
    from styled.cli.daemon_weights import imagenet_file_of_daemon
    from styled.engine.weights import imagenet_file, load_weights

    if config.engine.weights == "imagenet" and not imagenet_file().exists():
        path = imagenet_file_of_daemon(config, state)
        if path is not None:
            yield Finding("ok", "weights", f"the daemon's are at {path}")
            return
        yield Finding(
            "fail", "weights", f"the pretrained network is not at {imagenet_file()}",
            ("styled weights fetch downloads it (548 MB), as the daemon's user and "
             "with its TORCH_HOME",
             "or name a file made by styled weights export, or untrained, in engine.weights"),
            NOT_AVAILABLE,
        )  # fmt: skip
        return
    weights = load_weights(config.engine.weights)
    text = f"{weights.source}, sha256 {weights.sha256[:12]}..."
    if weights.source == "untrained":
        yield Finding(
            "warn", "weights", f"{text}: pictures are plainer than with the pretrained network",
            ("set engine.weights to imagenet, or to a file made by styled weights export",),
        )  # fmt: skip
    else:
        yield Finding("ok", "weights", text)


def _cluster(config: Config) -> Iterator[Finding]:
    from styled.cluster.environment import prepare_environment

    address = config.cluster.address
    assert address is not None, "a cluster is configured"
    prepare_environment(address)
    if address == "local":
        import torch

        gpus = format_count(torch.cuda.device_count(), "GPU")
        yield Finding("ok", "cluster", f"Ray {version('ray')} on this machine, {gpus}")
        return
    from styled.cluster.survey import survey

    found = survey(address)
    for node in found.usable:
        yield Finding(
            "ok", "cluster", f"{node.name}: {format_count(int(node.gpus), 'GPU')}, "
            f"{format_count(int(node.cpus), 'core')}, same versions",
        )  # fmt: skip
    for name, difference in found.refused.items():
        yield Finding(
            "fail", "cluster", f"{name} is not used: {difference}",
            ("install the same version on all machines",), NOT_AVAILABLE,
        )  # fmt: skip
    if not found.usable:
        yield Finding(
            "fail", "cluster", f"no machine of {address} can be used",
            ("start one: ray start --address=HOST:PORT",), NOT_AVAILABLE,
        )  # fmt: skip


def _engines(state: Mapping[str, str]) -> Iterator[Finding]:
    """Report the engines of the running daemon."""
    for engine in json.loads(state.get("engines", "[]")):
        if engine["device"] is None:
            reason = engine["problem"] or "it is starting"
            yield Finding("warn", engine["name"], f"lost: {reason}", ("see the log",))
        else:
            where = (
                f"{engine['device']} of {engine['node']}" if engine["node"] else engine["device"]
            )
            yield Finding("ok", engine["name"], where)


def _device(config: Config) -> Iterator[Finding]:
    import torch

    from styled.engine import memory
    from styled.engine.device import choose_device

    device = choose_device(config.engine.device)
    free = memory.free_bytes(device.torch_device)
    text = f"{device.name}, torch {torch.__version__}"
    if free is not None:
        text += f", {format_bytes(free)} of memory free"
    if device.degradation is not None:
        yield Finding("warn", "device", f"{text} ({device.degradation.message})", _gpu_remedies())
    elif free is not None and free < LOW_MEMORY_BYTES:
        yield Finding(
            "warn", "device", text, ("little for large pictures: they are painted in tiles",)
        )
    else:
        yield Finding("ok", "device", text)


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


def _print_finding(finding: Finding) -> None:
    console.print(
        Text.assemble(
            (f"{finding.level:4}  ", _COLORS[finding.level]),
            (f"{finding.subject}: ", "bold"),
            printable(finding.message.replace("\n", " ")),
        ),
        soft_wrap=True,
    )
    for remedy in finding.remedies:
        console.print(Text(f"      - {printable(remedy)}"), soft_wrap=True)

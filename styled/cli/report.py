"""`styled report`: one zip file with what a bug report about a photo needs, and no picture."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.text import Text

from styled import __version__
from styled.cli.doctor import findings_of
from styled.cli.exit_codes import console, exit_with_usage_error, print_error
from styled.cli.explain import explain
from styled.cli.explanations import Explanation
from styled.cli.find_config import config_or_problem, current_folder
from styled.cli.status import job_statuses, read_status
from styled.config import Config
from styled.config.dump import show_config
from styled.delivery.names import sidecar_path
from styled.errors import ConfigError, JournalDamaged, ResourceUnavailable
from styled.files import readable
from styled.journal.job import Job
from styled.journal.queries import JournalReader
from styled.ops.humanize import printable
from styled.sidecar import Sidecar

LOG_SECONDS = 30.0
"""How long to wait for journalctl."""

MAX_LOG_LINES = 5000
"""Maximum number of log lines of a job; the last ones are kept."""

MAX_FILE_BYTES = 1 << 24
"""A larger sidecar is left out."""

_PACKAGES = (
    "torch", "torchvision", "pillow", "numpy", "watchdog", "pyyaml", "structlog", "pydantic",
    "pillow-heif", "pyvips", "rawpy", "pillow-jxl-plugin", "ray",
)  # fmt: skip

_CONTENT = """\
This is a report of styled about {about}.

explanation.json   what styled says about it
jobs/ID/           job.json (its row of the journal), sidecar.json, log.jsonl
status.json, doctor.json, versions.json
config.yaml        the configuration with all values; arguments of hooks are left out

Paths are shortened: INBOX, OUTBOX, REJECTED, ARCHIVE, STATE and CONFIG are the folders, ~ is the
home folder. Names of photos and of styles are in it{picture}. Look it
through before you publish it.
"""


def write_report(
    config_path: Path | None, about: str, output: Path | None, log_file: Path | None,
    *, with_picture: bool,
) -> None:  # fmt: skip
    """Write a report about a job or a photo, and print its path.

    Args:
        config_path: The configuration; None: the usual one.
        about: A job id, or the path of a photo, result or rejected file.
        output: The file to write; None: a new one in the current folder.
        log_file: Where the daemon's log is; `-`: standard input; None: systemd's journal.
        with_picture: Whether the photo is added, too.

    Raises:
        ConfigError: there is no valid configuration.
        ResourceUnavailable: the file can't be written.
    """
    config, problem = config_or_problem(config_path)
    if problem is not None:
        print_error(problem)
    (explanation,) = explain(config, [about])
    jobs = _jobs_of(config, explanation)
    if explanation.verdict == "missing" and not jobs:
        exit_with_usage_error(f"there is no file and no job {printable(about)}")
    path = output or _free_name(jobs[0].id if jobs else "photo")
    shorten = _Shortener(config)
    texts = list(_texts(config, problem, explanation, jobs, log_file, with_picture))
    try:
        with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts:
                archive.writestr(name, shorten(text))
            if with_picture and (photo := _photo(config, jobs, about)) is not None:
                archive.write(photo, f"picture/{readable(photo.name)}")
    except FileExistsError:
        exit_with_usage_error(f"{path} exists already")
    except OSError as error:
        raise ResourceUnavailable(
            f"{path} can't be written: {error.strerror}", "name another file with --output"
        ) from error
    console.print(Text(f"{path}"), soft_wrap=True)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            console.print(Text(f"  {printable(info.filename)}, {info.file_size:,} bytes"))
    console.print(Text("Review it before you publish it."))


def _texts(
    config: Config,
    problem: ConfigError | None,
    explanation: Explanation,
    jobs: Sequence[Job],
    log_file: Path | None,
    with_picture: bool,
) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file of the report."""
    picture = ", and the photo itself" if with_picture else "; pictures are not"
    yield "README.txt", _CONTENT.format(about=explanation.path, picture=picture)
    yield "explanation.json", explanation.model_dump_json(indent=2)
    lines = list(_log_lines(log_file, jobs))
    for job, status in zip(jobs, job_statuses(list(jobs)), strict=True):
        folder = f"jobs/{job.id}"
        yield f"{folder}/job.json", status.model_dump_json(indent=2)
        if (sidecar := _sidecar_text(config, job)) is not None:
            yield f"{folder}/sidecar.json", sidecar
        about_job = [line for line in lines if job.id in line][-MAX_LOG_LINES:]
        yield (
            f"{folder}/log.jsonl",
            "\n".join(about_job)
            or (
                "No line about this job was found. Without systemd's journal, give the daemon's "
                "log with --log FILE."
            ),
        )
    with suppress(ResourceUnavailable, JournalDamaged):
        others = {"current", "waiting", "last", "rejections"}  # jobs of other photos
        yield "status.json", read_status(config).model_dump_json(indent=2, exclude=others)
    findings = [asdict(finding) for finding in findings_of(config, problem)]
    yield "doctor.json", json.dumps(findings, indent=2)
    yield "versions.json", json.dumps(_versions(), indent=2)
    yield "config.yaml", show_config(_without_secrets(config))


def _jobs_of(config: Config, explanation: Explanation) -> list[Job]:
    """Return the jobs that an explanation is about; of a result or rejected file, its own."""
    ids = [job.id for job in explanation.jobs]
    if not ids:
        for path in (Path(explanation.path), Path(f"{explanation.path}.json")):
            with suppress(OSError, ValueError):
                if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
                    ids = [Sidecar.model_validate_json(path.read_bytes()).job.id]
    try:
        journal = JournalReader.open_read_only(config.state / "journal.sqlite3")
    except (ResourceUnavailable, JournalDamaged):
        return []
    try:
        return [job for job_id in ids if (job := journal.job(job_id)) is not None]
    finally:
        journal.close()


def _sidecar_text(config: Config, job: Job) -> str | None:
    for file in (job.result and config.outbox / job.result, job.original and Path(job.original)):
        if file:
            path = sidecar_path(file)
            with suppress(OSError):
                if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
                    return path.read_text("utf-8", "backslashreplace")
    return None


def _photo(config: Config, jobs: Sequence[Job], about: str) -> Path | None:
    """Return where the photo is now."""
    places = [Path(job.original) for job in jobs if job.original]
    places += [config.inbox / job.input for job in jobs]
    places.append(current_folder() / about)
    return next((path for path in places if path.is_file()), None)


def _log_lines(log_file: Path | None, jobs: Sequence[Job]) -> Iterator[str]:
    """Yield the daemon's log lines since the first of these jobs was submitted."""
    if log_file is not None:
        try:
            text = sys.stdin.buffer.read() if str(log_file) == "-" else log_file.read_bytes()
        except OSError as error:
            raise ResourceUnavailable(
                f"{log_file} can't be read: {error.strerror}", "name the daemon's log with --log"
            ) from error
        yield from text.decode("utf-8", "backslashreplace").splitlines()
    elif jobs and (journalctl := shutil.which("journalctl")) is not None:
        since = min(job.submitted_at for job in jobs)
        command = [
            journalctl, "--identifier=styled", "--output=cat", "--no-pager", "--quiet",
            f"--since=@{int(since)}",
        ]  # fmt: skip
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, timeout=LOG_SECONDS)
            yield from done.stdout.decode("utf-8", "backslashreplace").splitlines()


def _versions() -> Mapping[str, str]:
    versions = {"styled": __version__, "python": sys.version, "platform": platform.platform()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _without_secrets(config: Config) -> Config:
    """Return the configuration without the arguments of hooks, which may hold keys."""
    hooks = {
        name: (command[0], f"({len(command) - 1} arguments)")
        for name in ("on_done", "on_rejected", "on_idle")
        if (command := getattr(config.hooks, name))
    }
    return replace(config, hooks=config.hooks.model_copy(update=hooks))


class _Shortener:
    """Replaces the paths of folders by short names."""

    def __init__(self, config: Config) -> None:
        names = {
            config.inbox: "INBOX", config.outbox: "OUTBOX", config.rejected: "REJECTED",
            config.archive: "ARCHIVE", config.state: "STATE", config.base: "CONFIG",
            Path.home(): "~", Path(sys.prefix): "PYTHON",
        }  # fmt: skip
        self._names: dict[str, str] = {}
        for folder, name in names.items():
            for path in (str(folder), os.path.realpath(folder)):
                if path != os.sep:
                    self._names.setdefault(readable(path), name)

    def __call__(self, text: str) -> str:
        # Longer paths first: a folder may be within another one.
        for path in sorted(self._names, key=len, reverse=True):
            text = text.replace(path, self._names[path])
        return text


def _free_name(job_id: str) -> Path:
    """Return a name in the current folder that is not taken."""
    path = Path(f"styled-report-{job_id}.zip")
    number = 2
    while path.exists():
        path = Path(f"styled-report-{job_id}-{number}.zip")
        number += 1
    return path

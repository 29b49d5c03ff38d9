"""`styled retry`: moves rejected photos back into the inbox."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text

from styled.cli.exit_codes import console, exit_with_usage_error
from styled.cli.find_config import current_folder, find_config
from styled.cli.jobs import MAX_HINTS
from styled.config import Config
from styled.delivery.names import sidecar_path
from styled.delivery.requeue import is_rejected_input, rejected_inputs, return_to_inbox
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.journal.job import JobState
from styled.journal.journal import Journal
from styled.mounts import Mounts
from styled.ops.humanize import printable
from styled.sidecar import job_id_in


def retry(config_path: Path | None, args: list[str], *, everything: bool) -> None:
    """Move rejected inputs back into the inbox and print their new paths.

    Args:
        config_path: The configuration file; None: the default one.
        args: Paths of rejected files or of their `.json`, relative to the current folder or to
            the folder of rejected inputs, or job ids.
        everything: Retry all rejected inputs whose style is still configured.

    Raises:
        ConfigError: There is no valid configuration.
        ResourceUnavailable: A file can't be moved.
    """
    config = find_config(config_path)
    mounts = Mounts(config.state / "mounts.json", read_only=True)
    if everything == bool(args):
        exit_with_usage_error("name what to retry, or use --all for everything rejected")
    selected = (
        [
            path
            for path in rejected_inputs(_rejected(config))
            if _style(path, config) in config.styles
        ]
        if everything
        else list(dict.fromkeys(_resolve_args(args, config)))
    )
    if selected:
        mounts.require(config.inbox)
    for path in selected:
        new_path = return_to_inbox(path, _rejected(config), config.inbox)
        console.print(Text(printable(readable(new_path))), soft_wrap=True)
    if not selected:
        console.print("nothing was rejected")


def _resolve_args(args: Sequence[str], config: Config) -> Iterator[Path]:
    """Yield the rejected input of each argument; exit with a usage error if there is none."""
    nothing_done = "; nothing was retried" if len(args) > 1 else ""
    for arg in args:
        path = next(
            (
                path
                for path in _candidates(arg, config)
                if path.is_relative_to(_rejected(config)) and is_rejected_input(path)
            ),
            None,
        )
        if path is None:
            exit_with_usage_error(
                f"{readable(arg)} is not a rejected photo: neither a file in {config.rejected} "
                f"that has a .json beside it, nor the id of a rejected job{_hint(arg, config)}"
                f"{nothing_done}"
            )
        if _style(path, config) not in config.styles:
            exit_with_usage_error(
                f'the style "{_style(path, config)}" of {readable(arg)} is no longer configured; '
                f"move the file itself into {config.inbox} to have it painted in another one"
                f"{nothing_done}"
            )
        yield path


def _hint(arg: str, config: Config) -> str:
    """Name the rejected photos of this name in sub-folders."""
    found = [
        readable(os.path.relpath(os.path.join(folder, arg), config.rejected))
        for folder, _, names in os.walk(config.rejected)
        if arg in names and is_rejected_input(Path(folder, arg))
    ]
    return f"; did you mean {' or '.join(found[:MAX_HINTS])}?" if found else ""


def _candidates(arg: str, config: Config) -> Iterator[Path]:
    for base in (current_folder(), config.rejected):
        path = Path(os.path.realpath((base / arg).parent), os.path.basename(arg))
        yield path
        if path.suffix == ".json":
            yield path.with_suffix("")
    try:
        journal = Journal.open_read_only(config.state / "journal.sqlite3")
    except ResourceUnavailable:
        return
    try:
        job = journal.job(readable(arg))
    finally:
        journal.close()
    # Jobs that were cancelled on request have their original in the same folder.
    finished_states = (JobState.REJECTED, JobState.CANCELLED)
    if job is not None and job.state in finished_states and job.original is not None:
        original = Path(job.original)
        # Another photo may have been rejected under this name in the meantime.
        if job_id_in(sidecar_path(original)) == job.id:
            yield Path(os.path.realpath(original.parent), original.name)


def _style(path: Path, config: Config) -> str:
    return path.relative_to(_rejected(config)).parts[0]


def _rejected(config: Config) -> Path:
    """Return the folder of rejected inputs with all symbolic links resolved."""
    return Path(os.path.realpath(config.rejected))

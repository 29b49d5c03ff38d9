"""`styled retry`: rejected photos back into the inbox."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.text import Text

from styled.cli.exits import console, leave_with_usage_error
from styled.cli.working_folder import current_folder, find_config
from styled.config import Config
from styled.delivery.names import sidecar_of
from styled.delivery.restoring import is_rejected_input, rejected_inputs, restore
from styled.errors import ResourceUnavailable
from styled.files import readable
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.mounts import Mounts
from styled.ops.lines import printable
from styled.sidecar import job_id_in


def retry(named: Path | None, words: list[str], *, everything: bool) -> None:
    """Put rejected inputs back and say where they are.

    Args:
        named: The configuration.
        words: Paths of rejected files or their `.json`, from here or below the folder of
            rejected inputs, or ids of jobs.
        everything: All that was rejected, in styles that there still are.

    Raises:
        ConfigError, ResourceUnavailable: as the words say.
    """
    config = find_config(named)
    mounts = Mounts(config.state / "mounts.json", lambda record, data: None)
    if everything == bool(words):
        leave_with_usage_error("name what to retry, or use --all for everything rejected")
    chosen = (
        [
            path
            for path in rejected_inputs(_rejected(config))
            if _style(path, config) in config.styles
        ]
        if everything
        else list(dict.fromkeys(_found(words, config)))
    )
    if chosen:
        mounts.require(config.inbox)
    for path in chosen:
        place = restore(path, _rejected(config), config.inbox)
        console.print(Text(printable(readable(place))), soft_wrap=True)
    if not chosen:
        console.print("nothing was rejected")


def _found(words: Iterable[str], config: Config) -> Iterator[Path]:
    """Yield the rejected input that each word means; leave if one means none."""
    for word in words:
        path = next(
            (
                path
                for path in _candidates(word, config)
                if path.is_relative_to(_rejected(config)) and is_rejected_input(path)
            ),
            None,
        )
        if path is None:
            leave_with_usage_error(
                f"{readable(word)} is no rejected photo: neither a file in {config.rejected} that "
                "has a .json beside it, nor the id of a rejected job"
            )
        if _style(path, config) not in config.styles:
            leave_with_usage_error(
                f'the style "{_style(path, config)}" of {readable(word)} is no longer configured; '
                f"move the file itself into {config.inbox} to have it painted in another one"
            )
        yield path


def _candidates(word: str, config: Config) -> Iterator[Path]:
    for base in (current_folder(), config.rejected):
        path = Path(os.path.realpath((base / word).parent), os.path.basename(word))
        yield path
        if path.suffix == ".json":
            yield path.with_suffix("")
    try:
        journal = Journal.open_read_only(config.state / "journal.sqlite3")
    except ResourceUnavailable:
        return
    try:
        job = journal.job(readable(word))
    finally:
        journal.close()
    ended = (JobState.REJECTED, JobState.CANCELLED)  # the latter on request, with a photo
    if job is not None and job.state in ended and job.original is not None:
        original = Path(job.original)
        # Another photo may have been rejected under this name since.
        if job_id_in(sidecar_of(original)) == job.id:
            yield Path(os.path.realpath(original.parent), original.name)


def _style(path: Path, config: Config) -> str:
    return path.relative_to(_rejected(config)).parts[0]


def _rejected(config: Config) -> Path:
    """Return the folder of rejected inputs by the one name that has no links in it."""
    return Path(os.path.realpath(config.rejected))

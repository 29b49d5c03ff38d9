"""`styled pause` and `styled resume`."""

from __future__ import annotations

import time
from pathlib import Path

from styled.cli.exit_codes import console
from styled.cli.find_config import find_config_in_use
from styled.cli.jobs import open_for_requests
from styled.config import Config
from styled.files import readable
from styled.journal.job import BEFORE_PAINTING, JobState
from styled.journal.journal import Journal
from styled.journal.pause_request import AFTER_CURRENT, NOW, PAUSE_REQUEST
from styled.journal.queries import JournalReader
from styled.ops.lock import InstanceLock

WAIT_SECONDS = 10.0
"""How long `styled pause` waits for the running job to be saved."""


def pause(config_path: Path | None, *, after_current: bool) -> None:
    """Pause the queue until `resume`, and print what becomes of the running job.

    Args:
        config_path: The configuration file; None: the default one.
        after_current: Whether the running jobs are finished first.

    Raises:
        ConfigError: There is no valid configuration.
        ResourceUnavailable: There is no journal, or this user may not write it.
    """
    config = find_config_in_use(config_path)
    journal = open_for_requests(config, "pause the queue")
    try:
        journal.set_state(**{PAUSE_REQUEST: AFTER_CURRENT if after_current else NOW})
        is_running = InstanceLock(config.state / "lock").owner() is not None
        deadline = time.monotonic() + (WAIT_SECONDS if is_running and not after_current else 0.0)
        while (running := _running(journal)) or not _is_paused(journal):
            if time.monotonic() >= deadline:
                break
            time.sleep(0.1)
    finally:
        journal.close()
    if running and is_running:
        when = "finished" if after_current else "saved"
        console.print(f"pauses once this is {when}: {', '.join(running)}")
    else:
        console.print("paused; styled resume continues it")


def resume(config_path: Path | None) -> None:
    """Go on with the queue.

    Raises:
        ConfigError, ResourceUnavailable: as `pause`.
    """
    config = find_config_in_use(config_path)
    journal = open_for_requests(config, "pause the queue")
    try:
        was_paused = bool(journal.get_state().get(PAUSE_REQUEST))
        journal.set_state(**{PAUSE_REQUEST: ""})
    finally:
        journal.close()
    is_running = InstanceLock(config.state / "lock").owner() is not None
    if not was_paused:
        console.print("it was not paused on request")
    else:
        console.print(
            "continues" if is_running else "continues when styled starts; it is not running"
        )


def is_pause_requested(config: Config) -> bool:
    """Return whether the queue is paused on request; False if there is no journal yet."""
    path = config.state / "journal.sqlite3"
    if not path.exists():
        return False
    journal = JournalReader.open_read_only(path)
    try:
        return bool(journal.get_state().get(PAUSE_REQUEST))
    finally:
        journal.close()


def _is_paused(journal: Journal) -> bool:
    """Return whether the daemon has noticed the request."""
    return journal.get_state().get("activity", "").startswith("paused")


def _running(journal: Journal) -> list[str]:
    """Return the inputs that are painted or published; those that are prepared wait again."""
    running = journal.in_state(JobState.RUNNING, limit=-1)
    return [readable(job.input) for job in running if job.phase not in BEFORE_PAINTING]

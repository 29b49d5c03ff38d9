"""`styled gallery`: rebuilds the page of all results from the files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from rich.text import Text

from styled.cli.exit_codes import console
from styled.cli.find_config import find_config
from styled.config import Config
from styled.delivery.gallery import Gallery, gallery_entries
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.journal.journal import Journal
from styled.mounts import Mounts
from styled.ops.humanize import printable


def _require_user(config: Config) -> None:
    with suppress(OSError):
        owner = config.state.stat().st_uid
        if os.geteuid() not in (0, owner):
            raise ResourceUnavailable(
                f"only the user that styled runs as may write the gallery, user {owner}",
                "do it as that user (sudo -u styled ...), or as root",
            )


def rebuild_gallery(config_path: Path | None) -> None:
    """Rebuild the gallery from all results and rejected inputs, and print its path.

    Raises:
        ConfigError: There is no valid configuration.
        ResourceUnavailable: The gallery can't be written, or would belong to another user than
            the daemon, which could no longer write it then.
    """
    config = find_config(config_path)
    _require_user(config)
    mounts = Mounts(config.state / "mounts.json", read_only=True)
    folders = config.outbox, config.rejected, config.archive
    for folder in folders:
        mounts.require_mounted(folder)
    mounts.require(config.outbox)
    gallery = Gallery(config.outbox, mounts, config.intake.max_pixels)

    def mark_in_gallery(job_ids: Sequence[str]) -> None:
        """Mark the jobs in the journal; the daemon adds jobs to the gallery that are not marked."""
        with suppress(ResourceUnavailable, JournalDamaged):
            journal = Journal.open_for_requests(config.state / "journal.sqlite3")
            with closing(journal):
                journal.mark_in_gallery(job_ids)

    with console.status("looking through the outbox"):
        contents = gallery.rebuild(gallery_entries(*folders), mark_in_gallery)
    if os.geteuid() == 0:  # the daemon runs as another user and must be able to update the files
        outbox = config.outbox.stat()
        gallery.files.chown(outbox.st_uid, outbox.st_gid)
    shown = f"{contents.results} paintings, {contents.rejected} rejected"
    console.print(Text(printable(f"{gallery.files.page}  ({shown})")), soft_wrap=True)

"""`styled gallery`: the page with all results, made anew of the files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from rich.text import Text

from styled.cli.exits import console
from styled.cli.working_folder import find_config
from styled.delivery.gallery import Gallery, pieces_below
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.jobs.journal import Journal
from styled.mounts import Mounts
from styled.ops.lines import printable


def rebuild_gallery(named: Path | None) -> None:
    """Make the gallery of all results and rejected inputs that there are, and say where it is.

    Raises:
        ConfigError, ResourceUnavailable: it can't be made; the message says why.
    """
    config = find_config(named)
    mounts = Mounts(config.state / "mounts.json", lambda record, data: None)
    rooms = config.outbox, config.rejected, config.archive
    for room in rooms:
        mounts.require_mounted(room)
    mounts.require(config.outbox)
    gallery = Gallery(config.outbox, mounts.require, config.intake.max_pixels)

    def remember(job_ids: Sequence[str]) -> None:
        """Tell the daemon, which would add what the gallery does not show yet."""
        with suppress(ResourceUnavailable, JournalDamaged):
            journal = Journal.open_for_requests(config.state / "journal.sqlite3")
            with closing(journal):
                journal.mark_in_gallery(job_ids)

    with console.status("looking through the outbox"):
        contents = gallery.rebuild(pieces_below(*rooms), remember)
    if os.geteuid() == 0:  # or the daemon, who is somebody else, could not go on with it
        outbox = config.outbox.stat()
        gallery.files.give_to(outbox.st_uid, outbox.st_gid)
    shown = f"{contents.results} paintings, {contents.rejected} rejected"
    console.print(Text(printable(f"{gallery.files.page}  ({shown})")), soft_wrap=True)

"""The way back: a rejected input into the inbox, where it is a new job."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from styled.atomic import durable_move, make_folder, resource_errors, sync_folder
from styled.delivery.names import free_place, sidecar_of
from styled.sidecar import job_id_in


def rejected_inputs(rejected: Path) -> Iterator[Path]:
    """Yield all rejected inputs: the files that have a sidecar saying why."""
    for folder, folders, names in os.walk(rejected):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if is_rejected_input(path):
                yield path


def is_rejected_input(path: Path) -> bool:
    """Tell whether there is a regular file at `path`, with a sidecar beside it."""
    try:
        is_file = stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
    return is_file and job_id_in(sidecar_of(path)) is not None


def restore(path: Path, rejected: Path, inbox: Path) -> Path:
    """Move a rejected input back into the inbox; return where it lies now.

    `rejected/<style>/<sub-path>` goes to `inbox/<style>/<sub-path>`, whatever folder it
    came from: of several styles only the one is tried again in which it failed. Where that
    name is taken, it gets a number.

    Raises:
        ResourceUnavailable: it can't be moved; it is still where it was.
    """
    folder = inbox / path.parent.relative_to(rejected)
    make_folder(folder)
    place = _moved_to_a_free_place(path, folder)
    # Only now: without its file a sidecar is no harm, and without it nobody knew the reason.
    sidecar = sidecar_of(path)
    with resource_errors(sidecar):
        sidecar.unlink(missing_ok=True)
        sync_folder(sidecar.parent)
    return place


def _moved_to_a_free_place(path: Path, folder: Path) -> Path:
    """Move a file into a folder that strangers write to as well, replacing nothing of theirs."""
    while True:
        place = free_place(folder, path.name, sidecar=False)
        with resource_errors(place):
            try:
                os.link(path, place, follow_symlinks=False)
            except FileExistsError:
                continue  # it was taken at this very moment
            except OSError:
                durable_move(path, place)  # another file system, or one without links
                return place
            sync_folder(folder)
            path.unlink()
            return place

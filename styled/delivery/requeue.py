"""Moves rejected inputs back into the inbox, where they become new jobs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from styled.atomic import durable_move, make_folder, resource_errors, sync_folder
from styled.delivery.companions import return_companions
from styled.delivery.names import sidecar_path, unused_path
from styled.errors import NameTaken, ResourceUnavailable
from styled.files import lies_in
from styled.sidecar import job_id_in


def rejected_inputs(rejected: Path) -> Iterator[Path]:
    """Yield all rejected inputs: the files that have a sidecar with the reason."""
    for folder, folders, names in os.walk(rejected):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if is_rejected_input(path):
                yield path


def is_rejected_input(path: Path) -> bool:
    """Return whether `path` is a regular file with a sidecar beside it."""
    try:
        is_file = stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
    return is_file and job_id_in(sidecar_path(path)) is not None


def return_to_inbox(path: Path, rejected: Path, inbox: Path) -> Path:
    """Move a rejected input back into the inbox; return its new path.

    `rejected/<style>/<sub-path>` goes to `inbox/<style>/<sub-path>`, whatever folder it came
    from: of several styles, only the one that failed is painted again. If that name is taken,
    a number is appended.

    Raises:
        ResourceUnavailable: it can't be moved; it stays in `rejected`.
    """
    relative = path.relative_to(rejected)
    folder = inbox / relative.parent
    if not lies_in(inbox, str(relative)):
        raise ResourceUnavailable(
            f"{folder} is a link, or lies behind one: photos there are not painted",
            "replace the link by a folder",
        )
    make_folder(folder)
    # First, so that the photo is never taken without them.
    place = unused_path(folder, path.name, sidecar=False)
    return_companions(path, place, style=path.relative_to(rejected).parts[0])
    target = _move_to_unused_path(path, folder, place)
    # Deleted last: a sidecar without its file is harmless, but it has the only record of the
    # reason.
    sidecar = sidecar_path(path)
    with resource_errors(sidecar):
        sidecar.unlink(missing_ok=True)
        sync_folder(sidecar.parent)
    return target


def _move_to_unused_path(path: Path, folder: Path, target: Path) -> Path:
    """Move a file into a folder that other programs write to, without replacing any file.

    To `target`, or to another free name if that was taken meanwhile.
    """
    while True:
        with resource_errors(target):
            try:
                os.link(path, target, follow_symlinks=False)
            except FileExistsError:
                target = unused_path(folder, path.name, sidecar=False)
                continue  # another program has just taken the name
            except OSError:  # another file system, or one without hard links
                try:
                    durable_move(path, target)
                except NameTaken:
                    target = unused_path(folder, path.name, sidecar=False)
                    continue
                return target
            sync_folder(folder)
            path.unlink()
            return target

"""Ownership of files that root makes in other users' folders."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def chown_to_owner_of(folder: Path, made: Path | int) -> None:
    """Give a file or folder that root has just made to the owner of its folder.

    Otherwise `sudo styled once` would leave folders and files that the daemon can't write. Does
    nothing unless the process runs as root.

    Args:
        folder: The folder of `made`.
        made: A path (links are not followed) or a file descriptor.
    """
    if os.geteuid() != 0:
        return
    with suppress(OSError):  # for instance on a network drive with root squash
        owner = folder.stat()
        if isinstance(made, int):
            os.fchown(made, owner.st_uid, owner.st_gid)
        else:
            os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=False)

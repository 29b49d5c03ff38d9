"""Whom files belong to that root makes in somebody else's folders."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def give_to_owner_of(folder: Path, made: Path | int) -> None:
    """Let what root has just made in a folder belong to whom the folder does.

    Else `sudo styled once` would leave folders and files that the daemon can't write. Nothing is
    changed where it is not root who asks.

    Args:
        folder: What `made` lies in.
        made: A path, which is not followed if it is a link, or a descriptor.
    """
    if os.geteuid() != 0:
        return
    with suppress(OSError):  # such as on a network drive that knows no root
        owner = folder.stat()
        if isinstance(made, int):
            os.fchown(made, owner.st_uid, owner.st_gid)
        else:
            os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=False)

"""Moves the files of a photo's own, its settings and its mask, wherever the photo goes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from styled.atomic import durable_copy, durable_delete, durable_move
from styled.delivery.names import unused_path
from styled.files import companions_of


def move_companions(photo: Path, destinations: Sequence[Path]) -> None:
    """Move the files of a photo that has left the inbox beside it; delete them if it was deleted.

    Does nothing while there is a photo of that name: the files may be those of a new one.

    Args:
        photo: Where it was in the inbox.
        destinations: Where it is now; may be empty.

    Raises:
        ResourceUnavailable: a file can't be moved; calling this again goes on.
    """
    if os.path.lexists(photo):
        return
    for suffix, path in companions_of(photo).items():
        targets = [
            unused_path(place.parent, place.name + suffix, sidecar=False) for place in destinations
        ]
        if not targets:
            durable_delete(path)
            continue
        *others, last = targets
        for target in others:
            durable_copy(path, target)
        durable_move(path, last)


def restore_companions(photo: Path, target: Path) -> None:
    """Move the files of a rejected photo beside the place that it is about to take in the inbox.

    Raises:
        ResourceUnavailable: a file can't be moved.
    """
    for suffix, path in companions_of(photo).items():
        beside = target.with_name(target.name + suffix)
        durable_move(path, unused_path(beside.parent, beside.name, sidecar=False))

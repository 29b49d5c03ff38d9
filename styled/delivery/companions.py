"""Moves a photo's companion files (settings, mask, initial image) together with the photo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from styled.atomic import atomic_write, durable_copy, durable_delete, durable_move
from styled.delivery.names import unused_path
from styled.errors import ResourceUnavailable
from styled.files import SETTINGS_SUFFIX, companions_of, input_identity, sha256_of


def move_companions(photo: Path, destinations: Sequence[Path], *, keep: bool = False) -> None:
    """Move the files of a photo that has left the inbox to where it is now.

    Does nothing while there is a photo of that name, since the files may be those of a new one, nor
    if the photo is at none of its destinations: somebody else has moved it.

    Args:
        photo: Where it was in the inbox.
        destinations: Where it is now.
        keep: The photo stays in the inbox, and its files too: they are copied.

    Raises:
        ResourceUnavailable: a file can't be moved; calling this again goes on.
    """
    places = [place for place in destinations if os.path.lexists(place)]
    if not places or (os.path.lexists(photo) and not keep):
        return
    for suffix, path in companions_of(photo).items():
        if keep:
            for target in (_target(path, place, suffix) for place in places):
                if not os.path.lexists(target):
                    durable_copy(path, target, always_copy=True)
            continue
        *others, last = [_target(path, place, suffix) for place in places]
        for target in others:
            if not os.path.lexists(target):  # it may have been copied before a crash
                durable_copy(path, target)
        if os.path.lexists(last):
            durable_delete(path)
        else:
            durable_move(path, last)


def delete_companions(photo: Path, *, same_as: tuple[int, int]) -> None:
    """Delete the files of a photo that is about to be deleted.

    Args:
        photo: In the inbox.
        same_as: Size and mtime_ns of the photo; another one under its name keeps its files.

    Raises:
        ResourceUnavailable: a file can't be deleted.
    """
    if input_identity(photo) == same_as:
        for path in companions_of(photo).values():
            durable_delete(path)


def _target(path: Path, place: Path, suffix: str) -> Path:
    """Return the path for a photo's file beside its new place; it may exist with that content."""
    target = place.with_name(place.name + suffix)
    try:
        is_taken = os.path.lexists(target) and sha256_of(target) != sha256_of(path)
    except ResourceUnavailable:  # one of them can't be read: it is taken for another file
        is_taken = True
    return unused_path(target.parent, target.name, sidecar=False) if is_taken else target


def return_companions(photo: Path, target: Path, style: str) -> None:
    """Move the files of a rejected photo beside the place that it is about to take in the inbox.

    Settings that name several styles name only `style` from then on: the others have painted it.

    Raises:
        ResourceUnavailable: a file can't be moved.
    """
    for suffix, path in companions_of(photo).items():
        if suffix == SETTINGS_SUFFIX:
            _keep_style(path, style)
        durable_move(path, target.with_name(target.name + suffix))


def _keep_style(path: Path, style: str) -> None:
    try:
        values = yaml.safe_load(path.read_bytes())
    # Whatever is wrong with the file, its photo's job says it.
    except Exception:  # noqa: BLE001
        return
    styles = values.get("style") if isinstance(values, dict) else None
    if isinstance(styles, list) and style in styles and len(styles) > 1:
        text = yaml.safe_dump({**values, "style": style}, sort_keys=False, allow_unicode=True)
        atomic_write(path, text.encode())

"""Results into the outbox, originals into the archive, the hopeless into `rejected`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from styled.delivery.atomic import (
    copy_whole,
    make_folder,
    move_whole,
    resource_errors,
    sweep_temporaries,
    sync_folder,
    write_whole,
)
from styled.delivery.names import free_place, sidecar_of
from styled.errors import ResourceUnavailable
from styled.sidecar import Sidecar, job_id_in


class Publisher:
    """Puts files where others look for them. The daemon owns exactly one."""

    def __init__(self, outbox: Path, rejected: Path, archive: Path) -> None:
        """Publish below these folders."""
        self.outbox = outbox
        self.rejected = rejected
        self.archive = archive

    def prepare(self) -> int:
        """Make the folders, sweep what a dead process left; return how many files were swept.

        Raises:
            ResourceUnavailable: a folder can't be made.
        """
        roots = (self.outbox, self.rejected, self.archive)
        for root in roots:
            make_folder(root)
        return sum(sweep_temporaries(root) for root in roots)

    def place_for(self, root: Path, relative: str, *, sidecar: bool) -> Path:
        """Return a free path below `root`, as near to `relative` as possible.

        Raises:
            ResourceUnavailable: its folder can't be made.
        """
        wanted = root / relative
        make_folder(wanted.parent)
        return free_place(wanted.parent, wanted.name, sidecar=sidecar)

    def publish_result(self, path: Path, data: bytes) -> None:
        """Write a result; it counts only once its sidecar is published too.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        make_folder(path.parent)
        write_whole(path, data)

    def publish_sidecar(self, path: Path, sidecar: Sidecar) -> None:
        """Write the sidecar of the file at `path`.

        Raises:
            ResourceUnavailable: the folder is full, read-only or gone.
        """
        make_folder(path.parent)
        write_whole(sidecar_of(path), sidecar.to_json())

    def is_published(self, path: Path, job_id: str) -> bool:
        """Tell whether `path` is complete and made by this job."""
        return path.exists() and job_id_in(sidecar_of(path)) == job_id

    def may_replace(self, path: Path, job_id: str, sha256: str | None) -> bool:
        """Tell whether a name that this job once reserved is still its own to write.

        After a crash it may hold the job's own half of a publication; anything else that
        has taken the name meanwhile is never overwritten.
        """
        sidecar = sidecar_of(path)
        if os.path.lexists(sidecar):
            return job_id_in(sidecar) == job_id
        return not os.path.lexists(path) or sha256 == _sha256_of(path)

    def place_for_original(
        self, root: Path, relative: str, source: Path, reserved: Path | None
    ) -> Path:
        """Return where an original goes: the reserved place, unless a stranger has taken it.

        Raises:
            ResourceUnavailable: its folder can't be made.
        """
        if reserved is not None and (not os.path.lexists(reserved) or _same(reserved, source)):
            return reserved
        return self.place_for(root, relative, sidecar=root == self.rejected)

    def take_original(
        self, source: Path, destinations: list[Path], *, same_as: tuple[int, int], keep: bool
    ) -> bool:
        """Put an input where it belongs now, and out of the inbox.

        Args:
            source: In the inbox.
            destinations: From `place_for_original`; may be none.
            same_as: Size and mtime_ns of what was read. Another file under the same name
                is a new input and is left alone.
            keep: Leave it in the inbox as well.

        Returns:
            Whether the input was still there, and the same.

        Raises:
            ResourceUnavailable: a destination is full, read-only or gone.
        """
        if identity(source) != same_as:
            return False
        try:
            *others, last = [*destinations, None] if keep or not destinations else destinations
            for destination in others:
                self._copy(source, destination)
            if last is not None and not os.path.lexists(last):
                move_whole(source, last)
            elif not keep:
                with resource_errors(source):
                    source.unlink()
                    sync_folder(source.parent)
        except ResourceUnavailable:
            if identity(source) is None:
                return False  # somebody took it away at this very moment
            raise
        return True

    def _copy(self, source: Path, destination: Path | None) -> None:
        if destination is not None and not os.path.lexists(destination):
            make_folder(destination.parent)
            copy_whole(source, destination)


def identity(path: Path) -> tuple[int, int] | None:
    """Return size and mtime_ns of a file, None where there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _same(a: Path, b: Path) -> bool:
    return os.path.samefile(a, b) or _sha256_of(a) == _sha256_of(b)


def _sha256_of(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None

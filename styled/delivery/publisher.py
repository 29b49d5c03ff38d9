"""Puts results into the outbox, originals into the archive, and rejected inputs into `rejected`."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from styled.atomic import (
    atomic_write,
    durable_copy,
    durable_delete,
    durable_move,
    input_stuck,
    is_writable,
    make_folder,
    resource_errors,
    sweep_temporaries,
    sync_folder,
)
from styled.delivery.companions import delete_companions, move_companions
from styled.delivery.names import ReservedNames, candidates, free_folder, sidecar_path
from styled.errors import FolderNotWritable, Forbidden, InputStuck, ResourceUnavailable
from styled.files import MAX_PATH_BYTES, companions_of, input_identity, sha256_of
from styled.mounts import Mounts
from styled.sidecar import Sidecar, job_id_in

_OWNER_FILE = "frames.json"
_FRAME = re.compile(r"[0-9]{5,}\.jpg")


class Publisher:
    """Publishes results, sidecars and originals. A daemon has exactly one publisher."""

    def __init__(
        self,
        outbox: Path,
        rejected: Path,
        archive: Path,
        mounts: Mounts | None = None,
    ) -> None:
        """Publish below these folders, as long as `mounts` says that they are mounted."""
        self.outbox = outbox
        self.rejected = rejected
        self.archive = archive
        self._mounts = mounts
        self._reserved = ReservedNames()

    def _require_mounted(self, root: Path) -> None:
        if self._mounts is not None:
            self._mounts.require_mounted(root)

    def prepare(self, on_progress: Callable[[], None] = lambda: None) -> int:
        """Make the folders, and delete temporary files that a dead process has left.

        Args:
            on_progress: Called repeatedly, since this may take long; an exception it raises
                aborts.

        Returns:
            Number of deleted files.

        Raises:
            ResourceUnavailable: a folder can't be made.
        """
        roots = (self.outbox, self.rejected, self.archive)
        for root in roots:
            self._make_folder(root)
            self._require_mounted(root)  # records the mount of the folder just made
        return sum(sweep_temporaries(root, on_progress) for root in roots)

    def unpublish(self, path: Path, job_id: str, sha256: str | None) -> None:
        """Delete an incomplete publication: a result of this job that has no sidecar.

        Raises:
            ResourceUnavailable: the disk is read-only or gone.
        """
        is_partial = os.path.lexists(path) and not os.path.lexists(sidecar_path(path))
        if is_partial and self.is_own_reservation(path, job_id, sha256):
            with self._narrow_forbidden(path):
                durable_delete(path)
        self._reserved.discard(path)
        if not os.path.lexists(sidecar_path(path)):
            frames = self._frames_of(path, job_id)
            if frames is not None:
                shutil.rmtree(frames, ignore_errors=True)
                self._reserved.written(frames)

    def free_path(
        self, root: Path, relative: str, *, job_id: str, sidecar: bool, companions: bool = False
    ) -> Path:
        """Return a free path below `root`, as close to `relative` as possible, and reserve it.

        It is not returned again before it has been published, moved to or unpublished. If a file
        has the name of a folder, the folder gets another name. If the path is too long,
        sub-folders are left out.

        Args:
            root: The outbox, `rejected` or the archive.
            relative: The preferred path, relative to `root`.
            job_id: The job that will write it.
            sidecar: Whether the sidecar's path must be free too.
            companions: Whether settings or a mask will be beside it.

        Raises:
            ResourceUnavailable: its folder can't be made.
        """
        self._require_mounted(root)
        folder = _free_folder_for(root, relative)
        self._make_folder(folder)
        return self._reserved.choose(
            folder, Path(relative).name, job_id=job_id, sidecar=sidecar, companions=companions
        )

    def require_writable(self, root: Path, relative: str) -> None:
        """Check before painting that `relative` can be written below `root`.

        Raises:
            FolderNotWritable: the sub-folder of `root` in which the file, or its folder, would
                be made is not writable. `root` itself and read-only disks are not checked.
        """
        existing = _nearest_existing(_free_folder_for(root, relative))
        if existing != root and not is_writable(existing) and not _is_read_only(root):
            raise _not_writable(existing)

    def publish_result(self, path: Path, data: bytes, *, earlier_sha256: str | None = None) -> None:
        """Write a result; it counts only once its sidecar is published too.

        Args:
            path: From `free_path`, or from an earlier attempt.
            data: Its content.
            earlier_sha256: Of the result that an earlier attempt may have left there.

        Raises:
            NameTaken: another program has put a file there since the name was chosen.
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        self._make_folder(path.parent)
        replace = earlier_sha256 is not None and sha256_of(path) == earlier_sha256
        with self._narrow_forbidden(path):
            atomic_write(path, data, replace=replace)

    def publish_frames(self, result: Path, job_id: str, frames: Sequence[Path]) -> Path:
        """Copy intermediate images of a painting beside its result, as `photo.frames/00050.jpg`.

        Returns:
            Their folder. Frames that the same job has put there before are replaced.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        folder = self._frames_of(result, job_id) or self._reserved.choose(
            result.parent, _frames_name(result), job_id=job_id, sidecar=False
        )
        self._make_folder(folder)
        with self._narrow_forbidden(folder / _OWNER_FILE):
            self._write_frames(folder, job_id, frames)
        self._reserved.written(folder)
        return folder

    def _write_frames(self, folder: Path, job_id: str, frames: Sequence[Path]) -> None:
        # The owner is recorded first, in case this is interrupted.
        atomic_write(folder / _OWNER_FILE, json.dumps({"job": {"id": job_id}}).encode() + b"\n")
        for frame in frames:
            atomic_write(folder / frame.name, frame.read_bytes())
        kept = {frame.name for frame in frames}
        for path in folder.iterdir():
            if _FRAME.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)

    def _frames_of(self, result: Path, job_id: str) -> Path | None:
        """Return the folder of frames that this job has made beside `result`, None without one."""
        for name in candidates(_frames_name(result)):
            folder = result.parent / name
            if not os.path.lexists(folder):
                return None
            # A process died right after making it, unless another job is making it now.
            if _is_empty(folder) and self._reserved.hold(folder, job_id=job_id, sidecar=False):
                return folder
            if job_id_in(folder / _OWNER_FILE) == job_id:
                return folder
        raise AssertionError("candidates() never ends")

    def publish_sidecar(self, path: Path, sidecar: Sidecar) -> None:
        """Write the sidecar of the file at `path`.

        Raises:
            ResourceUnavailable: the folder is full, read-only or gone, or another file has the
                sidecar's name.
        """
        self._make_folder(path.parent)
        if _is_of_another(sidecar_path(path), sidecar.job.id):
            raise ResourceUnavailable(
                f"{sidecar_path(path)} is not the sidecar of this job, and is not overwritten",
                "move it away",
            )
        with self._narrow_forbidden(path):
            atomic_write(sidecar_path(path), sidecar.to_json())
        self._reserved.discard(path)

    def is_published(self, path: Path, job_id: str) -> bool:
        """Return whether `path` is complete and was published by this job.

        Raises:
            ResourceUnavailable: the outbox can't be read.
        """
        self._require_mounted(self.outbox)
        with resource_errors(path):
            return path.exists() and job_id_in(sidecar_path(path)) == job_id

    def has_sidecar(self, path: Path, job_id: str) -> bool:
        """Return whether the sidecar of `path` is that of this job."""
        return job_id_in(sidecar_path(path)) == job_id

    def is_own_reservation(self, path: Path, job_id: str, sha256: str | None) -> bool:
        """Return whether this job may write to a name that it has reserved before; reserve it.

        It may if the name is free or holds the result of this job's incomplete publication, with
        the given SHA-256. Any other file that has taken the name is never overwritten.
        """
        if _is_of_another(sidecar_path(path), job_id):
            return False
        is_free = not os.path.lexists(path) or (sha256 is not None and sha256 == sha256_of(path))
        return is_free and self._reserved.hold(path, job_id=job_id, sidecar=True)

    def path_for_original(
        self, root: Path, relative: str, source: Path, reserved: Path | None, job_id: str
    ) -> Path:
        """Return where an original goes: `reserved`, unless another file has taken that path.

        If the original is no longer in the inbox, the process died after moving it, so the file
        at `reserved` is the original.

        Raises:
            ResourceUnavailable: its folder can't be made.
        """
        has_sidecar = root == self.rejected
        is_own = reserved is not None and (
            input_identity(source) is None
            or (
                (not os.path.lexists(reserved) or _have_same_content(reserved, source))
                and not (has_sidecar and _is_of_another(sidecar_path(reserved), job_id))
            )
        )
        if (
            reserved is not None
            and is_own
            and self._reserved.hold(reserved, job_id=job_id, sidecar=has_sidecar)
        ):
            return reserved
        return self.free_path(
            root, relative, job_id=job_id, sidecar=has_sidecar,
            companions=bool(companions_of(source)),
        )  # fmt: skip

    def move_original(
        self, source: Path, destinations: list[Path], *, same_as: tuple[int, int], keep: bool
    ) -> bool:
        """Move or copy an input to its destinations, and remove it from the inbox.

        Args:
            source: In the inbox.
            destinations: From `path_for_original`; may be empty.
            same_as: Size and mtime_ns of the file that was read. Another file under the same
                name is a new input and is not touched.
            keep: Leave it in the inbox as well.

        Returns:
            Whether the input still existed, unchanged.

        Raises:
            InputStuck: there is no permission to move it out of the inbox.
            FolderNotWritable: a destination's folder is not writable.
            ResourceUnavailable: a destination is full, read-only, gone or taken meanwhile.
        """
        was_moved = self._move_unchanged(source, destinations, same_as=same_as, keep=keep)
        self._reserved.written(*destinations)
        return was_moved

    def move_companions(self, source: Path, destinations: Sequence[Path], *, keep: bool) -> None:
        """Move or copy the settings and mask of an input to where it is; see `companions`."""
        move_companions(source, destinations, keep=keep)

    def delete_companions(self, source: Path, *, same_as: tuple[int, int]) -> None:
        """Delete the settings and mask of an input that is about to be deleted."""
        delete_companions(source, same_as=same_as)

    def _move_unchanged(
        self, source: Path, destinations: list[Path], *, same_as: tuple[int, int], keep: bool
    ) -> bool:
        if input_identity(source) != same_as:
            return False
        try:
            *others, last = [*destinations, None] if keep or not destinations else destinations
            for destination in others:
                self._copy(source, destination, always_copy=keep)
            if input_identity(source) != same_as:
                return False  # copying may take long
            if last is not None and not _is_delivered(source, last):
                self._make_folder(last.parent)
                with self._narrow_forbidden(last):
                    durable_move(source, last)
            elif not keep:
                if last is not None:
                    # The process that has moved it there may have died before the fsync.
                    with resource_errors(last):
                        sync_folder(last.parent)
                _delete_input(source)
        except ResourceUnavailable:
            if input_identity(source) != same_as:
                return False  # it was removed or replaced at this moment
            raise
        return True

    def _make_folder(self, folder: Path) -> None:
        text = f"{folder}/"
        for root in (self.outbox, self.rejected, self.archive):
            if text.startswith(f"{root}/"):
                self._require_mounted(root)
        with self._narrow_forbidden(folder / "any"):
            make_folder(folder)

    @contextmanager
    def _narrow_forbidden(self, path: Path) -> Iterator[None]:
        """Turn `Forbidden` into `FolderNotWritable` if only a sub-folder is not writable.

        If the root folder or its disk is not writable, `Forbidden` is raised unchanged: it
        concerns all jobs.

        Raises:
            FolderNotWritable: the folder of `path`, below a root folder, is not writable.
        """
        try:
            yield
        except InputStuck:
            raise
        except Forbidden as error:
            for root in (self.outbox, self.rejected, self.archive):
                existing = _nearest_existing(path.parent)
                if existing != root and existing.is_relative_to(root) and not _is_read_only(root):
                    raise _not_writable(existing) from error
            raise

    def _copy(self, source: Path, destination: Path | None, *, always_copy: bool) -> None:
        if destination is not None and not _is_delivered(source, destination):
            self._make_folder(destination.parent)
            with self._narrow_forbidden(destination):
                durable_copy(source, destination, always_copy=always_copy)


def _not_writable(folder: Path) -> FolderNotWritable:
    return FolderNotWritable(
        f"the folder {folder} may not be written by styled",
        f"give it to styled's user: chown USER {folder}",
    )


def _free_folder_for(root: Path, relative: str) -> Path:
    """Return the folder of a file below `root`; one whose name a file has gets another name.

    Sub-folders are left out if the path is too long.
    """
    *folders, name = Path(relative).parts
    while len(folders) > 1 and len(os.fsencode(root.joinpath(*folders, name))) > MAX_PATH_BYTES:
        folders.pop()
    folder = root
    for part in folders:
        folder = free_folder(folder, part)
    return folder


def _nearest_existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next(one for one in (folder, *folder.parents) if os.path.isdir(one))


def _is_read_only(root: Path) -> bool:
    """Return whether the disk of a folder is mounted read-only."""
    return bool(os.statvfs(root).f_flag & os.ST_RDONLY)


def _delete_input(source: Path) -> None:
    try:
        durable_delete(source)
    except Forbidden as error:
        raise input_stuck(source, error.__cause__) from error


def _is_empty(folder: Path) -> bool:
    try:
        return not folder.is_symlink() and not os.listdir(folder)
    except OSError:
        return False


def _frames_name(result: Path) -> str:
    return f"{result.stem}.frames"


def _is_delivered(source: Path, destination: Path) -> bool:
    """Return whether an earlier attempt has put `source` at `destination`.

    Raises:
        ResourceUnavailable: another file has taken that name since it was chosen. Continuing
            would lose one of the two; the next attempt chooses another name.
    """
    if not os.path.lexists(destination):
        return False
    if not _have_same_content(source, destination):
        raise ResourceUnavailable(
            f"{destination} was just taken by another file",
            "another name is chosen at the next attempt",
        )
    return True


def _is_of_another(sidecar: Path, job_id: str) -> bool:
    """Return whether a file exists at this path that is not the sidecar of this job."""
    return os.path.lexists(sidecar) and job_id_in(sidecar) != job_id


def _have_same_content(a: Path, b: Path) -> bool:
    sha256 = sha256_of(a)
    return sha256 is not None and sha256 == sha256_of(b)

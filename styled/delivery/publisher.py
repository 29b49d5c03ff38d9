"""Results into the outbox, originals into the archive, the hopeless into `rejected`."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
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
from styled.delivery.names import candidates, free_folder, free_place, sidecar_of
from styled.errors import FolderNotWritable, Forbidden, InputStuck, ResourceUnavailable
from styled.files import LONGEST_PATH_BYTES, identity, sha256_of
from styled.sidecar import Sidecar, job_id_in

_OWNER_FILE = "frames.json"
_FRAME = re.compile(r"[0-9]{5,}\.jpg")


class Publisher:
    """Puts files where others look for them. The daemon owns exactly one."""

    def __init__(
        self,
        outbox: Path,
        rejected: Path,
        archive: Path,
        require_mounted: Callable[[Path], None] = lambda root: None,
    ) -> None:
        """Publish below these folders, as long as `require_mounted` does not object.

        It raises ResourceUnavailable for a folder whose disk is not mounted just now.
        """
        self.outbox = outbox
        self.rejected = rejected
        self.archive = archive
        self._require_mounted = require_mounted
        # Names that were chosen and are not taken yet: several threads publish at once.
        self._reserved: set[Path] = set()
        self._reserving = threading.Lock()

    def prepare(self, go_on: Callable[[], None] = lambda: None) -> int:
        """Make the folders, sweep what a dead process left; return how many files were swept.

        Args:
            go_on: Called now and then, since it may take long; what it raises ends it.

        Raises:
            ResourceUnavailable: a folder can't be made.
        """
        roots = (self.outbox, self.rejected, self.archive)
        for root in roots:
            self._make_folder(root)
            self._require_mounted(root)  # and which folder it is, now that it is there
        return sum(sweep_temporaries(root, go_on) for root in roots)

    def withdraw(self, path: Path, job_id: str, sha256: str | None) -> None:
        """Take back the half of a publication: a result of this job without its sidecar.

        Raises:
            ResourceUnavailable: the disk is read-only or gone.
        """
        is_half = os.path.lexists(path) and not os.path.lexists(sidecar_of(path))
        if is_half and self.may_replace(path, job_id, sha256):
            with self._one_folder(path):
                durable_delete(path)
        self._reserved.discard(path)
        if not os.path.lexists(sidecar_of(path)):
            frames = self._frames_of(path, job_id)
            if frames is not None:
                shutil.rmtree(frames, ignore_errors=True)

    def place_for(self, root: Path, relative: str, *, sidecar: bool) -> Path:
        """Return a free path below `root`, as near to `relative` as possible, and reserve it.

        No other caller gets it before it has been published, moved to or withdrawn.

        Where a file has taken the name of a folder, the folder too gets another name. Where
        all of it is longer than a path may be, sub-folders are left out.

        Raises:
            ResourceUnavailable: its folder can't be made.
        """
        *folders, name = Path(relative).parts
        self._require_mounted(root)
        while len(folders) > 1 and len(os.fsencode(root.joinpath(*folders, name))) > (
            LONGEST_PATH_BYTES
        ):
            folders.pop()
        folder = _free_folder_below(root, folders)
        self._make_folder(folder)
        with self._reserving:
            path = free_place(folder, name, sidecar=sidecar, reserved=self._reserved)
            self._reserved.add(path)
        return path

    def require_writable(self, root: Path, relative: str) -> None:
        """Do nothing if `relative` could be written below `root`: better asked before painting.

        Raises:
            FolderNotWritable: the folder that it belongs in, or would be made in, may not be
                written; of `root` itself and of its disk that says nothing.
        """
        existing = _existing(_free_folder_below(root, Path(relative).parts[:-1]))
        if existing != root and not is_writable(existing) and not _is_read_only(root):
            raise _not_writable(existing)

    def publish_result(self, path: Path, data: bytes) -> None:
        """Write a result; it counts only once its sidecar is published too.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        self._make_folder(path.parent)
        with self._one_folder(path):
            atomic_write(path, data)

    def publish_frames(self, result: Path, job_id: str, frames: Sequence[Path]) -> Path:
        """Copy pictures of a painting's making beside its result, as `photo.frames/00050.jpg`.

        Returns:
            Their folder. What the same job has put there before is replaced.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        folder = self._frames_of(result, job_id) or free_place(
            result.parent, _frames_name(result), sidecar=False
        )
        self._make_folder(folder)
        with self._one_folder(folder / _OWNER_FILE):
            self._write_frames(folder, job_id, frames)
        return folder

    def _write_frames(self, folder: Path, job_id: str, frames: Sequence[Path]) -> None:
        # First of all it is noted whose they are, should this be broken off.
        atomic_write(folder / _OWNER_FILE, json.dumps({"job": {"id": job_id}}).encode() + b"\n")
        for frame in frames:
            atomic_write(folder / frame.name, frame.read_bytes())
        kept = {frame.name for frame in frames}
        for path in folder.iterdir():
            if _FRAME.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)

    def _frames_of(self, result: Path, job_id: str) -> Path | None:
        """Return the folder of frames that this job has made beside `result`, if there is one."""
        for name in candidates(_frames_name(result)):
            folder = result.parent / name
            if not os.path.lexists(folder):
                return None
            if _is_empty(folder):  # a process died just after making it
                return folder
            if job_id_in(folder / _OWNER_FILE) == job_id:
                return folder
        raise AssertionError("candidates() never ends")

    def publish_sidecar(self, path: Path, sidecar: Sidecar) -> None:
        """Write the sidecar of the file at `path`.

        Raises:
            ResourceUnavailable: the folder is full, read-only or gone.
        """
        self._make_folder(path.parent)
        with self._one_folder(path):
            atomic_write(sidecar_of(path), sidecar.to_json())
        self._reserved.discard(path)

    def is_published(self, path: Path, job_id: str) -> bool:
        """Tell whether `path` is complete and made by this job.

        Raises:
            ResourceUnavailable: the outbox can't be looked into.
        """
        self._require_mounted(self.outbox)
        with resource_errors(path):
            return path.exists() and job_id_in(sidecar_of(path)) == job_id

    def has_sidecar(self, path: Path, job_id: str) -> bool:
        """Tell whether this job's sidecar lies beside `path`."""
        return job_id_in(sidecar_of(path)) == job_id

    def may_replace(self, path: Path, job_id: str, sha256: str | None) -> bool:
        """Tell whether a name that this job once reserved is still its own to write.

        After a crash it may hold the job's own half of a publication; anything else that
        has taken the name meanwhile is never overwritten.
        """
        sidecar = sidecar_of(path)
        if os.path.lexists(sidecar) and job_id_in(sidecar) != job_id:
            return False
        return not os.path.lexists(path) or (sha256 is not None and sha256 == sha256_of(path))

    def place_for_original(
        self, root: Path, relative: str, source: Path, reserved: Path | None
    ) -> Path:
        """Return where an original goes: the reserved place, unless a stranger has taken it.

        An original that is no longer in the inbox is what lies in the reserved place: the
        process died after it had moved it.

        Raises:
            ResourceUnavailable: its folder can't be made.
        """
        if reserved is not None and (
            not os.path.lexists(reserved) or identity(source) is None or _same(reserved, source)
        ):
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
            InputStuck: it may not be moved out of the inbox.
            FolderNotWritable: a destination's folder may not be written.
            ResourceUnavailable: a destination is full, read-only, gone or taken meanwhile.
        """
        was_taken = self._take(source, destinations, same_as=same_as, keep=keep)
        self._reserved.difference_update(destinations)
        return was_taken

    def _take(
        self, source: Path, destinations: list[Path], *, same_as: tuple[int, int], keep: bool
    ) -> bool:
        if identity(source) != same_as:
            return False
        try:
            *others, last = [*destinations, None] if keep or not destinations else destinations
            for destination in others:
                self._copy(source, destination, always_copy=keep)
            if last is not None and not _is_there_already(source, last):
                self._make_folder(last.parent)
                with self._one_folder(last):
                    durable_move(source, last)
            elif not keep:
                if last is not None:
                    # The process that has put it there may have died before this.
                    with resource_errors(last):
                        sync_folder(last.parent)
                _delete_input(source)
        except ResourceUnavailable:
            if identity(source) != same_as:
                return False  # somebody took it away, or replaced it, at this very moment
            raise
        return True

    def _make_folder(self, folder: Path) -> None:
        for root in (self.outbox, self.rejected, self.archive):
            if folder.is_relative_to(root):
                self._require_mounted(root)
        with self._one_folder(folder / "any"):
            make_folder(folder)

    @contextmanager
    def _one_folder(self, path: Path) -> Iterator[None]:
        """Blame the folder of `path` alone for what is forbidden, unless its root is to blame.

        Raises:
            FolderNotWritable: in place of `Forbidden`.
        """
        try:
            yield
        except InputStuck:
            raise
        except Forbidden as error:
            for root in (self.outbox, self.rejected, self.archive):
                existing = _existing(path.parent)
                if existing != root and existing.is_relative_to(root) and not _is_read_only(root):
                    raise _not_writable(existing) from error
            raise

    def _copy(self, source: Path, destination: Path | None, *, always_copy: bool) -> None:
        if destination is not None and not _is_there_already(source, destination):
            self._make_folder(destination.parent)
            with self._one_folder(destination):
                durable_copy(source, destination, always_copy=always_copy)


def _not_writable(folder: Path) -> FolderNotWritable:
    return FolderNotWritable(
        f"the folder {folder} may not be written by styled",
        f"give it to styled's user: chown USER {folder}",
    )


def _free_folder_below(root: Path, parts: Sequence[str]) -> Path:
    """Return a folder that is there or may be made: a file in its way gives it another name."""
    folder = root
    for part in parts:
        folder = free_folder(folder, part)
    return folder


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(one for one in (folder, *folder.parents) if one.is_dir())


def _is_read_only(root: Path) -> bool:
    """Tell whether the disk of a folder is mounted for reading alone."""
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


def _is_there_already(source: Path, destination: Path) -> bool:
    """Tell whether an earlier attempt has put `source` at `destination`.

    Raises:
        ResourceUnavailable: something else has taken that name since it was chosen. To
            go on would lose either; the next attempt chooses another name.
    """
    if not os.path.lexists(destination):
        return False
    if not _same(source, destination):
        raise ResourceUnavailable(
            f"{destination} was taken by another file at this very moment",
            "another name is chosen at the next attempt; work goes on by itself",
        )
    return True


def _same(a: Path, b: Path) -> bool:
    sha256 = sha256_of(a)
    return sha256 is not None and sha256 == sha256_of(b)

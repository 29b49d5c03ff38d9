"""Moves an input out of the inbox after all of its jobs have ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from styled.config import Config
from styled.errors import InputStuck, ResourceUnavailable
from styled.files import input_identity, lies_in, readable, sha256_of
from styled.job_io.protocols import PublisherProtocol
from styled.job_io.sidecars import sidecar_of_rejection
from styled.job_io.writer_guard import WriterGuard
from styled.journal.job import ON_REQUEST, Job, JobState
from styled.journal.journal import Journal
from styled.journal.queries import FINISHED
from styled.mounts import Mounts

log = structlog.get_logger()

STYLE_REMOVED = "style removed"
"""Failure class of a job that was cancelled because its style is no longer configured."""

LOCKS = 16
"""Maximum number of inputs that can be released at the same time."""


class InputCleanup:
    """Archives, rejects, keeps or deletes an original once all jobs of the input have ended."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        publisher: PublisherProtocol,
        mounts: Mounts,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Release inputs of `config.inbox` as `config.output.after_success` says."""
        self._inbox = config.inbox
        self._after_success = config.output.after_success
        self._removes_folders = config.intake.remove_empty_folders
        self._kept_folders = frozenset(config.inbox_folders)
        self._journal = journal
        self._publisher = publisher
        self._mounts = mounts
        self._writer_guard = WriterGuard(config.intake.open_grace_seconds)
        self._now = now
        # Jobs of the same input in two styles may end at the same moment: release it only once.
        self._locks = [threading.Lock() for _ in range(LOCKS)]

    def release_input(self, job: Job, *, again: bool = False) -> None:
        """Release the input of `job` if all jobs of that input have ended.

        Its original goes to the archive or to `rejected`, is kept or is deleted. Every step is
        idempotent: after a crash between any two steps, call this again.

        Args:
            job: A job that has ended.
            again: Whether this may be a repeated call. If so, and the original is kept in the
                inbox, its content is not hashed again to check that it is unchanged.

        Raises:
            InputStuck: the original may not be moved, or is still open for writing.
            FolderNotWritable, NameNotSupported: this input's destination can't be used.
            ResourceUnavailable: the destination or the inbox is full, read-only or gone.
        """
        with self._locks[hash(job.input) % LOCKS]:
            self._release(job, again=again)

    def _release(self, job: Job, *, again: bool) -> None:
        siblings = self._journal.jobs_of_input(job)
        if not siblings or any(sibling.state not in FINISHED for sibling in siblings):
            return
        done = [s for s in siblings if s.state is JobState.DONE]
        # A photo that was cancelled on request goes to `rejected`: `styled retry` brings it back.
        # If the photo is kept in the inbox, its copy goes there once, and may be retried then.
        rejected = [
            s for s in siblings
            if (s.state is JobState.REJECTED or s.failure == ON_REQUEST) and not s.is_released
        ]  # fmt: skip
        source = self._inbox / job.input
        keep = self._after_success == "keep" and bool(done)
        known_sha256 = next((s.input_sha256 for s in siblings if s.input_sha256), None)
        is_in_inbox = self._is_in_inbox(job, None if keep and again else known_sha256)
        if not done and not rejected:
            self._journal.mark_input_gone(job)
            return

        sha256 = _known_sha256(source) if rejected and is_in_inbox else None
        archived = [
            sibling
            for sibling in done
            if self._after_success == "archive" and (is_in_inbox or sibling.original)
        ]
        paths = {
            sibling.id: self._path_for(sibling, source, is_in_inbox=is_in_inbox)
            for sibling in (*archived, *rejected)
        }
        stuck: InputStuck | None = None
        try:
            identity = (job.size, job.mtime_ns)
            if is_in_inbox and (paths or not keep):
                self._writer_guard.require_closed(source)
            if is_in_inbox and not paths and not keep:
                # Before the photo: they must not be left for the next photo of that name.
                self._publisher.delete_companions(source, same_as=identity)
            was_in_inbox = is_in_inbox and self._publisher.move_original(
                source, list(paths.values()), same_as=identity, keep=keep
            )
            if is_in_inbox and not was_in_inbox and self._is_in_inbox(job, None):
                raise InputStuck(
                    f"{source} was moved away and back just now",
                    "it leaves the inbox at the next attempt",
                )
        except InputStuck as error:
            # The sidecar with the reason is published in `rejected` nevertheless.
            was_in_inbox, stuck = True, error
        if stuck is None and paths:
            self._publisher.move_companions(
                source, list(paths.values()), keep=keep and was_in_inbox
            )
        for sibling in rejected:
            if stuck is not None and self._publisher.has_sidecar(paths[sibling.id], sibling.id):
                continue  # from an earlier attempt
            # The input is missing from the inbox either because a process died after moving it,
            # or because somebody removed or changed it: then it is not in `rejected` either.
            changed = not was_in_inbox and not paths[sibling.id].exists()
            self._publisher.publish_sidecar(
                paths[sibling.id],
                sidecar_of_rejection(
                    sibling,
                    sha256 or _known_sha256(paths[sibling.id]),
                    changed=changed,
                    now=self._now(),
                ),
            )
        if stuck is not None:
            raise stuck
        if not keep or not was_in_inbox:
            self._journal.mark_input_gone(job)
        else:
            for sibling in rejected:
                self._journal.mark_released(sibling)
        if was_in_inbox and not keep and self._removes_folders:
            self._remove_empty_folders(source)
        log.debug(
            "input.released", path=readable(job.input), places=[str(p) for p in paths.values()]
        )

    def _is_in_inbox(self, job: Job, input_sha256: str | None) -> bool:
        """Return whether the input of `job` is in the inbox, unchanged.

        An input is only missing if the inbox is there: otherwise a disk that is unmounted, or a
        folder that is renamed, would mark all its inputs as gone, and paint them again later.

        Raises:
            InputStuck: only this input can't be read.
            ResourceUnavailable: the inbox is gone or can't be read.
        """
        try:
            if is_unchanged(self._inbox, job, input_sha256):
                return True
            self._mounts.require(self._inbox)
            return is_unchanged(self._inbox, job, input_sha256)  # the inbox may be back just now
        except ResourceUnavailable as error:
            self._mounts.require(self._inbox)
            raise InputStuck(error.message, *error.remedies) from error

    def _remove_empty_folders(self, source: Path) -> None:
        """Remove the sub-folders of the inbox that are empty now that a photo has left them."""
        for folder in source.parents:
            relative = folder.relative_to(self._inbox)
            if not relative.parts or relative.as_posix() in self._kept_folders:
                return
            try:
                folder.rmdir()
            except OSError:  # it is not empty, or may not be removed
                return
            log.info("folder.removed", path=readable(relative.as_posix()))

    def _path_for(self, job: Job, source: Path, *, is_in_inbox: bool) -> Path:
        """Return the path that the original of a job moves to, and reserve it in the journal."""
        publisher = self._publisher
        root = publisher.archive if job.state is JobState.DONE else publisher.rejected
        reserved = Path(job.original) if job.original else None
        if reserved is not None and not is_in_inbox:
            return reserved  # a process died after moving it there
        relative = f"{job.style}/{job.destination}"
        path = publisher.path_for_original(root, relative, source, reserved, job.id)
        if path != reserved:
            self._journal.reserve_original(job, path)
        return path


def _known_sha256(path: Path) -> str | None:
    """Return the SHA-256 for a sidecar, None if the file can't be read."""
    try:
        return sha256_of(path)
    except ResourceUnavailable:
        return None


def is_unchanged(inbox: Path, job: Job, input_sha256: str | None) -> bool:
    """Return whether the input of `job` is still in the inbox and unchanged.

    Size and modification time are compared, and the content if its hash is known: a file may be
    rewritten with the same size and modification time.

    Args:
        inbox: The folder.
        job: Identifies the input.
        input_sha256: Of the content that was read; None: not known.

    Raises:
        ResourceUnavailable: the file can't be checked.
    """
    source = inbox / job.input
    return (
        lies_in(inbox, job.input)
        and input_identity(source) == (job.size, job.mtime_ns)
        and (input_sha256 is None or sha256_of(source) == input_sha256)
    )

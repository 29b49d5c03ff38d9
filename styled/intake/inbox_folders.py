"""The folders of the inbox: one for each style, and one for each entry of `folders`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from styled.atomic import make_folder
from styled.errors import Forbidden, ResourceUnavailable
from styled.mounts import Mounts

log = structlog.get_logger()


class InboxFolders:
    """Makes the folders of the inbox.

    Attributes:
        problem: Why a folder can't be made; None if all exist.
    """

    def __init__(self, inbox: Path, mounts: Mounts) -> None:
        """Make folders in `inbox`, as long as `mounts` says that its disk is mounted."""
        self._inbox = inbox
        self._mounts = mounts
        self.problem: str | None = None

    def prepare(self, names: Iterable[str]) -> None:
        """Make the inbox and its folders.

        Raises:
            ResourceUnavailable: the inbox can't be made, or its disk is not mounted.
        """
        self._mounts.require_mounted(self._inbox)
        make_folder(self._inbox)
        self._mounts.require_mounted(self._inbox)  # records the mount of the folder just made
        self._make(names)

    def restore(self, names: Iterable[str]) -> None:
        """Make missing folders, but not the inbox itself: its disk may not be mounted."""
        if self._inbox.is_dir():
            with suppress(ResourceUnavailable):  # the next scan reports it
                self._mounts.require_mounted(self._inbox)
                self._make(names)

    def _make(self, names: Iterable[str]) -> None:
        # Not an error: a read-only inbox works without its folders.
        failure: ResourceUnavailable | None = None
        for name in names:
            try:
                make_folder(self._inbox / name)
            except ResourceUnavailable as error:
                failure = failure or error
        previous, self.problem = self.problem, None
        if failure is not None:
            is_read_only = isinstance(failure, Forbidden)
            what = "the inbox may only be read" if is_read_only else "a folder is missing"
            self.problem = f"{what}: {failure.message}"
            if previous is None:
                log.warning("inbox.not_prepared", reason=failure.message, remedies=failure.remedies)

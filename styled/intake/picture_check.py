"""Detects files that are not pictures, by name and content, such as the JSON files of an export."""

from __future__ import annotations

import os
from pathlib import Path

from styled.files import has_picture_name
from styled.open_files import open_regular
from styled.photos.formats import is_picture, other_kind_of

HEAD_BYTES = 64 * 1024
"""How much of a file tells what it is; `styled.photos.completeness` looks at the rest."""


class PictureCheck:
    """Checks whether a file becomes a job, or is left where it is."""

    def __init__(self, folder: Path) -> None:
        """Check files below `folder`."""
        self._folder = folder

    def is_picture(self, path: str) -> bool:
        """Return whether a finished file is a picture by its name or by its content.

        A file that can't be read counts as one: its job waits, and says why.

        Args:
            path: Relative to the folder.
        """
        if has_picture_name(path):
            return True
        head = self._head(path)
        return head is None or is_picture(head)

    def kind_of(self, path: str) -> tuple[str, str] | None:
        """Return what a file is that is not a picture, and what to do about it; None: unknown."""
        head = self._head(path)
        return None if head is None else other_kind_of(head)

    def _head(self, path: str) -> bytes | None:
        try:
            descriptor = open_regular(self._folder / path)
        except OSError:
            return None
        try:
            return os.pread(descriptor, HEAD_BYTES, 0)
        except OSError:
            return None
        finally:
            os.close(descriptor)

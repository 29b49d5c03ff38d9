"""Maps the path of a file in the inbox to the styles it is painted in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pairing:
    """Maps the folders of the inbox to styles.

    Attributes:
        styles: Names of the styles; each has a folder of its own.
        folders: Further folders, each with its styles.
        default_style: For all other files; None: they are not painted.
    """

    styles: Collection[str]
    folders: Mapping[str, Collection[str]]
    default_style: str | None

    def destinations(self, path: str) -> dict[str, str]:
        """Return, for each style of `path`, the result's path relative to the style's folder.

        Args:
            path: Relative to the inbox.

        Returns:
            Empty if the path belongs to no style. The first folder is dropped from the result's
            path if it names a style or an entry of `folders`, otherwise it is kept.
        """
        first, _, below_first = path.partition("/")
        if below_first and first in self.folders:
            return dict.fromkeys(self.folders[first], below_first)
        if below_first and first in self.styles:
            return {first: below_first}
        if self.default_style is not None:
            return {self.default_style: path}
        return {}

    def below_style(self, path: str) -> str:
        """Return a path without its first folder, if that names a style or an entry of `folders`.

        Args:
            path: Relative to the inbox.
        """
        first, _, below_first = path.partition("/")
        return below_first if below_first and first in (*self.folders, *self.styles) else path

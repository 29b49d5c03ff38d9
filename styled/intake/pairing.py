"""Which styles a file in the inbox is to be painted in, from where it lies alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pairing:
    """What the folders of the inbox mean.

    Attributes:
        styles: Names of the styles; each has a folder of its own.
        folders: Further folders, each standing for several styles.
        default_style: For everything else, if anything.
    """

    styles: Collection[str]
    folders: Mapping[str, Collection[str]]
    default_style: str | None

    def destinations(self, path: str) -> dict[str, str]:
        """Return, for each style that `path` is wanted in, the result's path below its folder.

        Args:
            path: Relative to the inbox.

        Returns:
            Empty where the path belongs to no style. The first folder is left out of the
            result's path where it named the style, and kept where it did not.
        """
        first, _, below_first = path.partition("/")
        if below_first and first in self.folders:
            return dict.fromkeys(self.folders[first], below_first)
        if below_first and first in self.styles:
            return {first: below_first}
        if self.default_style is not None:
            return {self.default_style: path}
        return {}

"""The styles that a photo's own settings name; see `styled.config.photo_settings`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import structlog

from styled.config.photo_settings import MAX_BYTES, parse_photo_settings
from styled.errors import ConfigError
from styled.files import SETTINGS_SUFFIX, companions_of, readable
from styled.intake.pairing import Pairing
from styled.intake.scanning import FoundFile
from styled.open_files import open_regular

log = structlog.get_logger()

MAX_PROBLEM_CHARS = 500
"""A reported problem is not longer: a file may have thousands."""


class PhotoStyles:
    """Determines the styles of photos, by their settings or by their folders.

    Settings are read once, and again when their file has changed.

    Attributes:
        problems: Photo -> what is wrong with its settings.
    """

    def __init__(self, inbox: Path, pairing: Pairing) -> None:
        """Use `pairing` for photos in `inbox` whose settings name no style."""
        self._inbox = inbox
        self._pairing = pairing
        self.problems: dict[str, str] = {}
        self._known: dict[str, tuple[FoundFile, tuple[str, ...] | None]] = {}
        self._seen: set[str] = set()

    def destinations(self, file: FoundFile) -> dict[str, str]:
        """Return, for each style of a photo, the result's path; see `Pairing.destinations`."""
        by_folder = self._pairing.destinations(file.path)
        settings = next((c for c in file.companions if c.path.endswith(SETTINGS_SUFFIX)), None)
        if settings is None:
            return by_folder
        self._seen.add(file.path)
        known = self._known.get(file.path)
        if known is None or known[0] != settings:
            self.problems.pop(file.path, None)
            try:
                known = settings, self._read(file.path, settings.path, self._pairing.styles)
            except FileNotFoundError:  # it has just gone
                return by_folder
            except OSError as error:
                # The next scan tries again: no photo is painted without its settings.
                name = readable(settings.path)
                self.problems[file.path] = f"{name} can't be read: {error.strerror}"
                return {}
            self._known[file.path] = known
        if known[1] is None:
            return by_folder
        return dict.fromkeys(known[1], self._pairing.below_style(file.path))

    def end_scan(self) -> None:
        """Forget the photos that were not seen since the last call."""
        for path in set(self._known).difference(self._seen):
            del self._known[path]
            self.problems.pop(path, None)
        self._seen.clear()

    def styles_of(self, path: str) -> list[str]:
        """Return the styles of the photo at `path`, which is relative to the inbox."""
        companions = tuple(
            FoundFile(f"{path}{suffix}", 0, 0, 0) for suffix in companions_of(self._inbox / path)
        )
        return list(self.destinations(FoundFile(path, 0, 0, 0, companions=companions)))

    def _read(self, photo: str, path: str, styles: Collection[str]) -> tuple[str, ...] | None:
        """Return the styles in a photo's settings; None: none, or the settings are not valid.

        Invalid ones are read again when the photo's job begins, which then says what is wrong.

        Raises:
            OSError: they can't be read now.
        """
        with open(open_regular(self._inbox / path), "rb") as file:
            data = file.read(MAX_BYTES + 1)
        try:
            return parse_photo_settings(data, Path(path), styles).style
        except ConfigError as error:
            self.problems[photo] = _shortened(readable("; ".join(error.message.splitlines())))
            return None
        # No content may stop the scan of the others. The photo's job meets the same error.
        except Exception:
            log.exception("settings.not_read", path=readable(path))
            return None


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_PROBLEM_CHARS else f"{text[:MAX_PROBLEM_CHARS]}..."

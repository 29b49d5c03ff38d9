"""Which styles can't be used just now: their photos wait, and other styles go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog

from styled.config import Style
from styled.errors import StyleUnavailable
from styled.jobs.prepare import check_style, require_style

log = structlog.get_logger()


class StyleCheck:
    """Remembers which styles are in trouble.

    Attributes:
        troubles: By the name of the style: what is wrong with its images.
    """

    def __init__(self, max_pixels: int) -> None:
        """Refuse images of more than `max_pixels`."""
        self._max_pixels = max_pixels
        self._known_good: dict[str, Style] = {}
        self._known_bad: dict[str, tuple[Style, list[tuple[int, int] | None]]] = {}
        self.troubles: dict[str, str] = {}

    def check(self, styles: Mapping[str, Style]) -> bool:
        """Look at all styles; return whether the troubles are other than before.

        Images are decoded once; after that it is asked whether they are there.
        """
        before = self.troubles
        self.troubles = {}
        for name, style in styles.items():
            trouble = self._trouble_of(name, style, before.get(name))
            if trouble is not None:
                self.troubles[name] = trouble
                if before.get(name) != trouble:
                    log.error("style.unavailable", style=name, reason=trouble)
            elif name in before:
                log.info("style.recovered", style=name)
        self._known_good = {name: one for name, one in self._known_good.items() if name in styles}
        return before != self.troubles

    def _trouble_of(self, name: str, style: Style, before: str | None) -> str | None:
        if self._known_good.get(name) == style:
            try:
                require_style(style)
            except StyleUnavailable as error:
                del self._known_good[name]
                return error.message
            return None
        seen = style, [_stamp(image.path) for image in style.images]
        if before is not None and self._known_bad.get(name) == seen:
            return before  # nothing has changed: no reason to decode it again
        problems = check_style(style, max_pixels=self._max_pixels)
        if problems:
            self._known_bad[name] = seen
            return "; ".join(problems)
        self._known_bad.pop(name, None)
        self._known_good[name] = style
        return None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns

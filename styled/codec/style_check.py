"""Checks which styles can't be used at the moment: their jobs wait, other styles continue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from styled import photos
from styled.codec.prepare import decode
from styled.codec.source_files import require_style
from styled.config import Config, Style
from styled.errors import (
    ConfigError,
    InputIncomplete,
    InputRejected,
    ResourceUnavailable,
    StyleUnavailable,
)
from styled.files import FileStamps, stamps_of

log = structlog.get_logger()


class StyleCheck:
    """Checks styles repeatedly, and caches which of them can be used.

    Attributes:
        problems: Maps the name of each unusable style to what is wrong with its images.
    """

    def __init__(self, max_pixels: int) -> None:
        """Treat images with more than `max_pixels` as unusable."""
        self._max_pixels = max_pixels
        self._known_good: dict[str, Style] = {}
        self._known_bad: dict[str, tuple[Style, FileStamps]] = {}
        self.problems: dict[str, str] = {}

    def check(self, styles: Mapping[str, Style]) -> bool:
        """Check all styles; return whether `problems` has changed.

        Images are decoded once; later checks only test whether they exist.
        """
        before = self.problems
        self.problems = {}
        for name, style in styles.items():
            problem = self._problem_of(name, style, before.get(name))
            if problem is not None:
                self.problems[name] = problem
                if before.get(name) != problem:
                    log.error("style.unavailable", style=name, reason=problem)
            elif name in before:
                log.info("style.recovered", style=name)
        self._known_good = {
            name: style for name, style in self._known_good.items() if name in styles
        }
        return before != self.problems

    def _problem_of(self, name: str, style: Style, before: str | None) -> str | None:
        if self._known_good.get(name) == style:
            try:
                require_style(style)
            except StyleUnavailable as error:
                del self._known_good[name]
                return error.message
            return None
        state = style, stamps_of(style.files)
        if before is not None and self._known_bad.get(name) == state:
            return before  # nothing has changed: do not decode the images again
        problems = check_style(style, max_pixels=self._max_pixels)
        if problems:
            self._known_bad[name] = state
            return "; ".join(problems)
        self._known_bad.pop(name, None)
        self._known_good[name] = style
        return None


def check_style(style: Style, *, max_pixels: int) -> Sequence[str]:
    """Decode a style's files; return one message for each that can't be used."""
    problems = []
    for path in style.files:
        try:
            data = photos.read_bytes(path)
            if path == style.proof:
                photos.SoftProof(data)
            else:
                decode(data, max_pixels=max_pixels)
        except FileNotFoundError:
            problems.append(f"{path} does not exist")
        except (InputRejected, InputIncomplete, ResourceUnavailable) as error:
            problems.append(f"{path}: {error.message}")
    return problems


def check_styles(config: Config, known: Mapping[str, Style] | None = None) -> None:
    """Decode the images of all styles.

    Args:
        config: The configuration with the styles.
        known: Styles that were checked before; unchanged ones are skipped.

    Raises:
        ConfigError: at least one image can't be used; the message lists all of them.
    """
    problems = [
        f"styles.{name}: {problem}"
        for name, style in config.styles.items()
        if known is None or known.get(name) != style
        for problem in check_style(style, max_pixels=config.intake.max_pixels)
    ]
    if problems:
        raise ConfigError("\n".join(problems))

"""The degradations of one running job: logged when they happen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import structlog

from styled.degradation import Degradation

log = structlog.get_logger()

Source = Literal["service", "inputs", "painting"]
"""Where a degradation comes from, in the order in which sidecars have them."""


class JobDegradations:
    """In which ways the result of a job will be less than what was asked for, as known so far."""

    def __init__(self) -> None:
        """Begin an attempt: what was said of an earlier one is said again."""
        self._of: dict[Source, tuple[Degradation, ...]] = {}
        self._logged: set[Degradation] = set()

    def note(self, source: Source, degradations: Iterable[Degradation]) -> None:
        """Take these in place of what the source had, and log what is new.

        Those of the service were logged when they happened, and not by a job.
        """
        self._of[source] = tuple(degradations)
        for degradation in self._of[source]:
            if source != "service" and degradation not in self._logged:
                log.warning("job.degraded", kind=degradation.kind, reason=degradation.message)
            self._logged.add(degradation)

    def all(self) -> tuple[Degradation, ...]:
        """Return what is known so far, each once."""
        return tuple(
            dict.fromkeys(one for source in get_args(Source) for one in self._of.get(source, ()))
        )

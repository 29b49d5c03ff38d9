"""Collects the degradations of the service, and of one running job."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import structlog

from styled.degradation import Degradation

log = structlog.get_logger()

Source = Literal["service", "inputs", "checkpoint", "painting"]
"""Where a degradation comes from, in the order used in sidecars."""


class ServiceDegradations:
    """The current degradations of the service, by the part of it that has reported them."""

    def __init__(self) -> None:
        """Start without any."""
        self._by_part: dict[str, tuple[Degradation, ...]] = {}

    def replace(self, part: str, degradations: tuple[Degradation, ...]) -> None:
        """Replace the degradations of a part."""
        self._by_part[part] = degradations

    def all(self) -> tuple[Degradation, ...]:
        """Return the degradations of all parts."""
        return tuple(one for part in self._by_part.values() for one in part)


class JobDegradations:
    """The degradations known so far of a job's result; each is logged when it happens."""

    def __init__(self) -> None:
        """Start empty, for each attempt: degradations of earlier attempts are logged again."""
        self._by_source: dict[Source, tuple[Degradation, ...]] = {}
        self._logged: set[Degradation] = set()

    def note(self, source: Source, degradations: Iterable[Degradation]) -> None:
        """Replace the degradations of `source`, and log the new ones.

        Those of the service are not logged again here: they were logged when they happened.
        """
        self._by_source[source] = tuple(degradations)
        for degradation in self._by_source[source]:
            if source != "service" and degradation not in self._logged:
                log.warning("job.degraded", kind=degradation.kind, reason=degradation.message)
            self._logged.add(degradation)

    def all(self) -> tuple[Degradation, ...]:
        """Return the degradations of all sources, without duplicates."""
        return tuple(
            dict.fromkeys(
                degradation
                for source in get_args(Source)
                for degradation in self._by_source.get(source, ())
            )
        )

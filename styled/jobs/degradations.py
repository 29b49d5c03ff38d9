"""The degradations of one running job: logged when they happen, kept in the journal."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Literal, get_args

import structlog

from styled.degradation import Degradation
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.jobs.job import Job
from styled.jobs.journal import Journal

log = structlog.get_logger()

Source = Literal["service", "inputs", "painting", "result"]
"""Where a degradation comes from, in the order in which sidecars have them."""


class JobDegradations:
    """In which ways the result of a job will be less than what was asked for, as known so far."""

    def __init__(self, journal: Journal, job: Job) -> None:
        """Begin an attempt at `job`: what was said of an earlier one is said again."""
        self._journal = journal
        self._job = job
        self._of: dict[Source, tuple[Degradation, ...]] = {}
        self._logged: set[Degradation] = set()
        self._in_journal = job.degraded

    def note(self, source: Source, degradations: Iterable[Degradation]) -> None:
        """Take these in place of what the source had, log what is new, and keep all.

        Those of the service were logged when they happened, and not by a job.
        """
        self._of[source] = tuple(degradations)
        for degradation in self._of[source]:
            if source != "service" and degradation not in self._logged:
                log.warning("job.degraded", kind=degradation.kind, reason=degradation.message)
            self._logged.add(degradation)
        known = self.all()
        if known != self._in_journal:
            # It is in the log, and will be in the sidecar: no reason to stop a job.
            with suppress(ResourceUnavailable, JournalDamaged):
                self._journal.set_degraded(self._job, known)
                self._in_journal = known

    def all(self) -> tuple[Degradation, ...]:
        """Return what is known so far, each once."""
        return tuple(
            dict.fromkeys(one for source in get_args(Source) for one in self._of.get(source, ()))
        )

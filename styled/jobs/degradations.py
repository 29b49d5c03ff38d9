"""The degradations of one running job: logged when they happen, kept in the journal."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import structlog

from styled.degradation import Degradation
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.jobs.job import Job
from styled.jobs.journal import Journal

log = structlog.get_logger()


class JobDegradations:
    """Collects in which ways a job's result will be less than what was asked for."""

    def __init__(self, journal: Journal, job: Job, of_service: Iterable[Degradation]) -> None:
        """Begin with those of the whole service, which were logged when they happened."""
        self._journal = journal
        self._job = job
        self._known = list(dict.fromkeys(of_service))
        self._remember()

    def add(self, degradations: Iterable[Degradation]) -> None:
        """Log and remember those that are new."""
        new = [one for one in dict.fromkeys(degradations) if one not in self._known]
        for one in new:
            log.warning("job.degraded", kind=one.kind, reason=one.message)
        if new:
            self._known += new
            self._remember()

    def replace_by(self, degradations: Iterable[Degradation]) -> None:
        """Remember these alone: a later fallback may have taken the place of an earlier one."""
        self._known = list(dict.fromkeys(degradations))
        self._remember()

    def _remember(self) -> None:
        # The log has them, and the sidecar will: no reason to stop a job.
        with suppress(ResourceUnavailable, JournalDamaged):
            self._journal.set_degraded(self._job, self._known)

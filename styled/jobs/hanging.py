"""Hanging what has ended in the gallery: each result and each rejected input, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

import structlog

from styled.errors import ResourceUnavailable
from styled.jobs.backstage import Backstage
from styled.jobs.job import Job, JobState
from styled.jobs.journal import Journal
from styled.jobs.protocols import Beat, Gallery

log = structlog.get_logger()

PIECES_AT_ONCE = 10
PATIENCE_SECONDS = 600.0
"""How long that may take, where small pictures have to be made of large ones."""

HANGING_SECONDS = 2.0
"""How long hanging may keep the next job from being painted, each time."""

TRIED_AGAIN_SECONDS = 60.0


class Hanger:
    """Brings the gallery up to date. Nothing waits for it, and no job fails by it."""

    def __init__(
        self,
        journal: Journal,
        gallery: Gallery,
        outbox: Path,
        inbox: Path,
        clock: Callable[[], float] = time.monotonic,
        beat: Beat = lambda rest_seconds: None,
    ) -> None:
        """Hang in `gallery` what `journal` knows to have ended."""
        self._journal = journal
        self._gallery = gallery
        self._outbox = outbox
        self._inbox = inbox
        self._clock = clock
        self._beat = beat
        self._not_before = 0.0
        self._trouble = ""

    def hang(self) -> bool:
        """Hang what is not hanging yet, for a while; return whether there may be more.

        Raises:
            ResourceUnavailable: the journal can't be used.
        """
        begun = self._clock()
        if begun < self._not_before:
            return False
        while self._clock() - begun < HANGING_SECONDS:
            jobs = self._journal.not_hanging(PIECES_AT_ONCE)
            if not jobs:
                return False
            self._beat(PATIENCE_SECONDS)
            try:
                self._gallery.hang([self._piece(job) for job in jobs])
            except (ResourceUnavailable, OSError) as error:
                reason = error.message if isinstance(error, ResourceUnavailable) else str(error)
                log.warning("gallery.failed", reason=reason)
                return self._try_again_later(reason)
            # Whatever somebody may have put into the outbox, the daemon goes on without a page.
            except Exception as error:
                log.exception("gallery.crashed")
                return self._try_again_later(f"{type(error).__name__}: {error}")
            self._journal.note_hanging(job.id for job in jobs)
            self._note("")
        return True

    def _piece(self, job: Job) -> tuple[Path, Path | None]:
        original = Path(job.original) if job.original else None
        if job.state is JobState.DONE and job.result is not None:
            return self._outbox / job.result, original
        return original or self._inbox / job.input, None

    def _try_again_later(self, reason: str) -> bool:
        self._note(reason)
        self._not_before = self._clock() + TRIED_AGAIN_SECONDS
        return False

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._journal.write_daemon(gallery_trouble=trouble)


class HangingBackstage:
    """Has a hanger work in the thread beside the engine's."""

    def __init__(self, hanger: Hanger, backstage: Backstage, wake: Callable[[], None]) -> None:
        """Call `wake` where there may be more to hang."""
        self._hanger = hanger
        self._backstage = backstage
        self._wake = wake
        self._hanging: Future[bool] | None = None

    def hang(self) -> bool:
        """Have what is not hanging yet hung, after all that is being done there; return False."""
        if self._hanging is None or self._hanging.done():
            self._hanging = self._backstage.do(self._hanger.hang)
            self._hanging.add_done_callback(self._go_on)
        return False

    def finish(self) -> None:
        """Hang what has ended meanwhile, and wait for that."""
        if self._hanging is not None:
            wait([self._hanging])
        wait([self._backstage.do(self._hanger.hang)])

    def _go_on(self, hung: Future[bool]) -> None:
        # Not before it is done: whoever is woken asks for more at once.
        if hung.exception() is None and hung.result():
            self._wake()

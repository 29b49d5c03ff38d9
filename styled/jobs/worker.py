"""The worker: brings one claimed job to its next state, whatever happens on the way."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice

import structlog

from styled.config import Config, Style
from styled.degradation import Degradation
from styled.errors import (
    DeviceLost,
    EngineFailure,
    FolderNotWritable,
    InputIncomplete,
    InputRejected,
    InputStuck,
    JournalDamaged,
    MemoryShortage,
    PlaceRefused,
    ResourceUnavailable,
    StyledError,
    StyleUnavailable,
)
from styled.files import identity, lies_in, readable
from styled.jobs.account import Outcome, degradations_of_inputs
from styled.jobs.backstage import Backstage, HandOver
from styled.jobs.checkpoints import CheckpointStore
from styled.jobs.degradations import JobDegradations
from styled.jobs.delivering import Deliverer
from styled.jobs.ending import Ending, OnEnded
from styled.jobs.frames import FrameStore
from styled.jobs.job import ON_REQUEST, WAITING, Job, JobState
from styled.jobs.journal import Journal
from styled.jobs.lookahead import Lookahead, pixels_beside
from styled.jobs.looking import FINISHED
from styled.jobs.painting import Cancelled, Painter, Painting, Stopped
from styled.jobs.preparation import Prepared, prepare, require_style
from styled.jobs.previews import PreviewStore
from styled.jobs.protocols import Beat, Delivery, Engine, Gallery
from styled.jobs.retirement import STYLE_REMOVED, WriterGuard, retire_input

log = structlog.get_logger()

LOOK_AGAIN_SECONDS = 5.0
"""How long a job waits whose file can't be read just now."""

MENDED_SECONDS = 30.0
"""How long a job waits whose style or place can't be used just now: until somebody mends that."""

FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 300.0
"""How long a job waits after its first failure, or where there is not enough memory for it, twice
as long after each further time, up to the longest. Others are done meanwhile."""


PUBLISHING_BYTES_PER_PIXEL = 40
"""What a picture takes while it is published, with the photo that it was made of."""

MOST_STUCK_SHOWN = 100
"""How many of the inputs that can't leave are named in `styled status`."""

CANCELLING_SECONDS = 1.0
"""How long cancelling others may keep a job from being painted, each time."""


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What the worker is handed by the daemon."""

    journal: Journal
    engine: Engine
    delivery: Delivery
    checkpoints: CheckpointStore
    previews: PreviewStore
    frames: FrameStore
    styles: Callable[[], Mapping[str, Style]]  # the present ones: they change on reload
    degraded: Callable[[], Sequence[Degradation]] = tuple  # what the service does without just now
    require_inbox: Callable[[], None] = lambda: None  # ResourceUnavailable where it is not there
    beat: Beat = lambda rest_seconds: None
    on_ended: OnEnded = lambda ending: None
    on_failed_attempt: Callable[[str], None] = lambda failure: None
    wake: Callable[[], None] = lambda: None  # called where the scheduler has a reason to look
    gallery: Gallery | None = None
    # Publishes one picture and reads another while a third is painted; None: nothing does.
    backstage: Backstage | None = None


Part = Callable[[], "Part | None"]
"""A part of a job, which returns the next one unless the job has come to an end or must wait."""


def about(job: Job) -> AbstractContextManager[None]:
    """Say in every line of the log which job it is about, while the context lasts."""
    return structlog.contextvars.bound_contextvars(
        job=job.id, input=readable(job.input), style=job.style
    )


class Worker:
    """Does one job at a time.

    Attributes:
        rejected: How many inputs have been rejected so far.
        stuck: Inputs that are done with but can't leave the inbox, by path, and why.
    """

    def __init__(
        self,
        config: Config,
        collaborators: Collaborators,
        stop: threading.Event,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Work until `stop` is set; `now` tells the time of day, `clock` measures."""
        self._config = config
        self._journal = collaborators.journal
        self._engine = collaborators.engine
        self._delivery = collaborators.delivery
        self._checkpoints = collaborators.checkpoints
        self._previews = collaborators.previews
        self._frames = collaborators.frames
        self._styles = collaborators.styles
        self._degraded = collaborators.degraded
        self._require_inbox = collaborators.require_inbox
        self._beat = collaborators.beat
        self._on_ended = collaborators.on_ended
        self._on_failed_attempt = collaborators.on_failed_attempt
        self._writer_guard = WriterGuard(config.intake.open_grace_seconds)
        self._short_of_memory: dict[str, int] = {}  # job id -> how often in a row
        self.rejected = 0
        self.stuck: dict[str, StyledError] = {}
        self._now = now
        self._clock = clock
        self._stop = stop
        self._painter = Painter(
            self._engine, self._checkpoints, self._previews, self._frames, self._journal,
            config.queue.checkpoint_seconds, stop, clock, self._beat, self._look_around,
        )  # fmt: skip
        self._deliverer = Deliverer(
            config, self._journal, self._engine, self._delivery, collaborators.gallery,
            self._frames, self._require_inbox, self._beat, now, clock,
        )  # fmt: skip
        backstage = collaborators.backstage
        self._hand_over: HandOver | None = None
        self._lookahead: Lookahead | None = None
        self._looks_ahead = False
        if backstage is not None:
            self._hand_over = HandOver(backstage, self._beat, collaborators.wake)
            self._lookahead = Lookahead(
                backstage, config, self._journal, self._styles, self._read, self._beat, now
            )
        self._leaving = threading.Lock()  # an input leaves once, whoever notices that it may

    def work(self, job: Job) -> None:
        """Do a claimed job and write its next state into the journal.

        Raises:
            ResourceUnavailable: a disk, a folder or the journal fails. The job is still
                `running` in the journal; it is for the scheduler to put it back and wait.
            DeviceLost: the process has to be restarted.
        """
        rest = self._bring_on(job, partial(self._paint, job))
        if rest is None:
            return
        if self._hand_over is None:
            self._bring_on(job, rest)
            return
        self._hand_over.give(job, partial(self._publish_backstage, job, rest))

    def finish_publishing(self) -> None:
        """Wait until what was painted last is published, or can't be.

        Raises:
            DeviceLost, JournalDamaged: as `work`.
        """
        if self._lookahead is not None:
            self._lookahead.forget()
        if self._hand_over is not None:
            self._hand_over.finish()

    def gets_on(self) -> bool:
        """Tell, once, whether a picture has been published, or none has to be."""
        return self._hand_over is None or self._hand_over.gets_on()

    def held_up(self) -> list[tuple[Job, ResourceUnavailable]]:
        """Return jobs that could not be published, and why: once, for the scheduler to see to.

        Raises:
            DeviceLost, JournalDamaged: as `work`.
        """
        return [] if self._hand_over is None else self._hand_over.held_up()

    def _publish_backstage(self, job: Job, rest: Part) -> None:
        with about(job):
            try:
                self._bring_on(job, rest)
            except ResourceUnavailable:
                # At once: whatever happens during the next painting is not this one's fault.
                with suppress(ResourceUnavailable, JournalDamaged):
                    self._journal.put_back(job, attempt_counts=False)
                raise

    def _bring_on(self, job: Job, part: Part) -> Part | None:
        """Do a part of a job, and see to it that the job comes to an end if it can't go on.

        Returns:
            The next part, if there is one.

        Raises:
            ResourceUnavailable, JournalDamaged, DeviceLost: as `work`.
        """
        try:
            rest = part()
            if rest is not None:
                return rest
        except Stopped:
            self._journal.put_back(job, attempt_counts=False)
            log.info("job.interrupted", resumes=True)
            return None
        except Cancelled:
            self.cancel_on_request(job)
            return None
        except InputRejected as error:
            self._reject(job, error, "input")
        except InputIncomplete as error:
            # Intake has waited for the rest of it already.
            self._reject(job, error, "incomplete")
        except FolderNotWritable as error:
            again = job.failure == WAITING
            self._look_again_later(job, error, LONGEST_RETRY_SECONDS if again else MENDED_SECONDS)
        except PlaceRefused as error:
            self._look_again_later(job, error, LONGEST_RETRY_SECONDS)
        except MemoryShortage as error:
            # Others may be smaller: only this one waits, ever longer.
            self._wait_for_memory(job, error)
        except (ResourceUnavailable, JournalDamaged, DeviceLost):
            raise
        except EngineFailure as error:
            self._fail(job, error, "engine")
        except StyledError as error:
            # Such as a size that the output format can't hold: the next try would be the same.
            self._reject(job, error, "configuration")
        # This is the one broad boundary: whatever a picture provokes must end its job, not
        # the daemon and all other jobs.
        except Exception as error:
            log.exception("job.crashed")
            unexpected = StyledError(
                f"an unexpected error: {type(error).__name__}: {error}",
                "report it, with the traceback that the log has",
            )
            self._fail(job, unexpected, "internal")
        self.retire(job)
        return None

    def retire(self, job: Job, *, again: bool = False) -> None:
        """Let the input leave the inbox if this was its last job.

        Args:
            job: Has ended.
            again: Whether this has been tried before.

        Raises:
            ResourceUnavailable: its new place is full, read-only or gone.
        """
        try:
            with self._leaving:
                retire_input(
                    job, self._journal, self._delivery, self._config.inbox, self._require_inbox,
                    self._config.output.after_success, self._writer_guard, self._now(),
                    again=again,
                )  # fmt: skip
                self._note_stuck(job.input, None)
        except (InputStuck, PlaceRefused, FolderNotWritable) as error:
            # Only this one can't leave; it is tried again now and then.
            with self._leaving:
                self._note_stuck(job.input, error)

    def retry_stuck(self) -> None:
        """See whether inputs may leave the inbox that could not.

        Raises:
            ResourceUnavailable: as `retire`.
        """
        for path in list(self.stuck):
            if self._stop.is_set():
                return
            self._beat(0.0)
            jobs = [job for job in self._journal.jobs_about("input", path) if job.state in FINISHED]
            if not jobs:
                self.stuck.pop(path, None)  # it was forgotten meanwhile
            for job in jobs[:1]:
                self.retire(job, again=True)

    def _note_stuck(self, path: str, error: StyledError | None) -> None:
        before = self.stuck.pop(path, None)
        if error is not None:
            self.stuck[path] = error
            if before is None or before.message != error.message:
                log.error(
                    "input.stuck",
                    path=readable(path),
                    reason=error.message,
                    remedies=list(error.remedies),
                )
        if (before and before.message) == (error and error.message):
            return
        shown = [
            {"path": path, "reason": error.message, "remedies": error.remedies}
            for path, error in islice(self.stuck.items(), MOST_STUCK_SHOWN)
        ]
        with suppress(ResourceUnavailable, JournalDamaged):  # the log has it
            self._journal.write_daemon(
                stuck_inputs=json.dumps(shown), stuck_count=str(len(self.stuck))
            )

    def _paint(self, job: Job) -> Part | None:
        # Before anything is held against the job: it may have died of its very last step.
        if self._found_published(job):
            return None
        if job.attempts > self._config.queue.max_attempts:
            begun = job.attempts - 1
            self._reject(
                replace(job, attempts=begun),  # this one ends before it begins
                StyledError(
                    f"the program died while it worked on this, which was begun "
                    f"{begun} {'time' if begun == 1 else 'times'}",
                    "see the log for the cause, then drop the photo again",
                ),
                "crash",
            )
            return None
        style = self._styles().get(job.style)
        if style is None:
            self._cancel(
                job, f'the style "{job.style}" is no longer configured', STYLE_REMOVED,
                "configure it again, and the photo is painted in it",
            )  # fmt: skip
            return None
        started = self._clock()
        prepared = self._prepare(job, style)
        if prepared is None:
            return None
        self._deliverer.require_room(job, prepared)
        prepared_at = self._clock()
        self._beat(0.0)
        log.info("job.started", width=prepared.content.shape[3], height=prepared.content.shape[2])
        # If this one may have killed the process before, nothing is done beside it that could.
        self._looks_ahead = job.attempts == 1
        self._look_ahead()
        degradations = JobDegradations(self._journal, job)
        degradations.note("service", self._of_service())
        degradations.note("inputs", degradations_of_inputs(prepared))
        painting = self._painter.paint(job, prepared, degradations)
        degradations.note("service", self._of_service())  # the inbox may be polled by now
        outcome = self._outcome(painting, degradations)
        seconds = prepared_at - started, self._clock() - prepared_at
        publish = partial(self._publish, job, prepared, painting, outcome, degradations, *seconds)
        height, width = prepared.content.shape[-2:]
        pixels = max(width * height, math.prod(prepared.result_size or (0, 0)))
        if pixels <= pixels_beside(PUBLISHING_BYTES_PER_PIXEL):
            return publish
        self.finish_publishing()  # there would be no room beside the next painting
        publish()
        return None

    def _publish(
        self, job: Job, prepared: Prepared, painting: Painting, outcome: Outcome,
        degradations: JobDegradations, prepare_seconds: float, optimise_seconds: float,
    ) -> None:  # fmt: skip
        try:
            delivered = self._deliverer.deliver(
                job, prepared, outcome, degradations, prepare_seconds, optimise_seconds
            )
        except Exception:
            with suppress(ResourceUnavailable):
                painting.save()  # so that nothing is painted twice, whatever comes next
            raise
        outcome = replace(outcome, degraded=delivered.degraded)
        seconds = delivered.timing.model_dump()
        self._end(job, JobState.DONE, outcome=outcome, seconds=seconds)
        log.info(
            "job.published",
            result=readable(delivered.result.path),
            width=delivered.result.width,
            height=delivered.result.height,
            steps=outcome.stylized.steps,
            precision=outcome.stylized.precision,
            tile_px=outcome.stylized.tile_px,
            loss=round(outcome.stylized.trace[-1].total, 6),
            resumed=outcome.resumed,
            changed=delivered.changed,
            attempts=job.attempts,
            peak_memory_bytes=outcome.peak_memory_bytes,
            degraded=[asdict(degradation) for degradation in outcome.degraded],
            **{f"{phase}_seconds": round(spent, 3) for phase, spent in seconds.items()},
        )

    def _found_published(self, job: Job) -> bool:
        if not self._deliverer.is_published(job):
            return False
        self._end(job, JobState.DONE)
        log.info("job.found_published", result=readable(job.result or ""), attempts=job.attempts)
        return True

    def _prepare(self, job: Job, style: Style) -> Prepared | None:
        """Return what there is to paint, or None where the job can't go on and has been told."""
        source = self._config.inbox / job.input
        try:
            if not lies_in(self._config.inbox, job.input):
                raise FileNotFoundError(job.input)
            if job.failure == WAITING:
                # For its style or its folder, and many may: they are not all read each time.
                require_style(style)
                self._deliverer.require_folder(job)
            if identity(source) == (job.size, job.mtime_ns):
                ahead = self._lookahead.take(job, style) if self._lookahead else None
                return ahead or self._read(job, style, self._config.intake.max_pixels)
            if identity(source) is None:
                raise FileNotFoundError(job.input)
            gone = "the input was replaced by another file before its turn"
        except InputIncomplete:
            if identity(source) == (job.size, job.mtime_ns):
                raise
            gone = "the input was changed while it was read"
        except FileNotFoundError:
            self._require_inbox()
            gone = "the input was removed before its turn"
        except (MemoryShortage, FolderNotWritable):
            raise
        except StyleUnavailable as error:
            self._look_again_later(job, error, MENDED_SECONDS)
            self._journal.postpone_style(
                job.style, reason=error.message, remedies=error.remedies,
                not_before=self._now() + MENDED_SECONDS,
            )  # fmt: skip
            return None
        except ResourceUnavailable as error:
            # One unreadable file must not stop all others.
            self._look_again_later(job, error)
            return None
        self._cancel(job, gone)
        return None

    def _read(self, job: Job, style: Style, max_pixels: int) -> Prepared:
        at_own_size = self._config.output.size == "input"
        path = self._config.inbox / job.input
        return prepare(path, style, max_pixels=max_pixels, at_own_size=at_own_size)

    def _look_around(self) -> None:
        self.cancel_what_waits()
        self._look_ahead()

    def _look_ahead(self) -> None:
        if self._lookahead is not None and self._looks_ahead:
            self._lookahead.look()

    def _of_service(self) -> tuple[Degradation, ...]:
        return (*self._engine.facts.degraded, *self._degraded())

    def _outcome(self, painting: Painting, degradations: JobDegradations) -> Outcome:
        return Outcome(
            painting.stylized,
            resumed=painting.resumed,
            peak_memory_bytes=self._engine.peak_memory_bytes(),
            degraded=degradations.all(),
        )

    # How a job ends, or does not

    def _end(
        self,
        job: Job,
        state: JobState,
        reason: str | None = None,
        failure: str | None = None,
        *,
        remedies: Sequence[str] = (),
        outcome: Outcome | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        if state is not JobState.DONE:
            try:
                self._deliverer.withdraw(job)
            except FolderNotWritable as error:  # a result without a sidecar, which counts as none
                log.error("result.not_withdrawn", reason=error.message)
        now = self._now()
        self._journal.finish(job, state, now, reason=reason, failure=failure, remedies=remedies)
        self._checkpoints.drop(job)
        self._previews.drop(job)
        self._frames.drop(job)
        self._short_of_memory.pop(job.id, None)
        known = job.degraded if state is JobState.DONE else ()
        ending = Ending(job, state, failure, now, seconds or {}, degraded=known)
        if outcome is not None:
            ending = replace(
                ending,
                steps=outcome.stylized.steps,
                peak_memory_bytes=outcome.peak_memory_bytes,
                degraded=outcome.degraded,
            )
        self._on_ended(ending)

    def cancel_on_request(self, job: Job) -> None:
        """Cancel a job that a person does not want any more; its photo counts as rejected.

        Raises:
            ResourceUnavailable: as `work`.
        """
        if not self._found_published(job):
            remedy = "styled retry brings the photo back"
            self._cancel(job, "cancelled on request", ON_REQUEST, remedy)
        self.retire(job)

    def cancel_what_waits(self) -> None:
        """Cancel the waiting jobs that a person does not want any more.

        Raises:
            ResourceUnavailable: as `work`.
        """
        until = self._clock() + CANCELLING_SECONDS
        for job in self._journal.cancel_requests():
            if self._stop.is_set() or self._clock() > until:
                return  # the others are next in a second
            if job.state is JobState.QUEUED:
                self._beat(0.0)
                with about(job):
                    self.cancel_on_request(job)

    def _cancel(self, job: Job, reason: str, failure: str | None = None, *remedies: str) -> None:
        self._end(job, JobState.CANCELLED, reason, failure, remedies=remedies)
        log.info("job.cancelled", reason=reason, failure=failure, attempts=job.attempts)

    def _reject(self, job: Job, error: StyledError, failure: str) -> None:
        self._end(job, JobState.REJECTED, error.message, failure, remedies=error.remedies)
        self.rejected += 1
        log.warning(
            "job.rejected",
            reason=error.message,
            remedies=list(error.remedies),
            failure=failure,
            attempts=job.attempts,
        )

    def _fail(self, job: Job, error: StyledError, failure: str) -> None:
        if job.attempts >= self._config.queue.max_attempts:
            message = f"{error.message} (after {job.attempts} attempts)"
            self._reject(job, StyledError(message, *error.remedies), failure)
            return
        wait = _retry_seconds(job.attempts - 1)
        self._journal.put_back(
            job, reason=error.message, failure=failure, remedies=error.remedies,
            not_before=self._now() + wait, attempt_counts=True,
        )  # fmt: skip
        self._on_failed_attempt(failure)
        log.warning(
            "job.failed",
            reason=error.message,
            failure=failure,
            attempt=job.attempts,
            retry_seconds=wait,
        )

    def _wait_for_memory(self, job: Job, error: MemoryShortage) -> None:
        times = self._short_of_memory.get(job.id, 0)
        self._short_of_memory[job.id] = times + 1
        self._look_again_later(job, error, _retry_seconds(times))

    def _look_again_later(
        self, job: Job, error: StyledError, seconds: float = LOOK_AGAIN_SECONDS
    ) -> None:
        not_before = self._now() + seconds
        self._journal.put_back(
            job, reason=error.message, failure=WAITING, remedies=error.remedies,
            not_before=not_before, attempt_counts=False,
        )  # fmt: skip
        log.info("job.waits", reason=error.message, seconds=seconds)


def _retry_seconds(failures_before: int) -> float:
    return float(min(FIRST_RETRY_SECONDS * 2 ** min(failures_before, 10), LONGEST_RETRY_SECONDS))

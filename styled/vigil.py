"""The vigil: watches over the running daemon, and tells the world how it is.

systemd learns that it is alive and what it does, Prometheus how much, and the log if
something has got stuck. Nothing here changes what happens to a job.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from styled.config import Config
from styled.delivery.atomic import write_whole
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.files import readable
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.jobs.protocols import Engine
from styled.ops.metrics import Metrics, Standing
from styled.ops.metrics_file import MetricsFile
from styled.ops.pulse import Pulse
from styled.ops.room import FOLDERS, Room
from styled.ops.service import ServiceManager, Watchdog
from styled.ops.words import duration, some
from styled.stages import SCHEDULER

log = structlog.get_logger()

STATUS_SECONDS = 2.0
"""How often the service manager is told what is going on."""

METRICS_SECONDS = 15.0
"""How often it is looked whether metrics.prom is to be written."""

STUCK_SECONDS = 300.0
"""After so long without a sign of life a part is said to be stuck."""


class Vigil:
    """Watches over one daemon, from its main thread; what may hang has a thread of its own.

    Attributes:
        engine: Set once there is one.
        metrics: What is counted; the stages add to it.
    """

    def __init__(
        self,
        config: Config,
        manager: ServiceManager,
        pulse: Pulse,
        wake: threading.Event,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch `pulse`, tell `manager`, and set `wake` where a job is to be cancelled."""
        self._config = config
        self._manager = manager
        self._pulse = pulse
        self._wake = wake
        self._clock = clock
        self._watchdog = Watchdog(manager, pulse, clock)
        self._journal: Journal | None = None
        self._layers_run = 0
        self._changes_seen = -1
        self._changes_told = (-1, -1)
        self._told_at = -STATUS_SECONDS
        self._silent: tuple[str, ...] = ()
        self._news: str | None = None  # what the journal has not been told yet
        self._room = Room({name: getattr(config, name) for name in FOLDERS})
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._metrics_file = MetricsFile(config.state / "metrics.prom", write_whole, clock)
        self.engine: Engine | None = None
        self.metrics = Metrics(self._standing, config.styles, now)

    def begin(self, journal: Journal) -> None:
        """Begin to watch: serve metrics where that is asked for."""
        self._journal = journal
        trouble = ""
        if self._config.metrics.http_port is not None:
            try:
                self.metrics.serve(self._config.metrics.http_port)
            except ResourceUnavailable as error:
                log.warning("metrics.not_served", reason=error.message, remedies=error.remedies)
                trouble = error.message
        with suppress(ResourceUnavailable):
            journal.write_daemon(metrics_trouble=trouble, stuck="")
        if self._config.metrics.textfile:
            self._thread = threading.Thread(target=self._write_metrics, name="metrics", daemon=True)
            self._thread.start()

    def end(self, within_seconds: float = 2.0) -> None:
        """End the vigil; metrics are written a last time."""
        self._ended.set()
        self.metrics.close()
        if self._thread is not None:
            self._thread.join(within_seconds)

    def attend(self) -> None:
        """Look after everything; called about once a second. Never waits for a drive."""
        engine = self.engine
        if engine is not None and engine.layers_run != self._layers_run:
            self._layers_run = engine.layers_run
            self._pulse.touch(SCHEDULER)  # which may have begun to rest since
        self._watchdog.attend()
        self._look_for_silence()
        journal = self._journal
        # Whoever hangs may do so in the journal, and would be waited for.
        if journal is None or journal.is_in_use():
            return
        # What can't be read now is read the next time; the scheduler says what is wrong.
        with suppress(ResourceUnavailable, JournalDamaged):
            if self._news is not None:
                journal.write_daemon(stuck=self._news)
                self._news = None
            self._look_for_requests(journal)
            if self._manager.listens and self._clock() - self._told_at >= STATUS_SECONDS:
                changes = self._changes_seen, journal.count_own_changes()
                if changes != self._changes_told:
                    self._manager.tell_status(self._status(journal))
                    self._told_at, self._changes_told = self._clock(), changes

    def _look_for_requests(self, journal: Journal) -> None:
        changes = journal.count_changes_by_others()
        if changes != self._changes_seen:
            self._changes_seen = changes
            if journal.cancel_requests():
                self._wake.set()

    def _look_for_silence(self) -> None:
        """Say in the log what has got stuck, or goes on again."""
        silent = self._pulse.silent_for(STUCK_SECONDS)
        if tuple(silent) == self._silent:
            return
        self._silent = tuple(silent)
        said = "; ".join(
            f"the {part} has given no sign of life for {duration(seconds)}"
            for part, seconds in silent.items()
        )
        if said:
            log.error("daemon.stuck", reason=said, parts=list(silent))
        else:
            log.info("daemon.unstuck")
        self._news = said

    def _status(self, journal: Journal) -> str:
        """Return one line about what is going on."""
        facts = journal.read_daemon()
        queued = journal.count(JobState.QUEUED)
        waiting = f"; {some(queued, 'job')} waiting" if queued else ""
        for trouble in (facts.get("stuck"), facts.get("inbox_trouble")):
            if trouble:
                return f"{trouble}{waiting}"
        state = facts.get("state", "")
        if state.startswith("paused"):
            return f"{state}{waiting}"
        running = journal.in_state(JobState.RUNNING, limit=1, newest_first=True)
        if not running:
            return f"{state}{waiting}" if queued else f"{state}, waiting for photos"
        (job,) = running
        left = job.progress.seconds_left if job.progress else None
        ends = f", {duration(left)} left" if left is not None else ""
        return f"painting {readable(job.input)} in {job.style}: {job.fraction:.0%}{ends}{waiting}"

    # From other threads

    def _standing(self) -> Standing:
        if self._journal is None:
            return Standing()
        free = {name: usage.free for name, usage in self._room.look().items()}
        return replace(self._queue_standing(self._journal), free_bytes=free)

    def _queue_standing(self, journal: Journal) -> Standing:
        """Return how things stand, but for the disks: asking those may wake them."""
        facts = journal.read_daemon()
        running = journal.in_state(JobState.RUNNING, limit=1, newest_first=True)
        progress = running[0].progress if running else None
        step_seconds = progress.step_seconds if progress else None
        return Standing(
            jobs={
                style: {str(state): count for state, count in counts.items()}
                for style, counts in journal.waiting_by_style().items()
            },
            oldest_submitted_at=journal.oldest_waiting(),
            last_success_at=journal.last_finished(JobState.DONE),
            paused=facts.get("state", "").startswith("paused") or bool(facts.get("inbox_trouble")),
            degraded=[
                one["message"]
                for part in ("degraded", "degraded_intake")
                for one in json.loads(facts.get(part, "[]"))
            ],
            silent=self._silent,
            steps_per_second=1 / step_seconds if step_seconds else None,
        )

    def update_metrics(self, *, at_end: bool = False) -> bool:
        """Write metrics.prom if something that matters has changed, or it is old.

        Clocks, room on disks and figures of the process change all the time: no reason to write.

        Args:
            at_end: Write it in any case.

        Raises:
            ResourceUnavailable: it can't be written.
        """
        events = self.metrics.events  # what is counted after this is news the next time
        try:
            standing = None if self._journal is None else self._queue_standing(self._journal)
        except (ResourceUnavailable, JournalDamaged):
            standing = None  # then the figures say nothing of the queue
        return self._metrics_file.update((standing, events, at_end), self.metrics.text)

    def _write_metrics(self) -> None:
        while True:
            ended = self._ended.is_set()
            try:
                self.update_metrics(at_end=ended)
            except (ResourceUnavailable, JournalDamaged) as error:
                log.warning("metrics.not_written", reason=str(error))
            if ended:
                return
            self._ended.wait(METRICS_SECONDS)

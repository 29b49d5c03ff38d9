"""The health monitor: watches over the running daemon, and tells the world how it is.

systemd learns that it is alive and what it does, Prometheus how much, and the log if something
has got stuck. It looks at heartbeats and at the scheduler's snapshot, never at the journal:
whoever hangs may do so there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from styled.atomic import atomic_write
from styled.config import Config
from styled.errors import ResourceUnavailable
from styled.jobs.events import EngineStalled
from styled.jobs.job import JobFinished, JobState
from styled.jobs.snapshot import EngineSnapshot, QueueSnapshot
from styled.ops.lines import printable
from styled.ops.metrics import Metrics, Standing
from styled.ops.metrics_file import MetricsFile
from styled.ops.pulse import Pulse
from styled.ops.room import FOLDERS, Room
from styled.ops.service import ServiceManager, Watchdog
from styled.ops.stuck_record import StuckRecord
from styled.ops.words import duration, some
from styled.stages import Stages

log = structlog.get_logger()

STATUS_SECONDS = 2.0
"""How often the service manager is told what is going on."""

METRICS_SECONDS = 15.0
"""How often it is looked whether metrics.prom is to be written."""

STUCK_SECONDS = 300.0
"""After so long without a sign of life a part is said to be stuck, and an engine is replaced."""


class Scheduler(Protocol):
    """What is looked at of a scheduler."""

    @property
    def snapshot(self) -> QueueSnapshot:
        """How the queue stands."""


class Slot(Protocol):
    """What is looked at of an engine's slot."""

    @property
    def name(self) -> str:
        """As the heartbeats call it."""

    @property
    def ops_done(self) -> int:
        """A number that grows as long as it computes."""


class Vigil:
    """Watches over one daemon, from its main thread; what may hang has a thread of its own.

    Attributes:
        metrics: What is counted.
    """

    def __init__(
        self,
        config: Config,
        manager: ServiceManager,
        pulse: Pulse,
        stages: Stages,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch `pulse`, and tell `manager`."""
        self._config = config
        self._manager = manager
        self._pulse = pulse
        self._stages = stages
        self._clock = clock
        self._watchdog = Watchdog(manager, pulse, clock)
        self._scheduler: Scheduler | None = None
        self._slots: Sequence[Slot] = ()
        self._ops_done: dict[str, int] = {}
        self._told_at = -STATUS_SECONDS
        self._silent: tuple[str, ...] = ()
        self._stuck = ""
        self._room = Room({name: getattr(config, name) for name in FOLDERS})
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._metrics_file = MetricsFile(config.state / "metrics.prom", atomic_write, clock)
        self.metrics = Metrics(self._standing, config.styles, now)

    def begin(self) -> str:
        """Begin to watch: serve metrics where that is asked for.

        Returns:
            Why they can't be served, in words; empty if they are, or need not be.
        """
        trouble = ""
        if self._config.metrics.http_port is not None:
            try:
                self.metrics.serve(self._config.metrics.http_port)
            except ResourceUnavailable as error:
                log.warning("metrics.not_served", reason=error.message, remedies=error.remedies)
                trouble = error.message
        StuckRecord().save(self._config.state)
        if self._config.metrics.textfile:
            self._thread = threading.Thread(target=self._write_metrics, name="metrics", daemon=True)
            self._thread.start()
        return trouble

    def watch(self, scheduler: Scheduler, slots: Sequence[Slot]) -> None:
        """Look after these too, from now on."""
        self._scheduler, self._slots = scheduler, slots

    def end(self, within_seconds: float = 2.0) -> None:
        """End; metrics are written a last time."""
        self._ended.set()
        self.metrics.close()
        if self._thread is not None:
            self._thread.join(within_seconds)

    def attend(self) -> None:
        """Look after everything; called about once a second. Never waits for a drive."""
        for slot in self._slots:
            done = slot.ops_done
            if done != self._ops_done.get(slot.name, 0):
                self._ops_done[slot.name] = done
                self._pulse.touch(slot.name)  # which may have begun to rest since
        self._watchdog.attend()
        self._look_for_silence()
        if self._manager.listens and self._clock() - self._told_at >= STATUS_SECONDS:
            self._told_at = self._clock()
            self._manager.tell_status(self._status())

    def job_finished(self, finished: JobFinished) -> None:
        """Count a job that has ended."""
        self.metrics.count_ended(
            str(finished.state), finished.failure, finished.seconds, finished.steps,
            finished.peak_memory_bytes, degraded=bool(finished.degraded),
        )  # fmt: skip

    def attempt_failed(self, failure: str) -> None:
        """Count an attempt that will be made again."""
        self.metrics.count_failed_attempt(failure)

    def _look_for_silence(self) -> None:
        """Say in the log what has got stuck, or goes on again; have stuck engines replaced."""
        silent = self._pulse.silent_for(STUCK_SECONDS)
        if tuple(silent) == self._silent:
            return
        engines = {slot.name for slot in self._slots}
        for part in silent:
            if part in engines and part not in self._silent:
                self._stages.events.put(EngineStalled(part))
        self._silent = tuple(silent)
        self._stuck = "; ".join(
            f"the {part} has given no sign of life for {duration(seconds)}"
            for part, seconds in silent.items()
        )
        if self._stuck:
            log.error("daemon.stuck", reason=self._stuck, parts=list(silent))
        else:
            log.info("daemon.unstuck")
        record = StuckRecord(self._stuck, self._silent)
        # The state folder's drive may be what hangs.
        threading.Thread(target=record.save, args=(self._config.state,), daemon=True).start()

    def _snapshot(self) -> QueueSnapshot | None:
        return None if self._scheduler is None else self._scheduler.snapshot

    def _status(self) -> str:
        """Return one line about what is going on."""
        queue = self._snapshot()
        if queue is None:
            return self._stuck or "starting: loading the network"
        queued = queue.count(JobState.QUEUED)
        waiting = f"; {some(queued, 'job')} waiting" if queued else ""
        paused = queue.paused and f"paused: {queue.paused}"
        trouble = self._stuck or self._stages.intake_trouble or paused
        if trouble:
            return f"{trouble}{waiting}"
        painting = [engine for engine in queue.engines if engine.job is not None]
        gone = sum(engine.device is None for engine in queue.engines)
        lost = f"; {some(gone, 'engine')} of {len(queue.engines)} not there" if gone else ""
        if not painting:
            return f"running{waiting or ', waiting for photos'}{lost}"
        if len(painting) == 1:
            return f"{_doing(painting[0])}{waiting}{lost}"
        names = ", ".join(printable(engine.job.input) for engine in painting if engine.job)
        return f"painting {len(painting)} photos ({names}){waiting}{lost}"

    # From other threads

    def _standing(self) -> Standing:
        queue = self._snapshot()
        if queue is None:
            return Standing()
        free = {name: usage.free for name, usage in self._room.look().items()}
        return replace(self._queue_standing(queue), free_bytes=free)

    def _queue_standing(self, queue: QueueSnapshot) -> Standing:
        """Return how things stand, but for the disks: asking those may wake them."""
        return Standing(
            jobs={
                style: {str(state): count for state, count in counts.items()}
                for style, counts in queue.jobs.items()
            },
            oldest_submitted_at=queue.oldest_submitted_at,
            last_success_at=queue.last_success_at,
            paused=queue.paused is not None or bool(self._stages.intake_trouble),
            degraded=[
                one.message
                for part in (*(engine.degraded for engine in queue.engines), queue.degraded)
                for one in part
            ],
            silent=self._silent,
            steps_per_second={
                engine.name: 1 / engine.progress.step_seconds
                for engine in queue.engines
                if engine.progress is not None and engine.progress.step_seconds
            },
            engines={engine.name: engine.device is not None for engine in queue.engines},
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
        queue = self._snapshot()
        standing = None if queue is None else self._queue_standing(queue)
        return self._metrics_file.update((standing, events, at_end), self.metrics.text)

    def _write_metrics(self) -> None:
        while True:
            ended = self._ended.is_set()
            try:
                self.update_metrics(at_end=ended)
            except ResourceUnavailable as error:
                log.warning("metrics.not_written", reason=str(error))
            if ended:
                return
            self._ended.wait(METRICS_SECONDS)


def _doing(engine: EngineSnapshot) -> str:
    assert engine.job is not None, "it paints"
    progress = engine.progress
    left = progress.seconds_left if progress else None
    ends = f", {duration(left)} left" if left is not None else ""
    done = progress.fraction if progress else 0.0
    return f"painting {printable(engine.job.input)} in {engine.job.style}: {done:.0%}{ends}"

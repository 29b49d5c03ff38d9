"""The health monitor: feeds systemd's watchdog and status line, metrics, and stall reports.

It reads heartbeats and the scheduler's snapshot, never the journal: access to the journal may be
what hangs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Protocol

import structlog

from styled.config import Config
from styled.errors import ResourceUnavailable
from styled.jobs.events import EngineStalled, Event
from styled.jobs.snapshot import EngineSnapshot, QueueSnapshot, SnapshotSource
from styled.journal.job import JobFinished, JobState
from styled.ops.disk_space import FOLDERS, DiskSpace
from styled.ops.heartbeat_file import HeartbeatFile
from styled.ops.heartbeats import Heartbeats
from styled.ops.humanize import format_count, format_duration, printable
from styled.ops.metrics import Metrics, MetricsSnapshot
from styled.ops.metrics_file import MetricsFile
from styled.ops.stall_record import StallRecord
from styled.ops.systemd import Notifier, Watchdog

log = structlog.get_logger()

STATUS_SECONDS = 2.0
"""Interval of updates of systemd's status line."""

METRICS_SECONDS = 15.0
"""How often to check whether metrics.prom must be written."""

STALLED_SECONDS = 300.0
"""A part that is overdue by this time is reported as stalled; an engine is replaced."""


class SlotProtocol(Protocol):
    """The part of an engine slot that the monitor reads."""

    @property
    def name(self) -> str:
        """Its name in `Heartbeats`."""

    @property
    def ops_done(self) -> int:
        """A counter that grows as long as the engine computes."""


class HostProtocol(Protocol):
    """The part of the intake's host that the monitor reads."""

    @property
    def problem(self) -> str:
        """Why the inbox can't be scanned; empty if it can."""


class AppProtocol(Protocol):
    """The part of `styled.app.App` that the monitor reads."""

    @property
    def scheduler(self) -> SnapshotSource:
        """The scheduler."""

    @property
    def slots(self) -> Sequence[SlotProtocol]:
        """The engine slots."""

    @property
    def host(self) -> HostProtocol:
        """The intake's host."""

    @property
    def events(self) -> SimpleQueue[Event]:
        """The scheduler's queue."""


class HealthMonitor:
    """Monitors one daemon from its main thread. Operations that may block have their own threads.

    Attributes:
        metrics: The daemon's metrics.
    """

    def __init__(
        self,
        config: Config,
        notifier: Notifier,
        heartbeats: Heartbeats,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Monitor `heartbeats` and report to `notifier`.

        Args:
            config: The configuration.
            notifier: Receives watchdog pings and the status line.
            heartbeats: Must use the same `clock`.
            now: Unix time.
            clock: Monotonic seconds.
        """
        self._config = config
        self._notifier = notifier
        self._heartbeats = heartbeats
        self._app: AppProtocol | None = None
        self._clock = clock
        self._watchdog = Watchdog(notifier, heartbeats, clock)
        self._heartbeat_file = HeartbeatFile(clock=clock)
        self._ops_done: dict[str, int] = {}
        self._notified_at = -STATUS_SECONDS
        self._stalled_parts: tuple[str, ...] = ()
        self._stall_reason = ""
        self._disk_space = DiskSpace({name: getattr(config, name) for name in FOLDERS})
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._metrics_file = MetricsFile(config.state / "metrics.prom", clock)
        self.metrics = Metrics(self._metrics_snapshot, config.styles, now)

    def start(self) -> str:
        """Start monitoring, and serve metrics if configured.

        Returns:
            Why metrics can't be served; empty if they are served or not configured.
        """
        problem = ""
        if self._config.metrics.http_port is not None:
            try:
                self.metrics.serve(self._config.metrics.http_port)
            except ResourceUnavailable as error:
                log.warning("metrics.not_served", reason=error.message, remedies=error.remedies)
                problem = error.message
        StallRecord().save(self._config.state)
        if self._config.metrics.textfile:
            self._thread = threading.Thread(target=self._write_metrics, name="metrics", daemon=True)
            self._thread.start()
        return problem

    def watch(self, app: AppProtocol) -> None:
        """Monitor these objects too, from now on."""
        self._app = app

    def stop(self, within_seconds: float = 2.0) -> None:
        """Stop; metrics are written a last time."""
        self._ended.set()
        self._heartbeat_file.remove()
        self.metrics.close()
        if self._thread is not None:
            self._thread.join(within_seconds)

    def write_heartbeat_file(self) -> None:
        """Write the heartbeat file, at the start and while that makes progress; see `tick`."""
        self._heartbeat_file.write(self._status())

    def tick(self) -> None:
        """Check everything; called about once a second. Never accesses a disk itself."""
        for slot in self._slots:
            done = slot.ops_done
            if done != self._ops_done.get(slot.name, 0):
                self._ops_done[slot.name] = done
                # `touch`, not `beat`: the engine may have announced an idle time since.
                self._heartbeats.touch(slot.name)
        self._watchdog.ping()
        self._check_for_stalls()
        if self._notifier.is_enabled and self._clock() - self._notified_at >= STATUS_SECONDS:
            self._notified_at = self._clock()
            self._notifier.notify_status(self._status())
        if self._heartbeat_file.is_due():  # in memory, not on a disk
            self._heartbeat_file.write(self._status(), self._stall_reason)

    def job_finished(self, finished: JobFinished) -> None:
        """Count a job that has ended."""
        self.metrics.count_ended(
            str(finished.state), finished.failure, finished.phase_seconds, finished.steps,
            finished.peak_memory_bytes, degraded=bool(finished.degraded),
        )  # fmt: skip

    def attempt_failed(self, failure: str) -> None:
        """Count a failed attempt that will be retried."""
        self.metrics.count_failed_attempt(failure)

    def _check_for_stalls(self) -> None:
        """Log and record which parts have stalled or recovered; request new engines."""
        stalled = self._heartbeats.stalled(STALLED_SECONDS)
        if tuple(stalled) == self._stalled_parts:
            return
        for slot in self._slots:
            if self._app and slot.name in stalled and slot.name not in self._stalled_parts:
                self._app.events.put(EngineStalled(slot.name))
        self._stalled_parts = tuple(stalled)
        self._stall_reason = "; ".join(
            f"the {part} has made no progress for {format_duration(seconds)}"
            for part, seconds in stalled.items()
        )
        if self._stall_reason:
            log.error("daemon.stalled", reason=self._stall_reason, parts=list(stalled))
        else:
            log.info("daemon.recovered")
        record = StallRecord(self._stall_reason, self._stalled_parts)
        # In a thread, since the state folder's disk may be what hangs.
        threading.Thread(target=record.save, args=(self._config.state,), daemon=True).start()

    @property
    def _slots(self) -> Sequence[SlotProtocol]:
        return () if self._app is None else self._app.slots

    @property
    def _inbox_problem(self) -> str:
        return "" if self._app is None else self._app.host.problem

    def _snapshot(self) -> QueueSnapshot | None:
        return None if self._app is None else self._app.scheduler.snapshot

    def _status(self) -> str:
        """Return systemd's status line."""
        queue = self._snapshot()
        if queue is None:
            return self._stall_reason or "starting: loading the network"
        queued = queue.count(JobState.QUEUED)
        waiting = f"; {format_count(queued, 'job')} waiting" if queued else ""
        paused = queue.paused and f"paused: {queue.paused}"
        problem = self._stall_reason or self._inbox_problem or paused
        if problem:
            return f"{problem}{waiting}"
        painting = [engine for engine in queue.engines if engine.job is not None]
        lost = sum(engine.device is None for engine in queue.engines)
        engines_lost = ""
        if lost:
            engines_lost = f"; {format_count(lost, 'engine')} of {len(queue.engines)} not available"
        if not painting:
            return f"running{waiting or ', waiting for photos'}{engines_lost}"
        if len(painting) == 1:
            return f"{_progress_text(painting[0])}{waiting}{engines_lost}"
        names = ", ".join(printable(engine.job.input) for engine in painting if engine.job)
        return f"painting {len(painting)} photos ({names}){waiting}{engines_lost}"

    # From other threads

    def _metrics_snapshot(self) -> MetricsSnapshot:
        queue = self._snapshot()
        if queue is None:
            return MetricsSnapshot()
        free = {name: usage.free for name, usage in self._disk_space.usage().items()}
        return replace(self._queue_metrics(queue), free_bytes=free)

    def _queue_metrics(self, queue: QueueSnapshot) -> MetricsSnapshot:
        """Return the metrics without disk space: querying disks may spin them up."""
        return MetricsSnapshot(
            jobs={
                style: {str(state): count for state, count in counts.items()}
                for style, counts in queue.jobs.items()
            },
            oldest_submitted_at=queue.oldest_submitted_at,
            last_success_at=queue.last_success_at,
            paused=queue.paused is not None or bool(self._inbox_problem),
            degradation_messages=[
                one.message
                for part in (*(engine.degraded for engine in queue.engines), queue.degraded)
                for one in part
            ],
            stalled=self._stalled_parts,
            steps_per_second={
                engine.name: 1 / engine.progress.step_seconds
                for engine in queue.engines
                if engine.progress is not None and engine.progress.step_seconds
            },
            engines={engine.name: engine.device is not None for engine in queue.engines},
            locations={
                engine.name: (engine.node or "", engine.device)
                for engine in queue.engines
                if engine.device is not None
            },
        )

    def update_metrics(self, *, at_end: bool = False) -> bool:
        """Write metrics.prom if relevant values have changed, or the file is old.

        Clocks, disk space and the process's own metrics change all the time and do not count.

        Args:
            at_end: Write it in any case.

        Raises:
            ResourceUnavailable: it can't be written.
        """
        events = self.metrics.events  # read first: later events cause the next write
        queue = self._snapshot()
        snapshot = None if queue is None else self._queue_metrics(queue)
        relevant = snapshot, events, at_end
        if not self._metrics_file.is_due(relevant):
            return False
        self._metrics_file.write(relevant, self.metrics.text())
        return True

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


def _progress_text(engine: EngineSnapshot) -> str:
    assert engine.job is not None, "it paints"
    progress = engine.progress
    seconds_left = progress.seconds_left if progress else None
    eta = f", {format_duration(seconds_left)} left" if seconds_left is not None else ""
    done = progress.fraction if progress else 0.0
    return f"painting {printable(engine.job.input)} in {engine.job.style}: {done:.0%}{eta}"

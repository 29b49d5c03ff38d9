"""Life cycle of the daemon: start, signals, reload and stop.

Threads: the caller's, which waits for commands and monitors the others; the intake's; one that
writes the metrics file; the scheduler's, which never computes; one for each engine; and those of
the I/O pool, with one torch thread each. If two threads computed on all cores, each would get its
own pool of OpenMP workers, and a step would take 1.4 times as long.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import structlog

from styled import __version__
from styled.app import ENGINE_PREFIX, App, build_app, record_state
from styled.config import Config, require_styles
from styled.degradation import Degradation
from styled.engine.memory import configure_allocator
from styled.engine.weights import imagenet_file
from styled.engine_api import EngineFactory, EngineInfo
from styled.errors import (
    JournalDamaged,
    ResourceUnavailable,
    StopTimeout,
    StyledError,
)
from styled.files import readable
from styled.health import HealthMonitor
from styled.job_io.prepare_request import PREPARE_PART
from styled.jobs.events import StopRequested
from styled.jobs.scheduler import Scheduler
from styled.journal.job import JobFinished, JobState
from styled.journal.journal import Journal
from styled.live_gallery import LiveGallery
from styled.once import OnceResult, ProgressTimeout, Unprocessed, unprocessed_inputs
from styled.ops.config_in_use import save_config_in_use
from styled.ops.heartbeats import Heartbeats
from styled.ops.stall_record import StallRecord
from styled.ops.systemd import Notifier
from styled.reload import reload
from styled.signals import restore_signal_handlers, signals_handled
from styled.styles_watch import StylesWatch

if TYPE_CHECKING:  # it imports ray
    from styled.cluster.fleet import Fleet

log = structlog.get_logger()

TICK_SECONDS = 1.0
"""Interval of the health monitor's tick while the main thread waits for commands."""

ONCE_POLL_SECONDS = 0.2
"""Interval of scans in `once`."""

STOP_SECONDS = 4.0
"""How long a stop waits for the current step; then this step is abandoned."""

DISCONNECT_SECONDS = 0.8
"""How long such a stop waits for a cluster at least; the end of this process ends the rest."""

START_REPORT_SECONDS = 5.0
"""How often a long start reports its progress."""

START_EXTENSION_SECONDS = 120.0
"""Extension of systemd's start timeout while the start makes progress, as in a long download."""


class _Command(Enum):
    READY = auto()
    STOP = auto()
    RELOAD = auto()


class _StoppedEarly(Exception):
    """A stop was requested during the start."""


class Daemon:
    """A daemon for one configuration. An instance can be run only once."""

    def __init__(self, config: Config, factories: Sequence[EngineFactory] | None = None) -> None:
        """Create the daemon; `run` or `once` starts it.

        Args:
            config: The configuration.
            factories: One for each engine. None: as configured, a single engine in this process
                or those of a cluster.
        """
        self._config = config
        self._factories = factories
        heartbeats = self._heartbeats = Heartbeats()
        self._notifier = Notifier()
        self._health = HealthMonitor(config, self._notifier, heartbeats)
        self._app: App | None = None
        # SimpleQueue.put is reentrant, so it may be called in a signal handler. Event.set is not:
        # the interrupted code may hold its lock.
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._degraded: list[Degradation] = []  # of engines
        self._failure: BaseException | None = None
        self._is_interrupted = False
        self._is_ready = False
        self._is_stopping = False
        self._began_at = self._extended_at = time.monotonic()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, or until the terminal is gone; SIGHUP reloads.

        Raises:
            StyledError: the daemon can't start, or can't continue.
        """
        with suppress(_StoppedEarly), self._running_app() as app, ExitStack() as stack:
            app.intake.start()  # the inbox is scanned while the network is loaded
            if self._config.styles_folder is not None:
                watch = StylesWatch(
                    self._config.styles_folder, self._config.styles_stamp, self._on_reload
                )
                watch.start()
                stack.callback(watch.stop)
            try:
                self._wait_until_ready()
                if self._is_ready:
                    self._notifier.notify_ready()
                while (command := self._next_command(TICK_SECONDS)) is not _Command.STOP:
                    if command is _Command.RELOAD:
                        self._notifier.notify_reloading()
                        reload(app, lambda: self._is_interrupted)
                        self._notifier.notify_ready()
                    self._tick(app)
            finally:
                self._notifier.notify_stopping()
                app.intake.stop()
        log.info("daemon.stopped")

    def once(self) -> OnceResult:
        """Process all inputs in the inbox, as far as possible, and return.

        Raises:
            StyledError: the daemon can't start, or can't continue.
        """
        inbox = self._config.inbox
        unprocessed = [Unprocessed(readable(inbox), "styled was stopped before it had scanned it")]
        has_scanned = False
        with suppress(_StoppedEarly), self._running_app() as app:
            self._wait_until_ready()
            intake, journal = app.intake, app.journal
            timeout = ProgressTimeout(journal, self._config.intake.truncated_grace_seconds)
            while self._next_command(ONCE_POLL_SECONDS) is not _Command.STOP:
                self._tick(app)
                is_settled = intake.scan_once()
                has_scanned = True
                if is_settled and not journal.unfinished_ids():
                    break
                if timeout.has_expired(may_settle=intake.may_settle()):
                    break
            if has_scanned:
                unprocessed = list(unprocessed_inputs(inbox, journal, intake))
            if app.hooks is not None:
                app.hooks.wake()
                while not (app.hooks.wait_until_idle(ONCE_POLL_SECONDS) or self._is_interrupted):
                    self._tick(app)
        if self._app is None:
            return OnceResult(0, unprocessed)
        if self._config.output.after_success != "keep":  # with `keep`, inputs stay in the inbox
            stuck = self._app.scheduler.maintenance.stuck
            unprocessed += [Unprocessed(path, error.message) for path, (_, error) in stuck.items()]
        return OnceResult(self._app.scheduler.finisher.rejected, unprocessed)

    def _next_command(self, within_seconds: float) -> _Command | None:
        try:
            return self._commands.get(timeout=within_seconds)
        except Empty:
            return None

    @contextmanager
    def _running_app(self) -> Iterator[App]:
        """Run the scheduler in a thread of its own while the context lasts.

        Raises:
            StyledError: the start or the scheduler has failed.
            StopTimeout: the current step takes too long and is abandoned. Little work is lost:
                with slow steps a checkpoint is saved after each one, and publishing is atomic.
        """
        with signals_handled(self._on_stop, self._on_reload), ExitStack() as stack:
            self._notifier.notify_status("starting: checking folders and styles")
            require_styles(self._config)
            app = self._app = build_app(
                self._config, self._factories, self._on_bytes, self, self._heartbeats, stack,
                self._on_progress,
            )  # fmt: skip
            journal, scheduler = app.journal, app.scheduler
            # If the last process died while it was connected, its cluster was lost.
            was_connected = journal.get_state().get("cluster") == self._config.cluster.address
            stalls = StallRecord.load(self._config.state)
            metrics_problem = self._health.start()
            stack.callback(self._health.stop)
            journal.set_state(
                activity="starting", version=__version__, pid=str(os.getpid()),
                started_at=str(time.time()), degraded_engines="[]", degraded_intake="[]",
                engines="[]",
                inbox_problem="", metrics_problem=metrics_problem,
                gallery_problem="", hook_problem="", inbox_report="{}", style_problems="{}",
                inbox_read_only=app.host.folders.problem or "", config_problem="",
                needs_restart="",
                cluster_problem="", cluster="", styles_left_out="; ".join(self._config.left_out),
                stuck_inputs="[]", stuck_count="0", weights_file=str(imagenet_file()),
            )  # fmt: skip
            save_config_in_use(self._config)
            app.host.check_styles()
            configure_allocator()
            # On a cluster no photo is decoded or painted in this process, so none has killed it.
            is_blameless = _is_blameless(stalls) or app.fleet is not None
            scheduler.recover(is_blameless=is_blameless)
            self._health.watch(app)
            thread = threading.Thread(
                target=self._run_scheduler, args=(scheduler,), name="scheduler", daemon=True
            )
            thread.start()
            hooks = app.start_hooks()
            if app.gallery is not None:
                live = LiveGallery(app.gallery, scheduler)
                live.start()
                stack.callback(live.stop)
            try:
                if app.fleet is not None:
                    self._start_fleet(app.fleet, is_lost=was_connected)
                yield app
            finally:
                self._is_stopping = True
                app.events.put(StopRequested())
                if hooks is not None:
                    hooks.request_stop()
                # After a signal the stop has a time limit; otherwise it waits for the scheduler.
                deadline = time.monotonic() + STOP_SECONDS if self._is_interrupted else None
                thread.join(_seconds_until(deadline))
                is_busy = thread.is_alive()
                if is_busy and self._is_ready:
                    _requeue_running(journal)
                is_busy |= not all(slot.join(_seconds_until(deadline)) for slot in app.slots)
                if hooks is not None:
                    is_busy |= not hooks.join(_seconds_until(deadline))
                if app.fleet is not None:
                    seconds = _seconds_until(deadline)
                    limit = None if seconds is None else max(seconds, DISCONNECT_SECONDS)
                    is_busy |= not app.fleet.stop(limit)
                with suppress(ResourceUnavailable):  # the next start reports it
                    journal.set_state(activity="stopped", cluster="")
                if self._failure is not None:
                    raise self._failure
            if is_busy:
                raise StopTimeout

    def _tick(self, app: App) -> None:
        self._health.tick()
        if app.fleet is not None:
            restore_signal_handlers()  # Ray replaces them whenever it connects or disconnects

    def _start_fleet(self, fleet: Fleet, *, is_lost: bool) -> None:
        """Connect to the cluster; the daemon is ready then, even if no machine is there yet.

        Args:
            fleet: Not started yet.
            is_lost: Whether the cluster was lost while the daemon ran: then it is waited for.

        Raises:
            ClusterUnavailable, WeightsError: the daemon can't start.
        """
        self._notifier.notify_status("starting: connecting to the cluster")
        try:
            fleet.start(is_lost=is_lost)
        except StyledError as error:
            if self._is_interrupted:
                raise _StoppedEarly from error
            raise
        restore_signal_handlers()
        assert self._app is not None, "it is running"
        record_state(self._app.journal, cluster=self._config.cluster.address or "")
        self._ready(f"cluster {self._config.cluster.address}", fleet.weights_source, ())

    def _wait_until_ready(self) -> None:
        """Wait for READY or STOP; commands received meanwhile are put back into the queue."""
        self._notifier.notify_status("starting: loading the network")
        self._health.write_heartbeat_file()
        later_commands = []
        while (command := self._commands.get()) is not _Command.READY:
            later_commands.append(command)
            if command is _Command.STOP:
                break
        for command in later_commands:
            self._commands.put(command)

    def _on_progress(self) -> None:
        if time.monotonic() - self._extended_at >= START_REPORT_SECONDS:
            self._extended_at = time.monotonic()
            self._notifier.extend_timeout(START_EXTENSION_SECONDS)
            self._health.write_heartbeat_file()
        if self._is_interrupted:
            raise _StoppedEarly

    # In the intake's thread

    def journal_damaged(self, error: JournalDamaged) -> None:
        """Stop: the next start rebuilds the journal."""
        self._failure = error
        self._commands.put(_Command.STOP)

    # In the scheduler's thread

    def _run_scheduler(self, scheduler: Scheduler) -> None:
        try:
            scheduler.run()
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            self._failure = error
        finally:
            self._commands.put(_Command.STOP)

    def engine_ready(self, name: str, info: EngineInfo) -> None:
        """Report that the daemon is ready, when its first engine is; collect degradations."""
        if self._app is None:
            return
        new = [one for one in info.degraded if one not in self._degraded]
        self._degraded += new
        for one in new:
            log.warning("engine.degraded", kind=one.kind, reason=one.message, engine=name)
        if not self._is_ready:
            self._ready(info.device, info.weights_source, info.degraded, info)
        elif new:
            record_state(self._app.journal, degraded_engines=self._degraded_json())

    def _degraded_json(self) -> str:
        return json.dumps([asdict(one) for one in self._degraded])

    def _ready(
        self,
        device: str,
        weights: str,
        degraded: Sequence[Degradation],
        info: EngineInfo | None = None,
    ) -> None:
        """Report that jobs can be done from now on; `info` is that of the only engine."""
        assert self._app is not None, "it is running"
        self._is_ready = True
        record_state(
            self._app.journal,
            activity="running",
            device=device,
            weights=weights,
            degraded_engines=self._degraded_json(),
        )
        self._health.metrics.set_ready(__version__, device, weights, time.time())
        log.info(
            "daemon.started",
            version=__version__,
            inbox=str(self._config.inbox),
            outbox=str(self._config.outbox),
            styles=list(self._config.styles),
            device=device,
            threads=info and info.threads,
            precision=info and info.precision,
            weights=weights,
            degraded=[asdict(one) for one in degraded],
            seconds=round(time.monotonic() - self._began_at, 2),
        )
        self._commands.put(_Command.READY)  # `run` then notifies systemd

    def job_finished(self, finished: JobFinished) -> None:
        """Count a finished job, and run its hook."""
        self._health.job_finished(finished)
        if self._app is not None and self._app.hooks is not None:
            self._app.hooks.wake()

    def attempt_failed(self, failure: str) -> None:
        """Count a failed attempt."""
        self._health.attempt_failed(failure)

    # In an engine's thread

    def _on_bytes(self, done: int, total: int) -> None:
        if self._is_stopping or self._is_interrupted:
            raise StyledError("told to stop")
        if time.monotonic() - self._extended_at >= START_REPORT_SECONDS:
            self._extended_at = time.monotonic()
            log.info("weights.downloading", bytes=done, of_bytes=total)
            self._notifier.extend_timeout(START_EXTENSION_SECONDS)
            self._health.write_heartbeat_file()
            # The total is unknown before the first response, and while another process downloads.
            amount = f"{done / total:.0%}" if total else f"{done >> 20} MiB"
            self._notifier.notify_status(f"starting: loading the weights, {amount}")

    # In a signal handler, or in the thread that watches the styles folder

    def _on_stop(self) -> None:
        self._is_interrupted = True
        self._commands.put(_Command.STOP)

    def _on_reload(self) -> None:
        self._commands.put(_Command.RELOAD)


def _seconds_until(deadline: float | None) -> float | None:
    """Return the seconds until a deadline in monotonic time, None without one."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _is_blameless(stalls: StallRecord) -> bool:
    """Return whether the previous process was killed for a stall that no photo can have caused.

    A hanging drive stalls any part that reads or writes there. But if an engine or a preparing
    thread has stalled, the photo may be the cause.
    """
    return bool(stalls.parts) and not any(
        part.startswith((ENGINE_PREFIX, PREPARE_PART)) for part in stalls.parts
    )


def _requeue_running(journal: Journal) -> None:
    """Requeue the running jobs without counting the attempt: they were abandoned by a stop."""
    with suppress(ResourceUnavailable, JournalDamaged):
        for job in journal.in_state(JobState.RUNNING, limit=-1):
            journal.requeue(job, attempt_counts=False)
    log.warning("daemon.step_abandoned", waited_seconds=STOP_SECONDS)

"""The daemon's life: it starts the stages, waits for commands, and stops.

Threads: the caller's, which waits for commands and watches over the others; the intake's; that of
the metrics' file; the scheduler's, which never computes; one for each engine; and those of the I/O
pool, with one torch thread each. Were two threads to compute on all cores, each would get a pool of
OpenMP workers of its own, and a step would take 1.4 times as long.
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
from pathlib import Path
from queue import Empty, SimpleQueue

import structlog

from styled import __version__
from styled.config import Config, load_config, require_styles
from styled.engine.memory import keep_freed_memory
from styled.engine.weights import imagenet_file
from styled.engine_api import EngineInfo
from styled.errors import (
    ConfigError,
    JournalDamaged,
    ResourceUnavailable,
    StoppedAmidStep,
    StyledError,
)
from styled.intake.intake import Intake, SettledInput
from styled.jobs.engine_slot import EngineFactory
from styled.jobs.events import StopRequested, StylesChanged, Wakeup
from styled.jobs.job import JobFinished, JobState
from styled.jobs.journal import Journal
from styled.jobs.prepare_request import PREPARE_PART
from styled.jobs.scheduler import Scheduler
from styled.once import Left, OnceResult, Patience, left_over
from styled.open_files import WriterCheck, Writers
from styled.ops.pulse import Pulse
from styled.ops.service import ServiceManager
from styled.ops.stuck_record import StuckRecord
from styled.signals import signals_handled
from styled.stages import ENGINE_PART, LocalEngineFactory, Stages, check_styles, note_state
from styled.vigil import Vigil

log = structlog.get_logger()

ATTEND_SECONDS = 1.0
"""How often the main thread looks after everything while it waits for commands."""

ONCE_LOOK_SECONDS = 0.2
"""How often `once` looks whether everything has settled."""

SAVED_SECONDS = 0.5
"""How long a configuration file must stay as it is before it is loaded again."""

SAVING_SECONDS = 5.0
"""How long a reload waits for that."""

STOP_SECONDS = 4.0
"""How long a stop waits for the present step; then it is given up, and nothing else is."""

START_REPORT_SECONDS = 5.0
"""How often a start that takes long says that it gets on."""

MORE_START_SECONDS = 120.0
"""How much more time the start asks for as long as it gets on: a download may take an hour."""


class _Command(Enum):
    READY = auto()
    STOP = auto()
    RELOAD = auto()


class _StoppedEarly(Exception):
    """Told to stop while still starting."""


class Daemon:
    """All stages for one configuration. Use once."""

    def __init__(self, config: Config, factories: Sequence[EngineFactory] | None = None) -> None:
        """Work as `config` says.

        Args:
            config: The configuration.
            factories: One for each engine. None: there is one, in this process.
        """
        self._config = config
        self._factories = factories or [LocalEngineFactory(config, self._on_bytes)]
        pulse = Pulse()
        self._manager = ServiceManager()
        self._stages = Stages(config, pulse)
        self._vigil = Vigil(config, self._manager, pulse, self._stages)
        # A SimpleQueue may be put to from a signal handler; an Event may not be set in one,
        # because the interrupted code may be holding its lock.
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._failure: BaseException | None = None
        self._is_interrupted = False
        self._is_ready = False
        self._is_stopping = False
        self._scheduler: Scheduler | None = None
        self._began_at = self._asked_at = time.monotonic()
        self._journal: Journal | None = None

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, or until the terminal is gone; SIGHUP reloads.

        Raises:
            StyledError: it can't start, or can't go on.
        """
        with suppress(_StoppedEarly), self._working() as journal:
            intake = self._make_intake(journal)
            intake.start()  # what lies there is known by the time that the network is loaded
            try:
                self._wait_until_ready()
                if self._is_ready:
                    self._manager.tell_ready()
                while (command := self._next_command(ATTEND_SECONDS)) is not _Command.STOP:
                    if command is _Command.RELOAD:
                        self._manager.tell_reloading()
                        self._load_again(intake, journal)
                        self._manager.tell_ready()
                    self._vigil.attend()
            finally:
                self._manager.tell_stopping()
                intake.stop()
        log.info("daemon.stopped")

    def once(self) -> OnceResult:
        """Work through what lies in the inbox now, as far as that is possible.

        Raises:
            StyledError: it can't start, or can't go on.
        """
        left: list[Left] = []
        with suppress(_StoppedEarly), self._working() as journal:
            self._wait_until_ready()
            intake = self._make_intake(journal)
            patience = Patience(journal, self._config.intake.truncated_grace_seconds)
            while self._next_command(ONCE_LOOK_SECONDS) is not _Command.STOP:
                self._vigil.attend()
                is_settled = intake.look()
                if is_settled and not journal.unfinished_ids():
                    break
                if patience.is_over(may_settle=intake.may_settle()):
                    break
            left = list(left_over(self._config.inbox, journal, intake))
        if self._scheduler is None:
            return OnceResult(0, left)
        if self._config.output.after_success != "keep":  # then what can't leave is to stay
            stuck = self._scheduler.upkeep.stuck
            left += [Left(path, error.message) for path, (_, error) in stuck.items()]
        return OnceResult(self._scheduler.endings.rejected, left)

    def _next_command(self, within_seconds: float) -> _Command | None:
        try:
            return self._commands.get(timeout=within_seconds)
        except Empty:
            return None

    @contextmanager
    def _working(self) -> Iterator[Journal]:
        """Have the scheduler work in a thread of its own while the context lasts.

        Raises:
            StyledError: it can't start, or the scheduler has failed.
            StoppedAmidStep: the scheduler is still at a step that takes too long. Nothing
                is lost that could be kept: after slow steps a checkpoint is saved each time,
                and whatever is being published appears whole or not at all.
        """
        with signals_handled(self._on_stop, self._on_reload), ExitStack() as stack:
            self._manager.tell_status("starting: looking at folders and styles")
            require_styles(self._config)
            publisher = self._stages.prepare_folders(stack, self._go_on_starting)
            journal = self._stages.open_journal(self._go_on_starting)
            stack.callback(journal.close)
            stuck = StuckRecord.load(self._config.state)
            metrics_trouble = self._vigil.begin()
            stack.callback(self._vigil.end)
            journal.set_state(
                state="starting", version=__version__, pid=str(os.getpid()),
                started_at=str(time.time()), degraded="[]", degraded_intake="[]", engines="[]",
                inbox_trouble="", metrics_trouble=metrics_trouble,
                gallery_trouble="", inbox_report="{}", style_troubles="{}",
                inbox_read_only=self._stages.inbox_trouble or "", config_trouble="",
                stuck_inputs="[]", stuck_count="0", weights_file=str(imagenet_file()),
            )  # fmt: skip
            self._stages.check_styles(journal)
            keep_freed_memory()
            self._journal = journal
            scheduler, slots = self._stages.make_scheduler(
                journal, publisher, self._factories, observer=self
            )
            scheduler.recover(is_blameless=_is_blameless(stuck))
            self._vigil.watch(scheduler, slots)
            self._scheduler = scheduler
            thread = threading.Thread(
                target=self._run_scheduler, args=(scheduler,), name="scheduler", daemon=True
            )
            thread.start()
            try:
                yield journal
            finally:
                self._is_stopping = True
                self._stages.events.put(StopRequested())
                # Whoever sends a signal is in a hurry; what ends by itself ends properly.
                until = time.monotonic() + STOP_SECONDS if self._is_interrupted else None
                thread.join(_left(until))
                is_amid_a_step = thread.is_alive()
                if is_amid_a_step and self._is_ready:
                    _put_back_what_runs(journal)
                is_amid_a_step |= not all(slot.join(_left(until)) for slot in slots)
                with suppress(ResourceUnavailable):  # the next start would say so
                    journal.set_state(state="stopped")
                if self._failure is not None:
                    raise self._failure
            if is_amid_a_step:
                raise StoppedAmidStep

    def _wait_until_ready(self) -> None:
        """Wait for the scheduler, leaving other commands to whoever waits for them next."""
        self._manager.tell_status("starting: loading the network")
        others = []
        while (command := self._commands.get()) is not _Command.READY:
            others.append(command)
            if command is _Command.STOP:
                break
        for command in others:
            self._commands.put(command)

    def _go_on_starting(self) -> None:
        if time.monotonic() - self._asked_at >= START_REPORT_SECONDS:
            self._asked_at = time.monotonic()
            self._manager.ask_for_time(MORE_START_SECONDS)
        if self._is_interrupted:
            raise _StoppedEarly

    def _make_intake(self, journal: Journal) -> Intake:
        def submit(inputs: Sequence[SettledInput]) -> int:
            try:
                submitted = journal.submit(inputs, time.time())
            except JournalDamaged as error:
                self._failure = error
                self._commands.put(_Command.STOP)
                raise
            if submitted:
                self._stages.events.put(Wakeup())
            return submitted

        return self._stages.make_intake(journal, submit)

    # In the scheduler's thread

    def _run_scheduler(self, scheduler: Scheduler) -> None:
        try:
            scheduler.run()
        except BaseException as error:  # noqa: BLE001  # the caller's thread raises it again
            self._failure = error
        finally:
            self._commands.put(_Command.STOP)

    def engine_ready(self, name: str, info: EngineInfo) -> None:
        """Say so: the daemon is ready with its first engine."""
        if self._is_ready or self._journal is None:
            return
        self._is_ready = True
        note_state(
            self._journal,
            state="running",
            device=info.device,
            weights=info.weights_source,
            degraded=json.dumps([asdict(one) for one in info.degraded]),
        )
        self._vigil.metrics.note_ready(__version__, info.device, info.weights_source, time.time())
        for one in info.degraded:
            log.warning("daemon.degraded", kind=one.kind, reason=one.message)
        log.info(
            "daemon.started",
            version=__version__,
            inbox=str(self._config.inbox),
            outbox=str(self._config.outbox),
            styles=list(self._config.styles),
            device=info.device,
            threads=info.threads,
            precision=info.precision,
            weights=info.weights_source,
            degraded=[asdict(one) for one in info.degraded],
            seconds=round(time.monotonic() - self._began_at, 2),
        )
        self._commands.put(_Command.READY)  # and systemd is told

    def job_finished(self, finished: JobFinished) -> None:
        """Count it."""
        self._vigil.job_finished(finished)

    def attempt_failed(self, failure: str) -> None:
        """Count it."""
        self._vigil.attempt_failed(failure)

    # In an engine's thread

    def _on_bytes(self, done: int, total: int) -> None:
        if self._is_stopping or self._is_interrupted:
            raise StyledError("told to stop")
        if time.monotonic() - self._asked_at >= START_REPORT_SECONDS:
            self._asked_at = time.monotonic()
            log.info("weights.downloading", bytes=done, of_bytes=total)
            self._manager.ask_for_time(MORE_START_SECONDS)
            self._manager.tell_status(f"starting: loading the weights, {done / total:.0%}")

    # On command

    def _load_again(self, intake: Intake, journal: Journal) -> None:
        """Take over changed styles and folders; anything wrong keeps what there was."""
        path = self._config.path
        if path is None:
            return
        try:
            self._wait_until_saved(path)
            config = load_config(path)
            require_styles(config)
            # A style whose disk is away is no news; one that is new has to be right.
            check_styles(config, known=self._stages.present.styles)
        except StyledError as error:
            log.error("config.kept", reason=str(error))
            note_state(journal, config_trouble=f"a reload has changed nothing: {error.message}")
            return
        note_state(journal, config_trouble="")
        self._stages.present = config
        self._stages.events.put(StylesChanged(config.styles))
        self._stages.bring_back_folders()
        intake.look_at_everything_again(self._stages.pairing())
        log.info("config.reloaded", styles=list(config.styles))
        fixed = [
            section
            for section in ("inbox", "outbox", "rejected", "archive", "state", "engine",
                            "intake", "queue", "output", "metrics")
            if getattr(config, section) != getattr(self._config, section)
        ]  # fmt: skip
        if fixed:
            log.warning("config.needs_restart", sections=fixed)

    def _wait_until_saved(self, path: Path) -> None:
        """Wait until nobody has changed a file for a moment, nor has it open for writing.

        Raises:
            ConfigError: somebody still writes to it.
        """
        writers, seen, since = WriterCheck(), _stamp(path), time.monotonic()
        deadline = since + SAVING_SECONDS
        while not self._is_interrupted:
            time.sleep(ONCE_LOOK_SECONDS / 2)
            now, found = time.monotonic(), _stamp(path)
            if found != seen or writers.writers(path) is Writers.SOME:
                seen, since = found, now
            if now - since >= SAVED_SECONDS:
                return
            if now > deadline:
                raise ConfigError(
                    f"{path}: is still being written", "reload again once it has been saved"
                )

    def _on_stop(self) -> None:
        self._is_interrupted = True
        self._commands.put(_Command.STOP)

    def _on_reload(self) -> None:
        self._commands.put(_Command.RELOAD)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:  # some editors delete it before they write it
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _left(until: float | None) -> float | None:
    """Return how many seconds are left until a moment."""
    return None if until is None else max(0.0, until - time.monotonic())


def _is_blameless(stuck: StuckRecord) -> bool:
    """Tell whether an earlier process was killed because of something that no photo can cause.

    A drive that hangs stops whoever reads or writes there. But an engine, or the decoding of a
    photo, may have been stopped by the photo.
    """
    return bool(stuck.parts) and not any(
        part.startswith((ENGINE_PART, PREPARE_PART)) for part in stuck.parts
    )


def _put_back_what_runs(journal: Journal) -> None:
    """Note that the present job has been given up through no fault of its own."""
    with suppress(ResourceUnavailable, JournalDamaged):
        for job in journal.in_state(JobState.RUNNING, limit=-1):
            journal.requeue(job, attempt_counts=False)
    log.warning("daemon.stopped_amid_a_step", waited_seconds=STOP_SECONDS)

"""The composition root: builds the stages, hands them to each other, starts and stops them.

Nothing is decided here about pictures or jobs. Data flows one way: intake submits to the
journal, the scheduler claims from it, the worker paints and publishes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum, auto
from queue import Empty, SimpleQueue
from types import FrameType

import structlog

from styled import __version__
from styled.config import Config, load_config
from styled.delivery.atomic import make_folder, sweep_temporaries, write_streamed, write_whole
from styled.delivery.publisher import Publisher
from styled.engine.device import choose_device
from styled.engine.local import LocalEngine
from styled.engine.memory import keep_freed_memory
from styled.engine.weights import load_weights
from styled.errors import (
    ConfigError,
    JournalDamaged,
    ResourceUnavailable,
    StoppedAmidStep,
    StyledError,
)
from styled.intake.intake import Intake, SettledInput
from styled.intake.pairing import Pairing
from styled.intake.scanning import IgnoreRules, scan
from styled.jobs.checkpoints import CheckpointStore
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.jobs.preparation import check_style
from styled.jobs.protocols import Engine
from styled.jobs.rebuild import open_or_rebuild
from styled.jobs.scheduler import History, Scheduler
from styled.jobs.worker import Collaborators, Worker
from styled.mounts import Mounts
from styled.ops.lock import InstanceLock

log = structlog.get_logger()

ONCE_LOOK_SECONDS = 0.2
"""How often `once` looks whether everything has settled."""

STOP_SECONDS = 4.0
"""How long a stop waits for the present step; then it is given up, and nothing else is."""

DAY_SECONDS = 86400.0

DOWNLOAD_REPORT_SECONDS = 5.0
"""How often a download of weights is reported in the log."""

OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all while weights are downloaded; may raise to stop."""


def build_engine(config: Config, on_bytes: OnBytes) -> LocalEngine:
    """Load the network onto the device that the configuration names.

    Raises:
        WeightsError, DeviceError, ConfigError: it can't be had.
    """
    device = choose_device(config.engine.device)
    weights = load_weights(config.engine.weights, on_bytes)
    return LocalEngine(
        weights, device, config.engine.precision, memory_limit=config.engine.memory_bytes
    )


def check_styles(config: Config) -> None:
    """Read every style image once, before anybody waits for a picture.

    Raises:
        ConfigError: at least one can't be used; the message names them all.
    """
    problems = [
        f"styles.{name}: {problem}"
        for name, style in config.styles.items()
        for problem in check_style(style, max_pixels=config.intake.max_pixels)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


class _Command(Enum):
    READY = auto()
    STOP = auto()
    RELOAD = auto()


class _StoppedEarly(Exception):
    """Told to stop while still starting."""


class Daemon:
    """All stages for one configuration. Use once.

    Three threads: the caller's, which waits for commands; the intake's; and the
    scheduler's, the only one that computes. Were torch used from two threads, each would
    get a pool of OpenMP workers of its own, and a step would take 1.4 times as long.
    """

    def __init__(
        self, config: Config, engine_factory: Callable[[Config, OnBytes], Engine] = build_engine
    ) -> None:
        """Work as `config` says, with the engine that `engine_factory` makes of it."""
        self._config = config
        self._present = config  # what a reload has made of it
        self._degraded: tuple[str, ...] = ()
        self._engine_factory = engine_factory
        self._stop = threading.Event()
        self._submitted = threading.Event()
        # A SimpleQueue may be put to from a signal handler; an Event may not be set in one,
        # because the interrupted code may be holding its lock.
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._failure: BaseException | None = None
        self._is_interrupted = False
        self._is_ready = False
        self._worker: Worker | None = None
        self._mounts = Mounts(config.state / "mounts.json", write_whole)

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; SIGHUP reloads the configuration.

        Raises:
            StyledError: it can't start, or can't go on.
        """
        with suppress(_StoppedEarly), self._working() as journal:
            intake = self._make_intake(journal)
            intake.start()  # what lies there is known by the time that the network is loaded
            try:
                self._wait_until_ready()
                while (command := self._commands.get()) is not _Command.STOP:
                    if command is _Command.RELOAD:
                        self._load_again(intake)
            finally:
                intake.stop()
        log.info("daemon.stopped")

    def once(self) -> int:
        """Work through what lies in the inbox now; return how many inputs were rejected.

        Raises:
            StyledError: it can't start, or can't go on.
        """
        with suppress(_StoppedEarly), self._working() as journal:
            self._wait_until_ready()
            intake = self._make_intake(journal)
            while not self._told_to_stop(ONCE_LOOK_SECONDS):
                if intake.look() and not journal.unfinished_ids():
                    break
        return self._worker.rejected if self._worker is not None else 0

    def _told_to_stop(self, within_seconds: float) -> bool:
        try:
            return self._commands.get(timeout=within_seconds) is _Command.STOP
        except Empty:
            return False

    @contextmanager
    def _working(self) -> Iterator[Journal]:
        """Have the scheduler work in a thread of its own while the context lasts.

        Raises:
            StyledError: it can't start, or the scheduler has failed.
            StoppedAmidStep: the scheduler is still at a step that takes too long. Nothing
                is lost that could be kept: after slow steps a checkpoint is saved each time,
                and whatever is being published appears whole or not at all.
        """
        with self._signals(), ExitStack() as stack:
            publisher = self._prepare_folders(stack)
            check_styles(self._config)
            journal = self._open_journal()
            stack.callback(journal.close)
            journal.write_daemon(state="starting", version=__version__, degraded_intake="[]")
            keep_freed_memory()
            thread = threading.Thread(
                target=self._run_scheduler, args=(journal, publisher), name="scheduler", daemon=True
            )
            thread.start()
            try:
                yield journal
            finally:
                self._stop.set()
                self._submitted.set()
                # Whoever sends a signal is in a hurry; what ends by itself ends properly.
                thread.join(STOP_SECONDS if self._is_interrupted else None)
                is_amid_a_step = thread.is_alive()
                if is_amid_a_step and self._is_ready:
                    _put_back_what_runs(journal)
                with suppress(ResourceUnavailable):  # the next start would say so
                    journal.write_daemon(state="stopped")
                if self._failure is not None:
                    raise self._failure
            if is_amid_a_step:
                raise StoppedAmidStep

    def _wait_until_ready(self) -> None:
        """Wait for the scheduler, leaving other commands to whoever waits for them next."""
        others = []
        while (command := self._commands.get()) is not _Command.READY:
            others.append(command)
            if command is _Command.STOP:
                break
        for command in others:
            self._commands.put(command)

    def _prepare_folders(self, stack: ExitStack) -> Publisher:
        config = self._config
        make_folder(config.state / "checkpoints")
        lock = InstanceLock(config.state / "lock")
        lock.acquire()
        stack.callback(lock.release)
        self._mounts.require_mounted(config.inbox)
        make_folder(config.inbox)
        self._mounts.require_mounted(config.inbox)  # and which folder it is, now that it is there
        self._make_style_folders()
        publisher = Publisher(
            config.outbox, config.rejected, config.archive, self._mounts.require_mounted
        )
        if swept := publisher.prepare() + sweep_temporaries(config.state):
            log.info("temporaries.swept", count=swept)
        return publisher

    def _bring_back_folders(self) -> None:
        """Make the folders of all styles, but not the inbox: its disk may not be mounted."""
        if self._config.inbox.is_dir():
            with suppress(ResourceUnavailable):  # looking at the inbox says more
                self._mounts.require_mounted(self._config.inbox)
                self._make_style_folders()

    def _make_style_folders(self) -> None:
        for name in (*self._present.styles, *self._present.folders):
            make_folder(self._config.inbox / name)

    def _open_journal(self) -> Journal:
        config, pairing = self._config, _pairing(self._config)

        def arrivals() -> Iterator[SettledInput]:
            for found in scan(config.inbox, IgnoreRules(config.intake.ignore)):
                if destinations := pairing.destinations(found.path):
                    yield SettledInput(found.path, found.size, found.mtime_ns, destinations)

        path = config.state / "journal.sqlite3"
        return open_or_rebuild(
            path, arrivals, config.inbox, config.outbox, time.time(), self._go_on_starting
        )

    def _go_on_starting(self) -> None:
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
                self._submitted.set()
            return submitted

        def note_degraded(reason: str | None) -> None:
            self._degraded = () if reason is None else (reason,)
            with suppress(ResourceUnavailable):  # the log has it, and sidecars will
                journal.write_daemon(degraded_intake=json.dumps(self._degraded))

        config = self._config
        return Intake(
            config.inbox,
            _pairing(config),
            submit,
            ignore=IgnoreRules(config.intake.ignore),
            mode=config.intake.mode,
            settle_seconds=config.intake.settle_seconds,
            rescan_seconds=config.intake.rescan_seconds,
            require_inbox=lambda: self._mounts.require(config.inbox),
            make_folders=self._bring_back_folders,
            on_degraded=note_degraded,
        )

    # In the scheduler's thread

    def _run_scheduler(self, journal: Journal, publisher: Publisher) -> None:
        try:
            scheduler = self._make_scheduler(journal, publisher)
            self._is_ready = True
            self._commands.put(_Command.READY)
            scheduler.run()
        except _StoppedEarly:
            pass
        except BaseException as error:  # noqa: BLE001  # the caller's thread raises it again
            self._failure = error
        finally:
            self._commands.put(_Command.STOP)

    def _make_scheduler(self, journal: Journal, publisher: Publisher) -> Scheduler:
        config = self._config
        started = time.time()
        engine = self._engine_factory(config, self._on_bytes())
        checkpoints = CheckpointStore(
            config.state / "checkpoints", engine, write_streamed, make_folder
        )
        worker = self._worker = Worker(
            config,
            Collaborators(
                journal,
                engine,
                publisher,
                checkpoints,
                styles=lambda: self._present.styles,
                degraded=lambda: self._degraded,
                require_inbox=lambda: self._mounts.require(config.inbox),
            ),
            self._stop,
        )
        history = History(config.queue.history_days * DAY_SECONDS, config.queue.history_jobs)
        scheduler = Scheduler(
            journal, worker, stop=self._stop, wake=self._submitted, history=history
        )
        scheduler.recover()
        checkpoints.sweep(keep=journal.unfinished_ids())
        facts = engine.facts
        journal.write_daemon(
            pid=str(os.getpid()),
            started_at=str(started),
            state="running",
            device=facts.device,
            weights=facts.weights_source,
            degraded=json.dumps(facts.degraded),
        )
        log.info(
            "daemon.started",
            version=__version__,
            inbox=str(config.inbox),
            outbox=str(config.outbox),
            styles=list(config.styles),
            device=facts.device,
            weights=facts.weights_source,
            degraded=list(facts.degraded),
            seconds=round(time.time() - started, 2),
        )
        return scheduler

    def _on_bytes(self) -> OnBytes:
        reported_at = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal reported_at
            if self._stop.is_set():
                raise _StoppedEarly
            if time.monotonic() - reported_at >= DOWNLOAD_REPORT_SECONDS:
                reported_at = time.monotonic()
                log.info("weights.downloading", bytes=done, of_bytes=total)

        return report

    # On command

    def _load_again(self, intake: Intake) -> None:
        """Take over changed styles and folders; anything wrong keeps what there was."""
        path = self._config.path
        if path is None:
            return
        try:
            config = load_config(path)
            check_styles(config)
        except StyledError as error:
            log.error("config.kept", reason=str(error))
            return
        self._present = config
        self._bring_back_folders()
        intake.look_at_everything_again(_pairing(config))
        log.info("config.reloaded", styles=list(config.styles))
        fixed = [
            section
            for section in ("inbox", "outbox", "rejected", "archive", "state", "engine",
                            "intake", "queue", "output")
            if getattr(config, section) != getattr(self._config, section)
        ]  # fmt: skip
        if fixed:
            log.warning("config.needs_restart", sections=fixed)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn signals into commands while the context lasts."""

        def handler(number: int, frame: FrameType | None) -> None:
            if number != signal.SIGHUP:
                self._is_interrupted = True
            self._commands.put(_Command.RELOAD if number == signal.SIGHUP else _Command.STOP)

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        previous = {number: signal.signal(number, handler) for number in numbers}
        try:
            yield
        finally:
            for number, former in previous.items():
                signal.signal(number, former)


def _pairing(config: Config) -> Pairing:
    return Pairing(tuple(config.styles), config.folders, config.default_style)


def _put_back_what_runs(journal: Journal) -> None:
    """Note that the present job has been given up through no fault of its own."""
    with suppress(ResourceUnavailable, JournalDamaged):
        for job in journal.in_state(JobState.RUNNING, limit=1):
            journal.put_back(job, attempt_counts=False)
    log.warning("daemon.stopped_amid_a_step", waited_seconds=STOP_SECONDS)

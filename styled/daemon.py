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
from contextlib import ExitStack, contextmanager
from enum import Enum, auto
from queue import Empty, SimpleQueue
from types import FrameType

import structlog

from styled import __version__
from styled.config import Config, load_config
from styled.delivery.atomic import make_folder, sweep_temporaries, write_whole
from styled.delivery.publisher import Publisher
from styled.engine.device import choose_device
from styled.engine.local import LocalEngine
from styled.engine.weights import load_weights
from styled.errors import ConfigError, StyledError
from styled.intake.intake import Intake, SettledInput
from styled.intake.pairing import Pairing
from styled.intake.scanning import IgnoreRules
from styled.jobs.checkpoints import CheckpointStore
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.jobs.preparation import check_style
from styled.jobs.protocols import Engine
from styled.jobs.scheduler import Scheduler
from styled.jobs.worker import Collaborators, Worker
from styled.ops.lock import InstanceLock

log = structlog.get_logger()

ONCE_LOOK_SECONDS = 0.2
"""How often `once` looks whether everything has settled."""


def build_engine(config: Config) -> LocalEngine:
    """Load the network onto the device that the configuration names.

    Raises:
        WeightsError, DeviceError: it can't be had.
    """
    device = choose_device(config.engine.device)
    weights = load_weights(config.engine.weights)
    return LocalEngine(weights, device, config.engine.precision)


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
    STOP = auto()
    RELOAD = auto()


class Daemon:
    """All stages for one configuration. Use once."""

    def __init__(
        self, config: Config, engine_factory: Callable[[Config], Engine] = build_engine
    ) -> None:
        """Work as `config` says, with the engine that `engine_factory` makes of it."""
        self._config = config
        self._styles = config.styles
        self._engine_factory = engine_factory
        self._stop = threading.Event()
        # A SimpleQueue may be put to from a signal handler; an Event may not be set in one,
        # because the interrupted code may be holding its lock.
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._scheduler_failure: BaseException | None = None

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; SIGHUP reloads the configuration.

        Raises:
            StyledError: it can't start, or can't go on.
        """
        with self._working() as (_, intake):
            intake.start()
            try:
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
        begun = time.time()
        with self._working() as (journal, intake):
            while not self._told_to_stop(ONCE_LOOK_SECONDS):
                if intake.look() and not journal.unfinished_ids():
                    break
            return journal.count_finished(JobState.REJECTED, since=begun)

    def _told_to_stop(self, within_seconds: float) -> bool:
        try:
            return self._commands.get(timeout=within_seconds) is _Command.STOP
        except Empty:
            return False

    @contextmanager
    def _working(self) -> Iterator[tuple[Journal, Intake]]:
        """Run the scheduler in a thread of its own while the context lasts.

        Raises:
            StyledError: it can't start, or the scheduler has failed.
        """
        with self._signals(), ExitStack() as stack:
            journal, scheduler, intake = self._build(stack)
            thread = threading.Thread(
                target=self._run_scheduler, args=(scheduler,), name="scheduler"
            )
            thread.start()
            try:
                yield journal, intake
            finally:
                self._stop.set()
                scheduler.wake()
                thread.join()
                journal.write_daemon(state="stopped")
        if self._scheduler_failure is not None:
            raise self._scheduler_failure

    def _build(self, stack: ExitStack) -> tuple[Journal, Scheduler, Intake]:
        config = self._config
        for folder in (config.state, config.state / "checkpoints", config.inbox):
            make_folder(folder)
        for name in (*config.styles, *config.folders):
            make_folder(config.inbox / name)
        lock = InstanceLock(config.state / "lock")
        lock.acquire()
        stack.callback(lock.release)
        publisher = Publisher(config.outbox, config.rejected, config.archive)
        swept = publisher.prepare() + sweep_temporaries(config.state)
        check_styles(config)

        journal = Journal.open(config.state / "journal.sqlite3")
        stack.callback(journal.close)
        started = time.time()
        engine = self._engine_factory(config)
        checkpoints = CheckpointStore(config.state / "checkpoints", engine, write_whole)
        collaborators = Collaborators(
            journal, engine, publisher, checkpoints, styles=lambda: self._styles
        )
        scheduler = Scheduler(journal, Worker(config, collaborators, self._stop), self._stop)
        scheduler.recover()
        checkpoints.sweep(keep=journal.unfinished_ids())

        def submit(inputs: Sequence[SettledInput]) -> None:
            if submitted := journal.submit(inputs, time.time()):
                log.info("jobs.submitted", count=submitted)
                scheduler.wake()

        intake = Intake(
            config.inbox,
            _pairing(config),
            submit,
            ignore=IgnoreRules(config.intake.ignore),
            mode=config.intake.mode,
            settle_seconds=config.intake.settle_seconds,
            rescan_seconds=config.intake.rescan_seconds,
        )
        journal.write_daemon(
            pid=str(os.getpid()),
            version=__version__,
            started_at=str(started),
            state="running",
            inbox=str(config.inbox),
            device=engine.facts.device,
            weights=engine.facts.weights_source,
            degraded=json.dumps(engine.facts.degraded),
        )
        log.info(
            "daemon.started",
            version=__version__,
            inbox=str(config.inbox),
            outbox=str(config.outbox),
            styles=list(config.styles),
            device=engine.facts.device,
            weights=engine.facts.weights_source,
            degraded=list(engine.facts.degraded),
            swept=swept,
            seconds=round(time.time() - started, 2),
        )
        return journal, scheduler, intake

    def _run_scheduler(self, scheduler: Scheduler) -> None:
        try:
            scheduler.run()
        except BaseException as error:  # noqa: BLE001  # the main thread raises it again
            self._scheduler_failure = error
        finally:
            self._commands.put(_Command.STOP)

    def _load_again(self, intake: Intake) -> None:
        """Take over changed styles and folders; anything wrong keeps what there was."""
        path = self._config.path
        if path is None:
            return
        try:
            config = load_config(path)
            check_styles(config)
            for name in (*config.styles, *config.folders):
                make_folder(config.inbox / name)
        except StyledError as error:
            log.error("config.kept", reason=str(error))
            return
        self._styles = config.styles
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

"""Builds the stages for one configuration, and hands them to each other.

Nothing is decided here about images or jobs. Data flows one way: intake submits to the journal,
the scheduler claims from it, engines paint, and the I/O pool publishes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from queue import SimpleQueue

import structlog
import torch

from styled.atomic import atomic_write, make_folder, sweep_temporaries
from styled.config import Config, Style
from styled.config.ignore import IgnoreRules
from styled.degradation import Degradation
from styled.delivery.gallery import Gallery
from styled.delivery.publisher import Publisher
from styled.engine.local import LocalEngine
from styled.engine_api import Engine
from styled.engine_setup import make_engine
from styled.errors import ConfigError, Forbidden, JournalDamaged, ResourceUnavailable
from styled.intake.intake import Intake, SettledInput
from styled.intake.pairing import Pairing
from styled.intake.scanning import scan
from styled.jobs.engine_slot import EngineFactory, EngineSlot
from styled.jobs.events import Event, ServiceDegraded, Wakeup
from styled.jobs.gallery_updates import GalleryUpdater
from styled.jobs.input_cleanup import InputCleanup
from styled.jobs.io_context import History, IoContext
from styled.jobs.io_pool import ThreadIoPool
from styled.jobs.job_files import JobFiles
from styled.jobs.journal import Journal
from styled.jobs.journal_rebuild import open_or_rebuild
from styled.jobs.prepare import check_style
from styled.jobs.scheduler import Scheduler, SchedulerObserver
from styled.jobs.style_check import StyleCheck
from styled.mounts import Mounts
from styled.ops.lock import InstanceLock
from styled.ops.pulse import Pulse
from styled.precision_record import FILE_NAME, PrecisionRecord

log = structlog.get_logger()

DAY_SECONDS = 86400.0

INTAKE = "intake"
"""What the heartbeats call the intake."""

ENGINE_PART = "engine"
"""What each of them is called, with a number."""

MOST_IO_THREADS = 16

OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all while weights are downloaded; may raise to stop."""


def build_engine(config: Config, on_bytes: OnBytes, threads: int | None = None) -> LocalEngine:
    """Load the network onto the device that the configuration names; see `make_engine`.

    Raises:
        WeightsError, DeviceError, ConfigError: it can't be had.
    """

    def warn(reason: str) -> None:
        log.warning("precision.not_remembered", reason=reason)

    record = PrecisionRecord(config.state / FILE_NAME, atomic_write, warn)
    return make_engine(config.engine, on_bytes, record, threads)


class LocalEngineFactory:
    """Makes the engine of this process. Where that is lost, only a new process has another one."""

    can_replace = False

    def __init__(self, config: Config, on_bytes: OnBytes) -> None:
        """Make it as `config` says, reporting downloads by `on_bytes`."""
        self._config = config
        self._on_bytes = on_bytes
        # Asked before the I/O pool tells torch to use one thread, which new threads then take over.
        self._threads = torch.get_num_threads()

    def make(self) -> Engine:
        """Load the network. Raises as `build_engine`."""
        return build_engine(self._config, self._on_bytes, self._threads)


def check_styles(config: Config, known: Mapping[str, Style] | None = None) -> None:
    """Read every style image once.

    Args:
        config: Its styles are checked.
        known: Those that are the same there are passed over.

    Raises:
        ConfigError: at least one can't be used; the message names them all.
    """
    problems = [
        f"styles.{name}: {problem}"
        for name, style in config.styles.items()
        if known is None or known.get(name) != style
        for problem in check_style(style, max_pixels=config.intake.max_pixels)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


class Stages:
    """What all stages share, and how each of them is made of it.

    Attributes:
        present: The configuration as the last reload has made it.
        events: What the scheduler takes; anybody may put something there.
        intake_trouble: Why the inbox can't be looked at just now, in words.
        inbox_trouble: Why the folders of the styles can't be made in the inbox, if so.
    """

    def __init__(self, config: Config, pulse: Pulse) -> None:
        """Build for `config`; every part gives its signs of life to `pulse`."""
        self._config = config
        self._pulse = pulse
        self._mounts = Mounts(config.state / "mounts.json", atomic_write)
        self._style_check = StyleCheck(config.intake.max_pixels)
        self.inbox_trouble: str | None = None
        self.intake_trouble = ""
        self.present = config
        self.events: SimpleQueue[Event] = SimpleQueue()

    def pairing(self) -> Pairing:
        """Return what the folders of the inbox mean at present."""
        present = self.present
        return Pairing(tuple(present.styles), present.folders, present.default_style)

    # Folders

    def prepare_folders(self, stack: ExitStack, go_on: Callable[[], None]) -> Publisher:
        """Make the folders and lock them until `stack` is closed.

        Args:
            stack: Of the daemon's life.
            go_on: Called now and then; what it raises ends it.

        Raises:
            ResourceUnavailable: one can't be had, or another instance works there.
        """
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
        if swept := publisher.prepare(go_on) + sweep_temporaries(config.state, go_on):
            log.info("temporaries.swept", count=swept)
        return publisher

    def bring_back_folders(self) -> None:
        """Make the folders of all styles, but not the inbox: its disk may not be mounted."""
        if self._config.inbox.is_dir():
            with suppress(ResourceUnavailable):  # looking at the inbox says more
                self._mounts.require_mounted(self._config.inbox)
                self._make_style_folders()

    def _make_style_folders(self) -> None:
        """Make the folders of all styles; an inbox that may only be read does without."""
        before, self.inbox_trouble = self.inbox_trouble, None
        for name in (*self.present.styles, *self.present.folders):
            try:
                make_folder(self._config.inbox / name)
            except ResourceUnavailable as error:
                is_read_only = isinstance(error, Forbidden)
                what = "the inbox may only be read" if is_read_only else "a folder is missing"
                self.inbox_trouble = f"{what}: {error.message}"
                if before is None:
                    log.warning("inbox.not_prepared", reason=error.message, remedies=error.remedies)

    def check_styles(self, journal: Journal) -> None:
        """Note which styles can't be used just now."""
        before = set(self._style_check.troubles)
        if not self._style_check.check(self.present.styles):
            return
        note_state(journal, style_troubles=json.dumps(self._style_check.troubles))
        with suppress(ResourceUnavailable, JournalDamaged):  # they are tried again anyway
            for style in before.difference(self._style_check.troubles):
                journal.release_style(style)
        self.events.put(Wakeup())

    def _maintain(self, journal: Journal) -> None:
        """Mend and note what may change while the daemon runs; called now and then."""
        before = self.inbox_trouble
        self.bring_back_folders()
        if self.inbox_trouble != before:
            note_state(journal, inbox_read_only=self.inbox_trouble or "")
        self.check_styles(journal)

    def _note_intake_trouble(self, journal: Journal, trouble: str | None) -> None:
        self.intake_trouble = trouble or ""
        note_state(journal, inbox_trouble=self.intake_trouble)

    # Stages

    def open_journal(self, go_on: Callable[[], None]) -> Journal:
        """Open the journal, or make a new one of what lies in the inbox and the outbox.

        Raises:
            ResourceUnavailable: it can't be had.
            whatever `go_on` raises, which is called now and then.
        """
        config, pairing = self._config, self.pairing()

        def arrivals() -> Iterator[SettledInput]:
            for found in scan(config.inbox, IgnoreRules(config.intake.ignore)):
                if destinations := pairing.destinations(found.path):
                    yield SettledInput(found.path, found.size, found.mtime_ns, destinations)

        path = config.state / "journal.sqlite3"
        return open_or_rebuild(path, arrivals, config.inbox, config.outbox, time.time(), go_on)

    def make_intake(
        self, journal: Journal, submit: Callable[[Sequence[SettledInput]], int]
    ) -> Intake:
        """Return the stage that hands what has settled to `submit`."""

        def note_degraded(reason: str | None) -> None:
            degraded = () if reason is None else (Degradation("polling", reason),)
            self.events.put(ServiceDegraded(degraded))  # for sidecars
            note_state(journal, degraded_intake=json.dumps([asdict(one) for one in degraded]))

        config = self._config
        return Intake(
            config.inbox,
            self.pairing(),
            submit,
            ignore=IgnoreRules(config.intake.ignore),
            mode=config.intake.mode,
            settle_seconds=config.intake.settle_seconds,
            rescan_seconds=config.intake.rescan_seconds,
            truncated_grace_seconds=config.intake.truncated_grace_seconds,
            open_grace_seconds=config.intake.open_grace_seconds,
            require_inbox=lambda: self._mounts.require(config.inbox),
            maintain=partial(self._maintain, journal),
            on_degraded=note_degraded,
            on_trouble=partial(self._note_intake_trouble, journal),
            on_report=lambda report: note_state(journal, inbox_report=json.dumps(asdict(report))),
            beat=partial(self._pulse.beat, INTAKE),
        )

    def make_scheduler(
        self,
        journal: Journal,
        publisher: Publisher,
        factories: Sequence[EngineFactory],
        observer: SchedulerObserver,
    ) -> tuple[Scheduler, Sequence[EngineSlot]]:
        """Return what works through the queue, with one slot for each factory of engines."""
        config, pulse = self._config, self._pulse
        files = JobFiles(config.state)
        gallery = updater = None
        if config.output.gallery:
            gallery = Gallery(config.outbox, self._mounts.require_mounted, config.intake.max_pixels)
            updater = GalleryUpdater(journal, gallery, config.outbox, config.inbox)
        context = IoContext(
            config,
            journal,
            publisher,
            files,
            self._mounts,
            InputCleanup(config, journal, publisher, self._mounts),
            History(config.queue.history_days * DAY_SECONDS, config.queue.history_jobs),
            gallery,
            updater,
        )
        slots = [
            EngineSlot(f"{ENGINE_PART}-{number}", factory, files, self.events, pulse)
            for number, factory in enumerate(factories)
        ]
        pool = ThreadIoPool(min(len(slots) + 1, MOST_IO_THREADS), self.events, pulse)
        scheduler = Scheduler(
            context, slots, pool, self.events, self.present.styles, observer, pulse
        )
        return scheduler, slots


def note_state(journal: Journal, **state: str) -> None:
    """Have the journal remember something for `styled status`, if it can be written now."""
    with suppress(ResourceUnavailable, JournalDamaged):  # whoever works with it says more
        journal.set_state(**state)

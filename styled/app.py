"""The composition root: builds all objects of a daemon from its configuration.

This module makes no decisions about images or jobs. Data flows one way: the intake submits to the
journal, the scheduler claims from it, engines paint, and the I/O pool publishes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

import structlog
import torch

from styled.atomic import make_folder, sweep_temporaries
from styled.codec.local_codec import LocalPhotoCodec
from styled.codec.style_check import StyleCheck
from styled.config import Config
from styled.config.ignore import IgnoreRules
from styled.degradation import Degradation
from styled.delivery.gallery import Gallery
from styled.delivery.publisher import Publisher
from styled.engine.local_engine import LocalEngine
from styled.engine_api import Engine, EngineFactory, OnBytes
from styled.engine_setup import make_engine
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.hooks.runner import HookRunner
from styled.intake.host import InboxReport, SettledInput
from styled.intake.inbox_folders import InboxFolders
from styled.intake.intake import Intake
from styled.intake.pairing import Pairing
from styled.intake.scanning import scan
from styled.job_io.gallery_updates import GalleryUpdater
from styled.job_io.input_cleanup import InputCleanup
from styled.job_io.io_context import IoContext, JournalRetention
from styled.job_io.io_pool import ThreadIoPool
from styled.job_io.job_files import JobFiles
from styled.jobs.engine_slot import EngineSlot
from styled.jobs.events import Event, ServiceDegradationsChanged, StylesChanged, Wakeup
from styled.jobs.scheduler import Scheduler, SchedulerObserver
from styled.journal.journal import Journal
from styled.journal.rebuild import open_or_rebuild
from styled.mounts import Mounts
from styled.ops.config_in_use import save_config_in_use
from styled.ops.heartbeats import Heartbeats
from styled.ops.lock import InstanceLock
from styled.precision_record import FILE_NAME, PrecisionRecord

if TYPE_CHECKING:  # it imports ray
    from styled.cluster.fleet import Fleet

log = structlog.get_logger()

DAY_SECONDS = 86400.0

INTAKE = "intake"
"""The intake's name in `Heartbeats`."""

ENGINE_PREFIX = "engine"
"""Engine slots are named `engine-0`, `engine-1`, ..."""

MAX_IO_THREADS = 16
"""On a machine with many cores, without a cluster. On others there is one more than cores: further
threads would wait for Python's interpreter lock."""

CLUSTER_IO_THREADS = 32
"""With a cluster these mostly wait: its machines decode and encode."""


class AppObserver(SchedulerObserver, Protocol):
    """Receives events of jobs and engines, and errors that stop the daemon."""

    def journal_damaged(self, error: JournalDamaged) -> None:
        """Called if the intake finds the journal damaged, from the intake's thread."""


@dataclass(frozen=True, slots=True)
class App:
    """The objects of one daemon.

    Attributes:
        config: The configuration at the start; `host.config` is the current one after reloads.
        journal: The job queue on disk.
        events: The scheduler's event queue; thread-safe.
        host: Receives the intake's reports.
        intake: Scans the inbox.
        scheduler: Runs the jobs.
        fleet: The engines of a cluster; None: the only engine is in this process.
        gallery: What is being painted is shown in it; None: there is no gallery.
        hooks: Runs the user's commands for ended jobs; None: there are none.
    """

    config: Config
    journal: Journal
    events: SimpleQueue[Event]
    host: JournalIntakeHost
    intake: Intake
    scheduler: Scheduler
    fleet: Fleet | None
    gallery: Gallery | None
    hooks: HookRunner | None

    @property
    def slots(self) -> Sequence[EngineSlot]:
        """The engine slots, one for each engine; may be read from any thread."""
        return self.scheduler.slots

    def start_hooks(self) -> HookRunner | None:
        """Start to run hooks, if there are any."""
        if self.hooks is None:
            self.journal.set_state(hooks_since="")
        else:
            self.hooks.start()
        return self.hooks

    def reload(self, config: Config) -> None:
        """Use the styles and folders of a new configuration from now on."""
        save_config_in_use(config)
        self.host.use(config)
        self.events.put(StylesChanged(config.styles))
        self.intake.set_pairing(pairing_of(config))


def build_app(
    config: Config,
    factories: Sequence[EngineFactory] | None,
    on_bytes: OnBytes,
    observer: AppObserver,
    heartbeats: Heartbeats,
    stack: ExitStack,
    on_progress: Callable[[], None] = lambda: None,
) -> App:
    """Lock the state folder, open the journal, and build all objects.

    Args:
        config: The configuration.
        factories: One for each engine. None: as configured.
        on_bytes: Receives the progress of downloads.
        observer: Receives events.
        heartbeats: Receives the heartbeats of all threads.
        stack: Closing it releases the lock and closes the journal.
        on_progress: Called repeatedly; an exception it raises aborts.

    Raises:
        ResourceUnavailable: a folder or the journal can't be used, or another daemon uses it.
        ClusterUnavailable: Ray is not installed.
    """
    make_folder(config.state / "checkpoints")
    lock = InstanceLock(config.state / "lock")
    lock.acquire()
    stack.callback(lock.release)
    mounts = Mounts(config.state / "mounts.json")
    if config.styles_folder is not None:
        # Without its disk, photos of its styles would be painted in the default style.
        mounts.require_mounted(config.styles_folder)
        with suppress(ResourceUnavailable):  # it may be read-only, and then has no styles
            make_folder(config.styles_folder)
        mounts.require_mounted(config.styles_folder)  # records the mount of the folder just made
    folders = InboxFolders(config.inbox, mounts)
    folders.prepare(config.inbox_folders)
    publisher = Publisher(config.outbox, config.rejected, config.archive, mounts)
    if deleted := publisher.prepare(on_progress) + sweep_temporaries(config.state, on_progress):
        log.info("temporaries.swept", count=deleted)
    journal = open_journal(config, on_progress)
    stack.callback(journal.close)
    journal.set_priorities(config.priorities)
    events: SimpleQueue[Event] = SimpleQueue()
    host = JournalIntakeHost(config, journal, mounts, folders, events, observer, heartbeats)
    intake = build_intake(config, host)
    files = JobFiles(config.state)
    fleet = None
    if factories is None and config.cluster.address is not None:
        fleet = build_fleet(config, on_bytes, events, files, heartbeats, host)
        factories = ()
    elif factories is None:
        factories = [LocalEngineFactory(config, on_bytes)]
    scheduler = build_scheduler(
        config, journal, publisher, mounts, files, factories, fleet, events, observer, heartbeats
    )
    hooks = HookRunner(config, journal, heartbeats) if config.hooks.any else None
    live = Gallery(config.outbox, mounts) if config.output.gallery else None
    return App(config, journal, events, host, intake, scheduler, fleet, live, hooks)


def pairing_of(config: Config) -> Pairing:
    """Return the mapping of inbox folders to styles."""
    return Pairing(tuple(config.styles), config.folders, config.default_style)


def open_journal(config: Config, on_progress: Callable[[], None] = lambda: None) -> Journal:
    """Open the journal, or rebuild it from the inbox and the outbox.

    Raises:
        ResourceUnavailable: the state folder can't be used.
    """
    pairing = pairing_of(config)

    def settled_inputs() -> Iterator[SettledInput]:
        for found in scan(config.inbox, IgnoreRules(config.intake.ignored_names)):
            if destinations := pairing.destinations(found.path):
                yield SettledInput(found.path, found.size, found.mtime_ns, destinations)

    path = config.state / "journal.sqlite3"
    return open_or_rebuild(
        path, settled_inputs(), config.inbox, config.outbox, time.time(), on_progress
    )


def build_intake(config: Config, host: JournalIntakeHost) -> Intake:
    """Return the intake of the inbox."""
    settings = config.intake
    return Intake(
        config.inbox,
        pairing_of(config),
        host,
        ignore=IgnoreRules(settings.ignored_names),
        mode=settings.mode,
        settle_seconds=settings.settle_seconds,
        rescan_seconds=settings.rescan_seconds,
        truncated_grace_seconds=settings.truncated_grace_seconds,
        open_grace_seconds=settings.open_grace_seconds,
        leave_not_pictures=settings.not_pictures == "leave",
    )


def build_scheduler(
    config: Config,
    journal: Journal,
    publisher: Publisher,
    mounts: Mounts,
    files: JobFiles,
    factories: Sequence[EngineFactory],
    fleet: Fleet | None,
    events: SimpleQueue[Event],
    observer: SchedulerObserver,
    heartbeats: Heartbeats,
) -> Scheduler:
    """Return the scheduler, with one engine slot for each factory; a fleet adds further ones."""
    gallery = updater = None
    if config.output.gallery:
        gallery = Gallery(config.outbox, mounts, config.intake.max_pixels)
        updater = GalleryUpdater(journal, gallery, config.outbox, config.inbox)
    context = IoContext(
        config,
        journal,
        publisher,
        files,
        mounts,
        InputCleanup(config, journal, publisher, mounts),
        JournalRetention(config.queue.history_days * DAY_SECONDS, config.queue.history_jobs),
        gallery,
        updater,
        LocalPhotoCodec() if fleet is None else fleet.codec,
    )
    slots = [
        EngineSlot(f"{ENGINE_PREFIX}-{number}", factory, files, events, heartbeats)
        for number, factory in enumerate(factories)
    ]
    # One more than engines or cores, for what waits for a disk.
    threads = min(len(slots) + 1, (os.cpu_count() or 1) + 1, MAX_IO_THREADS)
    if fleet is not None:
        threads = CLUSTER_IO_THREADS
    pool = ThreadIoPool(threads, events, heartbeats)
    return Scheduler(context, slots, pool, events, config.styles, observer, heartbeats)


def build_fleet(
    config: Config,
    on_bytes: OnBytes,
    events: SimpleQueue[Event],
    files: JobFiles,
    heartbeats: Heartbeats,
    host: JournalIntakeHost,
) -> Fleet:
    """Return the engines of a cluster, not connected yet.

    Raises:
        ClusterUnavailable: Ray is not installed.
    """
    from styled.cluster.environment import prepare_environment

    assert config.cluster.address is not None, "a cluster is configured"
    prepare_environment(config.cluster.address)
    from styled.cluster.fleet import Fleet
    from styled.cluster.shared_objects import SharedObjects

    objects = SharedObjects(config.engine, precision_record(config), on_bytes)
    return Fleet(config, objects, events, files, heartbeats, host, ENGINE_PREFIX)


class JournalIntakeHost:
    """Connects intake and fleet to the journal; implements `IntakeHost` and `FleetObserver`.

    Attributes:
        config: The current configuration; a reload replaces it.
        problem: Why the inbox can't be scanned; empty if it can.
        folders: The folders of the inbox.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        mounts: Mounts,
        folders: InboxFolders,
        events: SimpleQueue[Event],
        observer: AppObserver,
        heartbeats: Heartbeats,
    ) -> None:
        """Submit to `journal`, and wake the scheduler through `events`."""
        self.config = config
        self.problem = ""
        self.folders = folders
        self._journal = journal
        self._mounts = mounts
        self._events = events
        self._observer = observer
        self._heartbeats = heartbeats
        self._style_check = StyleCheck(config.intake.max_pixels)

    def use(self, config: Config) -> None:
        """Use a new configuration from now on, and make its folders."""
        self.config = config
        self.folders.restore(config.inbox_folders)
        with suppress(ResourceUnavailable, JournalDamaged):  # the next start or reload does it
            self._journal.set_priorities(config.priorities)

    def submit(self, inputs: Sequence[SettledInput]) -> int:
        """Queue jobs for these inputs; return how many of the jobs are new."""
        try:
            submitted = self._journal.submit(inputs, time.time(), self.config.priorities)
        except JournalDamaged as error:
            self._observer.journal_damaged(error)
            raise
        if submitted:
            self._events.put(Wakeup())
        return submitted

    def is_submitted(self, path: str, size: int, mtime_ns: int) -> bool:
        """Return whether the journal has a job of this file."""
        try:
            return self._journal.has_jobs_of_file(path, size, mtime_ns)
        except JournalDamaged as error:
            self._observer.journal_damaged(error)
            raise

    def require_inbox(self) -> None:
        """Check that the inbox is mounted."""
        self._mounts.require(self.config.inbox)

    def require_styles_folder(self, config: Config) -> None:
        """Check that a styles folder which has styles is there, on its disk.

        Raises:
            ResourceUnavailable: it is not.
        """
        folder = config.styles_folder
        if folder is None:
            return
        self._mounts.require_mounted(folder)
        if any(
            image.path.parent == folder for s in self.config.styles.values() for image in s.images
        ):
            self._mounts.require(folder)

    def maintain(self) -> None:
        """Restore folders, and check which styles can be used."""
        previous = self.folders.problem
        self.folders.restore(self.config.inbox_folders)
        if self.folders.problem != previous:
            record_state(self._journal, inbox_read_only=self.folders.problem or "")
        self.check_styles()

    def check_styles(self) -> None:
        """Record which styles can't be used now; retry the jobs of those that can again."""
        previous = set(self._style_check.problems)
        if not self._style_check.check(self.config.styles):
            return
        problems = self._style_check.problems
        record_state(self._journal, style_problems=json.dumps(problems))
        with suppress(ResourceUnavailable, JournalDamaged):  # they are retried later anyway
            for style in previous.difference(problems):
                self._journal.unblock_style(style)
        self._events.put(Wakeup())

    def watching_changed(self, problem: str | None) -> None:
        """Record that the inbox is polled, for `styled status` and sidecars."""
        degraded = () if problem is None else (Degradation("polling", problem),)
        self._events.put(ServiceDegradationsChanged(INTAKE, degraded))
        record_state(self._journal, degraded_intake=json.dumps([asdict(one) for one in degraded]))

    def problem_changed(self, problem: str | None) -> None:
        """Record why the inbox can't be scanned."""
        self.problem = problem or ""
        record_state(self._journal, inbox_problem=self.problem)

    def report_changed(self, report: InboxReport) -> None:
        """Record which files and folders of the inbox do not become jobs."""
        record_state(self._journal, inbox_report=json.dumps(asdict(report)))

    def cluster_changed(self, problem: str) -> None:
        """Record why the cluster has fewer engines than it could have."""
        record_state(self._journal, cluster_problem=problem)

    def heartbeat(self, idle_for: float) -> None:
        """Pass on the intake's heartbeat."""
        self._heartbeats.beat(INTAKE, idle_for)


def record_state(journal: Journal, **state: str) -> None:
    """Record the daemon's state for `styled status`, unless the journal can't be written now."""
    with suppress(ResourceUnavailable, JournalDamaged):  # reported where the journal is required
        journal.set_state(**state)


class LocalEngineFactory:
    """Makes the engine of this process; if it is lost, the process must be restarted."""

    can_replace = False

    def __init__(self, config: Config, on_bytes: OnBytes) -> None:
        """Configure the engine by `config`; `on_bytes` receives the progress of downloads."""
        self._config = config
        self._on_bytes = on_bytes
        # Read before the I/O pool sets torch to one thread: threads started later inherit that.
        self._threads = torch.get_num_threads()

    def make(self) -> Engine:
        """Load the network; raises the errors of `build_engine`."""
        return build_engine(self._config, self._on_bytes, self._threads)


def build_engine(config: Config, on_bytes: OnBytes, threads: int | None = None) -> LocalEngine:
    """Load the network onto the configured device; see `make_engine`.

    Raises:
        WeightsError: the weights are not available.
        DeviceError: the device is not available.
        ConfigError: the configuration does not fit the machine.
    """
    return make_engine(config.engine, on_bytes, precision_record(config), threads)


def precision_record(config: Config) -> PrecisionRecord:
    """Return the record of measured precisions in the state folder."""

    def warn(reason: str) -> None:
        log.warning("precision.not_remembered", reason=reason)

    return PrecisionRecord(config.state / FILE_NAME, warn)

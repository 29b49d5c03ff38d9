"""Builds the stages for one configuration, and hands them to each other.

Nothing is decided here about pictures or jobs. Data flows one way: intake submits to the
journal, the scheduler claims from it, the worker paints and publishes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, cast

import structlog

from styled.config import Config, Style
from styled.config.ignore import IgnoreRules
from styled.degradation import Degradation
from styled.delivery.atomic import make_folder, sweep_temporaries, write_streamed, write_whole
from styled.delivery.gallery import Gallery
from styled.delivery.publisher import Publisher
from styled.engine.local import LocalEngine
from styled.engine_setup import make_engine
from styled.errors import ConfigError, Forbidden, JournalDamaged, ResourceUnavailable
from styled.intake.intake import Intake, SettledInput
from styled.intake.pairing import Pairing
from styled.intake.scanning import scan
from styled.jobs.backstage import Backstage
from styled.jobs.checkpoints import CheckpointStore
from styled.jobs.ending import Ending
from styled.jobs.frames import FrameStore
from styled.jobs.hanging import Hanger, HangingBackstage
from styled.jobs.journal import Journal
from styled.jobs.preparation import check_style
from styled.jobs.previews import PreviewStore
from styled.jobs.protocols import Engine
from styled.jobs.rebuild import open_or_rebuild
from styled.jobs.scheduler import History, Scheduler
from styled.jobs.style_check import StyleCheck
from styled.jobs.worker import Collaborators, Worker
from styled.mounts import Mounts
from styled.ops.lock import InstanceLock
from styled.ops.metrics import Metrics
from styled.ops.pulse import Pulse
from styled.precision_record import FILE_NAME, PrecisionRecord

log = structlog.get_logger()

DAY_SECONDS = 86400.0

INTAKE, SCHEDULER, BACKSTAGE = "intake", "scheduler", "backstage"
"""The parts that give signs of life."""

OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all while weights are downloaded; may raise to stop."""


def build_engine(config: Config, on_bytes: OnBytes) -> LocalEngine:
    """Load the network onto the device that the configuration names.

    Raises:
        WeightsError, DeviceError, ConfigError: it can't be had.
    """

    def warn(reason: str) -> None:
        log.warning("precision.not_remembered", reason=reason)

    record = PrecisionRecord(config.state / FILE_NAME, write_whole, warn)
    return make_engine(config.engine, on_bytes, record)


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
        stop: Set where the scheduler is to end.
        wake: Set where the scheduler has a reason to look.
        inbox_trouble: Why the folders of the styles can't be made in the inbox, if so.
    """

    def __init__(self, config: Config, pulse: Pulse) -> None:
        """Build for `config`; every part gives its signs of life to `pulse`."""
        self._config = config
        self._pulse = pulse
        self._degraded: tuple[Degradation, ...] = ()
        self._mounts = Mounts(config.state / "mounts.json", write_whole)
        self._style_check = StyleCheck(config.intake.max_pixels)
        self.inbox_trouble: str | None = None
        self.present = config
        self.stop = threading.Event()
        self.wake = threading.Event()

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
        self.wake.set()

    def _maintain(self, journal: Journal) -> None:
        """Mend and note what may change while the daemon runs; called now and then."""
        before = self.inbox_trouble
        self.bring_back_folders()
        if self.inbox_trouble != before:
            note_state(journal, inbox_read_only=self.inbox_trouble or "")
        self.check_styles(journal)

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
            self._degraded = () if reason is None else (Degradation("polling", reason),)
            # The log has it, and sidecars will.
            note_state(journal, degraded_intake=json.dumps([asdict(one) for one in self._degraded]))

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
            on_trouble=lambda trouble: note_state(journal, inbox_trouble=trouble or ""),
            on_report=lambda report: note_state(journal, inbox_report=json.dumps(asdict(report))),
            beat=partial(self._pulse.beat, INTAKE),
        )

    def make_scheduler(
        self,
        journal: Journal,
        publisher: Publisher,
        engine: Engine,
        metrics: Metrics,
        *,
        blameless: bool,
    ) -> tuple[Scheduler, Worker]:
        """Return the stage that works through the queue, and the worker that it has.

        Args:
            journal: Like the following ones, of this daemon.
            publisher: Likewise.
            engine: Likewise.
            metrics: Counts what ends.
            blameless: As in `Scheduler.recover`.

        Raises:
            ResourceUnavailable: the journal can't be written.
        """
        config = self._config

        def beat(rest_seconds: float) -> None:
            is_backstage = threading.current_thread().name == Backstage.NAME
            self._pulse.beat(BACKSTAGE if is_backstage else SCHEDULER, rest_seconds)

        checkpoints = CheckpointStore(
            config.state / "checkpoints", engine, partial(_write_beating, beat), make_folder
        )
        previews = PreviewStore(config.state / "previews", write_whole, make_folder)
        frames = FrameStore(
            config.state / "frames", config.output.keep_frames, write_whole, make_folder
        )
        backstage = Backstage(beat)
        gallery, hanging = self._make_gallery(journal, backstage, beat)

        def count_ended(ending: Ending) -> None:
            metrics.count_ended(
                str(ending.state), ending.failure, ending.seconds, ending.steps,
                ending.peak_memory_bytes, degraded=bool(ending.degraded),
            )  # fmt: skip

        worker = Worker(
            config,
            Collaborators(
                journal,
                engine,
                publisher,
                checkpoints,
                previews,
                frames,
                styles=lambda: self.present.styles,
                degraded=lambda: self._degraded,
                require_inbox=lambda: self._mounts.require(config.inbox),
                beat=beat,
                on_ended=count_ended,
                on_failed_attempt=metrics.count_failed_attempt,
                wake=self.wake.set,
                gallery=gallery,
                backstage=backstage,
            ),
            self.stop,
        )
        history = History(config.queue.history_days * DAY_SECONDS, config.queue.history_jobs)
        hang = (lambda: False) if hanging is None else hanging.hang

        def leave() -> None:
            if hanging is not None:
                hanging.finish()
            backstage.close()

        scheduler = Scheduler(
            journal, worker, stop=self.stop, wake=self.wake, history=history, beat=beat, hang=hang,
            leave=leave,
        )  # fmt: skip
        scheduler.recover(blameless=blameless)
        checkpoints.sweep(keep=journal.unfinished_ids())
        previews.sweep()
        frames.sweep(keep=journal.unfinished_ids())
        return scheduler, worker

    def _make_gallery(
        self, journal: Journal, backstage: Backstage, beat: Callable[[float], None]
    ) -> tuple[Gallery | None, HangingBackstage | None]:
        config = self._config
        if not config.output.gallery:
            return None, None
        gallery = Gallery(config.outbox, self._mounts.require_mounted, config.intake.max_pixels)
        hanger = Hanger(journal, gallery, config.outbox, config.inbox, beat=beat)
        return gallery, HangingBackstage(hanger, backstage, self.wake.set)


def note_state(journal: Journal, **state: str) -> None:
    """Have the journal remember something for `styled status`, if it can be written now."""
    with suppress(ResourceUnavailable, JournalDamaged):  # whoever works with it says more
        journal.write_daemon(**state)


def _write_beating(
    beat: Callable[[float], None], path: Path, write: Callable[[IO[bytes]], None]
) -> None:
    """Write to a file, giving signs of life: gigabytes take minutes on a slow disk."""
    write_streamed(path, lambda stream: write(cast(IO[bytes], _Beating(stream, beat))))


class _Beating:
    """A stream that gives a sign of life with every piece that is written."""

    def __init__(self, stream: IO[bytes], beat: Callable[[float], None]) -> None:
        self._stream = stream
        self._beat = beat

    def write(self, data: bytes) -> int:
        self._beat(0.0)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()

"""What requests to the I/O pool work with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from styled.config import Config
from styled.jobs.gallery_updates import GalleryUpdater
from styled.jobs.input_cleanup import InputCleanup
from styled.jobs.job_files import JobFiles
from styled.jobs.journal import Journal
from styled.jobs.protocols import Gallery, Publisher
from styled.mounts import Mounts


@dataclass(frozen=True, slots=True)
class History:
    """Which finished jobs are remembered.

    Attributes:
        seconds: For how long.
        jobs: How many at most.
    """

    seconds: float
    jobs: int


@dataclass(frozen=True, slots=True)
class IoContext:
    """The objects of one daemon, all of them safe to use from several threads.

    Attributes:
        gallery: Keeps thumbnails; None: there is no gallery.
        gallery_updater: Likewise.
        is_stopping: Set once long requests are to be broken off.
        now: Unix time.
        clock: Measures.
    """

    config: Config
    journal: Journal
    publisher: Publisher
    files: JobFiles
    mounts: Mounts
    cleanup: InputCleanup
    history: History
    gallery: Gallery | None = None
    gallery_updater: GalleryUpdater | None = None
    is_stopping: threading.Event = field(default_factory=threading.Event)
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic

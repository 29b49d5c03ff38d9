"""The objects that requests to the I/O pool use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from styled.codec.local_codec import LocalPhotoCodec
from styled.config import Config
from styled.job_io.gallery_updates import GalleryUpdater
from styled.job_io.input_cleanup import InputCleanup
from styled.job_io.job_files import JobFiles
from styled.job_io.protocols import GalleryProtocol, PhotoCodec, PublisherProtocol
from styled.journal.journal import Journal
from styled.mounts import Mounts


@dataclass(frozen=True, slots=True)
class JournalRetention:
    """How long finished jobs are kept in the journal.

    Attributes:
        seconds: Maximum age.
        jobs: Maximum number.
    """

    seconds: float
    jobs: int


@dataclass(frozen=True, slots=True)
class IoContext:
    """The objects of one daemon; all are thread-safe.

    Attributes:
        cleanup: Releases inputs from the inbox.
        retention: How long finished jobs are kept in the journal.
        gallery: Stores thumbnails; None: there is no gallery.
        gallery_updater: Adds entries to the gallery; None: there is no gallery.
        codec: Where photos are decoded and results encoded.
        is_stopping: When set, long requests return early.
        now: Returns the Unix time.
        clock: Returns monotonic time in seconds, to measure durations.
    """

    config: Config
    journal: Journal
    publisher: PublisherProtocol
    files: JobFiles
    mounts: Mounts
    cleanup: InputCleanup
    retention: JournalRetention
    gallery: GalleryProtocol | None = None
    gallery_updater: GalleryUpdater | None = None
    codec: PhotoCodec = field(default_factory=LocalPhotoCodec)
    is_stopping: threading.Event = field(default_factory=threading.Event)
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic

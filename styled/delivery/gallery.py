"""The gallery: one HTML page in the outbox that shows all results, updated incrementally.

`gallery.html` holds the counts and the newest records. The records of all results are in record
files of at most `RECORDS_PER_FILE` each beside it, the thumbnails in `thumbs`. Adding an entry
rewrites only the newest record file and the HTML, however many results there are.

The counts are stored only in the page. It is read before the first entry is added, and
again whenever another process has written it since. A record file is written before the HTML that
counts it, so an entry that was only half added is counted the next time.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import JsonValue, ValidationError
from torch import Tensor

from styled import photos
from styled.delivery.gallery_files import FILES, GalleryFiles, read_regular
from styled.delivery.gallery_records import GalleryRecord, record_of
from styled.delivery.names import sidecar_path
from styled.delivery.page import render
from styled.errors import InputIncomplete, InputRejected, ResourceUnavailable
from styled.files import FileStamp, sha256_of
from styled.mounts import Mounts
from styled.sidecar import Sidecar

RECORDS_PER_FILE = 100

THUMB_PX = 480
"""Long edge: a card is about 360 CSS pixels wide, on screens of 1 to 3 pixels each."""

THUMB_QUALITY = 75
VERSION, _UNCOUNTED = 1, 0

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""A valid job id. Sidecars are not trusted: other programs may have written them."""

_MANIFEST_ERRORS = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
)  # fmt: skip
"""Exceptions that reading a damaged manifest may raise."""

_MANIFEST = re.compile(rb'<script id="manifest" type="application/json">(.*?)</script>', re.DOTALL)


@dataclass(slots=True)
class Contents:
    """The counts of the page, and the records of its two newest record files.

    Attributes:
        record_files: Number of the newest record file; 0: there is none yet.
        results: Number of results.
        rejected: Number of rejected inputs.
        styles: Style -> number of its results.
        newest: The records of the newest record file, oldest first.
        previous: The records of the record file before it.
    """

    record_files: int = 0
    results: int = 0
    rejected: int = 0
    styles: dict[str, int] = field(default_factory=dict)
    newest: list[GalleryRecord] = field(default_factory=list)
    previous: list[GalleryRecord] = field(default_factory=list)

    def add(self, record: GalleryRecord) -> None:
        """Count a record, and append it to the newest record file, or to a new one."""
        if self.record_files == 0 or len(self.newest) >= RECORDS_PER_FILE:
            self.record_files += 1
            self.previous, self.newest = self.newest, []
        self.newest.append(record)
        self.count(record)

    def count(self, record: GalleryRecord) -> None:
        """Count a record that is already in a record file."""
        if record.get("kind") == "rejected":
            self.rejected += 1
            return
        style = str(record.get("style"))
        self.results += 1
        self.styles[style] = self.styles.get(style, 0) + 1

    def has(self, job_id: JsonValue) -> bool:
        """Return whether a job's record is in one of the two newest record files."""
        return any(record.get("id") == job_id for record in (*self.previous, *self.newest))

    def manifest(self) -> dict[str, JsonValue]:
        """Return the manifest that is embedded in the HTML."""
        return {
            "version": VERSION,
            "record_files": self.record_files,
            "results": self.results,
            "rejected": self.rejected,
            "styles": dict(self.styles),
            "updated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "newest": [dict(record) for record in self.newest],
        }


class Gallery:
    """The gallery of one outbox.

    Attributes:
        files: Its files.
    """

    def __init__(
        self,
        outbox: Path,
        mounts: Mounts | None = None,
        max_pixels: int = photos.DEFAULT_MAX_PIXELS,
    ) -> None:
        """Keep the gallery in `outbox`, as long as `mounts` says that it is mounted."""
        self.files = GalleryFiles(outbox, mounts)
        self._outbox = outbox
        self._max_pixels = max_pixels
        self._contents: Contents | None = None
        self._written: FileStamp | None = None  # of the page as last written

    def write_thumbs(self, job_id: str, before: Tensor, after: Tensor) -> None:
        """Write thumbnails of a photo and its painting.

        Args:
            job_id: The job that painted it.
            before: The photo: 1x3xHxW, sRGB in [0, 1], or 1x4xHxW with opacity, which then
                applies to both thumbnails.
            after: The painting: 1x3xHxW.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        self.store_thumbs(job_id, *encode_thumbs(before, after))

    def store_thumbs(self, job_id: str, before: bytes, after: bytes) -> None:
        """Write thumbnails from `encode_thumbs`.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        self.files.write_thumb(self.files.thumb(job_id, "before"), before)
        self.files.write_thumb(self.files.thumb(job_id, "after"), after)

    def add(self, entries: Sequence[tuple[Path, Path | None]]) -> None:
        """Add results and rejected inputs to the page.

        Args:
            entries: For each, the file that has a sidecar, and its original if there is one.
                At most `RECORDS_PER_FILE`. Files without a sidecar are skipped, and so are
                those that are shown already.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone, a file of another program
                has the page's name, or another process is changing the page.
        """
        with self.files.locked(wait=False):
            contents, self._contents = self._read(), None  # invalid until everything is written
            changed: dict[int, list[GalleryRecord]] = {}
            for path, original in entries:
                record = self.record(path, original)
                if record is not None and not contents.has(record["id"]):
                    contents.add(record)
                    changed[contents.record_files] = contents.newest
            for number, records in changed.items():
                self.files.write_records(number, records)
            self._write(contents)

    def record(self, path: Path, original: Path | None) -> GalleryRecord | None:
        """Return the record of a result or a rejected input, None without a valid sidecar.

        Thumbnails that do not exist yet are made from the files.
        """
        sidecar = _read_sidecar(path)
        if sidecar is None or not _ID.fullmatch(sidecar.job.id):
            return None  # the id becomes part of file names
        thumbs: dict[str, str | None] = {"before": None, "after": None}
        if sidecar.result is not None:
            sources = {"before": original, "after": path}
            for which, source in sources.items():
                thumb = self.files.thumb(sidecar.job.id, which)
                if self.files.has(thumb) or (source and self._make_thumb(source, thumb)):
                    thumbs[which] = thumb.relative_to(self._outbox).as_posix()
        try:
            return record_of(sidecar, path, self._outbox, thumbs["before"], thumbs["after"])
        except (ValueError, OverflowError):  # for instance a date out of range
            return None

    def rebuild(
        self,
        entries: Iterator[tuple[Path, Path | None]],
        on_shown: Callable[[Sequence[str]], None] = lambda job_ids: None,
    ) -> Contents:
        """Rebuild the page from all existing files; entries whose files are gone are dropped.

        Args:
            entries: As for `add`, but any number, in any order.
            on_shown: Called with the ids of all jobs that the page shows now.

        Returns:
            The new contents of the page.

        Raises:
            ResourceUnavailable: as `add`.
        """
        with self.files.locked(wait=True):
            started = time.time()
            before = self._read()
            found = [
                record for path, original in entries if (record := self.record(path, original))
            ]
            found.sort(key=lambda record: (str(record["finished"]), str(record["id"])))
            contents = Contents()
            self.files.clear_new_records()
            for record in found:
                contents.add(record)
                if len(contents.newest) == RECORDS_PER_FILE or record is found[-1]:
                    self.files.write_records(contents.record_files, contents.newest, "records.new")
            # If the process dies here, this version makes the next reader count the record files,
            # which are either the old or the new ones.
            self.files.write_html(render({**before.manifest(), "version": _UNCOUNTED}))
            self.files.replace_records()
            self._write(contents)
            ids = {str(record["id"]) for record in found}
            self.files.delete_thumbs(ids, started)
            on_shown(sorted(ids))
        return contents

    def _read(self) -> Contents:
        """Return the contents of the page, from memory if the page is as it was last written.

        Raises:
            ResourceUnavailable: a file of another program has the page's name.
        """
        if self._contents is not None and self.files.page_stamp() == self._written:
            return self._contents
        contents = self._read_counts()
        # Records in a record file that was written just before a crash are not counted yet.
        first = max(contents.record_files, 1)
        counted = contents.newest
        for number in (first, first + 1):
            records = self.files.read_records(number)
            if records is None:
                break
            contents.record_files, contents.newest = number, records
            for record in records:
                if all(record.get("id") != known.get("id") for known in counted):
                    contents.count(record)
        contents.previous = self.files.read_records(contents.record_files - 1) or []
        return contents

    def _read_counts(self) -> Contents:
        """Return the contents according to the HTML; if it is damaged, count the record files."""
        match = _MANIFEST.search(self.files.read_html() or b"")
        with suppress(*_MANIFEST_ERRORS):
            manifest = json.loads(match[1], parse_constant=_refuse) if match else {}
            if manifest["version"] == VERSION:
                styles = {str(name): int(count) for name, count in manifest["styles"].items()}
                newest: list[GalleryRecord] = [dict(record) for record in manifest["newest"]]
                return Contents(int(manifest["record_files"]), int(manifest["results"]),
                                int(manifest["rejected"]), styles, newest)  # fmt: skip
        contents = Contents()
        while (records := self.files.read_records(contents.record_files + 1)) is not None:
            contents.record_files += 1
            contents.newest = records
            for record in records:
                contents.count(record)
        return contents

    def _write(self, contents: Contents) -> None:
        self.files.write_html(render(contents.manifest()))
        self._contents, self._written = contents, self.files.page_stamp()

    def _make_thumb(self, source: Path, thumb: Path) -> bool:
        try:
            photo = photos.decode_photo(photos.read_bytes(source), max_pixels=self._max_pixels)
            factor = min(1.0, THUMB_PX / max(photo.width, photo.height))
            size = max(1, round(photo.width * factor)), max(1, round(photo.height * factor))
            small = photo.tensor(*size)
        except (OSError, InputRejected, InputIncomplete, ResourceUnavailable):
            return False  # the file was deleted or replaced, or is not a picture
        except (MemoryError, RuntimeError):
            return False  # the entry is shown without this thumbnail
        self.files.write_thumb(thumb, _encoded(small))
        return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _read_sidecar(path: Path) -> Sidecar | None:
    data = read_regular(sidecar_path(path))
    try:
        return None if data is None else Sidecar.model_validate_json(data)
    except ValidationError:
        return None


def encode_thumbs(before: Tensor, after: Tensor) -> tuple[bytes, bytes]:
    """Return the thumbnails of a photo and its painting; arguments as of `Gallery.write_thumbs`."""
    opacity, after = before[:, 3:], _shrunk(after)
    if opacity.numel():
        opacity = F.interpolate(opacity, after.shape[-2:], mode="area")
        after = torch.cat([after[:, :3], opacity], dim=1)
    return _encoded(before), _encoded(after)


def _encoded(image: Tensor) -> bytes:
    return photos.encode_image(_thumbnail(image), "webp", THUMB_QUALITY)


def _shrunk(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    factor = min(1.0, THUMB_PX / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return image if factor == 1 else F.interpolate(image, size, mode="area")


def _thumbnail(image: Tensor) -> Tensor:
    """Return a thumbnail, 1x3xhxw, of 1x3xHxW, or of 1x4xHxW composited on white."""
    image = _shrunk(image)
    if image.shape[1] == 4:
        image = image[:, :3] * image[:, 3:] + (1 - image[:, 3:])
    return image


def gallery_entries(
    outbox: Path, rejected: Path, archive: Path
) -> Iterator[tuple[Path, Path | None]]:
    """Yield all results and rejected inputs, each result with its original if that is found."""
    for root in (outbox, rejected):
        for folder, folders, names in os.walk(root, onerror=_raise_unreadable):
            if Path(folder) == outbox:
                folders[:] = [name for name in folders if name != FILES]
            for name in sorted(names):
                path = Path(folder, name).with_suffix("")
                if name.endswith(".json") and path.is_file() and sidecar_path(path).is_file():
                    yield path, _original_of(path, outbox, archive) if root == outbox else None


def _original_of(result: Path, outbox: Path, archive: Path) -> Path | None:
    """Return the archived photo of a result, found by its name and verified by its SHA-256."""
    sidecar = _read_sidecar(result)
    if sidecar is None:
        return None
    original = archive / result.parent.relative_to(outbox) / Path(sidecar.input.path).name
    # For instance a name with a zero byte, or a file that can't be read.
    with suppress(OSError, ValueError, ResourceUnavailable):
        if original.is_file() and sha256_of(original) == sidecar.input.sha256:
            return original
    return None


def _raise_unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise ResourceUnavailable(
            f"the folder {error.filename} can't be read: {error.strerror}",
            "fix its permissions, or move it away",
        )

"""The gallery: one page in the outbox that shows all results, kept up to date piece by piece.

`gallery.html` holds the counts and the newest records; the records of all results lie in data
pages of at most `RECORDS_PER_PAGE` beside it, and small pictures in `thumbs`. To hang a piece is
to write the newest data page and the HTML anew, however many results there are.

The page itself is what is remembered: it is read back at the first piece, and whenever somebody
else has written it since. The data page is written before the HTML that counts it, so that a
piece whose hanging was broken off is counted the next time.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog
import torch.nn.functional as F
from pydantic import JsonValue, ValidationError
from torch import Tensor

from styled import photos
from styled.delivery.atomic import make_folder, resource_errors, write_whole
from styled.delivery.names import sidecar_of
from styled.delivery.page import page_file, records_in, render
from styled.delivery.records import Record, record_of
from styled.errors import InputIncomplete, InputRejected, ResourceUnavailable
from styled.files import sha256_of
from styled.sidecar import Sidecar

log = structlog.get_logger()

PAGE, FILES = "gallery.html", "gallery_files"

RECORDS_PER_PAGE = 100

THUMB_PX = 480
"""Long edge: a card is about 360 CSS pixels wide, on screens of 1 to 3 pixels each."""

THUMB_QUALITY = 75
VERSION = 1

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""Of a job. Sidecars may have been written by anybody."""

_NOT_TO_BE_READ = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
)  # fmt: skip
"""What a manifest raises that somebody has spoilt."""

_OURS = b'<meta name="generator" content="styled">'
_MANIFEST = re.compile(rb'<script id="manifest" type="application/json">(.*?)</script>', re.DOTALL)


@dataclass(slots=True)
class Contents:
    """What the page counts, and the newest data page.

    Attributes:
        pages: The number of the newest data page; 0: there is none yet.
        styles: For each style how many results it has.
        newest: The records of the newest data page, the oldest first.
        previous: Those of the data page before it.
    """

    pages: int = 0
    results: int = 0
    rejected: int = 0
    styles: dict[str, int] = field(default_factory=dict)
    newest: list[Record] = field(default_factory=list)
    previous: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Count a record, and put it on the newest data page or the one after it."""
        if self.pages == 0 or len(self.newest) >= RECORDS_PER_PAGE:
            self.pages += 1
            self.previous, self.newest = self.newest, []
        self.newest.append(record)
        self.count(record)

    def count(self, record: Record) -> None:
        """Count a record that is on a data page."""
        if record.get("kind") == "rejected":
            self.rejected += 1
            return
        style = str(record.get("style"))
        self.results += 1
        self.styles[style] = self.styles.get(style, 0) + 1

    def has(self, job_id: JsonValue) -> bool:
        """Tell whether a piece is on one of the two newest data pages."""
        return any(record.get("id") == job_id for record in (*self.previous, *self.newest))

    def manifest(self) -> dict[str, JsonValue]:
        """Return what the HTML holds."""
        return {
            "version": VERSION,
            "pages": self.pages,
            "results": self.results,
            "rejected": self.rejected,
            "styles": dict(self.styles),
            "updated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "newest": [dict(record) for record in self.newest],
        }


class Gallery:
    """The gallery of one outbox."""

    def __init__(
        self,
        outbox: Path,
        require_mounted: Callable[[Path], None] = lambda root: None,
        max_pixels: int = photos.DEFAULT_MAX_PIXELS,
    ) -> None:
        """Keep the gallery in `outbox`, as long as `require_mounted` does not object."""
        self.page = outbox / PAGE
        self._outbox = outbox
        self._files = outbox / FILES
        self._require_mounted = require_mounted
        self._max_pixels = max_pixels
        self._contents: Contents | None = None
        self._written: tuple[int, int] | None = None  # by which our own page is known again

    def keep_pictures(self, job_id: str, before: Tensor, after: Tensor) -> None:
        """Keep small pictures of a photo and its painting.

        Args:
            job_id: Whose they are.
            before: 1x3xHxW, sRGB in [0, 1], or 1x4xHxW with opacity.
            after: Likewise.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        self._require_mounted(self._outbox)
        for which, image in (("before", before), ("after", after)):
            path = self._thumb(job_id, which)
            make_folder(path.parent)
            write_whole(path, photos.encode(_small(image), "webp", THUMB_QUALITY))

    def hang(self, pieces: Sequence[tuple[Path, Path | None]]) -> None:
        """Show results and rejected inputs.

        Args:
            pieces: For each the file with a sidecar beside it, and its original if there is
                one, `RECORDS_PER_PAGE` at most. What has no sidecar, or is shown already, is
                passed over.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone, somebody else's file has
                the page's name, or another process is at the page.
        """
        self._require_mounted(self._outbox)
        with self._locked(wait=False):
            contents, self._contents = self._read(), None  # until all of it is written
            pages: dict[int, list[Record]] = {}
            for path, original in pieces:
                record = self.record(path, original)
                if record is not None and not contents.has(record["id"]):
                    contents.add(record)
                    pages[contents.pages] = contents.newest
            for number, records in pages.items():
                self._write_page(self._files / "pages", number, records)
            self._write_html(contents)

    def record(self, path: Path, original: Path | None) -> Record | None:
        """Return what the page shows of a result or a rejected input, None without a sidecar.

        Its small pictures are made of the files where they were not kept. A sidecar with an id
        that none of ours has is somebody else's.
        """
        try:
            sidecar = Sidecar.model_validate_json(sidecar_of(path).read_bytes())
        except (OSError, ValidationError):
            return None
        if not _ID.fullmatch(sidecar.job.id):
            return None  # files are named after it
        thumbs: dict[str, str | None] = {"before": None, "after": None}
        if sidecar.result is not None:
            sources = {"before": original, "after": path}
            for which, source in sources.items():
                thumb = self._thumb(sidecar.job.id, which)
                if thumb.is_file() or (source is not None and self._make_thumb(source, thumb)):
                    thumbs[which] = thumb.relative_to(self._outbox).as_posix()
        return record_of(sidecar, path, self._outbox, thumbs["before"], thumbs["after"])

    def rebuild(self, pieces: Iterator[tuple[Path, Path | None]]) -> Contents:
        """Make the page anew of all that there is, and forget what is not there any more.

        Args:
            pieces: As `hang` takes them, in any order.

        Returns:
            What is shown now.

        Raises:
            ResourceUnavailable: as `hang`.
        """
        self._require_mounted(self._outbox)
        with self._locked(wait=True):
            begun = time.time()
            self._refuse_strangers()
            found = [record for path, original in pieces if (record := self.record(path, original))]
            found.sort(key=lambda record: (str(record["finished"]), str(record["id"])))
            contents = Contents()
            folder = self._files / "pages"
            for record in found:
                contents.add(record)
                if len(contents.newest) == RECORDS_PER_PAGE or record is found[-1]:
                    self._write_page(folder, contents.pages, contents.newest)
            self._write_html(contents)
            self._forget(contents.pages, {str(record["id"]) for record in found}, begun)
        return contents

    def give_to(self, uid: int, gid: int) -> None:
        """Have all files of the gallery belong to somebody: to the daemon's user, say.

        Raises:
            OSError: it is not for this process to decide.
        """
        os.chown(self.page, uid, gid, follow_symlinks=False)
        for folder, folders, names in os.walk(self._files):
            for name in (".", *folders, *names):
                os.chown(Path(folder, name), uid, gid, follow_symlinks=False)

    # Files

    def _read(self) -> Contents:
        """Return what is shown: as remembered, or as the page has it.

        Raises:
            ResourceUnavailable: somebody else's file has the page's name.
        """
        if self._contents is not None and self._identity() == self._written:
            return self._contents
        self._refuse_strangers()
        contents = self._counted()
        # A data page that was written just before the process died is not counted yet.
        first = max(contents.pages, 1)
        counted = contents.newest
        for number in (first, first + 1):
            records = self._page(number)
            if records is None:
                break
            contents.pages, contents.newest = number, records
            for record in records:
                if all(record.get("id") != known.get("id") for known in counted):
                    contents.count(record)
        contents.previous = self._page(contents.pages - 1) or []
        return contents

    def _counted(self) -> Contents:
        """Return what the HTML counts; where that can't be known, count the data pages."""
        with suppress(*_NOT_TO_BE_READ):
            match = _MANIFEST.search(self.page.read_bytes())
            manifest = json.loads(match[1]) if match else {}
            if manifest["version"] == VERSION:
                styles = {str(name): int(count) for name, count in manifest["styles"].items()}
                newest: list[Record] = [dict(record) for record in manifest["newest"]]
                return Contents(int(manifest["pages"]), int(manifest["results"]),
                                int(manifest["rejected"]), styles, newest)  # fmt: skip
        contents = Contents()
        while (records := self._page(contents.pages + 1)) is not None:
            contents.pages += 1
            contents.newest = records
            for record in records:
                contents.count(record)
        return contents

    def _page(self, number: int) -> list[Record] | None:
        try:
            return list(records_in((self._files / "pages" / f"{number:06}.js").read_bytes()))
        except (OSError, ValueError):
            return None

    def _write_page(self, folder: Path, number: int, records: Sequence[Record]) -> None:
        make_folder(folder)
        write_whole(folder / f"{number:06}.js", page_file(number, records))

    def _write_html(self, contents: Contents) -> None:
        write_whole(self.page, render(contents.manifest()))
        self._contents, self._written = contents, self._identity()

    def _identity(self) -> tuple[int, int] | None:
        try:
            facts = self.page.stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns

    def _refuse_strangers(self) -> None:
        try:
            is_ours = _OURS in self.page.read_bytes()
        except FileNotFoundError:
            return
        except OSError:
            is_ours = False
        if not is_ours:
            raise ResourceUnavailable(
                f"{self.page} was not made by styled, and is left alone",
                "move it away, or set `output.gallery` to false",
            )

    @contextmanager
    def _locked(self, *, wait: bool) -> Iterator[None]:
        """Have the page for this process alone: `styled gallery` may run beside the daemon.

        Raises:
            ResourceUnavailable: another process has it, and may for long; or the outbox is full,
                read-only or gone.
        """
        make_folder(self._files)
        path = self._files / ".lock"
        with resource_errors(path), open(path, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ResourceUnavailable(
                    f"{self.page} is being made anew by another process",
                    "work goes on by itself once that is done",
                ) from None
            yield

    def _forget(self, pages: int, ids: set[str], before: float) -> None:
        """Delete the data pages and small pictures that nothing refers to any more.

        Pictures that came meanwhile are those of a result that is being published.
        """
        for path in (self._files / "pages").glob("*.js"):
            if path.stem.isdigit() and int(path.stem) > pages:
                path.unlink(missing_ok=True)
        for path in (self._files / "thumbs").glob("*/*-*.webp"):
            with suppress(FileNotFoundError):
                if path.name.rpartition("-")[0] not in ids and path.lstat().st_mtime < before:
                    path.unlink()

    # Small pictures

    def _thumb(self, job_id: str, which: str) -> Path:
        return self._files / "thumbs" / job_id[:2] / f"{job_id}-{which}.webp"

    def _make_thumb(self, source: Path, thumb: Path) -> bool:
        try:
            photo = photos.decode(photos.read_bytes(source), max_pixels=self._max_pixels)
        except (OSError, InputRejected, InputIncomplete, ResourceUnavailable):
            return False  # it was deleted, or replaced by something else
        factor = min(1.0, THUMB_PX / max(photo.width, photo.height))
        size = max(1, round(photo.width * factor)), max(1, round(photo.height * factor))
        make_folder(thumb.parent)
        write_whole(thumb, photos.encode(_small(photo.tensor(*size)), "webp", THUMB_QUALITY))
        return True


def _small(image: Tensor) -> Tensor:
    """Return 1x3xhxw of 1x3xHxW or of 1x4xHxW, which is placed on white."""
    height, width = image.shape[-2:]
    factor = min(1.0, THUMB_PX / max(height, width))
    if factor < 1:
        size = max(1, round(height * factor)), max(1, round(width * factor))
        image = F.interpolate(image, size, mode="area")
    if image.shape[1] == 4:
        image = image[:, :3] * image[:, 3:] + (1 - image[:, 3:])
    return image


def pieces_below(outbox: Path, rejected: Path, archive: Path) -> Iterator[tuple[Path, Path | None]]:
    """Yield everything that a gallery may show, each result with its original if it is found."""
    for root in (outbox, rejected):
        for folder, folders, names in os.walk(root):
            if Path(folder) == outbox:
                folders[:] = [name for name in folders if name != FILES]
            for name in sorted(names):
                path = Path(folder, name).with_suffix("")
                if name.endswith(".json") and path.is_file() and sidecar_of(path).is_file():
                    yield path, _original_of(path, outbox, archive) if root == outbox else None


def _original_of(result: Path, outbox: Path, archive: Path) -> Path | None:
    """Return the archived photo that a result was made of, by its name and its digest."""
    with suppress(OSError, ValidationError):
        sidecar = Sidecar.model_validate_json(sidecar_of(result).read_bytes())
        folder = archive / result.parent.relative_to(outbox)
        original = folder / Path(sidecar.input.path).name
        if original.is_file() and sha256_of(original) == sidecar.input.sha256:
            return original
    return None

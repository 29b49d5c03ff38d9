"""The gallery: one page in the outbox that shows all results, kept up to date piece by piece.

`gallery.html` holds the counts and the newest records; the records of all results lie in data
pages of at most `RECORDS_PER_PAGE` beside it, and thumbnails in `thumbs`. Adding an entry rewrites
the newest data page and the HTML, however many results there are.

The page itself is what is remembered: it is read back at the first piece, and whenever somebody
else has written it since. The data page is written before the HTML that counts it, so that a
entry that was only half added is counted the next time.
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
from styled.delivery.names import sidecar_of
from styled.delivery.page import render
from styled.delivery.records import Record, record_of
from styled.errors import InputIncomplete, InputRejected, ResourceUnavailable
from styled.files import sha256_of
from styled.sidecar import Sidecar

RECORDS_PER_PAGE = 100

THUMB_PX = 480
"""Long edge: a card is about 360 CSS pixels wide, on screens of 1 to 3 pixels each."""

THUMB_QUALITY = 75
VERSION, _UNCOUNTED = 1, 0

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""Of a job. Sidecars may have been written by anybody."""

_NOT_TO_BE_READ = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
)  # fmt: skip
"""What a manifest raises that somebody has spoilt."""

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
    """The gallery of one outbox.

    Attributes:
        files: Where it is.
    """

    def __init__(
        self,
        outbox: Path,
        require_mounted: Callable[[Path], None] = lambda root: None,
        max_pixels: int = photos.DEFAULT_MAX_PIXELS,
    ) -> None:
        """Keep the gallery in `outbox`, as long as `require_mounted` does not object."""
        self.files = GalleryFiles(outbox, require_mounted)
        self._outbox = outbox
        self._max_pixels = max_pixels
        self._contents: Contents | None = None
        self._written: tuple[int, int] | None = None  # by which our own page is known again

    def keep_pictures(self, job_id: str, before: Tensor, after: Tensor) -> None:
        """Keep small pictures of a photo and its painting.

        Args:
            job_id: Whose they are.
            before: 1x3xHxW, sRGB in [0, 1], or 1x4xHxW with opacity, which both have then.
            after: 1x3xHxW.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone.
        """
        opacity, after = before[:, 3:], _shrunk(after)
        if opacity.numel():
            opacity = F.interpolate(opacity, after.shape[-2:], mode="area")
            after = torch.cat([after[:, :3], opacity], dim=1)
        for which, image in (("before", before), ("after", after)):
            self._keep_picture(self.files.thumb(job_id, which), image)

    def add(self, pieces: Sequence[tuple[Path, Path | None]]) -> None:
        """Show results and rejected inputs.

        Args:
            pieces: For each the file with a sidecar beside it, and its original if there is
                one, `RECORDS_PER_PAGE` at most. What has no sidecar, or is shown already, is
                passed over.

        Raises:
            ResourceUnavailable: the outbox is full, read-only or gone, somebody else's file has
                the page's name, or another process is at the page.
        """
        with self.files.locked(wait=False):
            contents, self._contents = self._read(), None  # until all of it is written
            pages: dict[int, list[Record]] = {}
            for path, original in pieces:
                record = self.record(path, original)
                if record is not None and not contents.has(record["id"]):
                    contents.add(record)
                    pages[contents.pages] = contents.newest
            for number, records in pages.items():
                self.files.write_page(number, records)
            self._write(contents)

    def record(self, path: Path, original: Path | None) -> Record | None:
        """Return what the page shows of a result or a rejected input, None without a sidecar.

        Its small pictures are made of the files where they were not kept. A sidecar that can't
        be shown is somebody else's.
        """
        sidecar = _sidecar_of(path)
        if sidecar is None or not _ID.fullmatch(sidecar.job.id):
            return None  # files are named after it
        thumbs: dict[str, str | None] = {"before": None, "after": None}
        if sidecar.result is not None:
            sources = {"before": original, "after": path}
            for which, source in sources.items():
                thumb = self.files.thumb(sidecar.job.id, which)
                if self.files.has(thumb) or (source and self._make_picture(source, thumb)):
                    thumbs[which] = thumb.relative_to(self._outbox).as_posix()
        try:
            return record_of(sidecar, path, self._outbox, thumbs["before"], thumbs["after"])
        except (ValueError, OverflowError):  # a date before all others, say
            return None

    def rebuild(
        self,
        pieces: Iterator[tuple[Path, Path | None]],
        on_shown: Callable[[Sequence[str]], None] = lambda job_ids: None,
    ) -> Contents:
        """Make the page anew of all that there is, and forget what is not there any more.

        Args:
            pieces: As `add` takes them, in any order.
            on_shown: Is told the ids of the jobs that the page shows now.

        Returns:
            What is shown now.

        Raises:
            ResourceUnavailable: as `add`.
        """
        with self.files.locked(wait=True):
            begun = time.time()
            before = self._read()
            found = [record for path, original in pieces if (record := self.record(path, original))]
            found.sort(key=lambda record: (str(record["finished"]), str(record["id"])))
            contents = Contents()
            self.files.clear_new_pages()
            for record in found:
                contents.add(record)
                if len(contents.newest) == RECORDS_PER_PAGE or record is found[-1]:
                    self.files.write_page(contents.pages, contents.newest, "pages.new")
            # Whoever finds this version counts the data pages, which are the old or the new ones.
            self.files.write_html(render({**before.manifest(), "version": _UNCOUNTED}))
            self.files.replace_pages()
            self._write(contents)
            ids = {str(record["id"]) for record in found}
            self.files.forget_thumbs(ids, begun)
            on_shown(sorted(ids))
        return contents

    def _read(self) -> Contents:
        """Return what is shown: as remembered, or as the page has it.

        Raises:
            ResourceUnavailable: somebody else's file has the page's name.
        """
        if self._contents is not None and self.files.identity() == self._written:
            return self._contents
        contents = self._counted()
        # A data page that was written just before the process died is not counted yet.
        first = max(contents.pages, 1)
        counted = contents.newest
        for number in (first, first + 1):
            records = self.files.read_page(number)
            if records is None:
                break
            contents.pages, contents.newest = number, records
            for record in records:
                if all(record.get("id") != known.get("id") for known in counted):
                    contents.count(record)
        contents.previous = self.files.read_page(contents.pages - 1) or []
        return contents

    def _counted(self) -> Contents:
        """Return what the HTML counts; where that can't be known, count the data pages."""
        match = _MANIFEST.search(self.files.read_html() or b"")
        with suppress(*_NOT_TO_BE_READ):
            manifest = json.loads(match[1], parse_constant=_refuse) if match else {}
            if manifest["version"] == VERSION:
                styles = {str(name): int(count) for name, count in manifest["styles"].items()}
                newest: list[Record] = [dict(record) for record in manifest["newest"]]
                return Contents(int(manifest["pages"]), int(manifest["results"]),
                                int(manifest["rejected"]), styles, newest)  # fmt: skip
        contents = Contents()
        while (records := self.files.read_page(contents.pages + 1)) is not None:
            contents.pages += 1
            contents.newest = records
            for record in records:
                contents.count(record)
        return contents

    def _write(self, contents: Contents) -> None:
        self.files.write_html(render(contents.manifest()))
        self._contents, self._written = contents, self.files.identity()

    def _make_picture(self, source: Path, thumb: Path) -> bool:
        try:
            photo = photos.decode(photos.read_bytes(source), max_pixels=self._max_pixels)
            factor = min(1.0, THUMB_PX / max(photo.width, photo.height))
            size = max(1, round(photo.width * factor)), max(1, round(photo.height * factor))
            small = photo.tensor(*size)
        except (OSError, InputRejected, InputIncomplete, ResourceUnavailable):
            return False  # it was deleted, or replaced by something else
        except (MemoryError, RuntimeError):
            return False  # it is shown without
        self._keep_picture(thumb, small)
        return True

    def _keep_picture(self, thumb: Path, image: Tensor) -> None:
        self.files.write_thumb(thumb, photos.encode(_small(image), "webp", THUMB_QUALITY))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _sidecar_of(path: Path) -> Sidecar | None:
    data = read_regular(sidecar_of(path))
    try:
        return None if data is None else Sidecar.model_validate_json(data)
    except ValidationError:
        return None


def _shrunk(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    factor = min(1.0, THUMB_PX / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return image if factor == 1 else F.interpolate(image, size, mode="area")


def _small(image: Tensor) -> Tensor:
    """Return 1x3xhxw of 1x3xHxW or of 1x4xHxW, which is placed on white."""
    image = _shrunk(image)
    if image.shape[1] == 4:
        image = image[:, :3] * image[:, 3:] + (1 - image[:, 3:])
    return image


def pieces_below(outbox: Path, rejected: Path, archive: Path) -> Iterator[tuple[Path, Path | None]]:
    """Yield everything that a gallery may show, each result with its original if it is found."""
    for root in (outbox, rejected):
        for folder, folders, names in os.walk(root, onerror=_not_read):
            if Path(folder) == outbox:
                folders[:] = [name for name in folders if name != FILES]
            for name in sorted(names):
                path = Path(folder, name).with_suffix("")
                if name.endswith(".json") and path.is_file() and sidecar_of(path).is_file():
                    yield path, _original_of(path, outbox, archive) if root == outbox else None


def _original_of(result: Path, outbox: Path, archive: Path) -> Path | None:
    """Return the archived photo that a result was made of, by its name and its digest."""
    sidecar = _sidecar_of(result)
    if sidecar is None:
        return None
    original = archive / result.parent.relative_to(outbox) / Path(sidecar.input.path).name
    with suppress(OSError, ValueError):  # such as a name with a zero byte
        if original.is_file() and sha256_of(original) == sidecar.input.sha256:
            return original
    return None


def _not_read(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise ResourceUnavailable(
            f"the folder {error.filename} can't be read: {error.strerror}",
            "mend its permissions, or move it away",
        )

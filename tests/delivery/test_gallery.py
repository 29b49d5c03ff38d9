"""The gallery in the outbox: records and counts, crash recovery, and cost of an update."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest
import torch
from PIL import Image
from pydantic import JsonValue

from styled.atomic import atomic_write, make_folder
from styled.degradation import Degradation
from styled.delivery import gallery_files as gallery_module
from styled.delivery.gallery import RECORDS_PER_FILE, THUMB_PX, Gallery, gallery_entries
from styled.delivery.gallery_records import MAX_POINTS
from styled.delivery.names import sidecar_path
from styled.delivery.page import records_in
from styled.errors import NotMounted, ResourceUnavailable
from styled.files import readable
from styled.mounts import Mounts
from styled.sidecar import (
    FileInfo,
    InputInfo,
    JobInfo,
    LossInfo,
    LossTerms,
    Rejection,
    ResultInfo,
    SettingsInfo,
    Sidecar,
    StyleInfo,
    TimingInfo,
)

Entry = tuple[Path, Path | None]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Died(BaseException):
    """Simulates the death of the process; not an `Exception`, so no code under test catches it."""


class GalleryFolders:
    """An outbox, a folder of rejected inputs and an archive, with files in them."""

    def __init__(self, base: Path) -> None:
        self.outbox = base / "outbox"
        self.rejected = base / "rejected"
        self.archive = base / "archive"
        for folder in (self.outbox, self.rejected, self.archive):
            folder.mkdir()
        self.made = 0

    def gallery(self) -> Gallery:
        """Return a gallery without state in memory, as in a new process."""
        return Gallery(self.outbox)

    def result(
        self,
        name: str = "oil/photo.png",
        *,
        data: bytes | None = None,
        original: bytes | None = None,
        points: int = 3,
        **changes: object,
    ) -> Path:
        """Publish the sidecar of a result, and the result itself if `data` is given."""
        losses = LossTerms(total=1.0, content=0.25, style=0.5, tv=0.25)
        trace = tuple(
            (1 + n // 40, 1 + n % 40, 1.0 / (n + 1), 0.1, 0.2, 0.3) for n in range(points)
        )
        path = self.outbox / name
        sidecar = Sidecar(
            job=self._job(),
            input=InputInfo(
                path=Path(name).name,
                bytes=7,
                sha256=None if original is None else hashlib.sha256(original).hexdigest(),
            ),
            style=StyleInfo(name=readable(path.parent.name), images=()),
            recipe={"name": "pyramid"},
            result=ResultInfo(path=name, sha256="0" * 64, width=40, height=36, format="png"),
            losses=LossInfo(first=losses, last=losses, trace=trace),
            timing=TimingInfo(waited=1.0, prepare=1.0, optimise=2.0, publish=0.26),
        )
        return self._publish(path, sidecar.model_copy(update=changes), data)

    def reject(
        self,
        name: str = "oil/broken.jpg",
        reason: str = "it is no picture",
        remedies: tuple[str, ...] = (),
    ) -> Path:
        """Write a rejected input and its sidecar."""
        sidecar = Sidecar(
            job=self._job(),
            input=InputInfo(path=Path(name).name, bytes=7),
            rejected=Rejection(reason=reason, failure="input", remedies=remedies),
        )
        return self._publish(self.rejected / name, sidecar, b"broken")

    def entries(self) -> list[Entry]:
        """Return all entries that `styled gallery` finds."""
        return list(gallery_entries(self.outbox, self.rejected, self.archive))

    def _job(self) -> JobInfo:
        self.made += 1
        when = EPOCH + timedelta(seconds=self.made)
        return JobInfo(
            id=f"{self.made:012x}", attempts=1, resumed=False, submitted_at=when,
            started_at=when, finished_at=when,
        )  # fmt: skip

    def _publish(self, path: Path, sidecar: Sidecar, data: bytes | None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is not None:
            path.write_bytes(data)
        sidecar_path(path).write_bytes(sidecar.to_json())
        return path

    # What is shown

    def manifest(self) -> dict[str, Any]:
        """Return the manifest in the HTML."""
        html = (self.outbox / "gallery.html").read_text()
        (text,) = re.findall(r'<script id="manifest" type="application/json">(.*?)</script>', html)
        content: dict[str, Any] = json.loads(text)
        return content

    def record_files(self) -> list[list[dict[str, JsonValue]]]:
        """Return the records of all record files, oldest first."""
        paths = sorted((self.outbox / "gallery_files/records").glob("*.js"))
        assert [path.name for path in paths] == [f"{n + 1:06}.js" for n in range(len(paths))]
        return [records_in(path.read_bytes()) for path in paths]

    def shown(self) -> list[dict[str, Any]]:
        """Return all records, after checking that the HTML counts exactly these."""
        manifest, pages = self.manifest(), self.record_files()
        records: list[dict[str, Any]] = [record for page in pages for record in page]
        results = [record for record in records if record["kind"] == "result"]
        styles = {record["style"] for record in results}
        assert manifest["record_files"] == len(pages)
        assert manifest["newest"] == (pages[-1] if pages else [])
        assert manifest["results"] == len(results)
        assert manifest["rejected"] == len(records) - len(results)
        assert manifest["styles"] == {
            style: sum(record["style"] == style for record in results) for style in styles
        }
        assert len({record["id"] for record in records}) == len(records)
        return records

    def names(self) -> list[str]:
        """Return the names of all entries, oldest first."""
        return [str(record["name"]) for record in self.shown()]

    def file_at(self, url: str) -> bytes:
        """Return the path that a browser opens when it follows a link on the page."""
        parts = urlsplit(urljoin((self.outbox / "gallery.html").as_uri(), url))
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("file", "", "", "")
        return unquote_to_bytes(parts.path)


@pytest.fixture
def folders(tmp_path: Path) -> GalleryFolders:
    """Return empty folders."""
    return GalleryFolders(tmp_path)


def without_originals(paths: Sequence[Path]) -> list[Entry]:
    """Return results without their originals."""
    return [(path, None) for path in paths]


def picture(colour: str = "teal", size: tuple[int, int] = (40, 36)) -> bytes:
    """Return a PNG file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "png")
    return file.getvalue()


def failing(
    monkeypatch: pytest.MonkeyPatch, suffix: str, error: BaseException, times: int = 1
) -> None:
    """Let the next `times` writes to files with this suffix fail."""
    remaining = [times]

    def write(path: Path, data: bytes) -> None:
        if path.name.endswith(suffix) and remaining[0]:
            remaining[0] -= 1
            raise error
        atomic_write(path, data)

    monkeypatch.setattr(gallery_module, "atomic_write", write)


# Adding entries


def test_a_rejected_input_hangs_with_its_remedies(folders: GalleryFolders) -> None:
    """They follow the reason: users who drop photos may see only the gallery."""
    folders.gallery().add(
        without_originals([folders.reject(remedies=("copy it again", "or another"))])
    )
    (record,) = folders.shown()
    assert record["reason"] == "it is no picture - copy it again - or another"


def test_what_is_degraded_hangs_in_words(folders: GalleryFolders) -> None:
    """The page shows the messages of degradations, not their kinds."""
    degraded = Degradation("device", "no GPU was found"), Degradation("memory", "painted smaller")
    folders.gallery().add(without_originals([folders.result(degraded=degraded)]))
    (record,) = folders.shown()
    assert record["degraded"] == ["no GPU was found", "painted smaller"]


def test_what_a_photographer_has_chosen_is_shown(folders: GalleryFolders) -> None:
    """Strength, mask and settings of the photo's own."""
    info = InputInfo(
        path="photo.png", bytes=7, mask=FileInfo(path="photo.png.mask.png", sha256="0" * 64),
        settings=SettingsInfo(path="photo.png.yaml", sha256="0" * 64, values={"strength": 72.5}),
    )  # fmt: skip
    path = folders.result(input=info, recipe={"name": "pyramid", "strength": 72.5})
    folders.gallery().add(without_originals([path]))
    (record,) = folders.shown()
    assert record["steering"] == ["strength 72.5", "masked", "settings of its own"]


def test_results_and_rejected_inputs_hang(folders: GalleryFolders) -> None:
    """Each has a record with the data for the page, and each kind is counted."""
    result, broken = folders.result("oil/trip/photo.png"), folders.reject()
    folders.gallery().add(without_originals([result, broken]))
    first, second = folders.shown()
    assert first == {
        "id": "000000000001", "kind": "result", "name": "photo.png", "style": "trip",
        "finished": "2026-01-01T00:00:01Z", "recipe": "pyramid", "seconds": 3.3,
        "steering": [],
        "width": 40, "height": 36, "result": "oil/trip/photo.png",
        "sidecar": "oil/trip/photo.png.json", "before": None, "after": None,
        "curve": [[1, 1.0], [2, 0.5], [3, 1 / 3]], "scales": [1], "degraded": [],
        "device": "", "weights": "",
    }  # fmt: skip
    assert second == {
        "id": "000000000002", "kind": "rejected", "name": "broken.jpg", "style": "",
        "finished": "2026-01-01T00:00:02Z", "reason": "it is no picture", "failure": "input",
        "file": "../rejected/oil/broken.jpg",
    }  # fmt: skip


def test_a_hundred_records_close_a_page(folders: GalleryFolders) -> None:
    """The next record starts another page, and the full one is never written again."""
    paths = [folders.result(f"oil/{n:03}.png") for n in range(RECORDS_PER_FILE + 1)]
    gallery = folders.gallery()
    gallery.add(without_originals(paths[:-1]))
    assert [len(page) for page in folders.record_files()] == [RECORDS_PER_FILE]
    closed = folders.outbox / "gallery_files/records/000001.js"
    before = closed.stat()
    gallery.add(without_originals(paths[-1:]))
    assert [len(page) for page in folders.record_files()] == [RECORDS_PER_FILE, 1]
    assert (closed.stat().st_ino, closed.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert folders.names() == [path.name for path in paths]


def test_pieces_at_once_may_fill_one_page_and_begin_the_next(folders: GalleryFolders) -> None:
    """The result is the same as with single additions."""
    paths = [folders.result(f"oil/{n:03}.png") for n in range(120)]
    gallery = folders.gallery()
    gallery.add(without_originals(paths[:90]))
    gallery.add(without_originals(paths[90:]))
    assert [len(page) for page in folders.record_files()] == [100, 20]
    assert folders.names() == [path.name for path in paths]


def test_every_style_is_counted(folders: GalleryFolders) -> None:
    """This holds for several styles, also if another process continues counting."""
    paths = [
        folders.result(f"{style}/{n}.png") for n in range(3) for style in ("oil", "ink", "a b")
    ]
    folders.gallery().add(without_originals(paths[:4]))
    folders.gallery().add(without_originals(paths[4:]))
    folders.shown()
    assert folders.manifest()["styles"] == {"oil": 3, "ink": 3, "a b": 3}


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize("existing", [0, 95])
def test_nothing_hangs_twice(folders: GalleryFolders, same_process: bool, existing: int) -> None:
    """Adding an entry again has no effect, also in a new process and across a page boundary."""
    gallery = folders.gallery()
    before = [folders.result(f"oil/{n:03}.png") for n in range(existing)]
    gallery.add(without_originals(before))
    paths = [folders.result(f"ink/{n:03}.png") for n in range(10)]
    gallery.add(without_originals(paths))
    again = gallery if same_process else folders.gallery()
    again.add(without_originals([*paths, paths[0]]))
    assert folders.names() == [path.name for path in (*before, *paths)]


def test_what_has_no_sidecar_is_passed_over(folders: GalleryFolders) -> None:
    """Files with an invalid sidecar are skipped, and so are job ids that look like a path."""
    lone, foreign = folders.outbox / "lone.png", folders.outbox / "foreign.png"
    lone.write_bytes(picture())
    foreign.write_bytes(picture())
    sidecar_path(foreign).write_text('{"job": "mine"}')
    job = JobInfo(
        id="../../../out", attempts=1, resumed=False, submitted_at=EPOCH, started_at=EPOCH,
        finished_at=EPOCH,
    )  # fmt: skip
    hostile = folders.result("oil/hostile.png", data=picture(), job=job)
    fine = folders.result("oil/fine.png")
    folders.gallery().add(
        without_originals([lone, foreign, hostile, folders.outbox / "gone.png", fine])
    )
    assert folders.names() == ["fine.png"]
    assert not list(folders.outbox.parent.glob("out*.webp"))


def test_numbers_that_are_none_are_left_out(folders: GalleryFolders) -> None:
    """Sidecars of other programs may hold NaN, which the page can't represent."""
    path = folders.result(
        timing=TimingInfo(waited=0.0, prepare=float("nan"), optimise=float("inf"), publish=0.0)
    )
    text = sidecar_path(path).read_text()
    for key, number in (("prepare", "NaN"), ("optimise", "Infinity")):
        assert f'"{key}": null' in text
        text = text.replace(f'"{key}": null', f'"{key}": {number}')
    sidecar_path(path).write_text(text)
    folders.gallery().add(without_originals([path]))
    assert [record["seconds"] for record in folders.shown()] == [0.0]


def test_a_long_curve_is_thinned(folders: GalleryFolders) -> None:
    """Its first and last points stay, and so does the first step of every scale."""
    folders.gallery().add(without_originals([folders.result(points=100)]))
    (record,) = folders.shown()
    assert len(record["curve"]) == MAX_POINTS
    assert record["curve"][0] == [1, 1.0]
    assert record["curve"][-1] == [100, 0.01]
    assert record["scales"] == [1, 41, 81]


# Crashes


@pytest.mark.parametrize("died", [True, False], ids=["dead", "failed"])
@pytest.mark.parametrize("existing", [0, 50, 95, 100])
@pytest.mark.parametrize("suffix", [".js", ".html"])
def test_a_hanging_that_is_broken_off_loses_and_doubles_nothing(
    folders: GalleryFolders, monkeypatch: pytest.MonkeyPatch, died: bool, existing: int, suffix: str
) -> None:
    """This holds before and after the record file is written, and across a page boundary."""
    gallery = folders.gallery()
    gallery.rebuild(iter(()))
    before = [folders.result(f"oil/{n:03}.png") for n in range(existing)]
    gallery.add(without_originals(before))
    paths = [folders.result(f"ink/{n:03}.png") for n in range(10)]
    error: BaseException = Died() if died else ResourceUnavailable("the disk is full")
    failing(monkeypatch, suffix, error)
    with pytest.raises(type(error)):
        gallery.add(without_originals(paths))
    (folders.gallery() if died else gallery).add(without_originals(paths))
    assert folders.names() == [path.name for path in (*before, *paths)]


def test_the_very_first_hanging_may_be_broken_off(
    folders: GalleryFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is a record file but no HTML."""
    paths = [folders.result(f"oil/{n}.png") for n in range(3)]
    failing(monkeypatch, ".html", Died())
    with pytest.raises(Died):
        folders.gallery().add(without_originals(paths))
    folders.gallery().add(without_originals(paths))
    assert folders.names() == [path.name for path in paths]


def test_a_page_that_is_lost_is_counted_from_the_data_pages(folders: GalleryFolders) -> None:
    """Only the HTML is rebuilt, in the process that wrote it and in others."""
    paths = [folders.result(f"oil/{n:03}.png") for n in range(150)]
    gallery = folders.gallery()
    gallery.add(without_originals(paths[:100]))
    gallery.add(without_originals(paths[100:148]))
    for number, shown_in in ((148, gallery), (149, folders.gallery())):
        (folders.outbox / "gallery.html").unlink()
        shown_in.add(without_originals([paths[number]]))
    assert folders.names() == [path.name for path in paths]


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", "null", "{}", '{"version":2}', '{"version":1}', "[" * 100_000,
     '{"version":1,"record_files":1,"results":1,"rejected":0,"styles":[],"newest":[]}',
     '{"version":1,"record_files":Infinity,"results":1,"rejected":0,"styles":{},"newest":[]}',
     '{"version":1,"record_files":1,"results":1,"rejected":0,"styles":{},"newest":[7]}'],
    ids=range(11),
)  # fmt: skip
def test_a_spoilt_page_is_counted_from_the_data_pages(
    folders: GalleryFolders, manifest: str
) -> None:
    """This holds for any damage of the manifest, as long as the page was made by styled."""
    paths = [folders.result(f"oil/{n}.png") for n in range(3)]
    folders.gallery().add(without_originals(paths[:2]))
    page = folders.outbox / "gallery.html"
    text = re.sub(
        r'(<script id="manifest" type="application/json">).*?(</script>)',
        lambda match: match[1] + manifest + match[2],
        page.read_text(),
    )
    page.write_text(text)
    folders.gallery().add(without_originals(paths[2:]))
    assert folders.names() == [path.name for path in paths]


# Files of other programs, and missing disks


def test_the_page_of_somebody_else_is_left_alone(folders: GalleryFolders) -> None:
    """The error names it and says what to do; once it is moved away, entries are added."""
    page = folders.outbox / "gallery.html"
    page.write_text("<h1>My wedding</h1>")
    path, gallery = folders.result(), folders.gallery()
    for attempt in (
        lambda: gallery.add(without_originals([path])),
        lambda: gallery.rebuild(iter(())),
    ):
        with pytest.raises(ResourceUnavailable, match=re.escape(str(page))) as caught:
            attempt()
        assert "`output.gallery`" in caught.value.remedies[0]
    assert page.read_text() == "<h1>My wedding</h1>"
    page.unlink()
    gallery.add(without_originals([path]))
    assert folders.names() == ["photo.png"]


def test_a_page_that_is_replaced_while_it_is_in_memory_is_left_alone(
    folders: GalleryFolders,
) -> None:
    """The page is read again whenever it is not the file that was written last."""
    gallery = folders.gallery()
    gallery.add(without_originals([folders.result("oil/a.png")]))
    page = folders.outbox / "gallery.html"
    page.unlink()
    page.mkdir()
    with pytest.raises(ResourceUnavailable, match="was not made by styled"):
        gallery.add(without_originals([folders.result("oil/b.png")]))


def test_a_file_in_place_of_the_folder_is_reported(folders: GalleryFolders) -> None:
    """It is not replaced, neither by records nor by thumbnails."""
    (folders.outbox / "gallery_files").write_text("mine")
    with pytest.raises(ResourceUnavailable, match="gallery_files"):
        folders.gallery().add(without_originals([folders.result()]))
    with pytest.raises(ResourceUnavailable, match="gallery_files"):
        folders.gallery().write_thumbs("a", torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    assert (folders.outbox / "gallery_files").read_text() == "mine"


def test_nothing_is_written_where_the_disk_is_not_mounted(folders: GalleryFolders) -> None:
    """The mount point of an outbox that is not mounted stays empty."""

    class Refusing(Mounts):
        def require_mounted(self, folder: Path) -> None:
            raise NotMounted(f"{folder} was on a disk")

    path, pixels = folders.result(), torch.zeros(1, 3, 8, 8)
    gallery = Gallery(folders.outbox, Refusing(folders.outbox.with_name("mounts.json")))
    attempts: list[Callable[[], object]] = [
        lambda: gallery.add(without_originals([path])),
        lambda: gallery.rebuild(iter(())),
        lambda: gallery.write_thumbs("a", pixels, pixels),
    ]
    for attempt in attempts:
        with pytest.raises(NotMounted):
            attempt()
    assert sorted(entry.name for entry in folders.outbox.iterdir()) == ["oil"]


@pytest.mark.parametrize("suffix", [".webp", ".js", ".html"])
def test_a_full_disk_is_reported_and_waited_out(
    folders: GalleryFolders, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Whichever file can't be written: the same gallery adds everything once there is space."""
    gallery = folders.gallery()
    entries = [(folders.result(f"oil/{n}.png", data=picture()), None) for n in range(2)]
    gallery.add(entries[:1])
    failing(monkeypatch, suffix, ResourceUnavailable("no space left on device"))
    with pytest.raises(ResourceUnavailable, match="no space left"):
        gallery.add(entries)
    gallery.add(entries)
    assert folders.names() == ["0.png", "1.png"]
    assert all(record["after"] for record in folders.shown())


def test_a_real_refusal_is_a_matter_of_resources(
    folders: GalleryFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of the operating system are raised as `ResourceUnavailable`."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ResourceUnavailable, match="No space left"):
        folders.gallery().add(without_originals([folders.result()]))


def test_nobody_waits_for_a_page_that_is_rebuilt(folders: GalleryFolders) -> None:
    """A rebuild may take hours, so `add` raises instead of waiting for its lock."""
    path, gallery = folders.result(), folders.gallery()
    make_folder(folders.outbox / "gallery_files")
    with open(folders.outbox / "gallery_files/.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ResourceUnavailable, match="another process"):
            gallery.add(without_originals([path]))
    gallery.add(without_originals([path]))
    assert folders.names() == ["photo.png"]


# Names

HOSTILE = [
    os.fsdecode(b"caf\xe9.png"), "new\nline.png", "a#b?c%d&e=f g.png", "javascript:alert(1).png",
    "</script><!--.png", "%2e%2e.png", "ünïcödé \U0001f5bc.png", "back\\slash.png", "'\"`.png",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_addresses_lead_to_the_very_files(folders: GalleryFolders, name: str) -> None:
    """This holds for names of any bytes, in the outbox and outside of it."""
    folder = name.removesuffix(".png")
    result = folders.result(f"{folder}/{name}", data=picture(), original=b"gone")
    broken = folders.reject(f"{folder}/{name}")
    folders.gallery().add(without_originals([result, broken]))
    shown, rejected = folders.shown()
    for url, path in (
        (shown["result"], result),
        (shown["sidecar"], sidecar_path(result)),
        (rejected["file"], broken),
    ):
        assert url.isascii()
        assert os.path.samefile(folders.file_at(url), path)


def test_a_result_beside_the_page_is_no_scheme(folders: GalleryFolders) -> None:
    """A colon in the first part of a relative URL is not taken for a scheme."""
    path = folders.result("javascript:alert(1)", data=picture())
    folders.gallery().add(without_originals([path]))
    assert os.path.samefile(folders.file_at(folders.shown()[0]["result"]), path)


# Thumbnails


def thumb(folders: GalleryFolders, record: dict[str, Any], which: str) -> Image.Image:
    """Return a decoded thumbnail."""
    assert record[which].startswith("gallery_files/thumbs/")
    with Image.open(folders.outbox / record[which]) as image:
        assert image.format == "WEBP"
        return image.convert("RGB")


def is_near(image: Image.Image, at: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    """Return whether a pixel has about this colour, after lossy compression."""
    found = image.getpixel(at)
    assert isinstance(found, tuple)
    return all(abs(a - b) <= 12 for a, b in zip(found, colour, strict=True))


def test_pictures_are_kept_of_tensors(folders: GalleryFolders) -> None:
    """They are small, keep their aspect ratio, and are shown without reading any photo."""
    gallery, path = folders.gallery(), folders.result()
    before = torch.zeros(1, 3, 600, 960)
    before[:, 0] = 1.0
    gallery.write_thumbs("000000000001", before, torch.zeros(1, 3, 30, 20))
    gallery.add(without_originals([path]))
    (record,) = folders.shown()
    photo, painting = thumb(folders, record, "before"), thumb(folders, record, "after")
    assert (photo.size, painting.size) == ((THUMB_PX, 300), (20, 30))  # nothing is enlarged
    assert is_near(photo, (240, 150), (255, 0, 0))
    assert is_near(painting, (10, 15), (0, 0, 0))


def test_transparent_tensors_are_placed_on_white(folders: GalleryFolders) -> None:
    """This applies to the photo and the painting."""
    gallery, path = folders.gallery(), folders.result()
    image = torch.zeros(1, 4, 64, 64)
    image[:, 3, :, 32:] = 1.0
    gallery.write_thumbs("000000000001", image, image)
    gallery.add(without_originals([path]))
    (record,) = folders.shown()
    for which in ("before", "after"):
        shown = thumb(folders, record, which)
        assert is_near(shown, (8, 32), (255, 255, 255))
        assert is_near(shown, (56, 32), (0, 0, 0))


def test_pictures_are_made_of_files_that_have_none(folders: GalleryFolders) -> None:
    """They are made of the original and the result, transparent ones on white."""
    original = folders.archive / "photo.png"
    original.write_bytes(picture("red", (1000, 500)))
    half = Image.new("RGBA", (50, 80), "#00ff0000")
    half.paste("blue", (25, 0, 50, 80))
    result = folders.result(data=b"")
    half.save(result)
    folders.gallery().add([(result, original)])
    (record,) = folders.shown()
    photo, painting = thumb(folders, record, "before"), thumb(folders, record, "after")
    assert (photo.size, painting.size) == ((THUMB_PX, 240), (50, 80))
    assert is_near(photo, (9, 9), (255, 0, 0))
    assert is_near(painting, (9, 40), (255, 255, 255))
    assert is_near(painting, (41, 40), (0, 0, 255))


@pytest.mark.parametrize(
    "content", [None, b"", b"no picture", picture()[:60], picture("red", (9, 9))]
)
def test_without_an_original_there_is_no_picture_of_it(
    folders: GalleryFolders, content: bytes | None
) -> None:
    """It may be gone or be another file by now; the result is still shown."""
    original = folders.archive / "photo.png"
    if content is not None:
        original.write_bytes(content)
    folders.gallery().add([(folders.result(data=picture()), original)])
    (record,) = folders.shown()
    assert record["before"] is None
    assert record["after"] is not None


def test_a_pipe_in_place_of_an_original_keeps_nobody_waiting(folders: GalleryFolders) -> None:
    """Pipes are not opened."""
    pipe = folders.archive / "photo.png"
    os.mkfifo(pipe)
    folders.gallery().add([(folders.result(), pipe)])
    assert folders.shown()[0]["before"] is None


# Rebuilding


def test_it_is_the_same_rebuilt_as_one_by_one(folders: GalleryFolders) -> None:
    """All files are equal byte for byte, except for the time of the update."""
    gallery = folders.gallery()
    for n in range(130):
        if n % 10 == 7:
            folders.reject(f"oil/{n:03}.jpg")
        else:
            folders.result(f"{'ink' if n % 3 else 'oil'}/{n:03}.png")
    for path in (folders.outbox / "oil/000.png", folders.outbox / "ink/128.png"):
        path.write_bytes(picture())
    entries = sorted(
        [(path.with_suffix(""), None) for path in (*folders.outbox.rglob("*.json"),
                                                   *folders.rejected.rglob("*.json"))],
        key=lambda entry: entry[0].name,
    )  # fmt: skip
    for first in range(0, 130, 13):
        gallery.add(entries[first : first + 13])
    before, files = folders.manifest(), contents_of(folders.outbox / "gallery_files")
    folders.gallery().rebuild(iter(reversed(entries)))
    after = folders.manifest()
    assert {**before, "updated": ""} == {**after, "updated": ""}
    assert contents_of(folders.outbox / "gallery_files") == files
    assert len(folders.shown()) == 130


def contents_of(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_rebuild_forgets_what_is_gone(folders: GalleryFolders) -> None:
    """Deleted results are dropped, with their thumbnails and the pages that are not needed."""
    paths = [folders.result(f"oil/{n:03}.png", data=b"painting") for n in range(101)]
    for path in (paths[0], paths[100]):
        path.write_bytes(picture())
    gallery = folders.gallery()
    gallery.add(without_originals(paths))
    assert len(folders.record_files()) == 2
    assert len(list(folders.outbox.glob("gallery_files/thumbs/*/*.webp"))) == 2
    note = folders.outbox / "gallery_files/thumbs/note.txt"
    note.write_text("mine")
    paths[100].unlink()
    for path in paths[1:90]:
        path.unlink()
        sidecar_path(path).unlink()
    contents = gallery.rebuild(iter(folders.entries()))
    assert (contents.results, contents.rejected) == (11, 0)
    assert folders.names() == [path.name for path in (paths[0], *paths[90:100])]
    assert [path.name for path in folders.outbox.glob("gallery_files/thumbs/*/*.webp")] == [
        "000000000001-after.webp"
    ]
    assert note.read_text() == "mine"


def test_a_rebuild_of_nothing_is_empty(folders: GalleryFolders) -> None:
    """There is still a page, without entries."""
    folders.gallery().add(without_originals([folders.result()]))
    sidecar_path(folders.outbox / "oil/photo.png").unlink()
    contents = folders.gallery().rebuild(iter(folders.entries()))
    assert (contents.results, contents.rejected) == (0, 0)
    assert folders.shown() == []
    assert not list(folders.outbox.glob("gallery_files/records/*.js"))


def test_an_original_is_known_by_its_bytes(folders: GalleryFolders) -> None:
    """Another photo of the same name in the archive is not the one that was painted."""
    (folders.archive / "oil/trip").mkdir(parents=True)
    mine, other = picture("red"), picture("blue")
    for name, content in (("mine.png", mine), ("other.png", other)):
        folders.result(f"oil/trip/{name}", data=picture(), original=mine)
        (folders.archive / "oil/trip" / name).write_bytes(content)
    folders.result("oil/trip/gone.png", data=picture(), original=mine)
    assert {path.name: original for path, original in folders.entries()} == {
        "mine.png": folders.archive / "oil/trip/mine.png", "other.png": None, "gone.png": None,
    }  # fmt: skip
    folders.gallery().rebuild(iter(folders.entries()))
    found = {record["name"]: record["before"] is not None for record in folders.shown()}
    assert found == {"mine.png": True, "other.png": False, "gone.png": False}


def test_files_of_others_are_passed_over(folders: GalleryFolders) -> None:
    """Skipped are JSON files without a picture, of other content, in our folder, and pipes."""
    folders.result("oil/photo.png", data=picture())
    broken = folders.reject()
    for name, text in (
        ("package.json", "{}"), (".json", "{}"), ("oil/list.json", "[1]"), ("oil/list", "text"),
        ("oil/deep.png.json", "[" * 100_000), ("oil/deep.png", "x"), ("oil/cut.png", "x"),
        ("oil/cut.png.json", '{"schema": 1, "job"'), ("gallery_files/x.png", "x"),
    ):  # fmt: skip
        path = folders.outbox / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    ours = sidecar_path(folders.outbox / "oil/photo.png").read_bytes()
    (folders.outbox / "gallery_files/x.png.json").write_bytes(ours)
    (folders.outbox / "oil/pipe.png").write_bytes(picture())
    os.mkfifo(folders.outbox / "oil/pipe.png.json")
    contents = folders.gallery().rebuild(iter(folders.entries()))
    assert (contents.results, contents.rejected) == (1, 1)
    assert folders.file_at(folders.shown()[1]["file"]).endswith(os.fsencode(broken.name))


def test_the_daemon_goes_on_with_a_page_that_was_rebuilt(folders: GalleryFolders) -> None:
    """It reads the rebuilt page again instead of using its contents in memory."""
    daemon = folders.gallery()
    first = folders.result("oil/first.png", data=picture())
    second = folders.result("oil/second.png", data=picture())
    daemon.add(without_originals([first, second]))
    first.unlink()
    folders.gallery().rebuild(iter(folders.entries()))
    third = folders.result("oil/third.png", data=picture())
    daemon.add(without_originals([third]))
    assert folders.names() == ["second.png", "third.png"]
    fourth = folders.result("oil/fourth.png", data=picture())
    daemon.add(without_originals([fourth]))
    assert folders.names() == ["second.png", "third.png", "fourth.png"]


# Cost


def test_the_five_thousandth_piece_costs_no_more_than_the_two_hundredth(
    folders: GalleryFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With long names and curves, as many bytes are written, and the page stays small."""
    spent: list[int] = []

    def write(path: Path, data: bytes) -> None:
        atomic_write(path, data)
        assert path.stat().st_size == len(data)
        spent.append(len(data))

    def entry(n: int) -> Entry:
        return folders.result(f"oil/{n:04}{'ü' * 116}.png", points=MAX_POINTS), None

    def cost_of(one: Entry) -> int:
        spent.clear()
        gallery.add([one])
        assert len(spent) == 2  # the record file and the HTML
        return sum(spent)

    monkeypatch.setattr(gallery_module, "atomic_write", write)
    gallery = folders.gallery()
    entries = [entry(n) for n in range(199)]
    gallery.rebuild(iter(entries))
    entries.append(entry(199))
    early = cost_of(entries[-1])
    entries += [entry(n) for n in range(200, 4999)]
    gallery.rebuild(iter(entries))
    late = cost_of(entry(4999))
    assert late <= early + 100  # a few digits more, in counts and curves
    assert (folders.outbox / "gallery.html").stat().st_size < 1_000_000
    assert len(folders.shown()) == 5000

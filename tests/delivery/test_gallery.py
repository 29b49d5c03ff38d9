"""The gallery in the outbox: what it counts, what a crash leaves of it, and what it costs."""

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
from styled.delivery.gallery import RECORDS_PER_PAGE, THUMB_PX, Gallery, pieces_below
from styled.delivery.names import sidecar_of
from styled.delivery.page import records_in
from styled.delivery.records import MOST_POINTS
from styled.errors import NotMounted, ResourceUnavailable
from styled.files import readable
from styled.sidecar import (
    InputFacts,
    JobFacts,
    Losses,
    LossFacts,
    Rejection,
    ResultFacts,
    Sidecar,
    StyleFacts,
    TimingFacts,
)

Piece = tuple[Path, Path | None]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Died(BaseException):
    """The process dies here; nothing catches it, as nothing catches SIGKILL."""


class Rooms:
    """An outbox, a folder of rejected inputs and an archive, and pieces in them."""

    def __init__(self, base: Path) -> None:
        self.outbox = base / "outbox"
        self.rejected = base / "rejected"
        self.archive = base / "archive"
        for folder in (self.outbox, self.rejected, self.archive):
            folder.mkdir()
        self.made = 0

    def gallery(self) -> Gallery:
        """Return the gallery as a process finds it that has just been started."""
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
        """Publish a result of which nothing but the sidecar is real, unless `data` is given."""
        losses = Losses(total=1.0, content=0.25, style=0.5, tv=0.25)
        trace = tuple(
            (1 + n // 40, 1 + n % 40, 1.0 / (n + 1), 0.1, 0.2, 0.3) for n in range(points)
        )
        path = self.outbox / name
        facts = Sidecar(
            job=self._job(),
            input=InputFacts(
                path=Path(name).name,
                bytes=7,
                sha256=None if original is None else hashlib.sha256(original).hexdigest(),
            ),
            style=StyleFacts(name=readable(path.parent.name), images=()),
            recipe={"name": "pyramid"},
            result=ResultFacts(path=name, sha256="0" * 64, width=40, height=36, format="png"),
            losses=LossFacts(first=losses, last=losses, trace=trace),
            timing=TimingFacts(waited=1.0, prepare=1.0, optimise=2.0, publish=0.26),
        )
        return self._publish(path, facts.model_copy(update=changes), data)

    def reject(
        self,
        name: str = "oil/broken.jpg",
        reason: str = "it is no picture",
        remedies: tuple[str, ...] = (),
    ) -> Path:
        """Put a rejected input where it belongs."""
        facts = Sidecar(
            job=self._job(),
            input=InputFacts(path=Path(name).name, bytes=7),
            rejected=Rejection(reason=reason, failure="input", remedies=remedies),
        )
        return self._publish(self.rejected / name, facts, b"broken")

    def pieces(self) -> list[Piece]:
        """Return all that `styled gallery` finds."""
        return list(pieces_below(self.outbox, self.rejected, self.archive))

    def _job(self) -> JobFacts:
        self.made += 1
        when = EPOCH + timedelta(seconds=self.made)
        return JobFacts(
            id=f"{self.made:012x}", attempts=1, resumed=False, submitted_at=when,
            started_at=when, finished_at=when,
        )  # fmt: skip

    def _publish(self, path: Path, facts: Sidecar, data: bytes | None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is not None:
            path.write_bytes(data)
        sidecar_of(path).write_bytes(facts.to_json())
        return path

    # What is shown

    def manifest(self) -> dict[str, Any]:
        """Return what the HTML holds."""
        html = (self.outbox / "gallery.html").read_text()
        (text,) = re.findall(r'<script id="manifest" type="application/json">(.*?)</script>', html)
        content: dict[str, Any] = json.loads(text)
        return content

    def pages(self) -> list[list[dict[str, JsonValue]]]:
        """Return the records of all data pages, the oldest first."""
        paths = sorted((self.outbox / "gallery_files/pages").glob("*.js"))
        assert [path.name for path in paths] == [f"{n + 1:06}.js" for n in range(len(paths))]
        return [records_in(path.read_bytes()) for path in paths]

    def shown(self) -> list[dict[str, Any]]:
        """Return all records, once it is known that the HTML counts just these."""
        manifest, pages = self.manifest(), self.pages()
        records: list[dict[str, Any]] = [record for page in pages for record in page]
        results = [record for record in records if record["kind"] == "result"]
        styles = {record["style"] for record in results}
        assert manifest["pages"] == len(pages)
        assert manifest["newest"] == (pages[-1] if pages else [])
        assert manifest["results"] == len(results)
        assert manifest["rejected"] == len(records) - len(results)
        assert manifest["styles"] == {
            style: sum(record["style"] == style for record in results) for style in styles
        }
        assert len({record["id"] for record in records}) == len(records)
        return records

    def names(self) -> list[str]:
        """Return the names of what is shown, the oldest first."""
        return [str(record["name"]) for record in self.shown()]

    def found_at(self, url: str) -> bytes:
        """Return the file that a browser opens which shows the page and follows a link on it."""
        parts = urlsplit(urljoin((self.outbox / "gallery.html").as_uri(), url))
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("file", "", "", "")
        return unquote_to_bytes(parts.path)


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    """Return empty folders."""
    return Rooms(tmp_path)


def alone(paths: Sequence[Path]) -> list[Piece]:
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
    """Have the next writes to files with this suffix fail."""
    left = [times]

    def write(path: Path, data: bytes) -> None:
        if path.name.endswith(suffix) and left[0]:
            left[0] -= 1
            raise error
        atomic_write(path, data)

    monkeypatch.setattr(gallery_module, "atomic_write", write)


# Hanging


def test_a_rejected_input_hangs_with_its_remedies(rooms: Rooms) -> None:
    """Behind the reason: whoever drops photos may see nothing but the gallery."""
    rooms.gallery().add(alone([rooms.reject(remedies=("copy it again", "or another"))]))
    (record,) = rooms.shown()
    assert record["reason"] == "it is no picture - copy it again - or another"


def test_what_is_degraded_hangs_in_words(rooms: Rooms) -> None:
    """The page is for people: it shows messages, and no kinds."""
    degraded = Degradation("device", "no GPU was found"), Degradation("memory", "painted smaller")
    rooms.gallery().add(alone([rooms.result(degraded=degraded)]))
    (record,) = rooms.shown()
    assert record["degraded"] == ["no GPU was found", "painted smaller"]


def test_results_and_rejected_inputs_hang(rooms: Rooms) -> None:
    """Each has its record with what the page shows of it, and each kind is counted."""
    result, broken = rooms.result("oil/trip/photo.png"), rooms.reject()
    rooms.gallery().add(alone([result, broken]))
    first, second = rooms.shown()
    assert first == {
        "id": "000000000001", "kind": "result", "name": "photo.png", "style": "trip",
        "finished": "2026-01-01T00:00:01Z", "recipe": "pyramid", "seconds": 3.3,
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


def test_a_hundred_records_close_a_page(rooms: Rooms) -> None:
    """The next one begins another page, and the closed one is never written again."""
    paths = [rooms.result(f"oil/{n:03}.png") for n in range(RECORDS_PER_PAGE + 1)]
    gallery = rooms.gallery()
    gallery.add(alone(paths[:-1]))
    assert [len(page) for page in rooms.pages()] == [RECORDS_PER_PAGE]
    closed = rooms.outbox / "gallery_files/pages/000001.js"
    before = closed.stat()
    gallery.add(alone(paths[-1:]))
    assert [len(page) for page in rooms.pages()] == [RECORDS_PER_PAGE, 1]
    assert (closed.stat().st_ino, closed.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert rooms.names() == [path.name for path in paths]


def test_pieces_at_once_may_fill_one_page_and_begin_the_next(rooms: Rooms) -> None:
    """It comes to the same as one by one."""
    paths = [rooms.result(f"oil/{n:03}.png") for n in range(120)]
    gallery = rooms.gallery()
    gallery.add(alone(paths[:90]))
    gallery.add(alone(paths[90:]))
    assert [len(page) for page in rooms.pages()] == [100, 20]
    assert rooms.names() == [path.name for path in paths]


def test_every_style_is_counted(rooms: Rooms) -> None:
    """However many there are, and whoever counts on."""
    paths = [rooms.result(f"{style}/{n}.png") for n in range(3) for style in ("oil", "ink", "a b")]
    rooms.gallery().add(alone(paths[:4]))
    rooms.gallery().add(alone(paths[4:]))
    rooms.shown()
    assert rooms.manifest()["styles"] == {"oil": 3, "ink": 3, "a b": 3}


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize("already", [0, 95])
def test_nothing_hangs_twice(rooms: Rooms, same_process: bool, already: int) -> None:
    """Nor where it was not remembered that it hangs, at the turn of a page."""
    gallery = rooms.gallery()
    before = [rooms.result(f"oil/{n:03}.png") for n in range(already)]
    gallery.add(alone(before))
    paths = [rooms.result(f"ink/{n:03}.png") for n in range(10)]
    gallery.add(alone(paths))
    again = gallery if same_process else rooms.gallery()
    again.add(alone([*paths, paths[0]]))
    assert rooms.names() == [path.name for path in (*before, *paths)]


def test_what_has_no_sidecar_is_passed_over(rooms: Rooms) -> None:
    """So is what has one of somebody else, or one that names its job like a path."""
    lone, foreign = rooms.outbox / "lone.png", rooms.outbox / "foreign.png"
    lone.write_bytes(picture())
    foreign.write_bytes(picture())
    sidecar_of(foreign).write_text('{"job": "mine"}')
    job = JobFacts(
        id="../../../out", attempts=1, resumed=False, submitted_at=EPOCH, started_at=EPOCH,
        finished_at=EPOCH,
    )  # fmt: skip
    hostile = rooms.result("oil/hostile.png", data=picture(), job=job)
    fine = rooms.result("oil/fine.png")
    rooms.gallery().add(alone([lone, foreign, hostile, rooms.outbox / "gone.png", fine]))
    assert rooms.names() == ["fine.png"]
    assert not list(rooms.outbox.parent.glob("out*.webp"))


def test_numbers_that_are_none_are_left_out(rooms: Rooms) -> None:
    """A sidecar may have been written by anybody, and the page knows no NaN."""
    path = rooms.result(
        timing=TimingFacts(waited=0.0, prepare=float("nan"), optimise=float("inf"), publish=0.0)
    )
    text = sidecar_of(path).read_text()
    for key, number in (("prepare", "NaN"), ("optimise", "Infinity")):
        assert f'"{key}": null' in text
        text = text.replace(f'"{key}": null', f'"{key}": {number}')
    sidecar_of(path).write_text(text)
    rooms.gallery().add(alone([path]))
    assert [record["seconds"] for record in rooms.shown()] == [0.0]


def test_a_long_curve_is_thinned(rooms: Rooms) -> None:
    """Its first and last points stay, and every scale is known by its first step."""
    rooms.gallery().add(alone([rooms.result(points=100)]))
    (record,) = rooms.shown()
    assert len(record["curve"]) == MOST_POINTS
    assert record["curve"][0] == [1, 1.0]
    assert record["curve"][-1] == [100, 0.01]
    assert record["scales"] == [1, 41, 81]


# Crashes


@pytest.mark.parametrize("died", [True, False], ids=["dead", "failed"])
@pytest.mark.parametrize("already", [0, 50, 95, 100])
@pytest.mark.parametrize("suffix", [".js", ".html"])
def test_a_hanging_that_is_broken_off_loses_and_doubles_nothing(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, died: bool, already: int, suffix: str
) -> None:
    """Whether the data page is there before the HTML or not, and at the turn of a page too."""
    gallery = rooms.gallery()
    gallery.rebuild(iter(()))
    before = [rooms.result(f"oil/{n:03}.png") for n in range(already)]
    gallery.add(alone(before))
    paths = [rooms.result(f"ink/{n:03}.png") for n in range(10)]
    error: BaseException = Died() if died else ResourceUnavailable("the disk is full")
    failing(monkeypatch, suffix, error)
    with pytest.raises(type(error)):
        gallery.add(alone(paths))
    (rooms.gallery() if died else gallery).add(alone(paths))
    assert rooms.names() == [path.name for path in (*before, *paths)]


def test_the_very_first_hanging_may_be_broken_off(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a data page then, and no HTML at all."""
    paths = [rooms.result(f"oil/{n}.png") for n in range(3)]
    failing(monkeypatch, ".html", Died())
    with pytest.raises(Died):
        rooms.gallery().add(alone(paths))
    rooms.gallery().add(alone(paths))
    assert rooms.names() == [path.name for path in paths]


def test_a_page_that_is_lost_is_counted_from_the_data_pages(rooms: Rooms) -> None:
    """Nothing but the HTML has to be made again, in the process that made it and in others."""
    paths = [rooms.result(f"oil/{n:03}.png") for n in range(150)]
    gallery = rooms.gallery()
    gallery.add(alone(paths[:100]))
    gallery.add(alone(paths[100:148]))
    for number, shown_in in ((148, gallery), (149, rooms.gallery())):
        (rooms.outbox / "gallery.html").unlink()
        shown_in.add(alone([paths[number]]))
    assert rooms.names() == [path.name for path in paths]


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", "null", "{}", '{"version":2}', '{"version":1}', "[" * 100_000,
     '{"version":1,"pages":1,"results":1,"rejected":0,"styles":[],"newest":[]}',
     '{"version":1,"pages":Infinity,"results":1,"rejected":0,"styles":{},"newest":[]}',
     '{"version":1,"pages":1,"results":1,"rejected":0,"styles":{},"newest":[7]}'],
    ids=range(11),
)  # fmt: skip
def test_a_spoilt_page_is_counted_from_the_data_pages(rooms: Rooms, manifest: str) -> None:
    """Whatever stands in it, as long as it is ours."""
    paths = [rooms.result(f"oil/{n}.png") for n in range(3)]
    rooms.gallery().add(alone(paths[:2]))
    page = rooms.outbox / "gallery.html"
    text = re.sub(
        r'(<script id="manifest" type="application/json">).*?(</script>)',
        lambda match: match[1] + manifest + match[2],
        page.read_text(),
    )
    page.write_text(text)
    rooms.gallery().add(alone(paths[2:]))
    assert rooms.names() == [path.name for path in paths]


# Places that are not ours, or not there


def test_the_page_of_somebody_else_is_left_alone(rooms: Rooms) -> None:
    """The trouble names it, and says what to do; once it is away the pieces hang."""
    page = rooms.outbox / "gallery.html"
    page.write_text("<h1>My wedding</h1>")
    path, gallery = rooms.result(), rooms.gallery()
    for attempt in (lambda: gallery.add(alone([path])), lambda: gallery.rebuild(iter(()))):
        with pytest.raises(ResourceUnavailable, match=re.escape(str(page))) as caught:
            attempt()
        assert "`output.gallery`" in caught.value.remedies[0]
    assert page.read_text() == "<h1>My wedding</h1>"
    page.unlink()
    gallery.add(alone([path]))
    assert rooms.names() == ["photo.png"]


def test_a_page_that_is_replaced_while_it_is_in_memory_is_left_alone(rooms: Rooms) -> None:
    """It is looked at again whenever it is not the one that was written last."""
    gallery = rooms.gallery()
    gallery.add(alone([rooms.result("oil/a.png")]))
    page = rooms.outbox / "gallery.html"
    page.unlink()
    page.mkdir()
    with pytest.raises(ResourceUnavailable, match="was not made by styled"):
        gallery.add(alone([rooms.result("oil/b.png")]))


def test_a_file_in_place_of_the_folder_is_told(rooms: Rooms) -> None:
    """It is not replaced, neither by records nor by pictures."""
    (rooms.outbox / "gallery_files").write_text("mine")
    with pytest.raises(ResourceUnavailable, match="gallery_files"):
        rooms.gallery().add(alone([rooms.result()]))
    with pytest.raises(ResourceUnavailable, match="gallery_files"):
        rooms.gallery().keep_pictures("a", torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    assert (rooms.outbox / "gallery_files").read_text() == "mine"


def test_nothing_is_written_where_the_disk_is_not_mounted(rooms: Rooms) -> None:
    """An outbox that is empty for want of its disk stays empty."""

    def refuse(folder: Path) -> None:
        raise NotMounted(f"{folder} was on a disk")

    path, pixels = rooms.result(), torch.zeros(1, 3, 8, 8)
    gallery = Gallery(rooms.outbox, refuse)
    attempts: list[Callable[[], object]] = [
        lambda: gallery.add(alone([path])),
        lambda: gallery.rebuild(iter(())),
        lambda: gallery.keep_pictures("a", pixels, pixels),
    ]
    for attempt in attempts:
        with pytest.raises(NotMounted):
            attempt()
    assert sorted(entry.name for entry in rooms.outbox.iterdir()) == ["oil"]


@pytest.mark.parametrize("suffix", [".webp", ".js", ".html"])
def test_a_full_disk_is_told_and_waited_out(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Whatever can't be written: once there is room all of it hangs, by the same gallery."""
    gallery = rooms.gallery()
    pieces = [(rooms.result(f"oil/{n}.png", data=picture()), None) for n in range(2)]
    gallery.add(pieces[:1])
    failing(monkeypatch, suffix, ResourceUnavailable("no space left on device"))
    with pytest.raises(ResourceUnavailable, match="no space left"):
        gallery.add(pieces)
    gallery.add(pieces)
    assert rooms.names() == ["0.png", "1.png"]
    assert all(record["after"] for record in rooms.shown())


def test_a_real_refusal_is_a_matter_of_resources(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the operating system says reaches nobody as an OSError."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ResourceUnavailable, match="No space left"):
        rooms.gallery().add(alone([rooms.result()]))


def test_nobody_waits_for_a_page_that_is_made_anew(rooms: Rooms) -> None:
    """That may take hours, and the daemon has photos to paint."""
    path, gallery = rooms.result(), rooms.gallery()
    make_folder(rooms.outbox / "gallery_files")
    with open(rooms.outbox / "gallery_files/.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ResourceUnavailable, match="another process"):
            gallery.add(alone([path]))
    gallery.add(alone([path]))
    assert rooms.names() == ["photo.png"]


# Names

HOSTILE = [
    os.fsdecode(b"caf\xe9.png"), "new\nline.png", "a#b?c%d&e=f g.png", "javascript:alert(1).png",
    "</script><!--.png", "%2e%2e.png", "ünïcödé \U0001f5bc.png", "back\\slash.png", "'\"`.png",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_addresses_lead_to_the_very_files(rooms: Rooms, name: str) -> None:
    """Whatever bytes a name is made of, and wherever the file lies."""
    folder = name.removesuffix(".png")
    result = rooms.result(f"{folder}/{name}", data=picture(), original=b"gone")
    broken = rooms.reject(f"{folder}/{name}")
    rooms.gallery().add(alone([result, broken]))
    shown, rejected = rooms.shown()
    for url, path in (
        (shown["result"], result),
        (shown["sidecar"], sidecar_of(result)),
        (rejected["file"], broken),
    ):
        assert url.isascii()
        assert os.path.samefile(rooms.found_at(url), path)


def test_a_result_beside_the_page_is_no_scheme(rooms: Rooms) -> None:
    """A name with a colon at the very beginning of an address stays a name."""
    path = rooms.result("javascript:alert(1)", data=picture())
    rooms.gallery().add(alone([path]))
    assert os.path.samefile(rooms.found_at(rooms.shown()[0]["result"]), path)


# Small pictures


def thumb(rooms: Rooms, record: dict[str, Any], which: str) -> Image.Image:
    """Return a small picture, decoded."""
    assert record[which].startswith("gallery_files/thumbs/")
    with Image.open(rooms.outbox / record[which]) as image:
        assert image.format == "WEBP"
        return image.convert("RGB")


def is_near(image: Image.Image, at: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    """Tell whether a pixel has about a colour, after lossy compression."""
    found = image.getpixel(at)
    assert isinstance(found, tuple)
    return all(abs(a - b) <= 12 for a, b in zip(found, colour, strict=True))


def test_pictures_are_kept_of_tensors(rooms: Rooms) -> None:
    """They are small, keep their shape, and hang without any file being read."""
    gallery, path = rooms.gallery(), rooms.result()
    before = torch.zeros(1, 3, 600, 960)
    before[:, 0] = 1.0
    gallery.keep_pictures("000000000001", before, torch.zeros(1, 3, 30, 20))
    gallery.add(alone([path]))
    (record,) = rooms.shown()
    photo, painting = thumb(rooms, record, "before"), thumb(rooms, record, "after")
    assert (photo.size, painting.size) == ((THUMB_PX, 300), (20, 30))  # nothing is enlarged
    assert is_near(photo, (240, 150), (255, 0, 0))
    assert is_near(painting, (10, 15), (0, 0, 0))


def test_transparent_tensors_are_placed_on_white(rooms: Rooms) -> None:
    """As on paper."""
    gallery, path = rooms.gallery(), rooms.result()
    image = torch.zeros(1, 4, 64, 64)
    image[:, 3, :, 32:] = 1.0
    gallery.keep_pictures("000000000001", image, image)
    gallery.add(alone([path]))
    (record,) = rooms.shown()
    for which in ("before", "after"):
        shown = thumb(rooms, record, which)
        assert is_near(shown, (8, 32), (255, 255, 255))
        assert is_near(shown, (56, 32), (0, 0, 0))


def test_pictures_are_made_of_files_that_have_none(rooms: Rooms) -> None:
    """Of the original and the result, transparent ones on white."""
    original = rooms.archive / "photo.png"
    original.write_bytes(picture("red", (1000, 500)))
    half = Image.new("RGBA", (50, 80), "#00ff0000")
    half.paste("blue", (25, 0, 50, 80))
    result = rooms.result(data=b"")
    half.save(result)
    rooms.gallery().add([(result, original)])
    (record,) = rooms.shown()
    photo, painting = thumb(rooms, record, "before"), thumb(rooms, record, "after")
    assert (photo.size, painting.size) == ((THUMB_PX, 240), (50, 80))
    assert is_near(photo, (9, 9), (255, 0, 0))
    assert is_near(painting, (9, 40), (255, 255, 255))
    assert is_near(painting, (41, 40), (0, 0, 255))


@pytest.mark.parametrize(
    "content", [None, b"", b"no picture", picture()[:60], picture("red", (9, 9))]
)
def test_without_an_original_there_is_no_picture_of_it(rooms: Rooms, content: bytes | None) -> None:
    """It may be gone, or something else by now; the result hangs all the same."""
    original = rooms.archive / "photo.png"
    if content is not None:
        original.write_bytes(content)
    rooms.gallery().add([(rooms.result(data=picture()), original)])
    (record,) = rooms.shown()
    assert record["before"] is None
    assert record["after"] is not None


def test_a_pipe_in_place_of_an_original_keeps_nobody_waiting(rooms: Rooms) -> None:
    """It is no picture."""
    pipe = rooms.archive / "photo.png"
    os.mkfifo(pipe)
    rooms.gallery().add([(rooms.result(), pipe)])
    assert rooms.shown()[0]["before"] is None


# Making it anew


def test_it_is_the_same_made_anew_as_one_by_one(rooms: Rooms) -> None:
    """Byte for byte, but for the time of day."""
    gallery = rooms.gallery()
    for n in range(130):
        if n % 10 == 7:
            rooms.reject(f"oil/{n:03}.jpg")
        else:
            rooms.result(f"{'ink' if n % 3 else 'oil'}/{n:03}.png")
    for path in (rooms.outbox / "oil/000.png", rooms.outbox / "ink/128.png"):
        path.write_bytes(picture())
    pieces = sorted(
        [(path.with_suffix(""), None) for path in (*rooms.outbox.rglob("*.json"),
                                                   *rooms.rejected.rglob("*.json"))],
        key=lambda piece: piece[0].name,
    )  # fmt: skip
    for first in range(0, 130, 13):
        gallery.add(pieces[first : first + 13])
    before, files = rooms.manifest(), contents_of(rooms.outbox / "gallery_files")
    rooms.gallery().rebuild(iter(reversed(pieces)))
    after = rooms.manifest()
    assert {**before, "updated": ""} == {**after, "updated": ""}
    assert contents_of(rooms.outbox / "gallery_files") == files
    assert len(rooms.shown()) == 130


def contents_of(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_made_anew_it_forgets_what_is_gone(rooms: Rooms) -> None:
    """Deleted results are dropped, with their pictures and the pages that they needed."""
    paths = [rooms.result(f"oil/{n:03}.png", data=b"painting") for n in range(101)]
    for path in (paths[0], paths[100]):
        path.write_bytes(picture())
    gallery = rooms.gallery()
    gallery.add(alone(paths))
    assert len(rooms.pages()) == 2
    assert len(list(rooms.outbox.glob("gallery_files/thumbs/*/*.webp"))) == 2
    note = rooms.outbox / "gallery_files/thumbs/note.txt"
    note.write_text("mine")
    paths[100].unlink()
    for path in paths[1:90]:
        path.unlink()
        sidecar_of(path).unlink()
    contents = gallery.rebuild(iter(rooms.pieces()))
    assert (contents.results, contents.rejected) == (11, 0)
    assert rooms.names() == [path.name for path in (paths[0], *paths[90:100])]
    assert [path.name for path in rooms.outbox.glob("gallery_files/thumbs/*/*.webp")] == [
        "000000000001-after.webp"
    ]
    assert note.read_text() == "mine"


def test_made_anew_of_nothing_it_is_empty(rooms: Rooms) -> None:
    """There is a page all the same, which says so."""
    rooms.gallery().add(alone([rooms.result()]))
    sidecar_of(rooms.outbox / "oil/photo.png").unlink()
    contents = rooms.gallery().rebuild(iter(rooms.pieces()))
    assert (contents.results, contents.rejected) == (0, 0)
    assert rooms.shown() == []
    assert not list(rooms.outbox.glob("gallery_files/pages/*.js"))


def test_an_original_is_known_by_its_bytes(rooms: Rooms) -> None:
    """Another photo of the same name in the archive is not the one that was painted."""
    (rooms.archive / "oil/trip").mkdir(parents=True)
    mine, other = picture("red"), picture("blue")
    for name, content in (("mine.png", mine), ("other.png", other)):
        rooms.result(f"oil/trip/{name}", data=picture(), original=mine)
        (rooms.archive / "oil/trip" / name).write_bytes(content)
    rooms.result("oil/trip/gone.png", data=picture(), original=mine)
    assert {path.name: original for path, original in rooms.pieces()} == {
        "mine.png": rooms.archive / "oil/trip/mine.png", "other.png": None, "gone.png": None,
    }  # fmt: skip
    rooms.gallery().rebuild(iter(rooms.pieces()))
    found = {record["name"]: record["before"] is not None for record in rooms.shown()}
    assert found == {"mine.png": True, "other.png": False, "gone.png": False}


def test_files_of_others_are_passed_over(rooms: Rooms) -> None:
    """JSON files without a picture, with another content, in our own folder, or pipes."""
    rooms.result("oil/photo.png", data=picture())
    broken = rooms.reject()
    for name, text in (
        ("package.json", "{}"), (".json", "{}"), ("oil/list.json", "[1]"), ("oil/list", "text"),
        ("oil/deep.png.json", "[" * 100_000), ("oil/deep.png", "x"), ("oil/cut.png", "x"),
        ("oil/cut.png.json", '{"schema": 1, "job"'), ("gallery_files/x.png", "x"),
    ):  # fmt: skip
        path = rooms.outbox / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    ours = sidecar_of(rooms.outbox / "oil/photo.png").read_bytes()
    (rooms.outbox / "gallery_files/x.png.json").write_bytes(ours)
    (rooms.outbox / "oil/pipe.png").write_bytes(picture())
    os.mkfifo(rooms.outbox / "oil/pipe.png.json")
    contents = rooms.gallery().rebuild(iter(rooms.pieces()))
    assert (contents.results, contents.rejected) == (1, 1)
    assert rooms.found_at(rooms.shown()[1]["file"]).endswith(os.fsencode(broken.name))


def test_the_daemon_goes_on_with_a_page_that_was_made_anew(rooms: Rooms) -> None:
    """What it had in memory is not what it writes."""
    daemon = rooms.gallery()
    first = rooms.result("oil/first.png", data=picture())
    second = rooms.result("oil/second.png", data=picture())
    daemon.add(alone([first, second]))
    first.unlink()
    rooms.gallery().rebuild(iter(rooms.pieces()))
    third = rooms.result("oil/third.png", data=picture())
    daemon.add(alone([third]))
    assert rooms.names() == ["second.png", "third.png"]
    fourth = rooms.result("oil/fourth.png", data=picture())
    daemon.add(alone([fourth]))
    assert rooms.names() == ["second.png", "third.png", "fourth.png"]


# What it costs


def test_the_five_thousandth_piece_costs_no_more_than_the_two_hundredth(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With long names and long curves: as many bytes, and a page that opens at once."""
    spent: list[int] = []

    def write(path: Path, data: bytes) -> None:
        atomic_write(path, data)
        assert path.stat().st_size == len(data)
        spent.append(len(data))

    def piece(n: int) -> Piece:
        return rooms.result(f"oil/{n:04}{'ü' * 116}.png", points=MOST_POINTS), None

    def cost_of(one: Piece) -> int:
        spent.clear()
        gallery.add([one])
        assert len(spent) == 2  # the data page and the HTML
        return sum(spent)

    monkeypatch.setattr(gallery_module, "atomic_write", write)
    gallery = rooms.gallery()
    pieces = [piece(n) for n in range(199)]
    gallery.rebuild(iter(pieces))
    pieces.append(piece(199))
    early = cost_of(pieces[-1])
    pieces += [piece(n) for n in range(200, 4999)]
    gallery.rebuild(iter(pieces))
    late = cost_of(piece(4999))
    assert late <= early + 100  # a few digits more, in counts and curves
    assert (rooms.outbox / "gallery.html").stat().st_size < 1_000_000
    assert len(rooms.shown()) == 5000

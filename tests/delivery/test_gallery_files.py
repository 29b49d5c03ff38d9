"""The gallery's files in a folder that others may write to, and processes that die."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from styled.atomic import atomic_write
from styled.delivery import gallery_files
from styled.delivery.gallery import Gallery
from styled.errors import ResourceUnavailable
from tests.delivery.test_gallery import Died, Rooms, alone, failing


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    """Return an empty outbox and its neighbours."""
    return Rooms(tmp_path)


def test_a_link_in_place_of_the_lock_leads_nowhere(rooms: Rooms, tmp_path: Path) -> None:
    """What it leads to is not touched."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (rooms.outbox / "gallery_files").mkdir()
    (rooms.outbox / "gallery_files/.lock").symlink_to(victim)
    with pytest.raises(ResourceUnavailable, match=r"\.lock"):
        rooms.gallery().add(alone([rooms.result()]))
    assert victim.read_text() == "mine"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["gallery.html", "gallery_files/.lock"])
def test_a_pipe_blocks_nobody(rooms: Rooms, name: str) -> None:
    """It is said to be somebody else's, at once."""
    (rooms.outbox / "gallery_files").mkdir()
    os.mkfifo(rooms.outbox / name)
    with pytest.raises(ResourceUnavailable, match="was not made by styled"):
        rooms.gallery().add(alone([rooms.result()]))


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_data_page_is_replaced(rooms: Rooms) -> None:
    """It is no data page, so that the page begins anew."""
    (rooms.outbox / "gallery_files/pages").mkdir(parents=True)
    os.mkfifo(rooms.outbox / "gallery_files/pages/000001.js")
    rooms.gallery().add(alone([rooms.result()]))
    assert len(rooms.shown()) == 1


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_sidecar_is_passed_over(rooms: Rooms) -> None:
    """The others hang."""
    os.mkfifo(rooms.outbox / "a.png.json")
    rooms.gallery().add(alone([rooms.outbox / "a.png", rooms.result()]))
    assert len(rooms.shown()) == 1


@pytest.mark.parametrize("linked", ["gallery_files", "gallery_files/thumbs", "gallery_files/pages"])
def test_no_link_leads_out_of_the_outbox(rooms: Rooms, tmp_path: Path, linked: str) -> None:
    """Nothing is written or deleted there."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "ab").mkdir(parents=True)
    for name in ("ab/holiday-before.webp", "000009.js"):
        (elsewhere / name).write_text("mine")
    path = rooms.outbox / linked
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(elsewhere)
    rooms.result()
    with pytest.raises(ResourceUnavailable, match="was not made by styled"):
        rooms.gallery().rebuild(iter(rooms.pieces()))
    kept = sorted(str(p.relative_to(elsewhere)) for p in elsewhere.rglob("*") if p.is_file())
    assert kept == ["000009.js", "ab/holiday-before.webp"]


def test_a_manifest_of_no_numbers_is_counted_anew(rooms: Rooms) -> None:
    """NaN is not JSON, and not to be written again."""
    gallery = rooms.gallery()
    gallery.add(alone([rooms.result("oil/a.png")]))
    page = rooms.outbox / "gallery.html"
    page.write_text(page.read_text().replace('"seconds":3.3', '"seconds":NaN'))
    rooms.gallery().add(alone([rooms.result("oil/b.png")]))
    assert [record["name"] for record in rooms.shown()] == ["a.png", "b.png"]


def test_a_date_before_all_others_is_passed_over(rooms: Rooms) -> None:
    """A sidecar may say anything."""
    path = rooms.result()
    sidecar = path.with_name("photo.png.json")
    text = sidecar.read_text().replace(
        '"finished_at": "2026-01-01T00:00:01Z"', '"finished_at": "0001-01-01T00:00:00+14:00"'
    )
    assert "+14:00" in text
    sidecar.write_text(text)
    path.write_bytes(b"")
    assert rooms.gallery().rebuild(iter(rooms.pieces())).results == 0


@pytest.mark.parametrize("suffix", [".js", ".html"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_rebuild_that_is_killed_leaves_the_old_or_the_new(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, suffix: str, times: int
) -> None:
    """Whatever hangs next, the counts are those of what is shown."""
    paths = [rooms.result(f"oil/{number}.png", data=b"") for number in range(230)]
    gallery = rooms.gallery()
    for start in range(0, 230, 50):
        gallery.add(alone(paths[start : start + 50]))
    for path in paths[:90]:
        path.unlink()
    with monkeypatch.context() as patch:
        left = [times]

        def write(path: Path, data: bytes) -> None:
            if path.suffix == suffix:
                left[0] -= 1
                if not left[0]:
                    raise Died
            atomic_write(path, data)

        patch.setattr(gallery_files, "atomic_write", write)
        with pytest.raises(Died):
            rooms.gallery().rebuild(iter(rooms.pieces()))
    rooms.gallery().add(alone([rooms.result("oil/last.png", data=b"")]))
    manifest = rooms.manifest()
    shown = [record["id"] for page in rooms.pages() for record in page]
    assert len(set(shown)) == len(shown) == manifest["results"]
    assert len(shown) in (141, 231)
    rooms.gallery().rebuild(iter(rooms.pieces()))
    assert rooms.manifest()["results"] == 141


def test_a_process_that_dies_between_the_folders_of_pages_loses_none(rooms: Rooms) -> None:
    """The new ones take the name of the old ones at the next look."""
    rooms.gallery().add(alone([rooms.result("oil/a.png")]))
    files = rooms.outbox / "gallery_files"
    (files / "pages").rename(files / "pages.new")
    (rooms.outbox / "gallery.html").unlink()
    rooms.gallery().add(alone([rooms.result("oil/b.png")]))
    assert [record["name"] for record in rooms.shown()] == ["a.png", "b.png"]


def test_small_pictures_that_come_during_a_rebuild_stay(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of a result that is just being published."""
    gallery = rooms.gallery()
    thumb = gallery.files.thumb("ab" * 6, "before")
    old = gallery.files.thumb("cd" * 6, "before")
    for path in (thumb, old):
        gallery.files.write_thumb(path, b"picture")
    os.utime(old, (1, 1))
    later = datetime.now(UTC).timestamp() + 60
    os.utime(thumb, (later, later))
    gallery.rebuild(iter(rooms.pieces()))
    assert (thumb.exists(), old.exists()) == (True, False)


def test_whoever_rebuilds_is_told_what_is_shown(rooms: Rooms) -> None:
    """So that a journal can remember it."""
    rooms.result("oil/a.png", data=b"")
    rooms.reject()
    told: list[str] = []
    rooms.gallery().rebuild(iter(rooms.pieces()), told.extend)
    assert told == ["000000000001", "000000000002"]


def test_a_folder_that_cannot_be_looked_into_is_said(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or all results in it would be forgotten."""
    rooms.result("oil/a.png", data=b"")

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ResourceUnavailable, match="can't be read"):
        list(rooms.pieces())


def test_a_gallery_that_fails_at_its_page_is_a_matter_of_resources(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told as such, and what is in memory is read anew."""
    gallery = Gallery(rooms.outbox)
    failing(monkeypatch, ".html", ResourceUnavailable("it is full"))
    first = rooms.result("oil/a.png")
    with pytest.raises(ResourceUnavailable):
        gallery.add(alone([first]))
    gallery.add(alone([first]))
    assert len(rooms.shown()) == 1

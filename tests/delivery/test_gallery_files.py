"""The gallery's files in a folder that other programs write to, and processes that die."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from styled.atomic import atomic_write
from styled.delivery import gallery_files
from styled.delivery.gallery import Gallery
from styled.errors import ResourceUnavailable
from tests.delivery.test_gallery import Died, GalleryFolders, failing, without_originals


@pytest.fixture
def folders(tmp_path: Path) -> GalleryFolders:
    """Return an empty outbox, archive and folder of rejected inputs."""
    return GalleryFolders(tmp_path)


def test_a_link_in_place_of_the_lock_leads_nowhere(folders: GalleryFolders, tmp_path: Path) -> None:
    """The file that it points to is not touched."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folders.outbox / "gallery_files").mkdir()
    (folders.outbox / "gallery_files/.lock").symlink_to(victim)
    with pytest.raises(ResourceUnavailable, match=r"\.lock"):
        folders.gallery().add(without_originals([folders.result()]))
    assert victim.read_text() == "mine"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["gallery.html", "gallery_files/.lock"])
def test_a_pipe_blocks_nobody(folders: GalleryFolders, name: str) -> None:
    """The error says at once that the file is not styled's."""
    (folders.outbox / "gallery_files").mkdir()
    os.mkfifo(folders.outbox / name)
    with pytest.raises(ResourceUnavailable, match="was not made by styled"):
        folders.gallery().add(without_originals([folders.result()]))


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_data_page_is_replaced(folders: GalleryFolders) -> None:
    """It is no record file, so the page is started again."""
    (folders.outbox / "gallery_files/records").mkdir(parents=True)
    os.mkfifo(folders.outbox / "gallery_files/records/000001.js")
    folders.gallery().add(without_originals([folders.result()]))
    assert len(folders.shown()) == 1


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_sidecar_is_passed_over(folders: GalleryFolders) -> None:
    """The other entries are added."""
    os.mkfifo(folders.outbox / "a.png.json")
    folders.gallery().add(without_originals([folders.outbox / "a.png", folders.result()]))
    assert len(folders.shown()) == 1


@pytest.mark.parametrize(
    "linked", ["gallery_files", "gallery_files/thumbs", "gallery_files/records"]
)
def test_no_link_leads_out_of_the_outbox(
    folders: GalleryFolders, tmp_path: Path, linked: str
) -> None:
    """Nothing is written or deleted in the folder that it points to."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "ab").mkdir(parents=True)
    for name in ("ab/holiday-before.webp", "000009.js"):
        (elsewhere / name).write_text("mine")
    path = folders.outbox / linked
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(elsewhere)
    folders.result()
    with pytest.raises(ResourceUnavailable, match="was not made by styled"):
        folders.gallery().rebuild(iter(folders.entries()))
    kept = sorted(str(p.relative_to(elsewhere)) for p in elsewhere.rglob("*") if p.is_file())
    assert kept == ["000009.js", "ab/holiday-before.webp"]


def test_a_manifest_of_no_numbers_is_counted_again(folders: GalleryFolders) -> None:
    """NaN is not valid JSON, so such a manifest is not used."""
    gallery = folders.gallery()
    gallery.add(without_originals([folders.result("oil/a.png")]))
    page = folders.outbox / "gallery.html"
    page.write_text(page.read_text().replace('"seconds":3.3', '"seconds":NaN'))
    folders.gallery().add(without_originals([folders.result("oil/b.png")]))
    assert [record["name"] for record in folders.shown()] == ["a.png", "b.png"]


def test_a_date_before_all_others_is_passed_over(folders: GalleryFolders) -> None:
    """Dates in sidecars are not trusted."""
    path = folders.result()
    sidecar = path.with_name("photo.png.json")
    text = sidecar.read_text().replace(
        '"finished_at": "2026-01-01T00:00:01Z"', '"finished_at": "0001-01-01T00:00:00+14:00"'
    )
    assert "+14:00" in text
    sidecar.write_text(text)
    path.write_bytes(b"")
    assert folders.gallery().rebuild(iter(folders.entries())).results == 0


@pytest.mark.parametrize("suffix", [".js", ".html"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_rebuild_that_is_killed_leaves_the_old_or_the_new(
    folders: GalleryFolders, monkeypatch: pytest.MonkeyPatch, suffix: str, times: int
) -> None:
    """After the next addition, the counts match the records."""
    paths = [folders.result(f"oil/{number}.png", data=b"") for number in range(230)]
    gallery = folders.gallery()
    for start in range(0, 230, 50):
        gallery.add(without_originals(paths[start : start + 50]))
    for path in paths[:90]:
        path.unlink()
    with monkeypatch.context() as patch:
        remaining = [times]

        def write(path: Path, data: bytes) -> None:
            if path.suffix == suffix:
                remaining[0] -= 1
                if not remaining[0]:
                    raise Died
            atomic_write(path, data)

        patch.setattr(gallery_files, "atomic_write", write)
        with pytest.raises(Died):
            folders.gallery().rebuild(iter(folders.entries()))
    folders.gallery().add(without_originals([folders.result("oil/last.png", data=b"")]))
    manifest = folders.manifest()
    shown = [record["id"] for page in folders.record_files() for record in page]
    assert len(set(shown)) == len(shown) == manifest["results"]
    assert len(shown) in (141, 231)
    folders.gallery().rebuild(iter(folders.entries()))
    assert folders.manifest()["results"] == 141


def test_a_process_that_dies_between_the_folders_of_pages_loses_none(
    folders: GalleryFolders,
) -> None:
    """The folder of new pages is renamed when pages are read next."""
    folders.gallery().add(without_originals([folders.result("oil/a.png")]))
    files = folders.outbox / "gallery_files"
    (files / "records").rename(files / "records.new")
    (folders.outbox / "gallery.html").unlink()
    folders.gallery().add(without_originals([folders.result("oil/b.png")]))
    assert [record["name"] for record in folders.shown()] == ["a.png", "b.png"]


def test_small_pictures_that_come_during_a_rebuild_stay(
    folders: GalleryFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They belong to a result that is being published."""
    gallery = folders.gallery()
    thumb = gallery.files.thumb("ab" * 6, "before")
    old = gallery.files.thumb("cd" * 6, "before")
    for path in (thumb, old):
        gallery.files.write_thumb(path, b"picture")
    os.utime(old, (1, 1))
    later = datetime.now(UTC).timestamp() + 60
    os.utime(thumb, (later, later))
    gallery.rebuild(iter(folders.entries()))
    assert (thumb.exists(), old.exists()) == (True, False)


def test_a_rebuild_prints_what_is_shown(folders: GalleryFolders) -> None:
    """The callback receives the job ids, for the journal."""
    folders.result("oil/a.png", data=b"")
    folders.reject()
    shown_ids: list[str] = []
    folders.gallery().rebuild(iter(folders.entries()), shown_ids.extend)
    assert shown_ids == ["000000000001", "000000000002"]


def test_a_folder_that_cannot_be_listed_is_reported(
    folders: GalleryFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all results in it would be dropped."""
    folders.result("oil/a.png", data=b"")

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ResourceUnavailable, match="can't be read"):
        list(folders.entries())


def test_a_gallery_that_fails_at_its_page_is_a_matter_of_resources(
    folders: GalleryFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a full disk is passed on, and the page is read again afterwards."""
    gallery = Gallery(folders.outbox)
    failing(monkeypatch, ".html", ResourceUnavailable("it is full"))
    first = folders.result("oil/a.png")
    with pytest.raises(ResourceUnavailable):
        gallery.add(without_originals([first]))
    gallery.add(without_originals([first]))
    assert len(folders.shown()) == 1

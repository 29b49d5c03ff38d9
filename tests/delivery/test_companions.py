"""Files of a photo's own go where it goes, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.delivery.companions import delete_companions, move_companions
from styled.delivery.requeue import return_to_inbox
from styled.errors import ResourceUnavailable

YAML, MASK = b"strength: 70\n", b"a mask"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return the path of a photo in the inbox that has left it, with its files still there."""
    for name in ("inbox", "archive/oil", "archive/ink"):
        (tmp_path / name).mkdir(parents=True)
    photo = tmp_path / "inbox/a.jpg"
    photo.with_name("a.jpg.yaml").write_bytes(YAML)
    photo.with_name("a.jpg.mask.png").write_bytes(MASK)
    return photo


def files(folder: Path) -> list[str]:
    """Return the relative paths of all files."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def arrived(photo: Path, *styles: str) -> list[Path]:
    """Put the photo into the archive of these styles."""
    places = [photo.parents[1] / "archive" / style / "a.jpg" for style in styles]
    for place in places:
        place.write_bytes(b"photo")
    return places


def test_they_are_beside_the_photo_in_each_place(photo: Path) -> None:
    """A second call, as after a crash, changes nothing."""
    places = arrived(photo, "oil", "ink")
    photo.parents[1].joinpath("archive/oil/a.jpg.yaml").write_bytes(YAML)  # copied before a crash
    for _ in range(2):
        move_companions(photo, places)
    assert files(photo.parents[1] / "archive") == [
        f"{style}/a.jpg{suffix}"
        for style in ("ink", "oil")
        for suffix in ("", ".mask.png", ".yaml")
    ]
    assert files(photo.parent) == []


def test_those_of_a_photo_that_others_moved_stay(photo: Path) -> None:
    """Nor are they taken from a new photo of the same name."""
    before = files(photo.parent)
    move_companions(photo, [])
    move_companions(photo, [photo.parents[1] / "archive/oil/a.jpg"])
    photo.write_bytes(b"new")
    move_companions(photo, arrived(photo, "oil"))
    delete_companions(photo, same_as=(5, 0))
    assert files(photo.parent) == ["a.jpg", *before]


def test_those_of_a_deleted_photo_are_deleted(photo: Path) -> None:
    """Just before the photo."""
    photo.write_bytes(b"photo")
    delete_companions(photo, same_as=(5, photo.stat().st_mtime_ns))
    assert files(photo.parent) == ["a.jpg"]


def test_those_of_a_kept_photo_are_copied(photo: Path) -> None:
    """Its copies elsewhere have the same files."""
    before = files(photo.parent)
    photo.write_bytes(b"photo")
    move_companions(photo, arrived(photo, "oil"), keep=True)
    assert files(photo.parent) == ["a.jpg", *before]
    assert files(photo.parents[1] / "archive") == [f"oil/{name}" for name in ["a.jpg", *before]]


def test_a_restored_photo_never_gets_the_files_of_another(tmp_path: Path) -> None:
    """An orphan in the inbox has its name; the photo takes another, with its own files."""
    rejected, inbox = tmp_path / "rejected", tmp_path / "inbox"
    (rejected / "oil").mkdir(parents=True)
    (inbox / "oil").mkdir(parents=True)
    (rejected / "oil/a.jpg").write_bytes(b"photo")
    (rejected / "oil/a.jpg.json").write_text("{}")
    (rejected / "oil/a.jpg.mask.png").write_bytes(MASK)
    (rejected / "oil/a.jpg.yaml").write_text("style: [ink, oil]\nstrength: 70\n")
    (inbox / "oil/a.jpg.mask.png").write_bytes(b"of another")
    assert return_to_inbox(rejected / "oil/a.jpg", rejected, inbox) == inbox / "oil/a-2.jpg"
    assert (inbox / "oil/a-2.jpg.mask.png").read_bytes() == MASK
    assert (inbox / "oil/a-2.jpg.yaml").read_text() == "style: oil\nstrength: 70\n"
    assert (inbox / "oil/a.jpg.mask.png").read_bytes() == b"of another"
    assert files(rejected) == []


def test_a_photo_is_not_brought_back_through_a_link(tmp_path: Path) -> None:
    """Behind a link in the inbox nothing is found."""
    rejected, inbox, away = (tmp_path / name for name in ("rejected", "inbox", "away"))
    for made in (rejected / "oil", inbox, away):
        made.mkdir(parents=True)
    (rejected / "oil/a.jpg").write_bytes(b"photo")
    (inbox / "oil").symlink_to(away)
    with pytest.raises(ResourceUnavailable, match="is a link"):
        return_to_inbox(rejected / "oil/a.jpg", rejected, inbox)
    assert files(away) == []

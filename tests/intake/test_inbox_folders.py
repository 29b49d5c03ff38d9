"""The folders of the inbox, and what happens where they can't be made."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from styled.atomic import make_folder
from styled.errors import Forbidden, NotMounted, ResourceUnavailable
from styled.intake import inbox_folders
from styled.intake.inbox_folders import InboxFolders
from styled.mounts import Mounts


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Return the path of an inbox that does not exist yet."""
    return tmp_path / "inbox"


@pytest.fixture
def folders(tmp_path: Path, inbox: Path) -> InboxFolders:
    """Return the folders of that inbox."""
    return InboxFolders(inbox, Mounts(tmp_path / "mounts.json"))


def test_the_inbox_and_its_folders_are_made(inbox: Path, folders: InboxFolders) -> None:
    """One for each name."""
    folders.prepare(["oil", "wave"])
    assert sorted(path.name for path in inbox.iterdir()) == ["oil", "wave"]
    assert folders.problem is None


def test_folders_that_were_removed_come_back(inbox: Path, folders: InboxFolders) -> None:
    """But not the inbox itself: its disk may not be mounted."""
    folders.prepare(["oil"])
    (inbox / "oil").rmdir()
    folders.restore(["oil"])
    assert (inbox / "oil").is_dir()
    (inbox / "oil").rmdir()
    inbox.rmdir()
    folders.restore(["oil"])
    assert not inbox.exists()


def test_nothing_is_made_on_the_disk_below_a_mount_point(
    inbox: Path, folders: InboxFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the inbox's own disk is not mounted, the next scan reports it."""
    inbox.mkdir()

    def refuse(_: Mounts, folder: Path) -> None:
        raise NotMounted(f"{folder} is not mounted", "mount it")

    monkeypatch.setattr(Mounts, "require_mounted", refuse)
    folders.restore(["oil"])
    assert list(inbox.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (Forbidden("no permission", "allow it"), "the inbox may only be read: no permission"),
        (ResourceUnavailable("it is full", "make room"), "a folder is missing: it is full"),
    ],
)
def test_folders_that_can_t_be_made_are_a_problem_that_is_logged_once(
    inbox: Path,
    folders: InboxFolders,
    monkeypatch: pytest.MonkeyPatch,
    error: ResourceUnavailable,
    problem: str,
) -> None:
    """Photos in the inbox and in the other folders are painted all the same."""
    inbox.mkdir()
    real = make_folder

    def make(folder: Path) -> None:
        if folder.name != "wave":
            raise error
        real(folder)

    monkeypatch.setattr(inbox_folders, "make_folder", make)
    with capture_logs() as logs:
        for _ in range(2):
            folders.restore(["oil", "ink", "wave"])
            assert folders.problem == problem
    assert [(line["event"], line["reason"]) for line in logs] == [
        ("inbox.not_prepared", error.message)
    ]
    assert (inbox / "wave").is_dir()
    monkeypatch.undo()
    folders.restore(["oil", "wave"])
    assert folders.problem is None

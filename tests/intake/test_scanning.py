"""Scans of folders that hold links, pipes, odd names and unreadable entries."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from styled.config.ignore import IgnoreRules
from styled.errors import ResourceUnavailable
from styled.intake.scanning import MAX_FOLDER_DEPTH, FoundFile, ScanNotes, scan

NOTHING_IGNORED = IgnoreRules([])


def names(inbox: Path, *ignored: str) -> list[str]:
    """Return the paths of the files found, sorted."""
    return sorted(file.path for file in scan(inbox, IgnoreRules(ignored)))


def put(path: Path, data: bytes = b"photo") -> Path:
    """Write a file, and make its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_files_are_found_at_any_depth(tmp_path: Path) -> None:
    """Paths are relative to the inbox; folders themselves are not yielded."""
    put(tmp_path / "a.jpg")
    put(tmp_path / "style" / "trip" / "b.jpg")
    (tmp_path / "empty").mkdir()
    assert names(tmp_path) == ["a.jpg", "style/trip/b.jpg"]


def test_settings_and_masks_come_with_their_photo(tmp_path: Path) -> None:
    """With their own size and time; those without a photo come alone."""
    put(tmp_path / "oil/a.jpg", b"12345")
    put(tmp_path / "oil/a.jpg.yaml", b"123")
    put(tmp_path / "oil/a.jpg.mask.png", b"1")
    (photo,) = scan(tmp_path, NOTHING_IGNORED)
    assert photo.path == "oil/a.jpg"
    assert {(one.path, one.size) for one in photo.companions} == {
        ("oil/a.jpg.yaml", 3), ("oil/a.jpg.mask.png", 1)
    }  # fmt: skip


def test_files_come_by_name_and_folders_after_them(tmp_path: Path) -> None:
    """A series is painted in the order of its names, whatever order the file system has."""
    names = ["b/1.jpg", "IMG_2.jpg", "a/2.jpg", "IMG_1.jpg", "a/1.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [file.path for file in scan(tmp_path, IgnoreRules([]))]
    assert found == ["IMG_1.jpg", "IMG_2.jpg", "a/1.jpg", "a/2.jpg", "b/1.jpg"]


def test_a_file_is_known_by_size_time_and_inode(tmp_path: Path) -> None:
    """The values are those of the file system, to the nanosecond."""
    path = put(tmp_path / "a.jpg", b"12345")
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    inode = path.stat().st_ino
    assert list(scan(tmp_path, NOTHING_IGNORED)) == [
        FoundFile("a.jpg", 5, 1_600_000_000_123_456_789, inode)
    ]


def test_an_empty_inbox_has_nothing(tmp_path: Path) -> None:
    """It is no error."""
    assert names(tmp_path) == []


def test_an_inbox_may_be_a_link(tmp_path: Path) -> None:
    """It is the administrator's; only links inside the inbox are not trusted."""
    put(tmp_path / "disk" / "a.jpg")
    (tmp_path / "inbox").symlink_to("disk")
    assert names(tmp_path / "inbox") == ["a.jpg"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    """This holds for links to files and folders, for cycles and for dangling links."""
    put(tmp_path / "secret" / "a.jpg")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "file.jpg").symlink_to(tmp_path / "secret" / "a.jpg")
    (inbox / "folder").symlink_to(tmp_path / "secret")
    (inbox / "circle").symlink_to(inbox)
    (inbox / "nowhere.jpg").symlink_to("nowhere")
    assert names(inbox) == []


@pytest.mark.timeout(10)
def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a pipe without a writer would block for ever."""
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        assert names(tmp_path) == []


def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    """Their bytes are preserved."""
    put(tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.jpg"))
    (found,) = scan(tmp_path, NOTHING_IGNORED)
    assert os.fsencode(found.path) == b"caf\xe9/\xff.jpg"


def test_names_of_255_bytes_are_found(tmp_path: Path) -> None:
    """This is the longest name that Linux allows."""
    put(tmp_path / ("d" * 255) / ("f" * 255))
    assert names(tmp_path) == ["d" * 255 + "/" + "f" * 255]


# Ignoring


def test_ignored_names_are_left_alone_whatever_their_case(tmp_path: Path) -> None:
    """A pattern must match the whole name."""
    for name in ("a.part", "B.PART", "a.part.jpg", ".hidden", "photo.jpg"):
        put(tmp_path / name)
    assert names(tmp_path, ".*", "*.part") == ["a.part.jpg", "photo.jpg"]


def test_ignored_folders_are_not_looked_into(tmp_path: Path) -> None:
    """A NAS keeps thumbnails and deleted files in hidden folders."""
    put(tmp_path / "style" / ".trash" / "deep" / "a.jpg")
    put(tmp_path / "@eaDir" / "a.jpg")
    put(tmp_path / "style" / "a.jpg")
    assert names(tmp_path, ".*", "@eaDir") == ["style/a.jpg"]


def test_without_patterns_nothing_is_ignored(tmp_path: Path) -> None:
    """An empty list of patterns matches nothing."""
    put(tmp_path / ".hidden")
    assert names(tmp_path) == [".hidden"]


# Errors


def test_a_missing_inbox_is_a_matter_of_resources(tmp_path: Path) -> None:
    """The message names it and says what to do."""
    with pytest.raises(ResourceUnavailable) as caught:
        list(scan(tmp_path / "inbox", NOTHING_IGNORED))
    assert str(tmp_path / "inbox") in caught.value.message
    assert "No such file" in caught.value.message
    assert "mount it" in caught.value.remedies[0]


def test_an_inbox_that_fails_amid_the_look_is_a_matter_of_resources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk may open a folder and then fail to list it."""
    put(tmp_path / "a.jpg")
    _fail_while_listing(monkeypatch, tmp_path)
    with pytest.raises(ResourceUnavailable, match="Input/output error"):
        names(tmp_path)


def test_a_folder_that_fails_amid_the_look_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other files are found, and the log names the folder."""
    put(tmp_path / "bad" / "a.jpg")
    put(tmp_path / "good" / "b.jpg")
    _fail_while_listing(monkeypatch, tmp_path / "bad")
    with capture_logs() as logs:
        assert names(tmp_path) == ["good/b.jpg"]
    assert [(entry["event"], entry["path"]) for entry in logs] == [("path.skipped", "bad")]


def test_an_unreadable_folder_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged with its name escaped for any terminal, and the other files are found."""
    bad = tmp_path / os.fsdecode(b"b\xe4d")
    put(bad / "a.jpg")
    put(tmp_path / "b.jpg")
    real = os.scandir

    def scandir(path: Path) -> object:
        if path == bad:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with capture_logs() as logs:
        assert names(tmp_path) == ["b.jpg"]
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("path.skipped", "warning")
    assert (entry["path"], entry["reason"]) == (r"b\xe4d", "can't be read: Permission denied")


def test_what_vanishes_during_the_look_is_passed_over_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder and a file that were deleted after being listed are not logged."""
    put(tmp_path / "gone" / "a.jpg")
    put(tmp_path / "c.jpg")
    files = scan(tmp_path, NOTHING_IGNORED)
    real = os.scandir

    @contextmanager
    def scandir(path: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        with real(path) as listing:
            entries = list(listing)
        if path == tmp_path:
            (tmp_path / "gone" / "a.jpg").unlink()
            (tmp_path / "gone").rmdir()
            (tmp_path / "c.jpg").unlink()
        yield iter(entries)

    monkeypatch.setattr(os, "scandir", scandir)
    with capture_logs() as logs:
        assert list(files) == []
    assert logs == []


def test_more_folders_than_a_process_may_open(tmp_path: Path) -> None:
    """Folders are opened one at a time, however many there are and however deeply nested."""
    for number in range(60):
        put(tmp_path / f"day{number}" / "a.jpg")
    put(tmp_path.joinpath("deep", *"d" * 60, "a.jpg"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(int(name) for name in os.listdir("/proc/self/fd")) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
    try:
        found = names(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(found) == 61


class _FailingListing(Iterator[os.DirEntry[str]]):
    def __next__(self) -> os.DirEntry[str]:
        raise OSError(errno.EIO, "Input/output error")


def _fail_while_listing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    real = os.scandir

    @contextmanager
    def scandir(path: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        if path == folder:
            yield _FailingListing()
        else:
            with real(path) as listing:
                yield listing

    monkeypatch.setattr(os, "scandir", scandir)


def test_folders_nested_too_deeply_are_passed_over(tmp_path: Path) -> None:
    """They are logged, and the files beside them are found."""
    deep = tmp_path.joinpath(*["d"] * (MAX_FOLDER_DEPTH + 1))
    deep.mkdir(parents=True)
    (deep / "too-deep.jpg").touch()
    (deep.parent / "deep.jpg").touch()
    (tmp_path / "a.jpg").touch()
    with capture_logs() as logs:
        found = [Path(file.path).name for file in scan(tmp_path, IgnoreRules([]))]
    assert found == ["a.jpg", "deep.jpg"]
    assert [line["reason"] for line in logs] == ["is nested too deeply"]


def test_our_own_incomplete_files_are_nobodys_photos(tmp_path: Path) -> None:
    """They are always ignored: `styled retry` may be moving a file back into the inbox."""
    (tmp_path / f".styled-{'0' * 32}.tmp").touch()
    (tmp_path / ".a.jpg").touch()
    assert names(tmp_path) == [".a.jpg"]


def control_files(folder: Path) -> dict[str, str | None]:
    """Return the control file of each file in a folder."""
    rules = IgnoreRules(["*.aria2", "*.st", "*.part", "*.crdownload"])
    return {file.path: file.control_file for file in scan(folder, rules)}


def test_a_control_file_is_known_by_its_name(tmp_path: Path) -> None:
    """Control files of aria2 and axel are those with the whole file name and a suffix."""
    for name in ("a.jpg", "a.jpg.aria2", "b.jpg", "b.jpg.st", "c.jpg", "a.png"):
        (tmp_path / name).write_bytes(b"x")
    assert control_files(tmp_path) == {
        "a.jpg": "a.jpg.aria2", "b.jpg": "b.jpg.st", "c.jpg": None, "a.png": None
    }  # fmt: skip


def test_an_empty_file_waits_for_the_one_that_a_browser_writes_to(tmp_path: Path) -> None:
    """A file that is not empty is no placeholder: a `.part` file beside it may be stale."""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.Xq3bTz1k.jpg.part").touch()
    (tmp_path / "b.jpg").write_bytes(b"x")
    (tmp_path / "b.jpg.part").touch()
    (tmp_path / "c.jpg").touch()
    assert control_files(tmp_path) == {
        "a.jpg": "a.Xq3bTz1k.jpg.part", "b.jpg": None, "c.jpg": None
    }  # fmt: skip


def test_what_is_passed_over_is_reported(tmp_path: Path) -> None:
    """The notes have its path and the reason."""
    deep = tmp_path.joinpath(*["d"] * (MAX_FOLDER_DEPTH + 1))
    deep.mkdir(parents=True)
    notes = ScanNotes()
    assert list(scan(tmp_path, IgnoreRules([]), notes)) == []
    (one,) = notes.skipped
    assert notes.folders == ["d"]
    assert (Path(one.path), one.reason) == (deep.relative_to(tmp_path), "is nested too deeply")


def test_settings_and_masks_of_no_use_are_reported(tmp_path: Path) -> None:
    """Links are not followed, suffixes are in small letters; those without a photo are counted."""
    put(tmp_path / "a.jpg")
    put(tmp_path / "elsewhere")
    (tmp_path / "a.jpg.yaml").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "oil").mkdir()
    put(tmp_path / "oil" / "b.jpg")
    put(tmp_path / "oil" / "b.jpg.MASK.PNG")
    put(tmp_path / "oil" / "c.jpg.yaml")
    notes = ScanNotes()
    photos = [file for file in scan(tmp_path, NOTHING_IGNORED, notes) if "jpg" in file.path]
    assert [(photo.path, photo.companions) for photo in photos] == [
        ("a.jpg", ()), ("oil/b.jpg", ())
    ]  # fmt: skip
    assert {(one.path, one.reason) for one in notes.skipped} == {
        ("a.jpg.yaml", "is not a regular file"),
        ("oil/b.jpg.MASK.PNG", "has a suffix in capital letters"),
    }
    assert notes.orphans == 1


def test_settings_that_vanish_during_the_scan_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their photo is found without them."""
    put(tmp_path / "a.jpg")
    put(tmp_path / "a.jpg.yaml")
    real = os.scandir

    @contextmanager
    def scandir(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with real(path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        (tmp_path / "a.jpg.yaml").unlink(missing_ok=True)
        yield listed

    monkeypatch.setattr(os, "scandir", scandir)
    (photo,) = scan(tmp_path, NOTHING_IGNORED)
    assert photo.companions == ()


def test_a_file_that_cannot_be_examined_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has just gone is not: nothing is wrong with it."""

    class Unreadable:
        def __init__(self, name: str, error: OSError) -> None:
            self.name, self._error = name, error

        def is_dir(self, *, follow_symlinks: bool = True) -> bool:
            return False

        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            raise self._error

    put(tmp_path / "a.jpg")
    real = os.scandir

    @contextmanager
    def scandir(path: Path) -> Iterator[list[object]]:
        with real(path) as entries:
            denied = PermissionError(errno.EACCES, "Permission denied")
            yield [*entries, Unreadable("b.jpg", denied), Unreadable("c.jpg", FileNotFoundError())]

    monkeypatch.setattr(os, "scandir", scandir)
    notes = ScanNotes()
    assert [file.path for file in scan(tmp_path, NOTHING_IGNORED, notes)] == ["a.jpg"]
    assert [(one.path, one.reason) for one in notes.skipped] == [
        ("b.jpg", "can't be read: Permission denied")
    ]

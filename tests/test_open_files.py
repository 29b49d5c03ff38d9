"""Detection of processes that have a file open for writing, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import styled.open_files as module
from styled.mounts import Mount
from styled.open_files import WriterCheck, Writers, open_regular


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a file that belongs to this process's user."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"a photo")
    return path


@contextmanager
def opened_by_another(path: Path, mode: str) -> Iterator[None]:
    """Let another process hold a file open while the context lasts."""
    program = f"import sys; f = open({str(path)!r}, {mode!r}); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield
        process.kill()


@pytest.mark.parametrize("mode", ["ab", "r+b"])
def test_a_writer_in_another_process_is_seen(photo: Path, mode: str) -> None:
    """It is seen as long as it has the file open, whether or not it writes."""
    check = WriterCheck()
    with opened_by_another(photo, mode):
        assert check.writers(photo) is Writers.SOME
    assert check.writers(photo) is Writers.NONE


def test_a_reader_is_no_writer(photo: Path) -> None:
    """Viewers and backups may have the file open for reading."""
    with opened_by_another(photo, "rb"):
        assert WriterCheck().writers(photo) is Writers.NONE


def test_a_lease_is_not_kept(photo: Path) -> None:
    """A lease that is kept would block the next writer and send SIGIO to this process."""
    received: list[int] = []
    previous = signal.signal(signal.SIGIO, lambda number, frame: received.append(number))
    try:
        assert WriterCheck().writers(photo) is Writers.NONE
        with opened_by_another(photo, "ab"):
            pass
    finally:
        signal.signal(signal.SIGIO, previous)
    assert received == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_of_anothers_file_nobody_knows_without_the_capability(photo: Path) -> None:
    """Without CAP_LEASE the result for another user's file is UNKNOWN."""
    photo.chmod(0o644)
    for folder in (photo.parent, *photo.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            pytest.skip(f"others may not look into {folder}")
    os.seteuid(61001)
    try:
        assert WriterCheck().writers(photo) is Writers.UNKNOWN
    finally:
        os.seteuid(0)


def test_on_a_network_drive_nobody_knows(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An NFS client may refuse leases for other reasons."""
    monkeypatch.setattr(module, "mount_of", lambda path: Mount("/mnt", "nfs4", "nas:/photos"))
    with opened_by_another(photo, "ab"):
        assert WriterCheck().writers(photo) is Writers.UNKNOWN


def test_which_drives_are_local_is_asked_once(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is cached until `forget_mounts`, after which mounts may have changed."""
    queried: list[Path] = []

    def mount_of(path: Path) -> Mount:
        queried.append(path)
        return Mount("/", "ext4", "/dev/sda1")

    monkeypatch.setattr(module, "mount_of", mount_of)
    check = WriterCheck()
    for _ in range(3):
        check.writers(photo)
    assert queried == [photo]
    check.forget_mounts()
    check.writers(photo)
    assert queried == [photo, photo]


def test_only_regular_files_are_opened(tmp_path: Path, photo: Path) -> None:
    """Links, pipes, folders and missing files raise FileNotFoundError without blocking."""
    (tmp_path / "link").symlink_to(photo)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing", "."):
        with pytest.raises(FileNotFoundError):
            open_regular(tmp_path / name)
        assert WriterCheck().writers(tmp_path / name) is Writers.UNKNOWN
    os.close(open_regular(photo))

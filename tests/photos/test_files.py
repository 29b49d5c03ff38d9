"""Reading regular files, without ever blocking on a FIFO or a device."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from styled.errors import InputRejected, ResourceUnavailable
from styled.photos import read_bytes


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    """All bytes of a regular file are returned."""
    (tmp_path / "a").write_bytes(b"0123")
    assert read_bytes(tmp_path / "a") == b"0123"


def test_a_missing_file_stays_a_file_not_found_error(tmp_path: Path) -> None:
    """A file that is gone, alone or with its folder, raises FileNotFoundError."""
    (tmp_path / "a").write_bytes(b"")
    for gone in ("b", "b/c", "a/c"):
        with pytest.raises(FileNotFoundError):
            read_bytes(tmp_path / gone)


def test_a_file_over_the_limit_is_rejected(tmp_path: Path) -> None:
    """A file of exactly the limit is read, one byte more is rejected."""
    (tmp_path / "a").write_bytes(bytes(10))
    assert len(read_bytes(tmp_path / "a", limit_bytes=10)) == 10
    with pytest.raises(InputRejected, match="larger than 9 bytes"):
        read_bytes(tmp_path / "a", limit_bytes=9)


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "symlink", "dangling", "device"])
def test_what_is_not_a_regular_file_is_rejected_without_waiting(kind: str, tmp_path: Path) -> None:
    """FIFOs, sockets, folders, links and devices are refused at once."""
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to(__file__ if kind == "symlink" else tmp_path / "nowhere")
    with pytest.raises(InputRejected, match="not a regular file"):
        read_bytes(path)


@pytest.mark.parametrize("kind", ["fifo", "symlink", "folder"])
def test_a_file_that_is_swapped_after_the_first_look_is_still_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The type of the open file counts, not the type that the path had before."""
    regular = tmp_path / "regular"
    regular.write_bytes(b"x")
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(regular)
    before = regular.stat()
    monkeypatch.setattr(Path, "lstat", lambda self: before)
    with pytest.raises(InputRejected, match="not a regular file"):
        read_bytes(path)


@pytest.mark.parametrize("error_number", [13, 5, 116])
def test_a_failing_system_is_not_blamed_on_the_file(
    error_number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EACCES, EIO and ESTALE become ResourceUnavailable with the path and the system's message."""
    path = tmp_path / "a"
    path.write_bytes(b"x")

    def fail(*_: object) -> int:
        raise OSError(error_number, os.strerror(error_number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ResourceUnavailable) as caught:
        read_bytes(path)
    assert str(path) in caught.value.message
    assert os.strerror(error_number) in caught.value.message


def test_a_name_that_is_not_utf_8_is_shown_escaped(tmp_path: Path) -> None:
    """Messages about such a file can be printed and logged."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    path.mkdir()
    with pytest.raises(InputRejected, match=r"caf\\xe9"):
        read_bytes(path)

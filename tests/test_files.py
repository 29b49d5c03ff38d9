"""File identity, digests and paths without links."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from styled.errors import ResourceUnavailable
from styled.files import file_stamp, have_changed, input_identity, lies_in, sha256_of, stamps_of


def test_identity_is_size_and_date(tmp_path: Path) -> None:
    """mtime is compared to the nanosecond; missing files give None; links are not followed."""
    path = tmp_path / "a"
    path.write_bytes(b"four")
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    assert input_identity(path) == (4, 1_600_000_000_123_456_789)
    assert input_identity(tmp_path / "b") is None
    assert input_identity(path / "below a file") is None
    (tmp_path / "link").symlink_to(path)
    assert input_identity(tmp_path / "link") != input_identity(path)


def test_what_nobody_can_look_at_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An I/O error is not taken for a missing file."""

    def refuse(*_: object, **__: object) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(ResourceUnavailable, match=os.strerror(errno.EIO)):
        input_identity(tmp_path)


def test_every_change_of_a_file_is_noticed(tmp_path: Path) -> None:
    """Also one that keeps size and date, a file that appears or goes, and what a link leads to."""
    path, link, missing = tmp_path / "a", tmp_path / "link", tmp_path / "missing"
    path.write_bytes(b"four")
    link.symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    assert file_stamp(tmp_path / "pipe") is None
    assert file_stamp(tmp_path) is None

    def change_in_place() -> None:
        before = path.stat()
        while path.stat().st_ctime_ns == before.st_ctime_ns:  # until the kernel's clock ticks
            path.write_bytes(b"five")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def replace() -> None:
        (tmp_path / "new").write_bytes(b"four")
        (tmp_path / "new").replace(path)

    for change in (change_in_place, replace, lambda: missing.write_bytes(b""), path.unlink):
        stamps = stamps_of([link, missing])
        assert not have_changed(stamps)
        change()
        assert have_changed(stamps)


def test_only_regular_files_have_a_digest(tmp_path: Path) -> None:
    """A pipe would block, and a link may point anywhere."""
    path = tmp_path / "a"
    path.write_bytes(b"four")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(path)
    assert sha256_of(path) == hashlib.sha256(b"four").hexdigest()
    for name in ("pipe", "link", "missing", "."):
        assert sha256_of(tmp_path / name) is None


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_file_that_is_replaced_after_the_check_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A pipe that takes its place would block for ever; a link is not followed."""
    path = tmp_path / "a"
    path.write_bytes(b"four")
    info = os.lstat(path)
    if kind == "pipe":
        os.mkfifo(tmp_path / "b")
    else:
        (tmp_path / "b").symlink_to(path)
    monkeypatch.setattr(os, "lstat", lambda path: info)
    if kind == "pipe":
        assert sha256_of(tmp_path / "b") is None
    else:
        with pytest.raises(ResourceUnavailable, match="can't be read"):
            sha256_of(tmp_path / "b")


@pytest.mark.parametrize("size", [0, 1 << 16, (1 << 20) + 7, 3 << 20])
def test_a_digest_is_of_the_whole_file(tmp_path: Path, size: int) -> None:
    """However many reads it takes."""
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_way_through_a_link_leads_out(tmp_path: Path) -> None:
    """No folder on the path may be a link, at any depth; the root itself may be one."""
    inbox = tmp_path / "inbox"
    (inbox / "a/b").mkdir(parents=True)
    (inbox / "link").symlink_to(tmp_path)
    (inbox / "a/link").symlink_to(tmp_path)
    (tmp_path / "root").symlink_to(inbox)
    assert lies_in(inbox, "x.jpg")
    assert lies_in(inbox, "a/b/x.jpg")
    assert lies_in(tmp_path / "root", "a/b/x.jpg")
    assert not lies_in(inbox, "link/x.jpg")
    assert not lies_in(inbox, "a/link/b/x.jpg")

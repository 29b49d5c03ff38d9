"""File identity, digests and paths without links."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from styled.errors import ResourceUnavailable
from styled.files import identity, lies_in, sha256_of


def test_identity_is_size_and_date(tmp_path: Path) -> None:
    """mtime is compared to the nanosecond; missing files give None; links are not followed."""
    path = tmp_path / "a"
    path.write_bytes(b"four")
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    assert identity(path) == (4, 1_600_000_000_123_456_789)
    assert identity(tmp_path / "b") is None
    assert identity(path / "below a file") is None
    (tmp_path / "link").symlink_to(path)
    assert identity(tmp_path / "link") != identity(path)


def test_what_nobody_can_look_at_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An I/O error is not taken for a missing file."""

    def refuse(*_: object, **__: object) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(ResourceUnavailable, match=os.strerror(errno.EIO)):
        identity(tmp_path)


def test_only_regular_files_have_a_digest(tmp_path: Path) -> None:
    """A pipe would block, and a link may point anywhere."""
    path = tmp_path / "a"
    path.write_bytes(b"four")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(path)
    assert sha256_of(path) == hashlib.sha256(b"four").hexdigest()
    for name in ("pipe", "link", "missing", "."):
        assert sha256_of(tmp_path / name) is None


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

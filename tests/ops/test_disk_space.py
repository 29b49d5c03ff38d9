"""Disk space, even while one of the disks hangs."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from styled.ops import disk_space
from styled.ops.disk_space import DiskSpace


def test_the_room_of_each_folder_is_reported(tmp_path: Path) -> None:
    """The values are those of the system; missing folders are omitted."""
    found = DiskSpace({"inbox": tmp_path, "outbox": tmp_path / "missing"}).usage()
    assert set(found) == {"inbox"}
    assert found["inbox"].disk == tmp_path.stat().st_dev
    assert found["inbox"].total == shutil.disk_usage(tmp_path).total


def test_a_disk_that_hangs_is_left_out_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are returned, only one thread waits, and the disk is returned once it answers."""
    hangs, queried = threading.Event(), []
    real = shutil.disk_usage

    def usage(folder: Path) -> object:
        if folder.name == "remote":
            queried.append(folder)
            assert hangs.wait(30)
        return real(folder)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(disk_space, "WAIT_SECONDS", 1.0)
    for name in ("local", "remote"):
        (tmp_path / name).mkdir()
    disk_usage = DiskSpace({name: tmp_path / name for name in ("local", "remote")})
    for _ in range(3):
        assert set(disk_usage.usage()) == {"local"}
    assert len(queried) == 1
    hangs.set()
    monkeypatch.setattr(disk_space, "WAIT_SECONDS", 5.0)
    assert set(disk_usage.usage()) == {"local", "remote"}

"""Room on disks, even while one of them hangs."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from styled.ops import room
from styled.ops.room import Room


def test_the_room_of_each_folder_is_told(tmp_path: Path) -> None:
    """As the system has it; what is missing is left out."""
    found = Room({"inbox": tmp_path, "outbox": tmp_path / "missing"}).look()
    assert set(found) == {"inbox"}
    assert found["inbox"].disk == tmp_path.stat().st_dev
    assert found["inbox"].total == shutil.disk_usage(tmp_path).total


def test_a_disk_that_hangs_is_left_out_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told; threads do not pile up; and once it is back so is its room."""
    hangs, asked = threading.Event(), []
    ask = shutil.disk_usage

    def usage(folder: Path) -> object:
        if folder.name == "remote":
            asked.append(folder)
            assert hangs.wait(30)
        return ask(folder)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(room, "WAIT_SECONDS", 0.05)
    for name in ("local", "remote"):
        (tmp_path / name).mkdir()
    looking = Room({name: tmp_path / name for name in ("local", "remote")})
    for _ in range(3):
        assert set(looking.look()) == {"local"}
    assert len(asked) == 1
    hangs.set()
    monkeypatch.setattr(room, "WAIT_SECONDS", 5.0)
    assert set(looking.look()) == {"local", "remote"}

"""The checks of `styled doctor`, with folders and limits that the tests make."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from styled import mounts
from styled.mounts import Mounts
from styled.ops.doctor import (
    Finding,
    check_disk_space,
    check_inotify,
    check_mounts,
    check_permissions,
)
from tests.daemon_harness import let_others_in

NOBODY = 65534

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


# Permissions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that all users can access."""
    let_others_in(tmp_path)
    return tmp_path


@pytest.fixture
def nobody() -> Iterator[pwd.struct_passwd]:
    """Return a user other than root; become root again afterwards in any case."""
    before = identity()
    yield pwd.getpwuid(NOBODY)
    os.seteuid(0)
    os.setegid(before[1][1])
    os.setgroups(before[2])


def identity() -> tuple[tuple[int, ...], tuple[int, ...], list[int]]:
    """Return the user ids, group ids and supplementary groups of this process."""
    return os.getresuid(), os.getresgid(), os.getgroups()


def test_folders_of_its_own_can_be_written(tmp_path: Path) -> None:
    """There is one finding for all of them; missing folders can be made in their parents."""
    folders = {"inbox": tmp_path, "outbox": tmp_path / "missing/deep"}
    (finding,) = check_permissions(folders, os.geteuid())
    assert (finding.level, finding.subject) == ("ok", "permissions")
    assert pwd.getpwuid(os.geteuid()).pw_name in finding.message
    assert not (tmp_path / "missing").exists()


@as_root
def test_the_daemons_user_is_asked_about(folder: Path, nobody: pwd.struct_passwd) -> None:
    """The check is for the daemon's user, not for root, and says what to change."""
    private, own, missing = folder / "private", folder / "own", folder / "private/missing"
    private.mkdir(mode=0o700)
    own.mkdir(mode=0o700)
    os.chown(own, nobody.pw_uid, nobody.pw_gid)
    folders = {"inbox": own, "outbox": private, "archive": own / "new", "state": missing}
    outbox, state = check_permissions(folders, nobody.pw_uid)
    assert (outbox.level, outbox.subject, outbox.exit_code) == ("fail", "outbox", 73)
    assert outbox.message == f"{private} can't be written by nobody"
    assert f"chown nobody {private}" in outbox.remedies[0]
    assert "ReadWritePaths=" in outbox.remedies[1]
    # A missing folder would be made in its nearest existing parent.
    assert (state.subject, state.message) == ("state", outbox.message)
    (ok,) = check_permissions({"inbox": own, "archive": own / "new"}, nobody.pw_uid)
    assert (ok.level, ok.message) == ("ok", "nobody may write to all folders")


@as_root
@pytest.mark.parametrize("mode", [0o600, 0o300])
def test_writing_alone_is_not_enough(folder: Path, nobody: pwd.struct_passwd, mode: int) -> None:
    """A folder needs permission to read, write and search."""
    inbox = folder / "inbox"
    inbox.mkdir()
    os.chown(inbox, nobody.pw_uid, nobody.pw_gid)
    inbox.chmod(mode)
    (finding,) = check_permissions({"inbox": inbox}, nobody.pw_uid)
    assert (finding.level, finding.subject) == ("fail", "inbox")


@as_root
def test_the_groups_of_the_user_count(folder: Path, nobody: pwd.struct_passwd) -> None:
    """The groups of root do not count."""
    before = identity()
    inbox, outbox = folder / "inbox", folder / "outbox"
    for path, group in ((inbox, nobody.pw_gid), (outbox, 0)):
        path.mkdir()
        os.chown(path, 0, group)
        path.chmod(0o770)
    (finding,) = check_permissions({"inbox": inbox, "outbox": outbox}, nobody.pw_uid)
    assert finding.subject == "outbox"
    assert identity() == before


@as_root
def test_the_process_is_itself_again_afterwards(
    folder: Path, nobody: pwd.struct_passwd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is another user only during the checks, also if one of them raises."""
    before = identity()
    list(check_permissions({"inbox": folder}, nobody.pw_uid))
    assert identity() == before
    identities = []

    def fail(*_: object, **__: object) -> bool:
        identities.append(identity())
        raise OSError("the disk is gone")

    monkeypatch.setattr("styled.ops.doctor.os.access", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        list(check_permissions({"inbox": folder}, nobody.pw_uid))
    monkeypatch.undo()
    assert identity() == before
    user, group = nobody.pw_uid, nobody.pw_gid
    assert identities == [((0, user, 0), (before[1][0], group, before[1][2]), [group])]


AS_NOBODY = f"""
import os, sys
from pathlib import Path
from styled.ops.doctor import check_permissions
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
for finding in check_permissions({{"inbox": Path(sys.argv[1])}}, {NOBODY}):
    print(finding.level, finding.subject)
"""


@as_root
@pytest.mark.parametrize(
    ("mode", "expected"), [(0o700, "ok permissions"), (0o500, "warn inbox"), (0o300, "fail inbox")]
)
def test_who_is_not_root_can_ask_about_himself(folder: Path, mode: int, expected: str) -> None:
    """A user other than root checks its own permissions without changing the user."""
    inbox = folder / "inbox"
    inbox.mkdir()
    os.chown(inbox, NOBODY, NOBODY)
    inbox.chmod(mode)
    process = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, inbox], capture_output=True, text=True, check=False
    )
    assert (process.stdout, process.returncode) == (f"{expected}\n", 0), process.stderr


def test_a_file_in_the_place_of_a_folder_is_a_failure(tmp_path: Path) -> None:
    """This holds even if the file is writable; nothing can be made below it either."""
    file = tmp_path / "file"
    file.touch(0o777)
    findings = list(check_permissions({"inbox": file, "outbox": file / "below"}, os.geteuid()))
    assert [(f.level, f.subject) for f in findings] == [("fail", "inbox"), ("fail", "outbox")]


@as_root
def test_a_user_whose_account_is_gone_is_asked_about(folder: Path) -> None:
    """In a container there may be user ids without names."""
    own = folder / "own"
    own.mkdir(mode=0o700)
    os.chown(own, 54321, 54321)
    assert [f.level for f in check_permissions({"inbox": own}, 54321)] == ["ok"]
    assert [f.level for f in check_permissions({"inbox": own}, 54322)] == ["fail"]


@as_root
@pytest.mark.parametrize(("mode", "expected"), [(0o700, "fail inbox"), (0o755, "warn inbox")])
def test_what_lies_in_a_closed_folder_is_a_failure_in_words(
    folder: Path, mode: int, expected: str
) -> None:
    """A user who can't access the folder gets a finding, not a traceback."""
    inbox = folder / "closed" / "inbox"
    inbox.mkdir(parents=True)
    inbox.parent.chmod(mode)
    process = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, inbox], capture_output=True, text=True, check=False
    )
    assert (process.stdout, process.returncode) == (f"{expected}\n", 0), process.stderr


@as_root
def test_another_user_than_the_daemons_is_reported(folder: Path) -> None:
    """Its own permissions say nothing about those of another user."""
    identities = AS_NOBODY.replace(f", {NOBODY}):", ", 1):")
    process = subprocess.run(
        [sys.executable, "-c", identities, folder], capture_output=True, text=True, check=False
    )
    assert (process.stdout, process.returncode) == ("warn permissions\n", 0), process.stderr


# Mounts


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a writable mount table with only the root file system."""
    path = tmp_path / "mountinfo"
    path.write_text("22 1 254:0 / / rw - ext4 /dev/vda rw\n")
    monkeypatch.setattr(mounts, "MOUNT_TABLE", path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / "disk" / name for name in ("inbox", "outbox", "state")}
    for path in found.values():
        path.mkdir(parents=True)
    return found


def plug(table: Path, folder: Path, kind: str = "ext4") -> str:
    """Add a disk mounted on a folder to the table; return the table as it was before."""
    before = table.read_text()
    table.write_text(f"{before}40 22 8:1 / {folder} rw - {kind} /dev/sda1 rw\n")
    return before


@pytest.mark.usefixtures("table")
def test_where_nothing_was_mounted_nothing_is_missed(folders: dict[str, Path]) -> None:
    """The check writes no record."""
    (finding,) = check_mounts(folders, folders["state"])
    assert (finding.level, finding.subject) == ("ok", "disks")
    assert list(folders["state"].iterdir()) == []


def test_a_disk_that_was_there_is_missed(table: Path, folders: dict[str, Path]) -> None:
    """It fails for each of its folders, with the daemon's message, and changes no record."""
    state, inbox = folders["state"], folders["inbox"]
    record = state / "mounts.json"
    unplugged = plug(table, inbox)
    known = Mounts(record)
    for folder in folders.values():
        known.require_mounted(folder)
    content = record.read_bytes()
    (current,) = check_mounts(folders, state)
    assert current.level == "ok"
    inbox.rename(inbox.with_name("mounted"))
    inbox.mkdir()
    table.write_text(unplugged)
    findings = list(check_mounts(folders, state))
    assert "ok" not in [finding.level for finding in findings]
    missing = findings[0]
    assert (missing.level, missing.subject, missing.exit_code) == ("fail", "inbox", 75)
    assert f"mounted at {inbox}" in missing.message
    assert f"mount {inbox}" in missing.remedies
    assert record.read_bytes() == content


def test_an_inbox_on_a_network_drive_is_no_failure(table: Path, folders: dict[str, Path]) -> None:
    """It is polled, which is a warning."""
    plug(table, folders["inbox"], "nfs4")
    finding, others = check_mounts(folders, folders["state"])
    assert others.level == "ok"
    assert (finding.level, finding.subject) == ("warn", "inbox")
    assert "nfs4" in finding.message
    assert "polling" in finding.remedies[0]


def test_other_folders_may_be_on_network_drives(table: Path, folders: dict[str, Path]) -> None:
    """They are not watched."""
    plug(table, folders["outbox"], "nfs4")
    (finding,) = check_mounts(folders, folders["state"])
    assert finding.level == "ok"


# Disk space


def set_free_space(
    monkeypatch: pytest.MonkeyPatch, free: float, files: int = 1000, free_files: int = 1000
) -> None:
    """Let every disk have so much space and so many inodes; `shutil.disk_usage` uses it too."""
    result = os.statvfs_result(
        (1, 1, 10**14, int(free), int(free), files, free_files, free_files, 0, 255)
    )
    monkeypatch.setattr("styled.ops.doctor.os.statvfs", lambda path: result)


@pytest.mark.parametrize(
    ("free", "level", "words"),
    [
        (0, "fail", "0 bytes free"),
        (99e6, "fail", "99 MB free"),
        (100e6, "warn", "100 MB free"),
        (1.99e9, "warn", "1.99 GB free"),
        (2e9, "ok", "2 GB free"),
        (4e12, "ok", "4 TB free"),
    ],
)
def test_little_room_is_a_warning_and_none_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, level: str, words: str
) -> None:
    """Less than 2 GB is a warning, less than 100 MB a failure."""
    set_free_space(monkeypatch, free)
    (finding,) = check_disk_space({"inbox": tmp_path})
    assert (finding.level, finding.subject, finding.message) == (level, "inbox", words)
    assert bool(finding.remedies) == (level != "ok")


def test_less_than_min_free_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No job begins then."""
    set_free_space(monkeypatch, 4.9e9)
    (finding,) = check_disk_space({"outbox": tmp_path}, min_free=5 * 10**9)
    assert finding.level == "fail"
    assert finding.message == ("4.9 GB free; no job begins with less than 5 GB (output.min_free)")
    (finding,) = check_disk_space({"outbox": tmp_path}, min_free=4 * 10**9)
    assert finding.level == "ok"


@pytest.mark.parametrize(
    ("files", "free_files", "level"),
    [(1000, 19, "warn"), (1000, 20, "ok"), (1000, 0, "fail"), (0, 0, "ok")],
    ids=["few", "enough", "none", "uncounted"],
)
def test_a_disk_may_run_out_of_files_before_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, free_files: int, level: str
) -> None:
    """File systems without a limit of inodes report 0 of 0 and are fine."""
    set_free_space(monkeypatch, 5e9, files, free_files)
    (finding,) = check_disk_space({"inbox": tmp_path})
    assert finding.level == level
    assert (f"room for {free_files} files only" in finding.message) == (level != "ok")


def test_each_disk_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding names all folders on the disk; missing folders are omitted."""
    set_free_space(monkeypatch, 5e9)
    folders = {
        "inbox": tmp_path, "outbox": Path("/proc"), "archive": tmp_path, "state": tmp_path / "none",
    }  # fmt: skip
    assert list(check_disk_space(folders)) == [
        Finding("ok", "inbox, archive", "5 GB free"),
        Finding("ok", "outbox", "5 GB free"),
    ]


def test_a_real_disk_has_some_room(tmp_path: Path) -> None:
    """The free space of this machine's disk is reported."""
    (finding,) = check_disk_space({"inbox": tmp_path})
    assert " free" in finding.message


# inotify


@pytest.fixture
def limits(tmp_path: Path) -> Path:
    """Return a folder with files of inotify limits: 8 watches, 16 instances."""
    path = tmp_path / "limits"
    path.mkdir()
    (path / "max_user_watches").write_text("8\n")
    (path / "max_user_instances").write_text("16\n")
    return path


def inbox_of(tmp_path: Path, folders: int) -> Path:
    """Make an inbox with so many folders, itself included, and one file."""
    inbox = tmp_path / "inbox"
    for number in range(1, folders):
        (inbox / "a" / str(number) if number > 1 else inbox / "a").mkdir(parents=True)
    inbox.mkdir(exist_ok=True)
    (inbox / "photo.jpg").touch()
    return inbox


@pytest.mark.parametrize(
    ("folders", "level", "words"),
    [
        (1, "ok", "1 folder to watch, of at most 8 for each user"),
        (4, "ok", "4 folders to watch, of at most 8 for each user"),
        (5, "warn", "5 folders to watch, of at most 8 for each user"),
        (8, "warn", "8 folders to watch, of at most 8 for each user"),
        (9, "fail", "9 folders to watch, of at most 8 for each user"),
    ],
)
def test_all_folders_of_the_inbox_have_to_be_watched(
    tmp_path: Path, limits: Path, folders: int, level: str, words: str
) -> None:
    """More than half of the kernel's limit is a warning, more than the limit a failure."""
    (finding,) = check_inotify(inbox_of(tmp_path, folders), limits)
    assert (finding.level, finding.subject, finding.message) == (level, "inotify", words)
    if level != "ok":
        assert "sysctl fs.inotify.max_user_watches=524288" in finding.remedies[0]
        assert "polling" in finding.remedies[1]


@pytest.mark.parametrize(("instances", "level"), [(15, "warn"), (16, "ok")])
def test_few_watching_programs_are_a_warning(
    tmp_path: Path, limits: Path, instances: int, level: str
) -> None:
    """A desktop session already uses about a dozen instances."""
    (limits / "max_user_instances").write_text(f"{instances}\n")
    (finding,) = check_inotify(inbox_of(tmp_path, 1), limits)
    assert finding.level == level
    assert ("max_user_instances" in "".join(finding.remedies)) == (level == "warn")


@pytest.mark.parametrize("name", ["max_user_watches", "max_user_instances"])
@pytest.mark.parametrize("content", [None, "", "many"])
def test_unknown_limits_are_a_warning(
    tmp_path: Path, limits: Path, name: str, content: str | None
) -> None:
    """In some containers they can't be read."""
    (limits / name).unlink() if content is None else (limits / name).write_text(content)
    (finding,) = check_inotify(inbox_of(tmp_path, 1), limits)
    assert (finding.level, finding.subject) == ("warn", "inotify")
    assert "can't be read" in finding.message


def test_the_real_limits_can_be_read(tmp_path: Path) -> None:
    """An empty inbox never exceeds the limits of this machine."""
    (finding,) = check_inotify(inbox_of(tmp_path, 1))
    assert finding.level != "fail"


@pytest.mark.parametrize("level", ["warn", "fail"])
def test_what_is_wrong_comes_with_what_to_do(level: Literal["warn", "fail"]) -> None:
    """A finding without a remedy can't be created, unless its level is `ok`."""
    with pytest.raises(ValueError, match="no remedy is given for disks"):
        Finding(level, "disks", "one is full")
    assert Finding(level, "disks", "one is full", ("delete something",)).remedies
    assert Finding("ok", "disks", "none is full").remedies == ()

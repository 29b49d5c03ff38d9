"""Detection of folders whose disk is not mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled import mounts
from styled.errors import NotMounted, ResourceUnavailable
from styled.mounts import Mount, Mounts, mount_of

TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:5 / /mnt rw shared:2 - autofs systemd-1 rw
31 30 0:44 / /mnt rw - nfs4 nas:/photos rw
32 22 0:45 / /mnt/my\\040photos rw,nosuid - fuse.sshfs friend:/ rw
33 22 0:46 / /mntx rw - tmpfs tmpfs rw
"""
ONLY_THE_ROOT = TABLE.splitlines()[0] + "\n"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a writable mount table."""
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    monkeypatch.setattr(mounts, "MOUNT_TABLE", path)
    return path


@pytest.mark.parametrize(
    ("folder", "mount", "is_remote"),
    [
        ("/home/ann", Mount("/", "ext4", "/dev/vda"), False),
        ("/mnt/inbox", Mount("/mnt", "nfs4", "nas:/photos"), True),
        ("/mnt/my photos/inbox", Mount("/mnt/my photos", "fuse.sshfs", "friend:/"), True),
        ("/mntx", Mount("/mntx", "tmpfs", "tmpfs"), False),
    ],
)
@pytest.mark.usefixtures("table")
def test_the_innermost_and_latest_mount_counts(folder: str, mount: Mount, is_remote: bool) -> None:
    """Names are unescaped, and `/mntx` is not below `/mnt`."""
    found = mount_of(Path(folder))
    assert found == mount
    assert found.is_remote is is_remote


def test_without_a_table_nothing_is_known(table: Path) -> None:
    """Systems without /proc have no table; then nothing is required."""
    table.unlink()
    assert mount_of(Path("/")) is None
    Mounts(table.with_name("record")).require_mounted(Path("/nowhere"))


def test_the_real_table_can_be_read() -> None:
    """The root is on a mount on any machine."""
    mount = mount_of(Path("/"))
    assert mount is not None
    assert mount.point == "/"


def test_a_disk_that_is_gone_is_missed_even_after_a_restart(table: Path, tmp_path: Path) -> None:
    """It is missed until it is mounted again; the message names mount point and record."""
    record = tmp_path / "record"
    Mounts(record).require_mounted(Path("/mnt/inbox"))
    table.write_text(ONLY_THE_ROOT)
    restarted = Mounts(record)
    with pytest.raises(NotMounted, match="mounted at /mnt,") as caught:
        restarted.require_mounted(Path("/mnt/inbox"))
    assert str(record) in str(caught.value)
    table.write_text(TABLE)
    restarted.require_mounted(Path("/mnt/inbox"))


def test_a_disk_that_is_added_is_taken_note_of(table: Path, tmp_path: Path) -> None:
    """From then on it is required, until the record is deleted."""
    record = tmp_path / "record"
    table.write_text(ONLY_THE_ROOT)
    Mounts(record).require_mounted(Path("/mnt/inbox"))
    table.write_text(TABLE)
    Mounts(record).require_mounted(Path("/mnt/inbox"))
    table.write_text(ONLY_THE_ROOT)
    with pytest.raises(NotMounted):
        Mounts(record).require_mounted(Path("/mnt/inbox"))
    record.unlink()
    Mounts(record).require_mounted(Path("/mnt/inbox"))


def test_a_folder_of_the_same_disk_is_the_same_however_it_is_mounted(
    table: Path, tmp_path: Path
) -> None:
    """A hardened systemd service has a mount for each of its folders; a user's process has not."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    record = tmp_path / "record"
    seen_by_user = ONLY_THE_ROOT
    seen_by_service = seen_by_user + f"40 22 254:0 {inbox} {inbox} rw - ext4 /dev/vda rw\n"
    for current in (seen_by_service, seen_by_user, seen_by_service, seen_by_user):
        table.write_text(current)
        Mounts(record).require_mounted(inbox)
    table.write_text(seen_by_service)
    Mounts(record).require_mounted(inbox)
    # Another folder has that name: the mounted one is gone.
    inbox.rename(tmp_path / "former")
    inbox.mkdir()
    table.write_text(seen_by_user)
    with pytest.raises(NotMounted):
        Mounts(record).require_mounted(inbox)


def test_a_folder_that_is_made_later_is_known_then(table: Path, tmp_path: Path) -> None:
    """The first start checks before it makes the folder, and again afterwards."""
    outbox = tmp_path / "outbox"
    record = tmp_path / "record"
    table.write_text(ONLY_THE_ROOT + f"40 22 254:0 {tmp_path} {tmp_path} rw - ext4 /dev/vda rw\n")
    first = Mounts(record)
    first.require_mounted(outbox)
    outbox.mkdir()
    first.require_mounted(outbox)
    table.write_text(ONLY_THE_ROOT)
    Mounts(record).require_mounted(outbox)


def test_a_folder_that_was_moved_off_its_disk_on_purpose_is_accepted(
    table: Path, tmp_path: Path
) -> None:
    """The former disk is still mounted, so the folder was moved on purpose."""
    record = tmp_path / "record"
    disk, other = tmp_path / "disk", tmp_path / "other"
    disk.mkdir()
    other.mkdir()
    inbox = tmp_path / "inbox"
    inbox.symlink_to(disk)
    table.write_text(ONLY_THE_ROOT + f"40 22 8:1 / {disk} rw - ext4 /dev/sda1 rw\n")
    Mounts(record).require_mounted(inbox)
    inbox.unlink()
    inbox.symlink_to(other)
    Mounts(record).require_mounted(inbox)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"{", b'{"/": "/"}', b'{"/": {}}'])
def test_a_damaged_record_is_none(tmp_path: Path, content: bytes) -> None:
    """It is replaced by a new record."""
    record = tmp_path / "record"
    record.write_bytes(content)
    Mounts(record).require_mounted(tmp_path)
    assert str(tmp_path).encode() in record.read_bytes()


def test_a_folder_must_be_one(tmp_path: Path) -> None:
    """If it is missing or a file, the error says that it can't be read."""
    checked = Mounts(tmp_path / "record")
    checked.require(tmp_path)
    (tmp_path / "file").touch()
    for name in ("file", "missing"):
        with pytest.raises(ResourceUnavailable, match="can't be read"):
            checked.require(tmp_path / name)


def test_a_carriage_return_in_a_name_is_part_of_it(table: Path) -> None:
    """The kernel does not escape it."""
    line = "36 22 8:2 / /media/A\rB rw,relatime shared:1 - vfat /dev/sdb1 rw\n"
    table.write_bytes((TABLE + line).encode())
    assert mount_of(Path("/media/A\rB/inbox")) == Mount("/media/A\rB", "vfat", "/dev/sdb1")
    assert mount_of(Path("/home/ann")) == Mount("/", "ext4", "/dev/vda")

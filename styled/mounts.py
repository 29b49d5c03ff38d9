"""Detects folders whose disk is not mounted.

The mount point of an unmounted disk is an ordinary folder on the disk below it. A program that
does not notice sees an empty inbox, and writes paintings to the wrong disk.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from styled.atomic import atomic_write
from styled.errors import NotMounted, ResourceUnavailable

MOUNT_TABLE = Path("/proc/self/mountinfo")

# This machine's kernel gets no events for changes that other machines make on these.
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "vboxsf", "afs", "ceph", "lustre",
     "glusterfs", "davfs", "davfs2", "prl_fs", "vmhgfs"}
)  # fmt: skip
_REMOTE_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.vmhgfs-fuse")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    Attributes:
        point: The mount point.
        kind: The file system's type, such as `ext4` or `nfs4`.
        source: The device or share, such as `/dev/sda1` or `nas:/photos`.
    """

    point: str
    kind: str
    source: str

    @property
    def is_remote(self) -> bool:
        """Whether other machines may change it without events on this machine."""
        return self.kind in _REMOTE or self.kind.startswith(_REMOTE_FUSE)


def mount_of(folder: Path) -> Mount | None:
    """Return the mount that `folder` is on, None if it is unknown."""
    return _innermost(os.path.realpath(folder), _mounts())


def _mounts() -> list[Mount]:
    """Return all mounts, in the order in which they were mounted."""
    try:
        lines = MOUNT_TABLE.read_bytes().split(b"\n")
    except OSError:
        return []
    mounts = []
    for line in lines:
        # The kernel escapes only blanks, tabs, line feeds and backslashes in names.
        mount_fields, _, source_fields = line.partition(b" - ")
        try:
            escaped = mount_fields.split(b" ")[4]
            kind, source = source_fields.split(b" ")[:2]
        except (IndexError, ValueError):
            continue  # the end of the file
        point = os.fsdecode(escaped.decode("unicode_escape").encode("latin-1"))
        mounts.append(
            Mount(point, kind.decode(errors="replace"), source.decode(errors="backslashreplace"))
        )
    return mounts


def _innermost(path: str, mounts: list[Mount]) -> Mount | None:
    innermost = None
    for mount in mounts:
        is_above = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        # Of several mounts on one point, the last one is visible.
        if is_above and (innermost is None or len(mount.point) >= len(innermost.point)):
            innermost = mount
    return innermost


@dataclass(frozen=True, slots=True)
class _MountRecord:
    """The mount that a folder was on, and the folder's identity.

    Attributes:
        point: The mount point.
        source: The mount's source, such as a device or a server's share.
        inode: The folder's inode, None if it did not exist.
    """

    point: str
    source: str
    inode: int | None


class Mounts:
    """Remembers the mount of each folder, also over restarts."""

    def __init__(self, record: Path, *, read_only: bool = False) -> None:
        """Keep the mounts in the file `record`; with `read_only`, never write it."""
        self._record = record
        self._is_read_only = read_only
        self._records = _read(record)
        self._seen: dict[Path, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def require(self, folder: Path) -> None:
        """Check that a folder's disk is mounted and that the folder can be read.

        Raises:
            NotMounted: the folder's disk is not mounted.
            ResourceUnavailable: the folder is gone or can't be read.
        """
        self.require_mounted(folder)
        try:
            os.scandir(folder).close()
        except OSError as error:
            raise ResourceUnavailable(
                f"the folder {folder} can't be read: {error.strerror}",
                "mount it, make it again or fix its permissions",
            ) from error

    def require_mounted(self, folder: Path) -> None:
        """Check that the disk that the folder was on before is still mounted.

        A missing mount point alone does not count: a systemd service may see each of its folders
        as a separate mount where a user sees one disk. In that case source and inode are the
        same. The folder itself need not exist yet. The current mount is recorded.

        Raises:
            NotMounted: the disk is not mounted.
        """
        identity = _device_and_inode(folder)
        if identity is not None and identity == self._seen.get(folder):
            return  # the same folder has passed this check before
        with suppress(OSError):
            os.scandir(folder).close()  # triggers automounts
            identity = _device_and_inode(folder)
        mounts = _mounts()
        mount = _innermost(os.path.realpath(folder), mounts)
        if mount is None:
            return
        current = _MountRecord(mount.point, mount.source, identity[1] if identity else None)
        previous = self._records.get(str(folder))
        if previous is not None and previous != current:
            is_same_folder = previous.inode is not None and (
                (previous.source, previous.inode) == (current.source, current.inode)
            )
            is_mounted = any(
                (other.point, other.source) == (previous.point, previous.source) for other in mounts
            )  # if so, the folder or a link to it was moved on purpose
            if not (is_mounted or is_same_folder) and _is_below(previous.point, current.point):
                raise NotMounted(
                    f"{folder} was on a disk mounted at {previous.point}, where nothing is "
                    "mounted now",
                    f"mount {previous.point}",
                    f"if the folder is meant to lie on {current.point} from now on, stop "
                    f"styled and delete {self._record}",
                )
        if previous != current:
            self._remember(folder, current)
        if identity is not None:
            self._seen[folder] = identity

    def _remember(self, folder: Path, mount_record: _MountRecord) -> None:
        if self._is_read_only:
            return
        with self._lock:  # called by the intake's and the scheduler's threads
            records = {**self._records, str(folder): mount_record}
            content = {name: asdict(known) for name, known in records.items()}
            atomic_write(self._record, json.dumps(content, indent=2).encode() + b"\n")
            self._records = records


def _is_below(point: str, other: str) -> bool:
    return point != other and (point + "/").startswith(other.rstrip("/") + "/")


def _device_and_inode(folder: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(folder)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _read(record: Path) -> dict[str, _MountRecord]:
    try:
        content = json.loads(record.read_bytes())
        return {folder: _MountRecord(**mount_record) for folder, mount_record in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # it does not exist yet, or is damaged

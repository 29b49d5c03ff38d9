"""Disks that come and go: a folder whose disk is not mounted is not an empty folder.

The mount point of an unmounted disk is an ordinary folder on the disk below it. Whoever
takes that for the folder itself believes that all photos are gone, and writes paintings
where nobody will ever look.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from styled.errors import NotMounted, ResourceUnavailable

MOUNT_TABLE = Path("/proc/self/mountinfo")

# Changes that another machine makes on these are not told to this one's kernel.
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "vboxsf", "afs", "ceph", "lustre",
     "glusterfs", "davfs", "davfs2", "prl_fs", "vmhgfs"}
)  # fmt: skip
_REMOTE_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.vmhgfs-fuse")


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a file system begins.

    Attributes:
        point: The folder.
        kind: Its type, such as `ext4` or `nfs4`.
        source: What is mounted, such as `/dev/sda1` or `nas:/photos`.
    """

    point: str
    kind: str
    source: str

    @property
    def is_remote(self) -> bool:
        """Whether others may change it without this machine's kernel being told."""
        return self.kind in _REMOTE or self.kind.startswith(_REMOTE_FUSE)


def mount_of(folder: Path) -> Mount | None:
    """Return what `folder` lies on, None where the system does not tell."""
    return _innermost(os.path.realpath(folder), _mounts())


def _mounts() -> list[Mount]:
    """Return all mounts, in the order in which they were made."""
    try:
        lines = MOUNT_TABLE.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        before, _, after = line.partition(b" - ")
        point = os.fsdecode(before.split()[4].decode("unicode_escape").encode("latin-1"))
        kind, source = after.split()[:2]
        found.append(
            Mount(point, kind.decode(errors="replace"), source.decode(errors="backslashreplace"))
        )
    return found


def _innermost(path: str, mounts: list[Mount]) -> Mount | None:
    found = None
    for mount in mounts:
        is_above = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        # Of several mounts on one point, the last one is what is seen.
        if is_above and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a folder was found: the mount it lay on, and which folder it was.

    Attributes:
        point: Of the mount.
        source: Of the mount, such as a device or a server's share.
        inode: Of the folder, None where it did not exist.
    """

    point: str
    source: str
    inode: int | None


class Mounts:
    """Remembers on which mount each folder lay, even from one start to the next."""

    def __init__(self, record: Path, atomic_write: Callable[[Path, bytes], None]) -> None:
        """Keep the record in the file `record`, written by `atomic_write`."""
        self._record = record
        self._write_whole = atomic_write
        self._homes = _read(record)
        self._seen: dict[Path, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def require(self, folder: Path) -> None:
        """Do nothing, unless the folder is missing, can't be read, or its disk is not mounted.

        Raises:
            NotMounted: the folder's disk is not mounted.
            ResourceUnavailable: it is gone or can't be read.
        """
        self.require_mounted(folder)
        try:
            os.scandir(folder).close()
        except OSError as error:
            raise ResourceUnavailable(
                f"the folder {folder} can't be read: {error.strerror}",
                "mount it, make it again or mend its permissions; work goes on by itself",
            ) from error

    def require_mounted(self, folder: Path) -> None:
        """Do nothing, unless the disk is not mounted that the folder was on before.

        A mount point that is missing is not enough to say so: a service may see each of its
        folders as a mount of its own where a person sees one disk. But then it is the same
        folder of the same disk.

        Raises:
            NotMounted: it is not. The folder itself need not exist yet.
        """
        identity = _identity_of(folder)
        if identity is not None and identity == self._seen.get(folder):
            return  # the very folder that was found to be right before
        with suppress(OSError):
            os.scandir(folder).close()  # what is mounted on demand is mounted by this
            identity = _identity_of(folder)
        mounts = _mounts()
        mount = _innermost(os.path.realpath(folder), mounts)
        if mount is None:
            return
        present = _Home(mount.point, mount.source, identity[1] if identity else None)
        before = self._homes.get(str(folder))
        if before is not None and before != present:
            is_same_folder = before.inode is not None and (
                (before.source, before.inode) == (present.source, present.inode)
            )
            is_mounted = any(
                (other.point, other.source) == (before.point, before.source) for other in mounts
            )  # then the folder, or a link to it, was moved on purpose
            if not (is_mounted or is_same_folder) and _is_below(before.point, present.point):
                raise NotMounted(
                    f"{folder} was on a disk mounted at {before.point}, where nothing is "
                    "mounted now",
                    f"mount {before.point}; work goes on by itself",
                    f"if the folder is meant to lie on {present.point} from now on, stop "
                    f"styled and delete {self._record}",
                )
        if before != present:
            self._remember(folder, present)
        if identity is not None:
            self._seen[folder] = identity

    def _remember(self, folder: Path, home: _Home) -> None:
        with self._lock:  # intake and scheduler both ask
            homes = {**self._homes, str(folder): home}
            content = {name: asdict(known) for name, known in homes.items()}
            self._write_whole(self._record, json.dumps(content, indent=2).encode() + b"\n")
            self._homes = homes


def _is_below(point: str, other: str) -> bool:
    return point != other and (point + "/").startswith(other.rstrip("/") + "/")


def _identity_of(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _read(record: Path) -> dict[str, _Home]:
    try:
        content = json.loads(record.read_bytes())
        return {folder: _Home(**home) for folder, home in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # there is none yet, or somebody has spoilt it

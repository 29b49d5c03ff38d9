"""What in a machine may hinder a folder watcher: limits, room, permissions, network drives."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from styled.errors import NotMounted, ResourceUnavailable
from styled.files import readable
from styled.mounts import Mounts, mount_of
from styled.ops.words import size, some

SCARCE_BYTES, LITTLE_BYTES = 100e6, 2e9
"""Room on a disk: with less than the first nothing goes on, with the second not for long."""

SCARCE_SHARE = 0.02
"""Of the files that a disk may hold, so many should still be free."""

MOST_FOLDERS, MOST_NAMED = 5000, 5
"""How many folders are looked at, and how many of those that are wrong are named."""

INOTIFY = Path("/proc/sys/fs/inotify")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Raises:
        ValueError: there is something to mend, and nothing is said of how.

    Attributes:
        level: `ok`, `warn` where it will hinder some day, `fail` where it hinders now.
        about: In a word or two.
        words: What was found, in a sentence.
        remedies: What to do about it.
        exit_code: Of `styled doctor`, where this is what fails first.
    """

    level: Literal["ok", "warn", "fail"]
    about: str
    words: str
    remedies: tuple[str, ...] = ()
    exit_code: int = 73

    def __post_init__(self) -> None:
        if self.level != "ok" and not self.remedies:
            raise ValueError(f"no remedy is given for {self.about}: {self.words}")


def permissions(folders: Mapping[str, Path], user: int) -> Iterator[Finding]:
    """Check that `user` may write to each folder, or make it where it is missing."""
    name = _name(user)
    if os.geteuid() not in (0, user):
        yield Finding(
            "warn", "permissions", f"only root or {name} can tell whether {name} may write",
            (f"sudo -u {name} styled doctor",),
        )  # fmt: skip
        return
    try:
        with _as_user(user):
            wrong = list(_wrong(folders, name))  # all of it, before being oneself again
    except PermissionError as error:
        wrong = [
            Finding(
                "warn",
                "permissions",
                f"nobody can tell whether {name} may write: {error}",
                (f"ask as that user: sudo -u {name} styled doctor",),
            )
        ]
    yield from wrong or [Finding("ok", "permissions", f"{name} may write to all folders")]


def _wrong(folders: Mapping[str, Path], name: str) -> Iterator[Finding]:
    for folder_name, folder in folders.items():
        existing = next(f for f in (folder, *folder.parents) if os.path.lexists(f))
        may_read = os.access(existing, os.R_OK | os.X_OK, effective_ids=True)
        may_write = os.access(existing, os.W_OK, effective_ids=True)
        if folder_name == "inbox" and existing == folder and may_read and not may_write:
            yield Finding(
                "warn", folder_name, f"{existing} may only be read by {name}",
                (f"give it to {name}: chown {name} {existing}",
                 "or set output.after_success: keep, for a library that is to stay as it is"),
            )  # fmt: skip
        elif not (may_read and may_write):
            yield Finding(
                "fail", folder_name, f"{existing} can't be written by {name}",
                (f"give it to {name}: chown {name} {existing}",
                 "under systemd, name it in ReadWritePaths= too (systemctl edit styled)"),
            )  # fmt: skip
        elif not existing.is_dir():
            yield Finding(
                "fail", folder_name, f"{existing} is no folder",
                ("move it away, or name another folder in the configuration",),
            )  # fmt: skip
        elif existing == folder and folder_name != "state":
            yield from _wrong_below(folder_name, folder, name)


def _wrong_below(folder_name: str, top: Path, name: str) -> Iterator[Finding]:
    """Check the folders below one of styled's: the first few that are wrong are named."""
    wrong = []
    for folder, folders, _ in islice(os.walk(top), MOST_FOLDERS):
        for path in (os.path.join(folder, one) for one in folders):
            may_change = os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
            if not may_change or (folder_name == "inbox" and _keeps_others_out(path)):
                wrong.append(path)
    for path in wrong[:MOST_NAMED]:
        what = (
            "its photos can't be read or can't leave"
            if folder_name == "inbox"
            else "what belongs there waits"
        )
        yield Finding(
            "warn", folder_name, f"{readable(path)} can't be changed by {name}: {what}",
            (f"give it to {name}: chown {name} {readable(path)}",
             "or, if it is sticky, chmod -t it"),
        )  # fmt: skip
    if len(wrong) > MOST_NAMED:
        yield Finding(
            "warn", folder_name, f"so it is with {some(len(wrong) - MOST_NAMED, 'more folder')}",
            (f"give all of it to {name}: chown -R {name} {top}",),
        )  # fmt: skip


def _keeps_others_out(folder: str) -> bool:
    """Tell whether only the owners of files may take them out of a folder, and we own it not."""
    found = os.stat(folder)
    return bool(found.st_mode & stat.S_ISVTX) and found.st_uid != os.geteuid() != 0


@contextmanager
def _as_user(user: int) -> Iterator[None]:
    """Ask as another user whether something is allowed; only root can."""
    if user == os.geteuid():
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        entry = pwd.getpwuid(user)
        theirs, their_groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:  # its account is gone, or was never made, as in a container
        theirs, their_groups = user, []
    try:
        os.setgroups(their_groups)
        os.setegid(theirs)
        os.seteuid(user)
        yield
    finally:
        if os.geteuid() != 0:
            os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def mounted(folders: Mapping[str, Path], state: Path) -> Iterator[Finding]:
    """Check that each folder is on the disk that it was on before."""
    mounts = Mounts(state / "mounts.json", lambda record, data: None)
    are_right = True
    for name, folder in folders.items():
        try:
            mounts.require_mounted(folder)
        except NotMounted as error:
            are_right = False
            yield Finding("fail", name, error.message, error.remedies, exit_code=75)
        except ResourceUnavailable as error:
            are_right = False
            yield Finding("warn", name, error.message, error.remedies)
    inbox = mount_of(folders["inbox"])
    if inbox is not None and inbox.is_remote:
        yield Finding(
            "warn", "inbox", f"it is on a network drive ({inbox.kind}), which does not tell of new "
            "files: it is looked at every second",
            ("to accept that: intake.mode: polling",),
        )  # fmt: skip
    if are_right:
        yield Finding("ok", "disks", "all are mounted that were mounted before")


def writers(inbox: Path, user: int, process: int | None) -> Iterator[Finding]:
    """Check that the kernel tells the daemon whether a file in the inbox is open for writing.

    Args:
        inbox: Where files arrive.
        user: Whom the daemon runs as.
        process: Its number, None where it is not running.
    """
    mount = mount_of(inbox)
    if mount is None or mount.is_remote:
        yield Finding(
            "warn", "uploads", "nobody can tell whether a file on a network drive is still open "
            "for writing: unfinished ones are known by their content alone",
            ("have uploads come under a temporary name (photo.jpg.part), and be renamed at the end",
             "or raise intake.settle_seconds above the longest pause of an upload"),
        )  # fmt: skip
        return
    owners = _owners_in(inbox) - {user}
    if owners and user != 0 and not _has_cap_lease(process):
        names = ", ".join(sorted(map(_name, owners)))
        yield Finding(
            "warn", "uploads", f"whether files of {names} are still open for writing can't be told "
            f"by {_name(user)}: unfinished ones are known by their content alone",
            ("give the daemon the capability CAP_LEASE, as the service has it "
             "(AmbientCapabilities=CAP_LEASE)",),
        )  # fmt: skip
    else:
        yield Finding("ok", "uploads", "files that are still open for writing are waited for")


def _owners_in(inbox: Path) -> set[int]:
    """Return whose folders and files lie in the inbox; of many files, the first ones count."""
    owners: set[int] = set()
    for folder, _, names in islice(os.walk(inbox), 100):
        for name in (".", *names[:100]):
            with suppress(OSError):
                owners.add(os.lstat(os.path.join(folder, name)).st_uid)
    return owners


def _has_cap_lease(process: int | None) -> bool:
    """Tell whether a running daemon has the capability, as far as the system tells."""
    if process is None:
        return False
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_LEASE & 1)
    return False


_CAP_LEASE = 28  # linux/capability.h


def room(folders: Mapping[str, Path]) -> Iterator[Finding]:
    """Check how much room there is, on each disk once."""
    seen: dict[int, list[str]] = {}
    for name, folder in folders.items():
        with suppress(OSError):  # it is missing, or hidden, which others say
            seen.setdefault(os.stat(folder).st_dev, []).append(name)
    for names in seen.values():
        folder = folders[names[0]]
        free, about = shutil.disk_usage(folder).free, ", ".join(names)
        files = os.statvfs(folder)
        words, files_left = f"{size(free)} free", some(files.f_favail, "file")
        if free < LITTLE_BYTES:
            yield Finding(
                "fail" if free < SCARCE_BYTES else "warn", about, words,
                ("free some space: originals in the archive are the first to think of",),
            )  # fmt: skip
        elif files.f_favail < SCARCE_SHARE * files.f_files:
            yield Finding(
                "warn" if files.f_favail else "fail", about,
                f"{words}, but room for {files_left} only",
                ("delete small files, or use another file system",),
            )  # fmt: skip
        else:
            yield Finding("ok", about, words)


def watches(inbox: Path, limits: Path = INOTIFY) -> Iterator[Finding]:
    """Check that the kernel will watch as many folders as there are in the inbox."""
    try:
        most = int((limits / "max_user_watches").read_text())
        instances = int((limits / "max_user_instances").read_text())
    except (OSError, ValueError):
        yield Finding(
            "warn", "inotify", "its limits can't be read; where it does not work, the inbox is "
            "looked at every second",
            ("to accept that: intake.mode: polling; the limits are those of /proc/sys/fs/inotify",),
        )  # fmt: skip
        return
    folders = sum(1 for _ in os.walk(inbox))
    words = f"{some(folders, 'folder')} to watch, of at most {most:,} for each user"
    if folders > most / 2:
        yield Finding(
            "fail" if folders > most else "warn", "inotify", words,
            (f"raise it: sysctl fs.inotify.max_user_watches={max(4 * folders, 524288)}, and in "
             "/etc/sysctl.d to keep it", "or set intake.mode: polling"),
        )  # fmt: skip
    elif instances < 16:
        yield Finding(
            "warn", "inotify", f"only {instances} programs of a user may watch folders",
            ("raise it: sysctl fs.inotify.max_user_instances=128",),
        )  # fmt: skip
    else:
        yield Finding("ok", "inotify", words)

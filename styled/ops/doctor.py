"""Checks of the machine for `styled doctor`: permissions, mounts, disk space, inotify limits."""

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
from styled.ops.humanize import format_bytes, format_count

FAIL_BELOW_BYTES, WARN_BELOW_BYTES = 100e6, 2e9
"""Free disk space below which a check fails, and below which it warns."""

MIN_FREE_INODES = 0.02
"""A check warns if less than this share of a disk's inodes is free."""

MAX_FOLDERS, MAX_NAMED = 5000, 5
"""Maximum number of folders that are checked, and of wrong ones that are named."""

INOTIFY = Path("/proc/sys/fs/inotify")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Raises:
        ValueError: the level is not `ok` and there are no remedies.

    Attributes:
        level: `ok`, `warn` for a future problem, `fail` for a current one.
        subject: What it is about, in one or two words.
        message: The result, in one sentence.
        remedies: What to do about it.
        exit_code: The exit code of `styled doctor` if this is the first failure.
    """

    level: Literal["ok", "warn", "fail"]
    subject: str
    message: str
    remedies: tuple[str, ...] = ()
    exit_code: int = 73

    def __post_init__(self) -> None:
        if self.level != "ok" and not self.remedies:
            raise ValueError(f"no remedy is given for {self.subject}: {self.message}")


def check_permissions(folders: Mapping[str, Path], user: int) -> Iterator[Finding]:
    """Check that `user` may write to each folder, or make it where it is missing."""
    name = _user_name(user)
    if os.geteuid() not in (0, user):
        yield Finding(
            "warn", "permissions", f"only root or {name} can tell whether {name} may write",
            (f"sudo -u {name} styled doctor",),
        )  # fmt: skip
        return
    try:
        with _as_user(user):
            wrong = list(_folder_problems(folders, name))  # a list: all checks run as `user`
    except PermissionError as error:
        wrong = [
            Finding(
                "warn",
                "permissions",
                f"it can't be checked whether {name} may write: {error}",
                (f"ask as that user: sudo -u {name} styled doctor",),
            )
        ]
    yield from wrong or [Finding("ok", "permissions", f"{name} may write to all folders")]


def _folder_problems(folders: Mapping[str, Path], name: str) -> Iterator[Finding]:
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
                "fail", folder_name, f"{existing} is not a folder",
                ("move it away, or name another folder in the configuration",),
            )  # fmt: skip
        elif existing == folder and folder_name != "state":
            yield from _subfolder_problems(folder_name, folder, name)


def _subfolder_problems(folder_name: str, top: Path, name: str) -> Iterator[Finding]:
    """Check the sub-folders of a folder; the first `MAX_NAMED` wrong ones are named."""
    wrong = []
    for folder, folders, _ in islice(os.walk(top), MAX_FOLDERS):
        for path in (os.path.join(folder, one) for one in folders):
            may_change = os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
            if not may_change or (folder_name == "inbox" and _is_sticky_for_others(path)):
                wrong.append(path)
    for path in wrong[:MAX_NAMED]:
        what = (
            "its photos can't be read or can't leave"
            if folder_name == "inbox"
            else "files for this folder wait"
        )
        yield Finding(
            "warn", folder_name, f"{readable(path)} can't be changed by {name}: {what}",
            (f"give it to {name}: chown {name} {readable(path)}",
             "or, if it is sticky, chmod -t it"),
        )  # fmt: skip
    if len(wrong) > MAX_NAMED:
        more = format_count(len(wrong) - MAX_NAMED, "more folder")
        yield Finding(
            "warn", folder_name, f"the same for {more}",
            (f"give all of it to {name}: chown -R {name} {top}",),
        )  # fmt: skip


def _is_sticky_for_others(folder: str) -> bool:
    """Return whether a folder is sticky and of another user: only owners may then remove files."""
    info = os.stat(folder)
    return bool(info.st_mode & stat.S_ISVTX) and info.st_uid != os.geteuid() != 0


@contextmanager
def _as_user(user: int) -> Iterator[None]:
    """Run as another user while the context lasts; only root can."""
    if user == os.geteuid():
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        entry = pwd.getpwuid(user)
        user_group, user_groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:  # it has no account, as in a container
        user_group, user_groups = user, []
    try:
        os.setgroups(user_groups)
        os.setegid(user_group)
        os.seteuid(user)
        yield
    finally:
        if os.geteuid() != 0:
            os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def check_mounts(folders: Mapping[str, Path], state: Path) -> Iterator[Finding]:
    """Check that each folder is on the same disk as before, and whether the inbox is remote."""
    mounts = Mounts(state / "mounts.json", read_only=True)
    all_mounted = True
    for name, folder in folders.items():
        try:
            mounts.require_mounted(folder)
        except NotMounted as error:
            all_mounted = False
            yield Finding("fail", name, error.message, error.remedies, exit_code=75)
        except ResourceUnavailable as error:
            all_mounted = False
            yield Finding("warn", name, error.message, error.remedies)
    inbox = mount_of(folders["inbox"])
    if inbox is not None and inbox.is_remote:
        yield Finding(
            "warn", "inbox", f"it is on a network drive ({inbox.kind}), which sends no events for "
            "new files: it is polled every second",
            ("to accept that: intake.mode: polling",),
        )  # fmt: skip
    if all_mounted:
        yield Finding("ok", "disks", "all that were mounted before are mounted")


def check_open_files(inbox: Path, user: int, process: int | None) -> Iterator[Finding]:
    """Check that the daemon can detect whether a file in the inbox is open for writing.

    Args:
        inbox: The inbox.
        user: The user id that the daemon runs as.
        process: Its process id, None if it is not running.
    """
    mount = mount_of(inbox)
    if mount is None or mount.is_remote:
        yield Finding(
            "warn", "uploads", "it can't be detected whether a file on a network drive is still "
            "open for writing: incomplete files are detected by their content only",
            ("upload under a temporary name (photo.jpg.part), and rename the file in the end",
             "or raise intake.settle_seconds above the longest pause of an upload"),
        )  # fmt: skip
        return
    owners = _owners_in(inbox) - {user}
    if owners and user != 0 and not _has_cap_lease(process):
        names = ", ".join(sorted(map(_user_name, owners)))
        yield Finding(
            "warn", "uploads", f"{_user_name(user)} can't detect whether files of {names} are "
            "still open for writing: incomplete files are detected by their content only",
            ("give the daemon the capability CAP_LEASE, as the service has it "
             "(AmbientCapabilities=CAP_LEASE)",),
        )  # fmt: skip
    else:
        yield Finding("ok", "uploads", "files that are still open for writing are waited for")


def _owners_in(inbox: Path) -> set[int]:
    """Return the user ids of folders and files in the inbox; of many, only the first are read."""
    owners: set[int] = set()
    for folder, _, names in islice(os.walk(inbox), 100):
        for name in (".", *names[:100]):
            with suppress(OSError):
                owners.add(os.lstat(os.path.join(folder, name)).st_uid)
    return owners


def _has_cap_lease(process: int | None) -> bool:
    """Return whether a running daemon has CAP_LEASE; False if that can't be read."""
    if process is None:
        return False
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_LEASE & 1)
    return False


_CAP_LEASE = 28  # linux/capability.h


def check_disk_space(folders: Mapping[str, Path], min_free: int = 0) -> Iterator[Finding]:
    """Check the free space and inodes of each disk once.

    Args:
        folders: name -> path.
        min_free: With less free space, in bytes, no job begins.
    """
    seen: dict[int, list[str]] = {}
    for name, folder in folders.items():
        with suppress(OSError):  # it is missing or can't be read, which other checks report
            seen.setdefault(os.stat(folder).st_dev, []).append(name)
    for names in seen.values():
        folder = folders[names[0]]
        free, about = shutil.disk_usage(folder).free, ", ".join(names)
        inodes = os.statvfs(folder)
        text, files_left = f"{format_bytes(free)} free", format_count(inodes.f_favail, "file")
        if free < max(WARN_BELOW_BYTES, min_free):
            yield Finding(
                "fail" if free < max(FAIL_BELOW_BYTES, min_free) else "warn", about,
                f"{text}; no job begins with less than {format_bytes(min_free)} (output.min_free)"
                if free < min_free else text,
                ("free some space: originals in the archive are the first to think of",),
            )  # fmt: skip
        elif inodes.f_favail < MIN_FREE_INODES * inodes.f_files:
            yield Finding(
                "warn" if inodes.f_favail else "fail", about,
                f"{text}, but room for {files_left} only",
                ("delete small files, or use another file system",),
            )  # fmt: skip
        else:
            yield Finding("ok", about, text)


def check_inotify(inbox: Path, limits: Path = INOTIFY) -> Iterator[Finding]:
    """Check that the inotify limits suffice for all folders of the inbox."""
    try:
        max_watches = int((limits / "max_user_watches").read_text())
        max_instances = int((limits / "max_user_instances").read_text())
    except (OSError, ValueError):
        yield Finding(
            "warn", "inotify", "its limits can't be read; if it does not work, the inbox is "
            "polled every second",
            ("to accept that: intake.mode: polling; the limits are those of /proc/sys/fs/inotify",),
        )  # fmt: skip
        return
    folders = sum(1 for _ in os.walk(inbox))
    text = f"{format_count(folders, 'folder')} to watch, of at most {max_watches:,} for each user"
    if folders > max_watches / 2:
        yield Finding(
            "fail" if folders > max_watches else "warn", "inotify", text,
            (f"raise it: sysctl fs.inotify.max_user_watches={max(4 * folders, 524288)}, and in "
             "/etc/sysctl.d to keep it", "or set intake.mode: polling"),
        )  # fmt: skip
    elif max_instances < 16:
        yield Finding(
            "warn", "inotify", f"only {max_instances} programs of a user may watch folders",
            ("raise it: sysctl fs.inotify.max_user_instances=128",),
        )  # fmt: skip
    else:
        yield Finding("ok", "inotify", text)

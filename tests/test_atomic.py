"""Atomic file operations, with a failure or crash at each system call."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from styled import atomic
from styled.atomic import (
    atomic_write,
    durable_copy,
    durable_move,
    make_folder,
    resource_errors,
    sweep_temporaries,
    sync_folder,
)
from styled.errors import ResourceUnavailable
from styled.files import TEMPORARY_PREFIX

NEW = b"new " * 1000
OLD = b"old " * 1000


class Crash(BaseException):
    """Simulates the death of the process: no code after this call has any effect."""


class Calls:
    """Wraps the system calls of `atomic`: records them, and may fail or crash at one.

    A crash at call number n means that only the calls before it take effect. Later calls, such as
    those of cleanup code, raise `Crash` too.

    Attributes:
        log: The names of the calls so far.
        crash_at: The number of the call to crash at.
        after: Whether to crash after that call instead of before it.
        errors: Name of a call -> the error that it raises.
    """

    NAMES = (
        (os, "fsync"),
        (os, "open"),
        (os, "link"),
        (Path, "rename"),
        (Path, "replace"),
        (Path, "unlink"),
        (shutil, "copystat"),
    )

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.crash_at: int | None = None
        self.after = False
        self.errors: dict[str, OSError] = {}
        for owner, name in self.NAMES:
            monkeypatch.setattr(owner, name, self._wrap(name, getattr(owner, name)))

    def _wrap(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            number = len(self.log)
            self.log.append(name)
            crashed = self.crash_at is not None and number >= self.crash_at
            if crashed and not (self.after and number == self.crash_at):
                raise Crash(name)
            if name in self.errors:
                raise self.errors[name]
            result = real(*arguments, **options)
            if crashed:
                raise Crash(f"after {name}")
            return result

        return call


def steps_of(action: Callable[[], None]) -> int:
    """Return how many of the wrapped calls `action` makes if nothing fails."""
    with pytest.MonkeyPatch.context() as patched:
        calls = Calls(patched)
        action()
        return len(calls.log)


def crash(
    action: Callable[[], None], at: int, *, after: bool, errors: dict[str, OSError] | None = None
) -> None:
    """Run `action` until a simulated crash before or after its call number `at`."""
    with pytest.MonkeyPatch.context() as patched:
        calls = Calls(patched)
        calls.crash_at, calls.after = at, after
        calls.errors = errors or {}
        with pytest.raises(Crash):
            action()


def cross_device() -> dict[str, OSError]:
    """Return the error of a rename to another file system, for `Calls.errors`."""
    return {"rename": OSError(errno.EXDEV, os.strerror(errno.EXDEV))}


def temporaries(folder: Path) -> list[str]:
    """Return the temporary files in a folder."""
    return [name for name in os.listdir(folder) if name.startswith(TEMPORARY_PREFIX)]


# atomic_write


def test_writes_the_bytes(tmp_path: Path) -> None:
    """The file has the given bytes, and there is no other file."""
    atomic_write(tmp_path / "a", NEW)
    assert (tmp_path / "a").read_bytes() == NEW
    assert os.listdir(tmp_path) == ["a"]


def test_data_and_name_are_durable_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data are synced before the name appears, and the folder after it."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        visible = (tmp_path / "a").exists()
        synced.append(f"{'folder' if is_folder else 'data'}, {'visible' if visible else 'hidden'}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic_write(tmp_path / "a", NEW)
    assert synced == ["data, hidden", "folder, visible"]


@pytest.mark.parametrize("before", [None, OLD], ids=["absent", "present"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_while_writing_leaves_old_or_new(
    tmp_path: Path, before: bytes | None, after: bool
) -> None:
    """After a crash at any call the file is the old or the new one; the sweep cleans up."""
    count = steps_of(lambda: atomic_write(tmp_path / "probe", NEW))
    assert count >= 4
    for step in range(count):
        folder = tmp_path / str(step)
        folder.mkdir()
        path = folder / "a"
        if before is not None:
            path.write_bytes(before)

        crash(lambda path=path: atomic_write(path, NEW), step, after=after)  # type: ignore[misc]

        assert (path.read_bytes() if path.exists() else None) in (before, NEW)
        sweep_temporaries(folder)
        assert os.listdir(folder) in ([], ["a"])


def test_a_crash_amid_the_data_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partially written data are never visible under the final name."""
    path = tmp_path / "a"
    path.write_bytes(OLD)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _half_then_crash)
        patched.setattr(Path, "unlink", _die)
        with pytest.raises(Crash):
            atomic_write(path, NEW)
    assert path.read_bytes() == OLD
    assert sweep_temporaries(tmp_path) == 1


def test_a_failing_disk_leaves_no_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error, unlike a crash, the temporary file is deleted; the old file stays."""
    (tmp_path / "a").write_bytes(OLD)
    monkeypatch.setattr(os, "fsync", _raising(errno.ENOSPC))
    with pytest.raises(ResourceUnavailable):
        atomic_write(tmp_path / "a", NEW)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == OLD


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    """The temporary name is not derived from the final one, so the longest names fit."""
    path = tmp_path / ("a" * 251 + ".jpg")
    atomic_write(path, NEW)
    assert path.read_bytes() == NEW


def test_a_name_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    """Names may be arbitrary bytes."""
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    atomic_write(path, NEW)
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9.jpg"]


# durable_move


def test_moving_takes_the_file_away(tmp_path: Path) -> None:
    """The file is at the destination and no longer at the source."""
    source, destination = _two_folders(tmp_path)
    durable_move(source, destination)
    assert not source.exists()
    assert destination.read_bytes() == NEW


@pytest.mark.parametrize("errors", [{}, cross_device()], ids=["rename", "copy"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_while_moving_loses_nothing(
    tmp_path: Path, errors: dict[str, OSError], after: bool
) -> None:
    """After a crash at any call a complete file exists, and the destination is never partial."""
    step = 0
    while True:
        source, destination = _two_folders(tmp_path / str(step))
        try:
            crash(
                lambda a=source, b=destination: durable_move(a, b),  # type: ignore[misc]
                step,
                after=after,
                errors=errors,
            )
        except pytest.fail.Exception:
            break  # the action has no more calls
        assert source.exists() or destination.exists()
        for path in (source, destination):
            assert not path.exists() or path.read_bytes() == NEW
        sweep_temporaries(destination.parent)
        assert temporaries(destination.parent) == []
        step += 1
    assert step >= (8 if errors else 4)


def test_a_move_to_another_file_system_is_durable_before_the_original_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not keep the deletion but lose the copy's name."""
    source, destination = _two_folders(tmp_path)
    present = {"source": [True], "destination": [False]}
    calls = Calls(monkeypatch)
    calls.errors = cross_device()
    real = sync_folder

    def sync(folder: Path) -> None:
        present["source"].append(source.exists())
        present["destination"].append(destination.exists())
        real(folder)

    monkeypatch.setattr(atomic, "sync_folder", sync)
    durable_move(source, destination)
    assert present["source"][1] is True
    assert present["destination"][1] is True
    assert not source.exists()
    assert destination.read_bytes() == NEW


def test_a_move_to_another_file_system_keeps_times_and_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An original in the archive has the times and permissions that it had in the inbox."""
    source, destination = _two_folders(tmp_path)
    source.chmod(0o640)
    os.utime(source, ns=(1, 1_600_000_000_123_456_789))
    monkeypatch.setattr(Path, "rename", _raising(errno.EXDEV))
    durable_move(source, destination)
    info = destination.stat()
    assert info.st_mtime_ns == 1_600_000_000_123_456_789
    assert stat.S_IMODE(info.st_mode) == 0o640


def test_times_that_cannot_be_kept_are_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems refuse to set times and permissions."""
    source, destination = _two_folders(tmp_path)
    monkeypatch.setattr(Path, "rename", _raising(errno.EXDEV))
    monkeypatch.setattr(shutil, "copystat", _raising(errno.EPERM))
    durable_move(source, destination)
    assert destination.read_bytes() == NEW


@pytest.mark.parametrize("function", [durable_move, durable_copy])
def test_a_crash_amid_a_copy_shows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[[Path, Path], None]
) -> None:
    """A partial copy is a temporary file that is swept, and the source is not changed."""
    source, destination = _two_folders(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", _raising(errno.EXDEV))
        patched.setattr(os, "link", _raising(errno.EXDEV))
        patched.setattr(os, "fsync", _half_then_crash)
        patched.setattr(Path, "unlink", _die)
        with pytest.raises(Crash):
            function(source, destination)
    assert source.read_bytes() == NEW
    assert not destination.exists()
    assert sweep_temporaries(destination.parent) == 1


def test_a_file_that_changes_while_it_is_copied_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data that an upload appends during a copy to another file system are not lost."""
    source, destination = _two_folders(tmp_path)
    real = shutil.copystat

    def copystat(*arguments: str | Path, **options: bool) -> None:
        real(arguments[0], arguments[1], **options)
        with source.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(Path, "rename", _raising(errno.EXDEV))
    monkeypatch.setattr(shutil, "copystat", copystat)
    with pytest.raises(ResourceUnavailable, match="changed while it was copied"):
        durable_move(source, destination)
    assert source.read_bytes() == NEW + b"more"
    assert os.listdir(destination.parent) == []


def test_moves_between_real_file_systems(tmp_path: Path) -> None:
    """A real rename across devices fails and is replaced by a copy."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system here")
    source = memory / f"styled-test-{os.getpid()}.jpg"
    source.write_bytes(NEW)
    try:
        durable_move(source, tmp_path / "a.jpg")
        assert not source.exists()
        assert (tmp_path / "a.jpg").read_bytes() == NEW
        assert os.listdir(tmp_path) == ["a.jpg"]
    finally:
        source.unlink(missing_ok=True)


def test_a_move_that_fails_leaves_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is not deleted if the copy can't be finished."""
    source, destination = _two_folders(tmp_path)
    monkeypatch.setattr(Path, "rename", _raising(errno.EXDEV))
    monkeypatch.setattr(os, "fsync", _raising(errno.ENOSPC))
    with pytest.raises(ResourceUnavailable):
        durable_move(source, destination)
    assert source.read_bytes() == NEW
    assert os.listdir(destination.parent) == []


# durable_copy


def test_a_copy_shares_the_content_where_it_can(tmp_path: Path) -> None:
    """A hard link takes no space, on file systems that support them."""
    source, destination = _two_folders(tmp_path)
    durable_copy(source, destination)
    assert source.samefile(destination)


def test_a_copy_apart_does_not_follow_its_source(tmp_path: Path) -> None:
    """With `always_copy`, later writes to the source do not change the copy."""
    source, destination = _two_folders(tmp_path)
    durable_copy(source, destination, always_copy=True)
    source.write_bytes(OLD)
    assert destination.read_bytes() == NEW


def test_without_hard_links_it_is_a_real_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and many network shares have no hard links."""
    source, destination = _two_folders(tmp_path)
    monkeypatch.setattr(os, "link", _raising(errno.EPERM))
    durable_copy(source, destination)
    assert destination.read_bytes() == source.read_bytes() == NEW
    assert not source.samefile(destination)


def test_a_copy_never_replaces_what_has_appeared(tmp_path: Path) -> None:
    """Another program's file that has just taken the name is not replaced."""
    source, destination = _two_folders(tmp_path)
    destination.write_bytes(OLD)
    with pytest.raises(ResourceUnavailable, match="just taken"):
        durable_copy(source, destination)
    assert destination.read_bytes() == OLD


@pytest.mark.parametrize("errors", [{}, {"link": OSError(errno.EPERM, "no links")}])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_while_copying_shows_no_part(
    tmp_path: Path, errors: dict[str, OSError], after: bool
) -> None:
    """After a crash at any call the copy is absent or complete, and the source is unchanged."""
    step = 0
    while True:
        source, destination = _two_folders(tmp_path / str(step))
        try:
            crash(
                lambda a=source, b=destination: durable_copy(a, b),  # type: ignore[misc]
                step,
                after=after,
                errors=errors,
            )
        except pytest.fail.Exception:
            break
        assert source.read_bytes() == NEW
        assert not destination.exists() or destination.read_bytes() == NEW
        sweep_temporaries(destination.parent)
        assert temporaries(destination.parent) == []
        step += 1
    assert step >= (6 if errors else 3)


# Folders


def test_makes_folders_and_their_parents_durably(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent of each new folder is synced, from the top down."""
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path, tmp_path / "a"]


def test_a_folder_that_is_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An existing folder is not synced."""
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_folder", synced.append)
    make_folder(tmp_path)
    assert synced == []


def test_a_file_where_a_folder_should_be_is_put_into_words(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "a").write_bytes(OLD)
    with pytest.raises(ResourceUnavailable, match=r"a can't be written: File exists"):
        make_folder(tmp_path / "a")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_cannot_sync_folders_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Some network file systems refuse to sync folders, and order renames themselves."""
    monkeypatch.setattr(os, "fsync", _raising(number))
    sync_folder(tmp_path)


def test_other_errors_of_syncing_a_folder_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any other error the name may not be durable."""
    monkeypatch.setattr(os, "fsync", _raising(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync_folder(tmp_path)


def test_the_sweep_deletes_leftovers_and_nothing_else(tmp_path: Path) -> None:
    """Only files with exactly the pattern of temporary names are deleted, at any depth."""
    deep = tmp_path / "style" / "trip"
    deep.mkdir(parents=True)
    leftovers = [
        tmp_path / f"{TEMPORARY_PREFIX}{'0a' * 16}.tmp",
        deep / f"{TEMPORARY_PREFIX}{'f' * 32}.tmp",
    ]
    others = [deep / "photo.jpg", deep / ".styled-notes.txt", deep / f"x{leftovers[1].name}"]
    for path in (*leftovers, *others):
        path.write_bytes(OLD)
    assert sweep_temporaries(tmp_path) == 2
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in others)


def test_the_sweep_finds_what_a_dead_process_left(tmp_path: Path) -> None:
    """The sweep recognises the names of the temporary files that `atomic_write` makes."""
    crash(lambda: atomic_write(tmp_path / "a", NEW), 1, after=False)
    assert len(os.listdir(tmp_path)) == 1
    assert sweep_temporaries(tmp_path) == 1
    assert os.listdir(tmp_path) == []


def test_the_sweep_does_not_leave_the_folder(tmp_path: Path) -> None:
    """A symbolic link to a folder elsewhere is not followed."""
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    elsewhere.mkdir()
    root.mkdir()
    (elsewhere / f"{TEMPORARY_PREFIX}{'0' * 32}.tmp").write_bytes(OLD)
    (root / "link").symlink_to(elsewhere)
    assert sweep_temporaries(root) == 0
    assert len(os.listdir(elsewhere)) == 1


# Error messages


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "write permission"),
        (errno.EPERM, "write permission"),
        (errno.ENOENT, "mount it or make it again"),
        (errno.EIO, "the kernel says"),
    ],
)
def test_what_the_system_refuses_is_reported(number: int, remedy: str) -> None:
    """The message names the path and the cause, and there is one remedy."""
    path = Path("/outbox/style/photo.jpg")
    with pytest.raises(ResourceUnavailable) as caught, resource_errors(path):
        raise OSError(number, os.strerror(number))
    assert caught.value.message == f"{path} can't be written: {os.strerror(number)}"
    assert len(caught.value.remedies) == 1
    assert remedy in caught.value.remedies[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("function", [atomic_write, durable_move, durable_copy, make_folder])
def test_every_verb_puts_errors_into_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., None], number: int
) -> None:
    """All functions raise `ResourceUnavailable` instead of OSError."""
    source, destination = _two_folders(tmp_path)
    arguments: dict[Callable[..., None], tuple[object, ...]] = {
        atomic_write: (destination, NEW),
        durable_move: (source, destination),
        durable_copy: (source, destination),
        make_folder: (destination,),
    }
    monkeypatch.setattr(os, "open", _raising(number))
    monkeypatch.setattr("builtins.open", _raising(number))
    with pytest.raises(ResourceUnavailable) as caught:
        function(*arguments[function])
    assert str(destination) in caught.value.message
    assert source.exists() != destination.is_file() or function is durable_copy


def _two_folders(root: Path) -> tuple[Path, Path]:
    (root / "from").mkdir(parents=True)
    (root / "to").mkdir()
    source = root / "from" / "photo.jpg"
    source.write_bytes(NEW)
    return source, root / "to" / "photo.jpg"


def _half_then_crash(descriptor: int) -> None:
    os.truncate(f"/proc/self/fd/{descriptor}", len(NEW) // 2)
    raise Crash("half of the data is written")


def _die(*_: object, **__: object) -> None:
    raise Crash("no cleanup after a crash")


def _raising(number: int) -> Callable[..., object]:
    def refuse(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return refuse


def test_an_upload_during_the_move_to_another_disk_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file that has taken the source's name while it was copied is not deleted."""
    source, destination = _two_folders(tmp_path)
    content, upload, sync = source.read_bytes(), tmp_path / "upload", atomic.sync_folder
    upload.write_bytes(b"the new upload")

    def sync_and_upload(folder: Path) -> None:
        sync(folder)
        if upload.exists():
            upload.replace(source)

    def rename(path: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(atomic, "sync_folder", sync_and_upload)
    durable_move(source, destination)
    assert source.read_bytes() == b"the new upload"
    assert destination.read_bytes() == content

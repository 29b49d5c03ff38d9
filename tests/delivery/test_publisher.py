"""Publishing of results, rejected inputs and originals, without touching files of others."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from styled import atomic
from styled.delivery import publisher
from styled.delivery.names import sidecar_path
from styled.delivery.publisher import Publisher, _is_read_only
from styled.errors import NameTaken, ResourceUnavailable
from styled.files import input_identity
from styled.mounts import Mounts
from styled.sidecar import InputInfo, JobInfo, Sidecar

PHOTO = b"the photo"
MINE = b"my painting"
THEIRS = b"another program's file"


@pytest.fixture
def delivery(tmp_path: Path) -> Publisher:
    """Return a publisher whose folders exist."""
    made = Publisher(tmp_path / "outbox", tmp_path / "rejected", tmp_path / "archive")
    made.prepare()
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a photo in an inbox."""
    path = tmp_path / "inbox" / "photo.jpg"
    path.parent.mkdir()
    path.write_bytes(PHOTO)
    return path


def sidecar_by(job_id: str) -> Sidecar:
    """Return a sidecar of this job."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    job = JobInfo(
        id=job_id, attempts=1, resumed=False, submitted_at=when, started_at=when, finished_at=when
    )
    return Sidecar(job=job, input=InputInfo(path="photo.jpg", bytes=1))


def as_read(source: Path) -> tuple[int, int]:
    """Return the identity of an existing file."""
    result = input_identity(source)
    assert result is not None
    return result


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


# Preparing


def test_preparing_makes_the_folders_and_sweeps(tmp_path: Path) -> None:
    """All three folders exist afterwards, without temporary files of a dead process."""
    delivery = Publisher(tmp_path / "a" / "outbox", tmp_path / "rejected", tmp_path / "archive")
    assert delivery.prepare() == 0
    for root in (delivery.outbox, delivery.rejected, delivery.archive):
        (root / f".styled-{'0' * 32}.tmp").touch()
    assert delivery.prepare() == 3
    assert list(delivery.outbox.iterdir()) == []


# Results


def test_a_result_counts_once_its_sidecar_is_there(delivery: Publisher) -> None:
    """The sidecar is the commit mark."""
    path = delivery.outbox / "style" / "trip" / "photo.jpg"
    delivery.publish_result(path, MINE)
    assert not delivery.is_published(path, "me")
    delivery.publish_sidecar(path, sidecar_by("me"))
    assert delivery.is_published(path, "me")
    assert path.read_bytes() == MINE
    assert sidecar_path(path).read_bytes() == sidecar_by("me").to_json()


def test_the_result_of_another_job_is_not_this_ones(delivery: Publisher) -> None:
    """A result that another job has published under the name does not count."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_result(path, MINE)
    delivery.publish_sidecar(path, sidecar_by("another"))
    assert not delivery.is_published(path, "me")


def test_a_sidecar_without_its_picture_is_no_result(delivery: Publisher) -> None:
    """The picture was deleted."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_sidecar(path, sidecar_by("me"))
    assert not delivery.is_published(path, "me")


def test_an_outbox_that_cannot_be_read_is_a_matter_of_resources(
    delivery: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is `ResourceUnavailable`, so no job fails because of it."""

    def refuse(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(ResourceUnavailable, match="Permission denied"):
        delivery.is_published(delivery.outbox / "photo.jpg", "me")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_publishing_without_a_disk_says_what_is_missing(
    delivery: Publisher, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The error has the path and a remedy, and nothing is left in the outbox."""
    path = delivery.outbox / "photo.jpg"
    _refuse_writing(monkeypatch, number)
    with pytest.raises(ResourceUnavailable) as caught:
        delivery.publish_result(path, MINE)
    assert str(path) in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert caught.value.remedies
    assert list(delivery.outbox.iterdir()) == []


# Free paths


def test_places_keep_the_sub_path(delivery: Publisher) -> None:
    """Missing sub-folders are made."""
    target = delivery.free_path(
        delivery.outbox, "style/trip/day1/photo.jpg", job_id="a", sidecar=True
    )
    assert target == delivery.outbox / "style" / "trip" / "day1" / "photo.jpg"
    assert target.parent.is_dir()


def test_a_path_that_would_be_too_long_loses_sub_folders(delivery: Publisher) -> None:
    """Name and style stay. Otherwise one photo with a long path could stop the whole queue."""
    deep = "/".join(["f" * 200] * 30)
    target = delivery.free_path(
        delivery.outbox, f"style/{deep}/photo.jpg", job_id="a", sidecar=True
    )
    kept = target.relative_to(delivery.outbox).parts
    assert (kept[0], kept[-1]) == ("style", "photo.jpg")
    assert 10 < len(kept) < 30
    delivery.publish_result(target, MINE)
    delivery.publish_sidecar(target, sidecar_by("me"))
    assert delivery.is_published(target, "me")


def test_a_file_in_the_way_of_a_folder_does_not_stop_the_queue(delivery: Publisher) -> None:
    """If `trip` is a rejected file, the folder `trip` becomes `trip-2`."""
    (delivery.rejected / "style").mkdir()
    (delivery.rejected / "style" / "trip").write_bytes(THEIRS)
    target = delivery.free_path(delivery.rejected, "style/trip/photo.jpg", job_id="a", sidecar=True)
    assert target == delivery.rejected / "style" / "trip-2" / "photo.jpg"
    assert (delivery.rejected / "style" / "trip").read_bytes() == THEIRS


def test_names_that_are_not_utf8_are_kept(delivery: Publisher) -> None:
    """The bytes of the name are kept, in the picture's name and in its sidecar's."""
    name = os.fsdecode(b"caf\xe9.jpg")
    target = delivery.free_path(delivery.outbox, f"style/{name}", job_id="a", sidecar=True)
    delivery.publish_result(target, MINE)
    delivery.publish_sidecar(target, sidecar_by("me"))
    assert sorted(os.listdir(os.fsencode(target.parent))) == [b"caf\xe9.jpg", b"caf\xe9.jpg.json"]


# What may be replaced after a crash


def test_a_free_name_may_be_written(delivery: Publisher) -> None:
    """The crash came before anything was written."""
    assert delivery.is_own_reservation(delivery.outbox / "photo.jpg", "me", digest(MINE))


def test_a_job_may_replace_its_own_half(delivery: Publisher) -> None:
    """The crash came between the result and its sidecar."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_result(path, MINE)
    assert delivery.is_own_reservation(path, "me", digest(MINE))


@pytest.mark.parametrize("sha256", [digest(MINE), None])
def test_a_strangers_file_may_not_be_replaced(delivery: Publisher, sha256: str | None) -> None:
    """Another program has put a file under the reserved name meanwhile."""
    path = delivery.outbox / "photo.jpg"
    path.write_bytes(THEIRS)
    assert not delivery.is_own_reservation(path, "me", sha256)


@pytest.mark.parametrize("sha256", [digest(MINE), None])
@pytest.mark.parametrize(
    "take",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")],
    ids=["folder", "pipe", "dangling link"],
)
@pytest.mark.timeout(10)
def test_what_is_no_file_may_not_be_replaced(
    delivery: Publisher, take: Callable[[Path], object], sha256: str | None
) -> None:
    """Folders, pipes and dangling links are not the job's own, and are never opened."""
    path = delivery.outbox / "photo.jpg"
    take(path)
    assert not delivery.is_own_reservation(path, "me", sha256)


def test_a_link_to_the_same_picture_may_not_be_replaced(delivery: Publisher) -> None:
    """The publisher never makes links."""
    (delivery.outbox / "elsewhere").write_bytes(MINE)
    path = delivery.outbox / "photo.jpg"
    path.symlink_to("elsewhere")
    assert not delivery.is_own_reservation(path, "me", digest(MINE))


def test_a_sidecar_decides_whose_a_name_is(delivery: Publisher) -> None:
    """A name with another job's sidecar, or an invalid one, is taken."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_sidecar(path, sidecar_by("me"))
    assert delivery.is_own_reservation(path, "me", digest(MINE))
    assert not delivery.is_own_reservation(path, "another", digest(MINE))
    sidecar_path(path).write_bytes(THEIRS)
    assert not delivery.is_own_reservation(path, "me", digest(MINE))


@pytest.mark.timeout(10)
def test_a_pipe_in_place_of_a_sidecar_is_not_read(delivery: Publisher) -> None:
    """Reading it would block for ever."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_result(path, MINE)
    os.mkfifo(sidecar_path(path))
    assert not delivery.is_published(path, "me")
    assert not delivery.is_own_reservation(path, "me", digest(MINE))


# Where originals go


def test_an_original_without_a_reservation_gets_a_free_place(
    delivery: Publisher, source: Path
) -> None:
    """In `rejected` the sidecar's name must be free as well, in the archive it need not be."""
    for root in (delivery.archive, delivery.rejected):
        (root / "style").mkdir()
        (root / "style" / "photo.jpg.json").write_bytes(THEIRS)
    relative = "style/photo.jpg"
    archived = delivery.path_for_original(delivery.archive, relative, source, None, "me")
    rejected = delivery.path_for_original(delivery.rejected, relative, source, None, "me")
    assert archived == delivery.archive / "style" / "photo.jpg"
    assert rejected == delivery.rejected / "style" / "photo-2.jpg"


def test_a_reservation_holds(delivery: Publisher, source: Path) -> None:
    """The reserved path is used if it is free or already has this original."""
    reserved = delivery.archive / "photo-7.jpg"

    def choose() -> Path:
        return delivery.path_for_original(delivery.archive, "photo.jpg", source, reserved, "me")

    assert choose() == reserved
    reserved.write_bytes(PHOTO)
    assert choose() == reserved


def test_a_reservation_outlives_the_move(delivery: Publisher, source: Path) -> None:
    """After a crash the original may already be at the reserved path."""
    reserved = delivery.archive / "photo.jpg"
    source.rename(reserved)
    target = delivery.path_for_original(delivery.archive, "photo.jpg", source, reserved, "me")
    assert target == reserved


@pytest.mark.parametrize(
    "take",
    [
        lambda path: path.write_bytes(THEIRS),
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["file", "folder", "pipe", "dangling link"],
)
@pytest.mark.timeout(10)
def test_a_reserved_name_that_is_taken_is_given_up(
    delivery: Publisher, source: Path, take: Callable[[Path], object]
) -> None:
    """A file, folder, pipe or link of another program has taken it since."""
    reserved = delivery.archive / "photo.jpg"
    take(reserved)
    target = delivery.path_for_original(delivery.archive, "photo.jpg", source, reserved, "me")
    assert target == delivery.archive / "photo-2.jpg"


# Files whose name is that of another file's sidecar


def rejected_names(delivery: Publisher, source: Path, until: str) -> list[str]:
    """Reject `page.jpg` up to a step, then `page.jpg.json` after a crash or by another thread.

    Returns:
        The names of the second file: in the same process, and in one that starts after a crash.
    """
    page = delivery.path_for_original(delivery.rejected, "page.jpg", source, None, "me")
    if until != "chosen":
        delivery.move_original(source, [page], same_as=as_read(source), keep=False)
    if until == "published":
        delivery.publish_sidecar(page, sidecar_by("me"))
    restarted = Publisher(delivery.outbox, delivery.rejected, delivery.archive)
    if until == "chosen":  # the journal knows the path
        restarted.path_for_original(restarted.rejected, "page.jpg", source, page, "me")
    publishers = (delivery, restarted)
    return [
        one.free_path(one.rejected, "page.jpg.json", job_id="a", sidecar=True).name
        for one in publishers
    ]


@pytest.mark.parametrize("until", ["chosen", "moved", "published"])
def test_a_file_never_gets_the_name_of_a_sidecar_that_is_to_come(
    delivery: Publisher, source: Path, until: str
) -> None:
    """Otherwise the sidecar of `page.jpg` would overwrite an input that is named like it."""
    assert rejected_names(delivery, source, until) == ["page.jpg-2.json"] * 2


def test_a_reserved_name_is_given_up_if_its_sidecar_has_been_taken(
    delivery: Publisher, source: Path
) -> None:
    """After a crash before the original was moved, another program has made `photo.jpg.json`."""
    reserved = delivery.rejected / "photo.jpg"
    sidecar_path(reserved).write_bytes(THEIRS)
    path = delivery.path_for_original(delivery.rejected, "photo.jpg", source, reserved, "me")
    assert path == delivery.rejected / "photo-2.jpg"


def test_a_sidecar_overwrites_only_that_of_its_own_job(delivery: Publisher) -> None:
    """Another file under its name is kept, and the error says what to do."""
    path = delivery.rejected / "photo.jpg"
    delivery.publish_sidecar(path, sidecar_by("me"))
    delivery.publish_sidecar(path, sidecar_by("me"))
    with pytest.raises(ResourceUnavailable, match="is not the sidecar of this job"):
        delivery.publish_sidecar(path, sidecar_by("another"))
    sidecar_path(path).write_bytes(THEIRS)
    with pytest.raises(ResourceUnavailable, match="is not overwritten"):
        delivery.publish_sidecar(path, sidecar_by("me"))
    assert sidecar_path(path).read_bytes() == THEIRS


# Moving originals


def test_an_original_is_moved(delivery: Publisher, source: Path) -> None:
    """It is moved from the inbox to its only destination."""
    target = delivery.archive / "photo.jpg"
    assert delivery.move_original(source, [target], same_as=as_read(source), keep=False)
    assert not source.exists()
    assert target.read_bytes() == PHOTO


def test_an_original_goes_to_several_places(delivery: Publisher, source: Path) -> None:
    """One input with several styles may be archived for one and rejected for another."""
    targets = [delivery.archive / "a.jpg", delivery.archive / "b.jpg", delivery.rejected / "c.jpg"]
    assert delivery.move_original(source, targets, same_as=as_read(source), keep=False)
    assert not source.exists()
    assert [target.read_bytes() for target in targets] == [PHOTO] * 3


def test_folders_that_are_gone_are_made_again(delivery: Publisher, source: Path) -> None:
    """They were deleted while the path was reserved."""
    targets = [delivery.archive / "a" / "photo.jpg", delivery.archive / "b" / "photo.jpg"]
    assert delivery.move_original(source, targets, same_as=as_read(source), keep=False)
    assert [target.read_bytes() for target in targets] == [PHOTO] * 2


def test_without_a_destination_an_original_is_deleted(delivery: Publisher, source: Path) -> None:
    """This implements `after_success: delete`."""
    assert delivery.move_original(source, [], same_as=as_read(source), keep=False)
    assert not source.exists()


def test_an_original_may_be_kept(delivery: Publisher, source: Path) -> None:
    """It stays in the inbox, and later changes there do not affect the copies."""
    target = delivery.rejected / "photo.jpg"
    assert delivery.move_original(source, [target], same_as=as_read(source), keep=True)
    assert source.read_bytes() == PHOTO
    source.write_bytes(THEIRS)
    assert target.read_bytes() == PHOTO


def test_keeping_without_a_destination_does_nothing(delivery: Publisher, source: Path) -> None:
    """This implements `after_success: keep`."""
    assert delivery.move_original(source, [], same_as=as_read(source), keep=True)
    assert source.read_bytes() == PHOTO


@pytest.mark.parametrize("keep", [False, True])
def test_a_replaced_input_is_left_alone(delivery: Publisher, source: Path, keep: bool) -> None:
    """Another file under the same name is a new input."""
    before = as_read(source)
    source.write_bytes(THEIRS)
    target = delivery.archive / "photo.jpg"
    assert not delivery.move_original(source, [target], same_as=before, keep=keep)
    assert source.read_bytes() == THEIRS
    assert not target.exists()


def test_an_input_that_looks_the_same_is_recognised_by_its_time(
    delivery: Publisher, source: Path
) -> None:
    """Equal size is not enough."""
    size, mtime_ns = as_read(source)
    assert not delivery.move_original(source, [], same_as=(size, mtime_ns + 1), keep=False)
    assert source.exists()


def test_a_vanished_input_is_no_error(delivery: Publisher, source: Path) -> None:
    """It was removed from the inbox, so nothing is left to do."""
    before = as_read(source)
    source.unlink()
    target = delivery.archive / "photo.jpg"
    assert not delivery.move_original(source, [target], same_as=before, keep=False)
    assert not target.exists()


@pytest.mark.parametrize("replacement", [None, THEIRS], ids=["vanished", "replaced"])
def test_an_input_that_goes_at_the_last_moment_is_no_error(
    delivery: Publisher, source: Path, monkeypatch: pytest.MonkeyPatch, replacement: bytes | None
) -> None:
    """The move fails because the file has just been removed or replaced."""

    def move(path: Path, destination: Path) -> None:
        path.unlink()
        if replacement is not None:
            path.write_bytes(replacement)
        raise ResourceUnavailable(f"{destination} can't be written")

    monkeypatch.setattr(publisher, "durable_move", move)
    target = delivery.archive / "photo.jpg"
    assert not delivery.move_original(source, [target], same_as=as_read(source), keep=False)
    assert (source.read_bytes() if source.exists() else None) == replacement


def test_taking_may_be_repeated(delivery: Publisher, source: Path) -> None:
    """After a crash between two copies only the missing steps are done."""
    targets = [delivery.archive / "a.jpg", delivery.archive / "b.jpg"]
    for target in targets:
        target.write_bytes(PHOTO)
    before = {target: target.stat().st_ino for target in targets}
    assert delivery.move_original(source, targets, same_as=as_read(source), keep=False)
    assert not source.exists()
    assert {target: target.stat().st_ino for target in targets} == before


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("taken", [0, 1])
def test_a_place_that_is_taken_meanwhile_loses_neither_file(
    delivery: Publisher, source: Path, keep: bool, taken: int
) -> None:
    """The other program's file is not overwritten, and the original is not deleted."""
    targets = [delivery.archive / "a.jpg", delivery.archive / "b.jpg"]
    targets[taken].write_bytes(THEIRS)
    with pytest.raises(ResourceUnavailable, match="taken by another file") as caught:
        delivery.move_original(source, targets, same_as=as_read(source), keep=keep)
    assert caught.value.remedies
    assert source.read_bytes() == PHOTO
    assert targets[taken].read_bytes() == THEIRS


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("keep", [False, True])
def test_a_destination_that_fails_keeps_the_original(
    delivery: Publisher, source: Path, monkeypatch: pytest.MonkeyPatch, number: int, keep: bool
) -> None:
    """The error has the path and a remedy, and the input stays where it was."""
    targets = [delivery.archive / "a.jpg", delivery.archive / "b.jpg"]
    before = as_read(source)
    _refuse_writing(monkeypatch, number)
    with pytest.raises(ResourceUnavailable) as caught:
        delivery.move_original(source, targets, same_as=before, keep=keep)
    assert str(targets[0]) in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert caught.value.remedies
    assert source.read_bytes() == PHOTO
    assert list(delivery.archive.iterdir()) == []


def test_an_inbox_that_cannot_be_changed_says_so(
    delivery: Publisher, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleting needs a writable inbox."""

    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ResourceUnavailable) as caught:
        delivery.move_original(source, [], same_as=as_read(source), keep=False)
    assert str(source) in caught.value.message
    assert "mount it writable" in caught.value.remedies[0]


def test_a_deletion_is_durable(
    delivery: Publisher, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the input could reappear after a power cut and be painted twice."""
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_folder", synced.append)
    delivery.move_original(source, [], same_as=as_read(source), keep=False)
    assert synced == [source.parent]


def _refuse_writing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let every operation that makes a new name fail, as a full or read-only disk does."""

    def refuse(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr("builtins.open", refuse)


# Disks that are not mounted


def test_nothing_is_written_where_no_disk_is_mounted(tmp_path: Path, source: Path) -> None:
    """Each operation that writes first checks the mount of the folder that it writes to."""
    missing: set[Path] = set()

    class ScriptedMounts(Mounts):
        def require_mounted(self, folder: Path) -> None:
            if folder in missing:
                raise ResourceUnavailable(f"{folder} is not mounted")

    mounts = ScriptedMounts(tmp_path / "mounts.json")
    delivery = Publisher(tmp_path / "outbox", tmp_path / "rejected", tmp_path / "archive", mounts)
    delivery.prepare()
    for root in (delivery.outbox, delivery.rejected, delivery.archive):
        missing.add(root)
    result = delivery.outbox / "oil/photo.jpg"
    archived = delivery.archive / "oil/photo.jpg"
    for attempt in (
        delivery.prepare,
        lambda: delivery.free_path(delivery.rejected, "oil/photo.jpg", job_id="a", sidecar=True),
        lambda: delivery.publish_result(result, MINE),
        lambda: delivery.publish_sidecar(result, sidecar_by("me")),
        lambda: delivery.is_published(result, "me"),
        lambda: delivery.move_original(source, [archived], same_as=as_read(source), keep=False),
        lambda: delivery.move_original(source, [archived], same_as=as_read(source), keep=True),
    ):
        with pytest.raises(ResourceUnavailable, match="not mounted"):
            attempt()
    assert source.read_bytes() == PHOTO
    missing.clear()
    missing.add(delivery.archive)
    delivery.publish_result(result, MINE)
    assert result.read_bytes() == MINE


@pytest.mark.parametrize("is_read_only", [True, False])
def test_a_folder_that_may_not_be_written_is_not_yet_a_disk_that_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_read_only: bool
) -> None:
    """Only a read-only disk affects all jobs; `statvfs` tells the two apart."""
    real = os.statvfs(tmp_path)
    flag = real.f_flag | os.ST_RDONLY if is_read_only else real.f_flag & ~os.ST_RDONLY
    monkeypatch.setattr(
        "styled.delivery.publisher.os.statvfs", lambda path: SimpleNamespace(f_flag=flag)
    )
    assert _is_read_only(tmp_path) is is_read_only


def test_a_name_that_was_reserved_before_a_restart_is_not_given_to_another(
    delivery: Publisher,
) -> None:
    """Two threads that publish at once, one of them again, have two names."""
    path = delivery.outbox / "oil/photo.jpg"
    path.parent.mkdir()
    assert delivery.is_own_reservation(path, "a", digest(MINE))
    other = delivery.free_path(delivery.outbox, "oil/photo.jpg", job_id="b", sidecar=True)
    assert other.name == "photo-2.jpg"
    assert not delivery.is_own_reservation(path, "b", digest(MINE))


def test_a_file_that_takes_a_results_name_at_the_last_moment_is_not_replaced(
    delivery: Publisher,
) -> None:
    """Publishing fails, and chooses another name at the next attempt."""
    path = delivery.free_path(delivery.outbox, "photo.jpg", job_id="a", sidecar=True)
    path.write_bytes(THEIRS)
    with pytest.raises(NameTaken, match="just taken"):
        delivery.publish_result(path, MINE)
    assert path.read_bytes() == THEIRS
    path.write_bytes(MINE)
    delivery.publish_result(path, b"a better one", earlier_sha256=digest(MINE))
    assert path.read_bytes() == b"a better one"


def test_an_upload_that_takes_the_name_while_a_photo_is_copied_stays(
    delivery: Publisher, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second copy is not made of another photo, which is neither moved nor deleted."""
    read, copy = as_read(source), atomic.durable_copy

    def copy_and_upload(*args: Path, always_copy: bool) -> None:
        copy(*args, always_copy=always_copy)
        upload = source.with_name("upload")
        upload.write_bytes(b"the new upload")
        upload.replace(source)

    monkeypatch.setattr(publisher, "durable_copy", copy_and_upload)
    places = [delivery.archive / style / "photo.jpg" for style in ("oil", "ink")]
    assert not delivery.move_original(source, places, same_as=read, keep=False)
    assert source.read_bytes() == b"the new upload"
    assert places[0].read_bytes() == PHOTO


def test_two_jobs_never_share_a_folder_of_frames(
    delivery: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`photo.jpg` and `photo.png` are published at the same time."""
    frames = [tmp_path / name / "00010.jpg" for name in ("a", "b")]
    for frame in frames:
        frame.parent.mkdir()
        frame.write_bytes(b"frame")
    write, folders = delivery._write_frames, []

    def publish_the_other_first(*args: Any) -> None:
        monkeypatch.setattr(delivery, "_write_frames", write)
        folders.append(delivery.publish_frames(delivery.outbox / "oil/photo.png", "b", [frames[1]]))
        write(*args)

    monkeypatch.setattr(delivery, "_write_frames", publish_the_other_first)
    folders.append(delivery.publish_frames(delivery.outbox / "oil/photo.jpg", "a", [frames[0]]))
    assert [folder.name for folder in folders] == ["photo-2.frames", "photo.frames"]


def test_a_path_that_is_too_long_for_the_outbox_can_be_checked(delivery: Publisher) -> None:
    """It is shortened like that of the result."""
    deep = "/".join(["d" * 100] * 45)
    delivery.require_writable(delivery.outbox, f"oil/{deep}/photo.png")

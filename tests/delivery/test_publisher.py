"""Results, rejected inputs and originals: each to its place, nobody else's file touched."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from styled import atomic
from styled.delivery import publisher
from styled.delivery.names import sidecar_of
from styled.delivery.publisher import Publisher, _is_read_only
from styled.errors import ResourceUnavailable
from styled.files import identity
from styled.sidecar import InputFacts, JobFacts, Sidecar

PHOTO = b"the photo"
MINE = b"my painting"
THEIRS = b"a stranger's file"


@pytest.fixture
def delivery(tmp_path: Path) -> Publisher:
    """Return a publisher whose folders are there."""
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
    job = JobFacts(
        id=job_id, attempts=1, resumed=False, submitted_at=when, started_at=when, finished_at=when
    )
    return Sidecar(job=job, input=InputFacts(path="photo.jpg", bytes=1))


def as_read(source: Path) -> tuple[int, int]:
    """Return the identity of a file that is there."""
    found = identity(source)
    assert found is not None
    return found


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


# Preparing


def test_preparing_makes_the_folders_and_sweeps(tmp_path: Path) -> None:
    """All three folders are there afterwards, without what a dead process left."""
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
    assert sidecar_of(path).read_bytes() == sidecar_by("me").to_json()


def test_the_result_of_another_job_is_not_this_ones(delivery: Publisher) -> None:
    """What another job published under the name does not count."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_result(path, MINE)
    delivery.publish_sidecar(path, sidecar_by("another"))
    assert not delivery.is_published(path, "me")


def test_a_sidecar_without_its_picture_is_no_result(delivery: Publisher) -> None:
    """Somebody has deleted the picture."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_sidecar(path, sidecar_by("me"))
    assert not delivery.is_published(path, "me")


def test_an_outbox_that_cannot_be_looked_into_is_a_matter_of_resources(
    delivery: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job fails because of it."""

    def refuse(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(ResourceUnavailable, match="Permission denied"):
        delivery.is_published(delivery.outbox / "photo.jpg", "me")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_publishing_without_a_disk_says_what_is_missing(
    delivery: Publisher, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The path and a remedy are named, and nothing is left in the outbox."""
    path = delivery.outbox / "photo.jpg"
    _refuse_writing(monkeypatch, number)
    with pytest.raises(ResourceUnavailable) as caught:
        delivery.publish_result(path, MINE)
    assert str(path) in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert caught.value.remedies
    assert list(delivery.outbox.iterdir()) == []


# Places


def test_places_keep_the_sub_path(delivery: Publisher) -> None:
    """The folders below the style's are made where they are missing."""
    place = delivery.place_for(delivery.outbox, "style/trip/day1/photo.jpg", sidecar=True)
    assert place == delivery.outbox / "style" / "trip" / "day1" / "photo.jpg"
    assert place.parent.is_dir()


def test_a_path_that_would_be_too_long_loses_sub_folders(delivery: Publisher) -> None:
    """The name and the style stay; without this one photo could stop the whole queue."""
    deep = "/".join(["f" * 200] * 30)
    place = delivery.place_for(delivery.outbox, f"style/{deep}/photo.jpg", sidecar=True)
    kept = place.relative_to(delivery.outbox).parts
    assert (kept[0], kept[-1]) == ("style", "photo.jpg")
    assert 10 < len(kept) < 30
    delivery.publish_result(place, MINE)
    delivery.publish_sidecar(place, sidecar_by("me"))
    assert delivery.is_published(place, "me")


def test_a_file_in_the_way_of_a_folder_does_not_stop_the_queue(delivery: Publisher) -> None:
    """A rejected file `trip` and a later folder `trip` live side by side."""
    (delivery.rejected / "style").mkdir()
    (delivery.rejected / "style" / "trip").write_bytes(THEIRS)
    place = delivery.place_for(delivery.rejected, "style/trip/photo.jpg", sidecar=True)
    assert place == delivery.rejected / "style" / "trip-2" / "photo.jpg"
    assert (delivery.rejected / "style" / "trip").read_bytes() == THEIRS


def test_names_that_are_not_utf8_are_kept(delivery: Publisher) -> None:
    """The bytes of the name survive, in the picture's name and in its sidecar's."""
    name = os.fsdecode(b"caf\xe9.jpg")
    place = delivery.place_for(delivery.outbox, f"style/{name}", sidecar=True)
    delivery.publish_result(place, MINE)
    delivery.publish_sidecar(place, sidecar_by("me"))
    assert sorted(os.listdir(os.fsencode(place.parent))) == [b"caf\xe9.jpg", b"caf\xe9.jpg.json"]


# What may be replaced after a crash


def test_a_free_name_may_be_written(delivery: Publisher) -> None:
    """The crash came before anything was written."""
    assert delivery.may_replace(delivery.outbox / "photo.jpg", "me", digest(MINE))


def test_a_job_may_replace_its_own_half(delivery: Publisher) -> None:
    """The crash came between the result and its sidecar."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_result(path, MINE)
    assert delivery.may_replace(path, "me", digest(MINE))


@pytest.mark.parametrize("sha256", [digest(MINE), None])
def test_a_strangers_file_may_not_be_replaced(delivery: Publisher, sha256: str | None) -> None:
    """Somebody else put a file under the reserved name meanwhile."""
    path = delivery.outbox / "photo.jpg"
    path.write_bytes(THEIRS)
    assert not delivery.may_replace(path, "me", sha256)


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
    """Folders, pipes and links that lead nowhere are a stranger's too, and never opened."""
    path = delivery.outbox / "photo.jpg"
    take(path)
    assert not delivery.may_replace(path, "me", sha256)


def test_a_link_to_the_same_picture_may_not_be_replaced(delivery: Publisher) -> None:
    """A link is never what this program has written."""
    (delivery.outbox / "elsewhere").write_bytes(MINE)
    path = delivery.outbox / "photo.jpg"
    path.symlink_to("elsewhere")
    assert not delivery.may_replace(path, "me", digest(MINE))


def test_a_sidecar_decides_whose_a_name_is(delivery: Publisher) -> None:
    """A name with another job's sidecar, or one that nobody can read, is taken."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_sidecar(path, sidecar_by("me"))
    assert delivery.may_replace(path, "me", digest(MINE))
    assert not delivery.may_replace(path, "another", digest(MINE))
    sidecar_of(path).write_bytes(THEIRS)
    assert not delivery.may_replace(path, "me", digest(MINE))


@pytest.mark.timeout(10)
def test_a_pipe_in_place_of_a_sidecar_is_not_read(delivery: Publisher) -> None:
    """Reading it would wait for ever."""
    path = delivery.outbox / "photo.jpg"
    delivery.publish_result(path, MINE)
    os.mkfifo(sidecar_of(path))
    assert not delivery.is_published(path, "me")
    assert not delivery.may_replace(path, "me", digest(MINE))


# Where originals go


def test_an_original_without_a_reservation_gets_a_free_place(
    delivery: Publisher, source: Path
) -> None:
    """In `rejected` the sidecar's name has to be free as well, in the archive it need not be."""
    for root in (delivery.archive, delivery.rejected):
        (root / "style").mkdir()
        (root / "style" / "photo.jpg.json").write_bytes(THEIRS)
    relative = "style/photo.jpg"
    archived = delivery.place_for_original(delivery.archive, relative, source, None)
    rejected = delivery.place_for_original(delivery.rejected, relative, source, None)
    assert archived == delivery.archive / "style" / "photo.jpg"
    assert rejected == delivery.rejected / "style" / "photo-2.jpg"


def test_a_reservation_holds(delivery: Publisher, source: Path) -> None:
    """The place in the journal is used while it is free or holds this very original."""
    reserved = delivery.archive / "photo-7.jpg"

    def place() -> Path:
        return delivery.place_for_original(delivery.archive, "photo.jpg", source, reserved)

    assert place() == reserved
    reserved.write_bytes(PHOTO)
    assert place() == reserved


def test_a_reservation_outlives_the_move(delivery: Publisher, source: Path) -> None:
    """After a crash the original already lies where it was to go."""
    reserved = delivery.archive / "photo.jpg"
    source.rename(reserved)
    found = delivery.place_for_original(delivery.archive, "photo.jpg", source, reserved)
    assert found == reserved


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
    """A stranger has taken it since, in whatever way."""
    reserved = delivery.archive / "photo.jpg"
    take(reserved)
    found = delivery.place_for_original(delivery.archive, "photo.jpg", source, reserved)
    assert found == delivery.archive / "photo-2.jpg"


# Taking originals


def test_an_original_is_moved(delivery: Publisher, source: Path) -> None:
    """It leaves the inbox for its one destination."""
    place = delivery.archive / "photo.jpg"
    assert delivery.take_original(source, [place], same_as=as_read(source), keep=False)
    assert not source.exists()
    assert place.read_bytes() == PHOTO


def test_an_original_goes_to_several_places(delivery: Publisher, source: Path) -> None:
    """One input with several styles may be archived for one and rejected for another."""
    places = [delivery.archive / "a.jpg", delivery.archive / "b.jpg", delivery.rejected / "c.jpg"]
    assert delivery.take_original(source, places, same_as=as_read(source), keep=False)
    assert not source.exists()
    assert [place.read_bytes() for place in places] == [PHOTO] * 3


def test_folders_that_are_gone_are_made_again(delivery: Publisher, source: Path) -> None:
    """Somebody tidied up while the place was reserved."""
    places = [delivery.archive / "a" / "photo.jpg", delivery.archive / "b" / "photo.jpg"]
    assert delivery.take_original(source, places, same_as=as_read(source), keep=False)
    assert [place.read_bytes() for place in places] == [PHOTO] * 2


def test_without_a_destination_an_original_is_deleted(delivery: Publisher, source: Path) -> None:
    """As `after_success: delete` asks for."""
    assert delivery.take_original(source, [], same_as=as_read(source), keep=False)
    assert not source.exists()


def test_an_original_may_be_kept(delivery: Publisher, source: Path) -> None:
    """It stays in the inbox, and the copies do not follow what becomes of it there."""
    place = delivery.rejected / "photo.jpg"
    assert delivery.take_original(source, [place], same_as=as_read(source), keep=True)
    assert source.read_bytes() == PHOTO
    source.write_bytes(THEIRS)
    assert place.read_bytes() == PHOTO


def test_keeping_without_a_destination_does_nothing(delivery: Publisher, source: Path) -> None:
    """As `after_success: keep` asks for."""
    assert delivery.take_original(source, [], same_as=as_read(source), keep=True)
    assert source.read_bytes() == PHOTO


@pytest.mark.parametrize("keep", [False, True])
def test_a_replaced_input_is_left_alone(delivery: Publisher, source: Path, keep: bool) -> None:
    """Another file under the same name is a new input."""
    before = as_read(source)
    source.write_bytes(THEIRS)
    place = delivery.archive / "photo.jpg"
    assert not delivery.take_original(source, [place], same_as=before, keep=keep)
    assert source.read_bytes() == THEIRS
    assert not place.exists()


def test_an_input_that_only_looks_the_same_is_told_by_its_time(
    delivery: Publisher, source: Path
) -> None:
    """Equal size is not enough."""
    size, mtime_ns = as_read(source)
    assert not delivery.take_original(source, [], same_as=(size, mtime_ns + 1), keep=False)
    assert source.exists()


def test_a_vanished_input_is_no_error(delivery: Publisher, source: Path) -> None:
    """Somebody has taken it away, and there is nothing left to do."""
    before = as_read(source)
    source.unlink()
    place = delivery.archive / "photo.jpg"
    assert not delivery.take_original(source, [place], same_as=before, keep=False)
    assert not place.exists()


@pytest.mark.parametrize("and_then", [None, THEIRS], ids=["vanished", "replaced"])
def test_an_input_that_goes_at_the_last_moment_is_no_error(
    delivery: Publisher, source: Path, monkeypatch: pytest.MonkeyPatch, and_then: bytes | None
) -> None:
    """The move fails because the file has just been taken away or replaced."""

    def move(path: Path, destination: Path) -> None:
        path.unlink()
        if and_then is not None:
            path.write_bytes(and_then)
        raise ResourceUnavailable(f"{destination} can't be written")

    monkeypatch.setattr(publisher, "durable_move", move)
    place = delivery.archive / "photo.jpg"
    assert not delivery.take_original(source, [place], same_as=as_read(source), keep=False)
    assert (source.read_bytes() if source.exists() else None) == and_then


def test_taking_may_be_repeated(delivery: Publisher, source: Path) -> None:
    """After a crash between two copies the rest is done, and nothing twice."""
    places = [delivery.archive / "a.jpg", delivery.archive / "b.jpg"]
    for place in places:
        place.write_bytes(PHOTO)
    before = {place: place.stat().st_ino for place in places}
    assert delivery.take_original(source, places, same_as=as_read(source), keep=False)
    assert not source.exists()
    assert {place: place.stat().st_ino for place in places} == before


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("taken", [0, 1])
def test_a_place_that_is_taken_meanwhile_loses_neither_file(
    delivery: Publisher, source: Path, keep: bool, taken: int
) -> None:
    """Neither is a stranger's file overwritten nor the original deleted in its favour."""
    places = [delivery.archive / "a.jpg", delivery.archive / "b.jpg"]
    places[taken].write_bytes(THEIRS)
    with pytest.raises(ResourceUnavailable, match="taken by another file") as caught:
        delivery.take_original(source, places, same_as=as_read(source), keep=keep)
    assert caught.value.remedies
    assert source.read_bytes() == PHOTO
    assert places[taken].read_bytes() == THEIRS


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("keep", [False, True])
def test_a_destination_that_fails_keeps_the_original(
    delivery: Publisher, source: Path, monkeypatch: pytest.MonkeyPatch, number: int, keep: bool
) -> None:
    """The path and a remedy are named, and the input is where it was."""
    places = [delivery.archive / "a.jpg", delivery.archive / "b.jpg"]
    before = as_read(source)
    _refuse_writing(monkeypatch, number)
    with pytest.raises(ResourceUnavailable) as caught:
        delivery.take_original(source, places, same_as=before, keep=keep)
    assert str(places[0]) in caught.value.message
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
        delivery.take_original(source, [], same_as=as_read(source), keep=False)
    assert str(source) in caught.value.message
    assert "mount it writable" in caught.value.remedies[0]


def test_a_deletion_is_durable(
    delivery: Publisher, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power cut would bring the input back, to be painted twice."""
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_folder", synced.append)
    delivery.take_original(source, [], same_as=as_read(source), keep=False)
    assert synced == [source.parent]


def _refuse_writing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let every way to a new name fail, as a full or read-only disk does."""

    def refuse(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr("builtins.open", refuse)


# Disks that are not mounted


def test_nothing_is_written_where_no_disk_is_mounted(tmp_path: Path, source: Path) -> None:
    """Each way to put something somewhere asks beforehand, for the folder that it is about."""
    missing: set[Path] = set()

    def require(root: Path) -> None:
        if root in missing:
            raise ResourceUnavailable(f"{root} is not mounted")

    delivery = Publisher(tmp_path / "outbox", tmp_path / "rejected", tmp_path / "archive", require)
    delivery.prepare()
    for root in (delivery.outbox, delivery.rejected, delivery.archive):
        missing.add(root)
    result = delivery.outbox / "oil/photo.jpg"
    archived = delivery.archive / "oil/photo.jpg"
    for attempt in (
        delivery.prepare,
        lambda: delivery.place_for(delivery.rejected, "oil/photo.jpg", sidecar=True),
        lambda: delivery.publish_result(result, MINE),
        lambda: delivery.publish_sidecar(result, sidecar_by("me")),
        lambda: delivery.is_published(result, "me"),
        lambda: delivery.take_original(source, [archived], same_as=as_read(source), keep=False),
        lambda: delivery.take_original(source, [archived], same_as=as_read(source), keep=True),
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
    """Only a disk is everybody's trouble; the system tells the one from the other."""
    real = os.statvfs(tmp_path)
    flag = real.f_flag | os.ST_RDONLY if is_read_only else real.f_flag & ~os.ST_RDONLY
    monkeypatch.setattr(
        "styled.delivery.publisher.os.statvfs", lambda path: SimpleNamespace(f_flag=flag)
    )
    assert _is_read_only(tmp_path) is is_read_only

"""Detection of incomplete files, with real files of every format."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from structlog.testing import capture_logs

from styled.intake import upload_check
from styled.intake.scanning import FoundFile
from styled.intake.upload_check import Evidence, UploadCheck
from styled.open_files import WriterCheck, Writers

GRACE, OPEN_GRACE = 60.0, 3600.0


class ScriptedWriters(WriterCheck):
    """Returns the answer that the test has set."""

    def __init__(self, writers: Writers) -> None:
        super().__init__()
        self._scripted = writers

    def writers_of(self, descriptor: int, path: Path) -> Writers:
        """Return the scripted answer."""
        return self._scripted


def evidence_of(
    path: Path,
    writers: Writers = Writers.NONE,
    *,
    waited: float = 1.0,
    control_file: str | None = None,
    closed: Collection[str] = (),
) -> Evidence | None:
    """Return the evidence that `UploadCheck` finds in a file."""
    check = UploadCheck(
        path.parent,
        ScriptedWriters(writers),
        closed_files=closed,
        truncated_grace_seconds=GRACE,
        open_grace_seconds=OPEN_GRACE,
    )
    stat = path.stat()
    file = FoundFile(path.name, stat.st_size, stat.st_mtime_ns, stat.st_ino, control_file)
    return check.evidence_of(file, waited)


def encoded(kind: str, **options: object) -> bytes:
    """Return an encoded photograph."""
    astronaut = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    stream = BytesIO()
    astronaut.resize((256, 256)).save(stream, kind, **options)
    return stream.getvalue()


FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("writers", [Writers.NONE, Writers.UNKNOWN])
def test_a_whole_picture_shows_no_sign(tmp_path: Path, kind: str, writers: Writers) -> None:
    """This holds for every format, whether or not writers can be detected."""
    path = tmp_path / "photo"
    path.write_bytes(encoded(kind))
    assert evidence_of(path, writers) is None


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are listed in /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    """The daemon looks at each of many thousand files, and may open a thousand at a time."""
    path = tmp_path / "photo.jpg"
    data = encoded("JPEG")
    before = len(os.listdir("/proc/self/fd"))
    for written in (data, data[:1000], b"no picture"):
        path.write_bytes(written)
        evidence_of(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_picture_is_not_waited_for(tmp_path: Path) -> None:
    """A text file is passed on at once, to be rejected."""
    path = tmp_path / "letter.txt"
    path.write_bytes(b"Dear reader, I am a letter.\n" * 99)
    assert evidence_of(path) is None


def test_an_empty_file_waits_for_its_grace(tmp_path: Path) -> None:
    """After it, the file is accepted."""
    path = tmp_path / "photo.jpg"
    path.touch()
    assert evidence_of(path) == Evidence("is empty", GRACE, is_of_content=True)
    assert evidence_of(path, waited=GRACE) is None


def test_a_file_that_begins_with_zeros_waits(tmp_path: Path) -> None:
    """It was preallocated, and nothing is written yet."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(bytes(5000))
    found = evidence_of(path)
    assert found is not None
    assert found.grace_seconds == GRACE


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_picture_that_is_cut_off_waits(tmp_path: Path, kind: str, share: float) -> None:
    """The position of the cut does not matter."""
    data = encoded(kind)
    path = tmp_path / "photo"
    path.write_bytes(data[: int(len(data) * share)])
    found = evidence_of(path)
    assert found is not None
    assert "too early" in found.reason
    assert found.grace_seconds == GRACE
    assert evidence_of(path, waited=GRACE) is None


@pytest.mark.parametrize("start", [b"\xff", b"\x89PN", b"II*", b"RIFF\1\2", b"GIF8"])
def test_the_first_bytes_of_a_picture_wait(tmp_path: Path, start: bytes) -> None:
    """A file that is too short for its format to be known may become a picture."""
    path = tmp_path / "photo"
    path.write_bytes(start)
    assert evidence_of(path) == Evidence("ends too early", GRACE, is_of_content=True)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "BMP", "TIFF"])
def test_a_picture_whose_end_is_zeros_waits_where_writers_can_t_be_seen(
    tmp_path: Path, kind: str
) -> None:
    """Its structure looks complete. If the kernel says that it has no writer, it is accepted."""
    data = encoded(kind)
    path = tmp_path / "photo"
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    found = evidence_of(path, Writers.UNKNOWN)
    assert found is not None
    assert "zeros" in found.reason
    assert found.grace_seconds == GRACE
    assert evidence_of(path, Writers.UNKNOWN, waited=GRACE) is None
    assert evidence_of(path, Writers.NONE) is None


def test_a_hole_makes_a_file_wait_where_writers_can_t_be_seen(tmp_path: Path) -> None:
    """A program that writes out of order leaves holes."""
    data = encoded("BMP")
    path = tmp_path / "photo.bmp"
    with open(path, "wb") as stream:
        stream.write(data[:4096])
        stream.seek(len(data) - 4096)
        stream.write(b"\x80" * 4096)
        stream.flush()
        os.fsync(stream.fileno())
    if path.stat().st_blocks * 512 >= len(data):
        pytest.skip("this file system keeps no holes")
    found = evidence_of(path, Writers.UNKNOWN)
    assert found is not None
    assert "holes" in found.reason


def test_zeros_amid_a_compressed_picture_make_it_wait(tmp_path: Path) -> None:
    """A download over several connections leaves them although the end is written already."""
    data = encoded("JPEG", quality=100)
    path = tmp_path / "photo.jpg"
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(8192) + data[middle + 8192 :])
    found = evidence_of(path, Writers.UNKNOWN)
    assert found is not None
    assert "zeros" in found.reason
    assert evidence_of(path, Writers.NONE) is None


def test_a_file_that_was_closed_is_not_suspected(tmp_path: Path) -> None:
    """Zeros at its end are then taken for a black border."""
    data = encoded("BMP")
    path = tmp_path / "photo.bmp"
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert evidence_of(path, Writers.UNKNOWN) is not None
    assert evidence_of(path, Writers.UNKNOWN, closed={"photo.bmp"}) is None


def test_an_open_file_waits_whatever_it_looks_like(tmp_path: Path) -> None:
    """It waits until it is closed, or has not changed for `open_grace_seconds`."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded("JPEG"))
    assert evidence_of(path, Writers.SOME) == Evidence("is still open for writing", OPEN_GRACE)
    assert evidence_of(path, Writers.SOME, waited=OPEN_GRACE) is None


def test_an_open_file_that_is_never_closed_is_judged_by_its_content(tmp_path: Path) -> None:
    """By then the grace of its content is over too, unless that is the longer one."""
    path = tmp_path / "photo.jpg"
    path.touch()
    assert evidence_of(path, Writers.SOME, waited=OPEN_GRACE) is None


def test_a_control_file_counts_for_as_long_as_it_lies_there(tmp_path: Path) -> None:
    """A download may be resumed the next day."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded("JPEG"))
    found = evidence_of(path, control_file="photo.jpg.aria2", waited=1e6)
    assert found is not None
    assert found.grace_seconds is None
    assert "photo.jpg.aria2" in found.reason


def test_a_photo_waits_for_its_mask_to_be_complete(tmp_path: Path) -> None:
    """The reason names it, since the photo itself is complete."""
    photo, mask = tmp_path / "photo.jpg", tmp_path / "photo.jpg.mask.png"
    photo.write_bytes(encoded("JPEG"))
    mask.write_bytes(encoded("PNG")[:1000])
    check = UploadCheck(
        tmp_path,
        ScriptedWriters(Writers.NONE),
        closed_files=(),
        truncated_grace_seconds=GRACE,
        open_grace_seconds=OPEN_GRACE,
    )
    one = mask.stat()
    companion = FoundFile(mask.name, one.st_size, one.st_mtime_ns, one.st_ino)
    stat = photo.stat()
    file = FoundFile(
        photo.name, stat.st_size, stat.st_mtime_ns, stat.st_ino, companions=(companion,)
    )
    found = check.evidence_of(file, 1.0)
    assert found is not None
    assert found.reason.startswith("waits for photo.jpg.mask.png, which ")
    assert check.evidence_of(file, GRACE) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BlockingIOError(), Evidence("is still open for writing", OPEN_GRACE)),
        (OSError(errno.EIO, "Input/output error"),
         Evidence("can't be read: Input/output error", GRACE)),
    ],
)  # fmt: skip
def test_a_file_that_can_t_be_opened_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, expected: Evidence
) -> None:
    """A lease of its writer, or a disk that fails for a moment."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded("JPEG"))

    def refuse(_: Path) -> int:
        raise error

    monkeypatch.setattr(upload_check, "open_regular", refuse)
    assert evidence_of(path) == expected


def test_an_error_in_a_check_delays_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job reports the problem; the scan goes on to the other files."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded("JPEG"))

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(upload_check, "view_of", fail)
    with capture_logs() as logs:
        assert evidence_of(path) is None
    assert [line["event"] for line in logs] == ["input.not_checked"]


def test_a_file_that_vanishes_shows_no_sign(tmp_path: Path) -> None:
    """The next scan does not find it any more."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x")
    stat = path.stat()
    check = UploadCheck(
        tmp_path, WriterCheck(), closed_files=(), truncated_grace_seconds=1, open_grace_seconds=1
    )
    path.unlink()
    assert check.evidence_of(FoundFile("photo.jpg", 1, stat.st_mtime_ns, stat.st_ino), 1.0) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_may_not_be_read_yet_waits(tmp_path: Path) -> None:
    """Programs that copy permissions set them last. After the grace its job reports the error."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded("JPEG"))
    path.chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            pytest.skip(f"others may not look into {folder}")
    os.seteuid(61001)
    try:
        assert evidence_of(path) == Evidence("can't be read: Permission denied", GRACE)
        assert evidence_of(path, waited=GRACE) is None
    finally:
        os.seteuid(0)


def tiff_with_counts(count: int) -> bytes:
    """Return the header of a BigTIFF that claims `count` strips."""
    entries = [(256, 4, 1, 64), (257, 4, 1, 64), (273, 16, count, 16), (279, 16, count, 16)]
    directory = struct.pack("<Q", len(entries))
    for tag, kind, number, value in entries:
        directory += struct.pack("<HHQQ", tag, kind, number, value)
    return b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + directory + bytes(8)


HOSTILE = {
    "a TIFF of a terabyte of strips": (tiff_with_counts(1 << 36), 1 << 40),
    "a TIFF of a gigabyte of strips": (tiff_with_counts(1 << 26), 1 << 30),
    "a JPEG of tiny segments": (b"\xff\xd8" + b"\xff\xe0\0\2" * 250_000, None),
    "a GIF of tiny blocks": (b"GIF89a" + bytes(7) + b"!\xfe" + b"\1x" * 3_000_000, None),
    "a PNG of tiny chunks": (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0tEXt\0\0\0\0" * 500_000, None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_looking_into_a_hostile_file_takes_no_time(tmp_path: Path, name: str) -> None:
    """It takes no memory and raises no error either: its job will report the problem."""
    data, size = HOSTILE[name]
    path = tmp_path / "photo"
    path.write_bytes(data)
    if size is not None:
        os.truncate(path, size)
    began = time.process_time()
    evidence_of(path, Writers.UNKNOWN)
    assert time.process_time() - began < 2.0

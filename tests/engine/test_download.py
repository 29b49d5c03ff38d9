"""Downloads over connections that break or stall, and from servers that send wrong data."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import URLError

import pytest

from styled.engine import download as download_module
from styled.engine.download import (
    ATTEMPTS,
    FIRST_BACK_OFF_SECONDS,
    download,
)
from styled.engine_api import OnBytes
from styled.errors import WeightsError
from tests.engine.web import Answer, Web, serving

DATA = hashlib.shake_256(b"a network").digest(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def web() -> Iterator[Web]:
    """Run a local web server for one test."""
    with serving() as server:
        yield server


class Fetching:
    """Downloads to one path, with a fake sleep."""

    def __init__(self, web: Web, folder: Path) -> None:
        self.path = folder / "cache" / "network.pth"
        self.slept: list[float] = []
        self.stall_seconds = 10.0  # long enough for a busy machine
        self._web = web

    def __call__(self, sha256_prefix: str = SHA256[:8], on_bytes: OnBytes | None = None) -> None:
        download(
            self._web.url, self.path, sha256_prefix=sha256_prefix, on_bytes=on_bytes,
            stall_seconds=self.stall_seconds, sleep=self.slept.append,
        )  # fmt: skip

    def fail(self, message: str) -> None:
        with pytest.raises(WeightsError, match=message):
            self()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.parent.iterdir())


PARTIAL = ".network.pth.part"


@pytest.fixture
def fetch(web: Web, tmp_path: Path) -> Fetching:
    """Return a callable that downloads from the server."""
    return Fetching(web, tmp_path)


def kept(web: Web, fetch: Fetching, answer: Answer) -> None:
    """Leave a partial file of `answer`, as after an interrupted start."""
    web.script(answer, Answer())
    fetch.fail("404")
    assert fetch.names() == [PARTIAL]
    web.request_headers.clear()


# Interruption and resumption


def test_a_broken_connection_is_taken_up_where_it_broke(web: Web, fetch: Fetching) -> None:
    """Only the missing part is requested, and no byte is received twice."""
    cut = Answer(DATA, cut_at=1_200_000)
    web.script(cut, cut, Answer(DATA))
    seen: list[tuple[int, int]] = []
    fetch(on_bytes=lambda done, total: seen.append((done, total)))
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requested_ranges == [None, "bytes=1200000-", "bytes=2400000-"]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (len(DATA), len(DATA))


def test_a_later_start_goes_on_with_what_was_kept(web: Web, fetch: Fetching) -> None:
    """The partial file of an earlier start is resumed and then gone."""
    kept(web, fetch, Answer(DATA, cut_at=100))
    web.serve(DATA)
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requested_ranges == ["bytes=100-"]


def test_where_nothing_came_nothing_is_kept(web: Web, fetch: Fetching) -> None:
    """An empty partial file is deleted, and the error does not speak of it."""
    web.serve(DATA, cut_at=0)
    fetch.fail(rf"broke after 0 of {len(DATA)} bytes \({ATTEMPTS} attempts\)")
    assert fetch.names() == []
    assert web.requested_ranges == [None] * ATTEMPTS


def test_all_of_it_kept_needs_no_server(web: Web, fetch: Fetching) -> None:
    """A complete partial file is verified and renamed without a request."""
    kept(web, fetch, Answer(DATA, cut_at=100))
    (fetch.path.parent / PARTIAL).write_bytes(DATA)
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requests == 0


def test_an_interruption_keeps_what_can_be_gone_on_with(web: Web, fetch: Fetching) -> None:
    """Exceptions of the progress callback propagate; the partial file is kept."""

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done:
            raise StopError

    web.serve(DATA)
    with pytest.raises(StopError):
        fetch(on_bytes=stop)
    assert fetch.names() == [PARTIAL]
    fetch()
    assert fetch.names() == ["network.pth"]


# Changed files, and wrong responses


@pytest.mark.parametrize(
    ("came", "shift"),
    [(b"?" * 100, 0), (DATA[:100], 7), (DATA[:100], -7), (DATA[:100], -100)],
    ids=["changed", "later part", "earlier part", "whole file"],
)
def test_parts_that_do_not_match_are_downloaded_again_once(
    web: Web, fetch: Fetching, came: bytes, shift: int
) -> None:
    """After a change of the file, or another part than requested, it restarts from zero."""
    kept(web, fetch, Answer(came, cut_at=100, declared_bytes=len(DATA)))
    web.script(Answer(DATA, range_shift=shift))
    seen: list[int] = []
    fetch(on_bytes=lambda done, total: seen.append(done))
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requested_ranges == ["bytes=100-", None]
    assert seen[0] == 100
    assert 0 in seen


def test_a_server_that_ignores_ranges_sends_the_whole_file(web: Web, fetch: Fetching) -> None:
    """A whole file in place of the missing part replaces what was kept, without a request more."""
    kept(web, fetch, Answer(b"?" * 100, cut_at=100, declared_bytes=len(DATA)))
    web.script(Answer(DATA, ranges=False))
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requested_ranges == ["bytes=100-"]


def test_a_server_that_ignores_ranges_and_breaks_is_given_up(web: Web, fetch: Fetching) -> None:
    """Without ranges each attempt starts from zero, and their number is limited."""
    web.script(Answer(DATA, cut_at=1_200_000, ranges=False))
    fetch.fail(f"broke after 1200000 of {len(DATA)} bytes .{ATTEMPTS} attempts; .*kept")
    assert web.requests == ATTEMPTS
    assert (fetch.path.parent / PARTIAL).read_bytes() == DATA[:1_200_000]


def test_a_part_longer_than_the_file_is_thrown_away(web: Web, fetch: Fetching) -> None:
    """After status 416 the whole file is requested."""
    kept(web, fetch, Answer(DATA, cut_at=100))
    (fetch.path.parent / PARTIAL).write_bytes(DATA + b"?")
    web.script(Answer(DATA))
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requested_ranges == [f"bytes={len(DATA) + 1}-", None]


def test_a_part_as_long_as_the_file_but_damaged_is_thrown_away(web: Web, fetch: Fetching) -> None:
    """If nothing is missing (status 416) but the hash is wrong, the whole file is requested."""
    kept(web, fetch, Answer(DATA, cut_at=100))
    (fetch.path.parent / PARTIAL).write_bytes(DATA[:-1] + b"?")
    web.serve(DATA)
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requested_ranges == [f"bytes={len(DATA)}-", None]


def test_status_416_for_everything_is_given_up(web: Web, fetch: Fetching) -> None:
    """A server that refuses even the whole file is asked a limited number of times."""
    kept(web, fetch, Answer(DATA, cut_at=100))
    web.script(Answer(b"", status=416))
    fetch.fail(f"416.*{ATTEMPTS} attempts")
    assert web.requested_ranges == ["bytes=100-", None, None, None]
    assert fetch.names() == []


def test_other_content_than_promised_is_refused_at_once(web: Web, fetch: Fetching) -> None:
    """A complete file with another hash is not requested again, and no partial file stays."""
    web.serve(DATA[:-1] + b"!")
    fetch.fail("SHA-256")
    assert web.requests == 1
    assert fetch.names() == []


def test_pieces_of_other_content_are_fetched_once_more_only(web: Web, fetch: Fetching) -> None:
    """If joined parts have the wrong hash, the file is downloaded once more, then it fails."""
    half = Answer(b"?" * 100, cut_at=50)
    web.script(half, Answer(half.data), half, Answer(half.data))
    fetch.fail("SHA-256")
    assert web.requested_ranges == [None, "bytes=50-"] * 2
    assert fetch.names() == []


def test_a_length_that_is_too_large_is_given_up(web: Web, fetch: Fetching) -> None:
    """A Content-Length larger than the file ends after a limited number of attempts."""
    web.script(Answer(DATA, declared_bytes=len(DATA) + 1))
    fetch.fail(f"{ATTEMPTS} attempts")
    assert not fetch.path.exists()


def test_a_length_that_is_too_small_is_found_by_the_hash(web: Web, fetch: Fetching) -> None:
    """A Content-Length smaller than the file gives a wrong hash."""
    web.script(Answer(DATA, declared_bytes=len(DATA) - 1))
    fetch.fail("SHA-256")
    assert fetch.names() == []


def test_a_server_that_tells_no_length_is_good_enough(web: Web, fetch: Fetching) -> None:
    """Without a Content-Length the total is reported as 0; the hash detects truncation."""
    web.script(Answer(DATA, declared_bytes=-1))
    seen: list[tuple[int, int]] = []
    fetch(on_bytes=lambda done, total: seen.append((done, total)))
    assert fetch.path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), 0)


@pytest.mark.parametrize("declared_bytes", [None, -1])
def test_a_file_over_the_limit_is_refused(
    web: Web, fetch: Fetching, monkeypatch: pytest.MonkeyPatch, declared_bytes: int | None
) -> None:
    """With or without a Content-Length, a file that is too large is not requested again."""
    monkeypatch.setattr(download_module, "MAX_BYTES", len(DATA) - 1)
    web.script(Answer(DATA, declared_bytes=declared_bytes))
    fetch.fail(f"over {len(DATA) - 1} bytes")
    assert web.requests == 1
    assert fetch.names() == []
    monkeypatch.setattr(download_module, "MAX_BYTES", len(DATA))
    fetch()
    assert fetch.path.read_bytes() == DATA


# Attempts and back-off


def test_a_server_that_falls_silent_is_given_up(web: Web, fetch: Fetching) -> None:
    """The download fails after `ATTEMPTS` timeouts with exponential back-off."""
    fetch.stall_seconds = 0.5
    web.serve(b"x" * 1000, stall=True)
    fetch.fail(f"timed out.*{ATTEMPTS} attempts")
    assert fetch.names() == []
    assert web.requests == ATTEMPTS
    assert fetch.slept == [FIRST_BACK_OFF_SECONDS * factor for factor in (1, 2, 4)]


def test_a_server_that_falls_silent_once_is_forgiven(web: Web, fetch: Fetching) -> None:
    """After one timeout the download resumes where it stalled."""
    fetch.stall_seconds = 1.0
    web.script(Answer(DATA, stall_at=1000), Answer(DATA))
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requested_ranges == [None, "bytes=1000-"]


def test_getting_further_is_not_giving_up(web: Web, fetch: Fetching) -> None:
    """The attempts are counted anew as long as each connection makes progress."""
    data = DATA * 3
    web.serve(data, cut_at=1_100_000)
    fetch(hashlib.sha256(data).hexdigest())
    assert fetch.path.read_bytes() == data
    assert web.requests == 9 > ATTEMPTS


@pytest.mark.parametrize(("status", "requests"), [(503, ATTEMPTS), (429, ATTEMPTS), (403, 1)])
def test_only_a_failing_server_is_asked_again(
    web: Web, fetch: Fetching, status: int, requests: int
) -> None:
    """Statuses 429 and 503 are retried, 403 is not."""
    web.script(Answer(b"", status=status))
    fetch.fail(str(status))
    assert web.requests == requests
    assert fetch.names() == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/none", "http://name.invalid/none", "nonsense", "http://[::1/"]
)
def test_without_a_network_the_error_comes_at_once(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that can't be established is not retried and leaves no files."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    slept: list[float] = []
    with pytest.raises(WeightsError, match="can't be loaded"):
        download(url, tmp_path / "f", sha256_prefix="", sleep=slept.append)
    assert slept == []
    assert list(tmp_path.iterdir()) == []


def test_no_network_keeps_what_came_while_there_was_one(
    web: Web, fetch: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start without a network keeps the partial file of an earlier start."""
    kept(web, fetch, Answer(DATA, cut_at=100))

    def unreachable(*_: object, **__: object) -> None:
        raise URLError(OSError(errno.ENETUNREACH, "Network is unreachable"))

    with monkeypatch.context() as patched:
        patched.setattr("urllib.request.urlopen", unreachable)
        fetch.fail("unreachable")
    web.serve(DATA)
    fetch()
    assert web.requested_ranges == ["bytes=100-"]


# The file system


def test_a_folder_that_cannot_be_made_is_an_error_in_words(web: Web, fetch: Fetching) -> None:
    """A file in place of the cache folder is a WeightsError, not an OSError."""
    fetch.path.parent.write_text("a file")
    fetch.fail("can't be loaded")


@pytest.mark.parametrize("free_bytes", [0, 1_000_000])
def test_a_full_disk_is_an_error_in_words(
    web: Web, fetch: Fetching, monkeypatch: pytest.MonkeyPatch, free_bytes: int
) -> None:
    """A full disk is reported at once, without a retry; what had room is kept."""

    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            room = free_bytes - self.seek(0, os.SEEK_END)
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(memoryview(data)[:room])

    monkeypatch.setattr(
        download_module, "open", lambda path, mode: io.BufferedWriter(FullDisk(path, mode)),
        raising=False,
    )  # fmt: skip
    web.serve(DATA)
    fetch.fail("No space left")
    assert web.requests == 1
    assert fetch.names() == ([PARTIAL] if free_bytes else [])
    monkeypatch.undo()
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requested_ranges[1] == (f"bytes={free_bytes}-" if free_bytes else None)


def test_a_damaged_file_is_replaced_and_a_whole_one_left(web: Web, fetch: Fetching) -> None:
    """An existing file is kept only if it has the hash."""
    fetch.path.parent.mkdir()
    fetch.path.write_bytes(DATA[:-1])
    web.serve(DATA)
    fetch()
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requests == 1


def test_a_damaged_file_goes_although_there_is_no_other(web: Web, fetch: Fetching) -> None:
    """A damaged file is deleted even if the download fails, so that no reader finds it."""
    fetch.path.parent.mkdir()
    fetch.path.write_bytes(DATA[:-1])
    web.serve(DATA[:-1] + b"!")
    fetch.fail("SHA-256")
    assert not fetch.path.exists()


def test_the_file_may_be_read_by_whom_the_user_lets_read(web: Web, fetch: Fetching) -> None:
    """The file gets the default permissions, as for a cache shared between users."""
    web.serve(DATA)
    fetch()
    ordinary = fetch.path.with_name("ordinary")
    ordinary.touch()
    assert fetch.path.stat().st_mode == ordinary.stat().st_mode


# Concurrent downloads


def test_two_at_once_download_once(web: Web, fetch: Fetching) -> None:
    """The second waits, reports what the first has got so far, and uses its file."""
    web.script(Answer(DATA, stall_at=2_000_000))
    half_way = threading.Event()

    def on_bytes(done: int, total: int) -> None:
        if done == 2_000_000:
            half_way.set()

    def first() -> None:
        download(web.url, fetch.path, sha256_prefix=SHA256, on_bytes=on_bytes)

    thread = threading.Thread(target=first, name="first")
    thread.start()
    assert half_way.wait(10)
    seen: list[tuple[int, int]] = []

    def on_wait(done: int, total: int) -> None:
        seen.append((done, total))
        web.stalled.set()  # the second one is waiting now
        thread.join()

    fetch(on_bytes=on_wait)
    thread.join()
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requests == 1
    [(done, total)] = seen
    assert 0 < done <= 2_000_000
    assert total == 0


def test_many_at_once_all_get_the_file(web: Web, fetch: Fetching) -> None:
    """All concurrent downloads succeed with one request, and no partial file is left."""
    web.serve(DATA)
    errors: list[WeightsError] = []

    def fetch_once() -> None:
        try:
            download(web.url, fetch.path, sha256_prefix=SHA256, sleep=lambda seconds: None)
        except WeightsError as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch_once, name=f"fetch-{i}") for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requests == 1


def test_the_second_goes_on_where_the_first_gave_up(web: Web, fetch: Fetching) -> None:
    """Once the lock is released, the second process resumes the first one's partial file."""
    kept(web, fetch, Answer(DATA, cut_at=100))
    web.serve(DATA)
    with open(fetch.path.parent / PARTIAL, "rb") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        fetch(on_bytes=lambda done, total: fcntl.flock(lock_file, fcntl.LOCK_UN))
    assert web.requested_ranges == ["bytes=100-"]
    assert fetch.path.read_bytes() == DATA


def test_a_file_deleted_before_it_is_locked_is_rebuilt(
    web: Web, fetch: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is held on the file that has the name, not on one that another process deleted."""
    partial, lock = fetch.path.parent / PARTIAL, fcntl.flock
    deleted: list[Path] = []

    def delete_and_lock(file: BinaryIO, operation: int) -> None:
        if not deleted:
            deleted.append(partial)
            partial.unlink()
        lock(file, operation)

    def on_bytes(done: int, total: int) -> None:
        with open(partial, "rb") as file, pytest.raises(BlockingIOError):
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr("fcntl.flock", delete_and_lock)
    web.serve(DATA)
    fetch(on_bytes=on_bytes)
    assert deleted
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]


def test_where_nothing_can_be_locked_each_has_a_part_of_its_own(
    web: Web, fetch: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without file locks each download uses a private partial file, which is not kept."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    web.script(Answer(DATA, cut_at=100), Answer())
    fetch.fail("404")
    assert fetch.names() == []
    web.script(Answer(DATA, cut_at=100), Answer(DATA))
    fetch()
    assert fetch.names() == ["network.pth"]
    assert fetch.path.read_bytes() == DATA


class Downloading:
    """A download in a process of its own."""

    def __init__(self, web: Web, path: Path) -> None:
        code = (
            "import sys\nfrom pathlib import Path\nfrom styled.engine.download import download\n"
            "download(sys.argv[1], Path(sys.argv[2]), sha256_prefix=sys.argv[3], stall_seconds=60,"
            " on_bytes=lambda done, total: print(done, total, flush=True))"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, web.url, str(path), SHA256],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def progress(self) -> tuple[int, int]:
        """Wait for its next report of bytes done and total bytes."""
        assert self.process.stdout is not None
        done, total = self.process.stdout.readline().split()
        return int(done), int(total)

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def two_processes(web: Web, fetch: Fetching) -> Iterator[tuple[Downloading, Downloading]]:
    """Start two processes: the first has stalled after 2 MB, the second waits for it."""
    web.script(Answer(DATA, stall_at=2_000_000), Answer(DATA))
    with ExitStack() as stack:
        first = Downloading(web, fetch.path)
        stack.enter_context(first.process)
        stack.callback(first.process.kill)
        while first.progress() != (2_000_000, len(DATA)):
            pass
        second = Downloading(web, fetch.path)
        stack.enter_context(second.process)
        stack.callback(second.process.kill)
        done, total = second.progress()
        assert 0 < done <= 2_000_000
        assert total == 0
        yield first, second


def test_two_processes_download_once(
    web: Web, fetch: Fetching, two_processes: tuple[Downloading, Downloading]
) -> None:
    """The second process waits for the first, and uses its file."""
    web.stalled.set()
    assert [process.end() for process in two_processes] == [0, 0]
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requests == 1


def test_a_process_takes_over_from_one_that_was_killed(
    web: Web, fetch: Fetching, two_processes: tuple[Downloading, Downloading]
) -> None:
    """The lock ends with its process, and what that one has got is resumed."""
    first, second = two_processes
    first.process.kill()
    assert second.end() == 0
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    _, resumed = web.requested_ranges
    assert resumed is not None
    # The last bytes may have been in the killed process' buffer.
    assert 1_900_000 < int(resumed.removeprefix("bytes=").removesuffix("-")) <= 2_000_000

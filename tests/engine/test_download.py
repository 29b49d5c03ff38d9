"""Downloads over connections that break or stall, and from servers that send wrong data."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

from styled.engine import partial as partial_module
from styled.engine.download import (
    ATTEMPTS,
    FIRST_BACK_OFF_SECONDS,
    OnBytes,
    download,
)
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


PARTIAL = [".network.pth.part", ".network.pth.part.json"]


@pytest.fixture
def fetch(web: Web, tmp_path: Path) -> Fetching:
    """Return a callable that downloads from the server."""
    return Fetching(web, tmp_path)


def kept(web: Web, fetch: Fetching, answer: Answer) -> None:
    """Leave a partial file of `answer`, as after an interrupted start."""
    web.script(answer, Answer())
    fetch.fail("404")
    assert fetch.names() == PARTIAL
    web.request_headers.clear()


# Interruption and resumption


def test_a_broken_connection_is_taken_up_where_it_broke(web: Web, fetch: Fetching) -> None:
    """The missing part is requested with `If-Range`, and no byte is received twice."""
    cut = Answer(DATA, cut_at=1_200_000, etag='"1"')
    web.script(cut, cut, Answer(DATA, etag='"1"'))
    seen: list[tuple[int, int]] = []
    fetch(on_bytes=lambda done, total: seen.append((done, total)))
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requested_ranges == [None, "bytes=1200000-", "bytes=2400000-"]
    assert [headers.get("If-Range") for headers in web.request_headers] == [None, '"1"', '"1"']
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (len(DATA), len(DATA))


DATE = "Mon, 04 Mar 2019 16:00:00 GMT"


@pytest.mark.parametrize(
    "validators",
    [{"etag": '"1"'}, {"last_modified": DATE}, {"etag": 'W/"1"', "last_modified": DATE}],
)
def test_a_later_start_goes_on_with_what_was_kept(
    web: Web, fetch: Fetching, validators: dict[str, str]
) -> None:
    """A strong ETag, or else a date, is enough to resume."""
    kept(web, fetch, Answer(DATA, cut_at=100, **validators))  # type: ignore[arg-type]
    web.script(Answer(DATA, **validators))  # type: ignore[arg-type]
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requested_ranges == ["bytes=100-"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(DATA, cut_at=100),
        Answer(DATA, cut_at=100, etag='W/"1"'),
        Answer(DATA, cut_at=100, etag='"1"', ranges=False),
        Answer(DATA, cut_at=0, etag='"1"'),
        Answer(DATA, cut_at=100, declared_bytes=-1, etag='W/"1"'),
    ],
)
def test_what_cannot_be_gone_on_with_is_not_kept(web: Web, fetch: Fetching, answer: Answer) -> None:
    """Without a validator and range support the partial file is deleted."""
    web.script(answer)
    fetch.fail("broke|SHA-256")
    assert fetch.names() == []
    assert set(web.requested_ranges) == {None}


def test_all_of_it_kept_needs_no_server(web: Web, fetch: Fetching) -> None:
    """A complete partial file is verified and renamed without a request."""
    kept(web, fetch, Answer(DATA, cut_at=100, etag='"1"'))
    (fetch.path.parent / PARTIAL[0]).write_bytes(DATA)
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requests == 0


def test_an_interruption_keeps_what_can_be_gone_on_with(web: Web, fetch: Fetching) -> None:
    """Exceptions of the progress callback propagate; a resumable partial file is kept."""

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done:
            raise StopError

    web.serve(DATA, etag='"1"')
    with pytest.raises(StopError):
        fetch(on_bytes=stop)
    assert fetch.names() == PARTIAL
    fetch()
    assert fetch.names() == ["network.pth"]
    web.serve(DATA)
    fetch.path.unlink()
    with pytest.raises(StopError):
        fetch(on_bytes=stop)
    assert fetch.names() == []


# Changed files, and wrong responses


@pytest.mark.parametrize(
    "answer",
    [
        Answer(DATA, etag='"2"'),
        Answer(DATA, etag='"2"', heeds_if_range=False),
        Answer(DATA, etag='"1"', ranges=False),
        Answer(DATA, etag='"1"', content_range="bytes 0-9/10"),
        Answer(DATA, etag='"1"', content_range=f"bytes 100-{len(DATA)}/{len(DATA) + 1}"),
        Answer(DATA, etag='"1"', content_range="the rest"),
        Answer(DATA, etag='"1"', range_shift=7),
        Answer(DATA, etag='"1"', range_lie=7),
        Answer(DATA, etag='"1"', range_lie=-7),
    ],
)
def test_pieces_that_do_not_fit_are_fetched_anew(web: Web, fetch: Fetching, answer: Answer) -> None:
    """If the file has changed or the server sends another part, the download restarts."""
    kept(web, fetch, Answer(b"?" * 3_000_000, cut_at=100, etag='"1"'))
    web.script(answer)
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert fetch.names() == ["network.pth"]
    assert web.requested_ranges[0] == "bytes=100-"


def test_a_part_longer_than_the_file_is_thrown_away(web: Web, fetch: Fetching) -> None:
    """After status 416 the whole file is requested."""
    kept(web, fetch, Answer(DATA, cut_at=100, etag='"1"'))
    (fetch.path.parent / PARTIAL[0]).write_bytes(DATA + b"?")
    web.script(Answer(DATA, etag='"1"'))
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requested_ranges == [f"bytes={len(DATA) + 1}-", None]


@pytest.mark.parametrize("metadata", [b"", b"[]", b'{"validator": 1, "total_bytes": "x"}', b"\xff"])
def test_a_torn_note_means_starting_again(web: Web, fetch: Fetching, metadata: bytes) -> None:
    """A partial file without valid metadata is not resumed."""
    kept(web, fetch, Answer(DATA, cut_at=100, etag='"1"'))
    (fetch.path.parent / PARTIAL[1]).write_bytes(metadata)
    web.script(Answer(DATA))
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requested_ranges == [None]


def test_other_content_than_promised_is_refused_at_once(web: Web, fetch: Fetching) -> None:
    """A complete file with another hash is not requested again, and no partial file stays."""
    web.serve(DATA[:-1] + b"!", etag='"1"')
    fetch.fail("SHA-256")
    assert web.requests == 1
    assert fetch.names() == []


def test_pieces_of_other_content_are_fetched_once_more_only(web: Web, fetch: Fetching) -> None:
    """If joined parts have the wrong hash, the file is downloaded once more, then it fails."""
    half = Answer(b"?" * 100, cut_at=50, etag='"1"')
    web.script(half, Answer(half.data, etag='"1"'), half, Answer(half.data, etag='"1"'))
    fetch.fail("SHA-256")
    assert web.requests == 4
    assert fetch.names() == []


def test_a_length_that_is_too_large_is_given_up(web: Web, fetch: Fetching) -> None:
    """A Content-Length larger than the file ends after a limited number of attempts."""
    web.script(Answer(DATA, declared_bytes=len(DATA) + 1, etag='"1"'))
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
    web.script(Answer(DATA, stall_at=1000, etag='"1"'), Answer(DATA, etag='"1"'))
    fetch()
    assert fetch.path.read_bytes() == DATA
    assert web.requested_ranges == [None, "bytes=1000-"]


def test_getting_further_is_not_giving_up(web: Web, fetch: Fetching) -> None:
    """The attempts are counted anew as long as each connection makes progress."""
    data = DATA * 3
    web.serve(data, cut_at=1_100_000, etag='"1"')
    fetch(hashlib.sha256(data).hexdigest())
    assert fetch.path.read_bytes() == data
    assert web.requests == 9 > ATTEMPTS


@pytest.mark.parametrize(("status", "requests"), [(503, ATTEMPTS), (429, ATTEMPTS), (403, 1)])
def test_only_a_server_in_trouble_is_asked_again(
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
    kept(web, fetch, Answer(DATA, cut_at=100, etag='"1"'))

    def unreachable(*_: object, **__: object) -> None:
        raise URLError(OSError(errno.ENETUNREACH, "Network is unreachable"))

    with monkeypatch.context() as patched:
        patched.setattr("urllib.request.urlopen", unreachable)
        fetch.fail("unreachable")
    web.serve(DATA, etag='"1"')
    fetch()
    assert web.requested_ranges == ["bytes=100-"]


# The file system


def test_a_folder_that_cannot_be_made_is_an_error_in_words(web: Web, fetch: Fetching) -> None:
    """A file in place of the cache folder is a WeightsError, not an OSError."""
    fetch.path.parent.write_text("a file")
    fetch.fail("can't be loaded")


def test_a_full_disk_is_an_error_in_words(
    web: Web, fetch: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is reported at once, without a retry."""

    def full(self: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(partial_module.PartialFile, "append", full)
    web.serve(DATA, etag='"1"')
    fetch.fail("No space left")
    assert web.requests == 1
    assert fetch.names() == []


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
    """The second waits, reports the progress of the first, and uses its file."""
    web.script(Answer(DATA, stall_at=2_000_000, etag='"1"'))
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
    assert total == len(DATA)


def test_many_at_once_all_get_the_file(web: Web, fetch: Fetching) -> None:
    """All concurrent downloads succeed with one request, and no partial file is left."""
    web.serve(DATA, etag='"1"')
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
    kept(web, fetch, Answer(DATA, cut_at=100, etag='"1"'))
    web.serve(DATA, etag='"1"')
    with open(fetch.path.parent / PARTIAL[0], "rb") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        fetch(on_bytes=lambda done, total: fcntl.flock(lock_file, fcntl.LOCK_UN))
    assert web.requested_ranges == ["bytes=100-"]
    assert fetch.path.read_bytes() == DATA


def test_where_nothing_can_be_locked_each_has_a_part_of_its_own(
    web: Web, fetch: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without file locks each download uses a private partial file, which is not kept."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    web.script(Answer(DATA, cut_at=100, etag='"1"'), Answer())
    fetch.fail("404")
    assert fetch.names() == []
    web.script(Answer(DATA, cut_at=100, etag='"1"'), Answer(DATA, etag='"1"'))
    fetch()
    assert fetch.names() == ["network.pth"]
    assert fetch.path.read_bytes() == DATA


def test_the_note_tells_what_the_part_is_of(web: Web, fetch: Fetching) -> None:
    """The metadata file is JSON with the version of the file on the server."""
    kept(web, fetch, Answer(DATA, cut_at=100, etag='"1"'))
    metadata = json.loads((fetch.path.parent / PARTIAL[1]).read_bytes())
    assert metadata == {"validator": '"1"', "total_bytes": len(DATA)}

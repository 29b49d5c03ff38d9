"""Resumable download of one large file whose SHA-256 is known.

What has come is kept in `.NAME.part` next to the final path. After an interruption, at once or at
a later start, the rest is requested with `Range` (RFC 9110, section 14.2). Only the hash tells
whether the parts match: if it is wrong, the file is downloaded once more, from the start.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import ssl
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError

from styled.engine_api import OnBytes
from styled.errors import WeightsError

STALL_SECONDS = 10.0  # socket timeout: a connection silent for this long counts as error
ATTEMPTS = 4  # in a row without progress
FIRST_BACK_OFF_SECONDS = 1.0  # before the second attempt; doubled before each further one
WAIT_SECONDS = 0.5  # interval at which to poll whether another process has finished
MAX_BYTES = 1 << 30  # a larger file is refused, before it fills the disk

_CHUNK_BYTES = 1 << 20
_MIN_PROGRESS_BYTES = 1 << 20  # fewer bytes between two breaks do not count as progress
_RETRY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416
# Of an established connection. If there is none, that is a URLError; a full disk is an OSError.
_NETWORK_ERRORS = (ConnectionError, TimeoutError, ssl.SSLError, HTTPException)
# flock's errors on file systems without locks, such as some network file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

Sleep = Callable[[float], None]


def download(
    url: str,
    path: Path,
    *,
    sha256_prefix: str,
    on_bytes: OnBytes | None = None,
    stall_seconds: float = STALL_SECONDS,
    sleep: Sleep = time.sleep,
) -> None:
    """Download `url` to `path`, which appears only once the hash has been verified.

    An existing file is kept if it has the hash, and replaced otherwise. If another process is
    downloading the same file, wait for it. Broken connections are retried. A connection that
    can't be established is not retried, so that a machine without a network fails at once.

    Args:
        url: http or https.
        path: The final path; its folder is created.
        sha256_prefix: Prefix of the hexadecimal SHA-256 of the content.
        on_bytes: Progress callback, for every connection and chunk, and while waiting.
        stall_seconds: Socket timeout.
        sleep: Called to wait between attempts, and for another process.

    Raises:
        WeightsError: no connection, too many broken ones, a full disk, or unexpected content.
    """
    report = on_bytes or (lambda done, total: None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked_partial(path, report, sleep) as partial:
            if path.exists():
                if file_sha256(path).startswith(sha256_prefix):
                    return  # another process has downloaded it
                path.unlink()
            _receive_verified(url, partial, sha256_prefix, report, stall_seconds, sleep)
            _rename_durably(partial, path)
    except (OSError, HTTPException, ValueError) as error:
        raise WeightsError(f"{url} can't be loaded: {_message_of(error)}") from error


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file.

    Raises:
        OSError: it can't be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _receive_verified(
    url: str, partial: Path, sha256_prefix: str, report: OnBytes, stall_seconds: float, sleep: Sleep
) -> None:
    """Receive what is missing; start again once if joined parts have the wrong hash."""
    if partial.stat().st_size and file_sha256(partial).startswith(sha256_prefix):
        return  # interrupted between its last byte and its renaming
    for is_last in (False, True):
        is_joined = _receive(url, partial, report, stall_seconds, sleep)
        digest = file_sha256(partial)
        if digest.startswith(sha256_prefix):
            return
        os.truncate(partial, 0)
        if is_last or not is_joined:
            raise WeightsError(
                f"{url} served a file with SHA-256 {digest[:16]}..., "
                f"not the expected {sha256_prefix}..."
            )


def _receive(url: str, partial: Path, report: OnBytes, stall_seconds: float, sleep: Sleep) -> bool:
    """Receive what is missing; return whether it was joined to what had come before."""
    breaks = farthest = total = 0
    while True:
        start = done = partial.stat().st_size
        report(done, total)
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            with (
                urllib.request.urlopen(request, timeout=stall_seconds) as response,
                open(partial, "ab") as file,
            ):
                if response.status != _PARTIAL_CONTENT:
                    file.truncate(0)  # the whole file comes, whatever was requested
                    start = done = 0
                length = response.headers.get("Content-Length", "")
                total = start + int(length) if length.isdecimal() else 0
                # Not `read`, which discards the bytes received so far when the connection breaks.
                while data := response.read1(_CHUNK_BYTES):
                    done += len(data)
                    if max(done, total) > MAX_BYTES:
                        file.truncate(0)
                        raise WeightsError(f"{url} served a file of over {MAX_BYTES} bytes")
                    file.write(data)
                    report(done, total)
            if done >= total:
                return start > 0
            raise ConnectionError(f"the connection broke after {done} of {total} bytes")
        except HTTPError as error:
            error.close()
            if error.code == _RANGE_NOT_SATISFIABLE:
                os.truncate(partial, 0)  # there is nothing behind it on the server
            elif error.code not in _RETRY_STATUSES:
                raise
            failure: Exception = error
        except _NETWORK_ERRORS as error:
            failure = error
        done = partial.stat().st_size
        if done >= farthest + _MIN_PROGRESS_BYTES:
            breaks, farthest = 0, done
        breaks += 1
        if breaks == ATTEMPTS:
            kept = "; what has come is kept for the next time" if done else ""
            raise WeightsError(
                f"{url} can't be loaded: {_message_of(failure)} ({ATTEMPTS} attempts{kept})"
            ) from failure
        sleep(FIRST_BACK_OFF_SECONDS * 2 ** (breaks - 1))


@contextmanager
def _locked_partial(path: Path, report: OnBytes, sleep: Sleep) -> Iterator[Path]:
    """Create and lock the partial file of `path`; delete it at the end if it is empty.

    On a file system without locks it has a name of its own, and is always deleted.
    """
    shared = partial = path.with_name(f".{path.name}.part")
    while True:
        with open(partial, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(os.fstat(file.fileno()).st_size, 0)
                sleep(WAIT_SECONDS)
                continue
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                if partial == shared:
                    shared.unlink(missing_ok=True)
                    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
                    continue
            if not _is_at(partial, file):
                continue  # the process that held the lock has renamed or deleted the file
            try:
                yield partial
            finally:
                # Before unlocking: afterwards another process may be using the file.
                if partial != shared or not os.fstat(file.fileno()).st_size:
                    with suppress(OSError):
                        partial.unlink()
            return


def _is_at(path: Path, file: BinaryIO) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    return False


def _rename_durably(partial: Path, path: Path) -> None:
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems can't sync a folder; they order renames themselves.
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


def _message_of(error: Exception) -> str:
    # A URLError wraps the actual error; an HTTPError's own text says more than its reason.
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        error = error.reason if isinstance(error.reason, Exception) else error
    return str(error) or type(error).__name__

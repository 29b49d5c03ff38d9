"""Resumable download of one large file, verified by its SHA-256.

Received bytes are kept in a partial file next to the final path. After a broken connection the
missing part is requested with `Range` and `If-Range` (RFC 9110, sections 14.2 and 13.1.5), at
once or at a later start. The file gets its final name only after its hash has been verified.
"""

from __future__ import annotations

import hashlib
import re
import time
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError

from styled.engine.partial import PartialFile, Version, locked_partial
from styled.errors import WeightsError

STALL_SECONDS = 10.0
"""Socket timeout: a connection silent for this long counts as error."""

ATTEMPTS = 4
"""Number of attempts in a row without progress before the download fails."""

FIRST_BACK_OFF_SECONDS = 1.0
"""Back-off before the second attempt; doubled before each further one."""

WAIT_SECONDS = 0.5
"""Interval at which to poll whether another process has finished the same download."""

_CHUNK_BYTES = 1 << 20
_MIN_PROGRESS_BYTES = 1 << 20  # fewer bytes between two breaks do not count as progress
_RETRY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416

OnBytes = Callable[[int, int], None]
"""Called with bytes done and total bytes (0 if the server does not say); may raise to cancel."""


class _RetryableError(Exception):
    """The server was reached but did not send everything; retry."""


def download(
    url: str,
    path: Path,
    *,
    sha256_prefix: str,
    on_bytes: OnBytes | None = None,
    stall_seconds: float = STALL_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Download `url` to `path`, which appears only once the hash has been verified.

    An existing file is kept if it has the hash, and replaced otherwise. If another process is
    downloading the same file, wait for it. Broken connections are retried. A connection that
    can't be established is not retried, so that a machine without a network fails at once.

    Args:
        url: http or https.
        path: The final path; its folder is created.
        sha256_prefix: Prefix of the hexadecimal SHA-256 of the content.
        on_bytes: Progress callback, called for every connection and every chunk.
        stall_seconds: Socket timeout.
        sleep: Called to wait between attempts.

    Raises:
        WeightsError: no connection, too many broken ones, a full disk, or unexpected content.
    """
    report = on_bytes or _ignore_progress

    def wait(done: int, total: int) -> None:
        report(done, total)
        sleep(WAIT_SECONDS)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_partial(path, wait) as partial:
            if path.exists():
                if sha256_of(path).startswith(sha256_prefix):
                    return  # another process has downloaded it
                path.unlink()
            _receive_verified(url, partial, sha256_prefix, report, stall_seconds, sleep)
            partial.publish(path)
    except (OSError, HTTPException, ValueError) as error:
        raise WeightsError(f"{url} can't be loaded: {_message_of(error)}") from error


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file.

    Raises:
        OSError: it can't be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _receive_verified(
    url: str,
    partial: PartialFile,
    sha256_prefix: str,
    report: OnBytes,
    stall_seconds: float,
    sleep: Callable[[float], None],
) -> None:
    """Receive and verify the file; retry once if parts of several connections do not match."""
    for is_last in (False, True):
        _receive(url, partial, report, stall_seconds, sleep)
        digest = partial.sha256()
        if digest.startswith(sha256_prefix):
            return
        received_at_once = not partial.joined
        partial.restart(Version())
        if is_last or received_at_once:
            raise WeightsError(
                f"{url} served a file with SHA-256 {digest[:16]}..., "
                f"not the expected {sha256_prefix}..."
            )


def _receive(
    url: str,
    partial: PartialFile,
    report: OnBytes,
    stall_seconds: float,
    sleep: Callable[[float], None],
) -> None:
    """Receive everything that is missing, over as many connections as needed."""
    breaks, farthest = 0, 0
    while not partial.is_complete:
        try:
            _receive_over_one_connection(url, partial, report, stall_seconds)
            return
        except _RetryableError as error:
            if partial.bytes_done >= farthest + _MIN_PROGRESS_BYTES:
                breaks, farthest = 0, partial.bytes_done
            breaks += 1
            if breaks == ATTEMPTS:
                kept = "; what has come is kept for the next time" if partial.can_resume else ""
                raise WeightsError(
                    f"{url} can't be loaded: {error} ({ATTEMPTS} attempts{kept})"
                ) from error
        sleep(FIRST_BACK_OFF_SECONDS * 2 ** (breaks - 1))


def _receive_over_one_connection(
    url: str, partial: PartialFile, report: OnBytes, stall_seconds: float
) -> None:
    if not partial.can_resume:
        partial.restart(Version())
    report(partial.bytes_done, partial.version.total_bytes)
    with _connect(url, partial, stall_seconds) as response:
        _resume_or_restart(response, partial)
        while data := _read(response):
            partial.append(data)
            report(partial.bytes_done, partial.version.total_bytes)
    if partial.bytes_done < partial.version.total_bytes:
        raise _RetryableError(
            f"the connection broke after {partial.bytes_done} of "
            f"{partial.version.total_bytes} bytes"
        )


def _connect(url: str, partial: PartialFile, stall_seconds: float) -> HTTPResponse:
    """Request the missing part, on condition that the file has not changed."""
    request = urllib.request.Request(url)
    if partial.version.validator is not None:
        request.add_header("Range", f"bytes={partial.bytes_done}-")
        request.add_header("If-Range", partial.version.validator)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=stall_seconds)
    except HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE:
            partial.restart(Version())
        elif error.code not in _RETRY_STATUSES:
            raise
        raise _RetryableError(_message_of(error)) from error
    except URLError:
        raise  # no connection could be established
    except (OSError, HTTPException) as error:
        raise _RetryableError(_message_of(error)) from error
    return response


def _resume_or_restart(response: HTTPResponse, partial: PartialFile) -> None:
    """Decide from the response's headers whether it is the missing part or the whole file."""
    served = _served_version(response.headers)
    if response.status != _PARTIAL_CONTENT:
        partial.restart(served)
        return
    # Some servers send another part than requested. A part that does not start where the partial
    # file ends, or is of another version, would only be detected by the hash at the end.
    content_range = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range.strip())
    total_bytes = int(match[3]) if match and match[3] != "*" else 0
    expected = partial.version
    if (
        match is None
        or not partial.can_resume
        or int(match[1]) != partial.bytes_done
        or served.total_bytes not in (0, int(match[2]) + 1 - partial.bytes_done)
        or (expected.total_bytes and total_bytes not in (0, expected.total_bytes))
        or served.validator not in (None, expected.validator)
    ):
        partial.restart(Version())
        raise _RetryableError("the server sent another part of the file than it was asked for")
    partial.resume(Version(expected.validator, expected.total_bytes or total_bytes))


def _served_version(headers: Message) -> Version:
    length = headers.get("Content-Length", "")
    etag = headers.get("ETag", "")
    # Files that differ in their bytes may have the same weak ETag.
    validator = etag if etag.startswith('"') else headers.get("Last-Modified")
    if headers.get("Accept-Ranges") == "none":
        validator = None
    return Version(validator, int(length) if length.isdecimal() else 0)


def _read(response: HTTPResponse) -> bytes:
    try:
        # Not `read`, which discards the bytes received so far when the connection breaks.
        return response.read1(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise _RetryableError(_message_of(error)) from error


def _ignore_progress(done: int, total: int) -> None:
    pass


def _message_of(error: Exception) -> str:
    # A URLError wraps the actual error; an HTTPError's own text says more than its reason.
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        error = error.reason if isinstance(error.reason, Exception) else error
    return str(error) or type(error).__name__

"""Fetch one large file so that it is there whole and verified, or not at all.

Connections break. What has come is kept beside the final name, and the rest is asked for
with `Range` and `If-Range` (RFC 9110, sections 14.2 and 13.1.5), at once or at a later
start. Nothing takes the final name before its hash is verified.
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

from styled.engine.partial import Partial, Version, locked_partial
from styled.errors import WeightsError

STALL_SECONDS = 10.0
"""How long a connection may say nothing before it counts as broken."""

ATTEMPTS = 4
"""How many connections in a row may break without getting further."""

FIRST_BACK_OFF_SECONDS = 1.0
"""How long to wait before the second attempt; doubled before each further one."""

WAIT_SECONDS = 0.5
"""How often to look whether another process has finished the same download."""

_CHUNK_BYTES = 1 << 20
_FURTHER_BYTES = 1 << 20  # a trickle of bytes between breaks is no progress
_TRY_AGAIN_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416

OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all (0 where the server does not say); may raise to stop."""


class _BrokenError(Exception):
    """The server was reached, but did not serve all: it is worth another attempt."""


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

    A file that is there already stays if it has the hash, and is replaced if not. If
    another process is at the same download, wait for it. A connection that breaks is
    taken up again; one that can't even be made is not, so that a machine without a
    network is told at once.

    Args:
        url: http or https.
        path: The final name; its folder is made.
        sha256_prefix: What the hexadecimal SHA-256 of the content begins with.
        on_bytes: Told how far it is, on every connection and every piece.
        stall_seconds: How long the server may be silent.
        sleep: What waits between attempts.

    Raises:
        WeightsError: no connection, broken ones, a full disk, or other content than expected.
    """
    report = on_bytes or _tell_nobody

    def wait(done: int, total: int) -> None:
        report(done, total)
        sleep(WAIT_SECONDS)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_partial(path, wait) as partial:
            if path.exists():
                if sha256_of(path).startswith(sha256_prefix):
                    return  # another process was faster
                path.unlink()
            _fill(url, partial, sha256_prefix, report, stall_seconds, sleep)
            partial.publish(path)
    except (OSError, HTTPException, ValueError) as error:
        raise WeightsError(f"{url} can't be loaded: {_reason(error)}") from error


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file.

    Raises:
        OSError: it can't be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fill(
    url: str,
    partial: Partial,
    sha256_prefix: str,
    report: OnBytes,
    stall_seconds: float,
    sleep: Callable[[float], None],
) -> None:
    """Receive all, verified; what came in pieces that do not fit is fetched once more."""
    for is_last in (False, True):
        _receive(url, partial, report, stall_seconds, sleep)
        digest = partial.sha256()
        if digest.startswith(sha256_prefix):
            return
        came_in_one_piece = not partial.joined
        partial.restart(Version())
        if is_last or came_in_one_piece:
            raise WeightsError(
                f"{url} served a file with SHA-256 {digest[:16]}..., "
                f"not the expected {sha256_prefix}..."
            )


def _receive(
    url: str,
    partial: Partial,
    report: OnBytes,
    stall_seconds: float,
    sleep: Callable[[float], None],
) -> None:
    """Receive all that is still missing, over as many connections as it takes."""
    breaks, farthest = 0, 0
    while not partial.is_all_there:
        try:
            _receive_over_one_connection(url, partial, report, stall_seconds)
            return
        except _BrokenError as broken:
            if partial.bytes_done >= farthest + _FURTHER_BYTES:
                breaks, farthest = 0, partial.bytes_done
            breaks += 1
            if breaks == ATTEMPTS:
                kept = "; what has come is kept for the next time" if partial.can_resume else ""
                raise WeightsError(
                    f"{url} can't be loaded: {broken} ({ATTEMPTS} attempts{kept})"
                ) from broken
        sleep(FIRST_BACK_OFF_SECONDS * 2 ** (breaks - 1))


def _receive_over_one_connection(
    url: str, partial: Partial, report: OnBytes, stall_seconds: float
) -> None:
    if not partial.can_resume:
        partial.restart(Version())
    report(partial.bytes_done, partial.version.total_bytes)
    with _connect(url, partial, stall_seconds) as response:
        _take_up(response, partial)
        while data := _read(response):
            partial.append(data)
            report(partial.bytes_done, partial.version.total_bytes)
    if partial.bytes_done < partial.version.total_bytes:
        raise _BrokenError(
            f"the connection broke after {partial.bytes_done} of "
            f"{partial.version.total_bytes} bytes"
        )


def _connect(url: str, partial: Partial, stall_seconds: float) -> HTTPResponse:
    """Ask for what is missing, on condition that the file is still the same."""
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
        elif error.code not in _TRY_AGAIN_STATUSES:
            raise
        raise _BrokenError(_reason(error)) from error
    except URLError:
        raise  # nobody was reached at all
    except (OSError, HTTPException) as error:
        raise _BrokenError(_reason(error)) from error
    return response


def _take_up(response: HTTPResponse, partial: Partial) -> None:
    """Decide from the headers whether the rest is coming, or all of it again."""
    served = _served_version(response.headers)
    if response.status != _PARTIAL_CONTENT:
        partial.restart(served)
        return
    # Not every server keeps to what it was asked: a part that does not follow on what is
    # there, or is one of another version, would cost the whole download at its end.
    content_range = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range.strip())
    total_bytes = int(match[3]) if match and match[3] != "*" else 0
    known = partial.version
    if (
        match is None
        or not partial.can_resume
        or int(match[1]) != partial.bytes_done
        or served.total_bytes not in (0, int(match[2]) + 1 - partial.bytes_done)
        or (known.total_bytes and total_bytes not in (0, known.total_bytes))
        or served.validator not in (None, known.validator)
    ):
        partial.restart(Version())
        raise _BrokenError("the server sent another part of the file than it was asked for")
    partial.resume(Version(known.validator, known.total_bytes or total_bytes))


def _served_version(headers: Message) -> Version:
    length = headers.get("Content-Length", "")
    etag = headers.get("ETag", "")
    # A weak ETag is the same for files that differ in their bytes.
    validator = etag if etag.startswith('"') else headers.get("Last-Modified")
    if headers.get("Accept-Ranges") == "none":
        validator = None
    return Version(validator, int(length) if length.isdecimal() else 0)


def _read(response: HTTPResponse) -> bytes:
    try:
        # Not `read`, which throws away what has come when the connection breaks.
        return response.read1(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise _BrokenError(_reason(error)) from error


def _tell_nobody(done: int, total: int) -> None:
    pass


def _reason(error: Exception) -> str:
    # A URLError is a wrapper around the reason; an HTTPError says more than its reason does.
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        error = error.reason if isinstance(error.reason, Exception) else error
    return str(error) or type(error).__name__

"""Fetch one large file so that it is there whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from styled.errors import WeightsError

STALL_SECONDS = 10.0
"""How long a connection may say nothing before it counts as broken."""

_CHUNK_BYTES = 1 << 20


def download(
    url: str,
    path: Path,
    *,
    sha256_prefix: str,
    on_bytes: Callable[[int, int], None] | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> None:
    """Download `url` to `path`, which appears only once the hash has been verified.

    Args:
        url: http or https.
        path: The final name; its folder is made.
        sha256_prefix: What the hexadecimal SHA-256 of the content begins with.
        on_bytes: Called with bytes done and bytes in all (0 where the server does not say).
        stall_seconds: How long the server may be silent.

    Raises:
        WeightsError: no connection, a broken one, a full disk, or other content than expected.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(url, timeout=stall_seconds) as response,
            tempfile.NamedTemporaryFile(
                dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
            ) as file,
        ):
            partial = Path(file.name)
            expected_bytes = int(response.headers.get("Content-Length") or 0)
            digest = hashlib.sha256()
            done = 0
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if on_bytes is not None:
                    on_bytes(done, expected_bytes)
            file.flush()
            os.fsync(file.fileno())
        if done < expected_bytes:
            raise WeightsError(
                f"the connection to {url} broke after {done} of {expected_bytes} bytes"
            )
        if not digest.hexdigest().startswith(sha256_prefix):
            raise WeightsError(
                f"{url} served a file with SHA-256 {digest.hexdigest()[:16]}..., "
                f"not the expected {sha256_prefix}..."
            )
        partial.replace(path)
    except (OSError, HTTPException, ValueError) as error:
        raise WeightsError(f"{url} can't be loaded: {_reason(error)}") from error
    finally:
        if partial is not None:
            with suppress(FileNotFoundError):
                partial.unlink()


def _reason(error: Exception) -> str:
    # A URLError is a wrapper around the reason; an HTTPError says more than its reason does.
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        error = error.reason if isinstance(error.reason, Exception) else error
    return str(error) or type(error).__name__

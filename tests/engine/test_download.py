"""Downloads that stall."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.engine.download import download
from styled.errors import WeightsError
from tests.engine.web import serving


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """After the stall limit the download ends with an error and leaves nothing behind."""
    with serving() as web:
        web.serve(b"x" * 1000, stall=True)
        with pytest.raises(WeightsError, match="timed out"):
            download(web.url, tmp_path / "f", sha256_prefix="", stall_seconds=0.2)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_leaves_nothing_behind(tmp_path: Path) -> None:
    """Whatever the progress callback raises passes through, and the part is removed."""

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise StopError

    with serving() as web:
        web.serve(b"x" * 1000)
        with pytest.raises(StopError):
            download(web.url, tmp_path / "f", sha256_prefix="", on_bytes=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    """A file where the cache folder should be is reported, not raised as an OSError."""
    (tmp_path / "cache").write_text("a file")
    with serving() as web:
        web.serve(b"x")
        with pytest.raises(WeightsError, match="can't be loaded"):
            download(web.url, tmp_path / "cache" / "f", sha256_prefix="")

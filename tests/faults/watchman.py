"""Looks at delivered files all the time, to see what nobody should: a half-written one."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from styled.delivery.page import records_in
from tests.studio import Studio

GALLERY_LOCK = ".lock"

HIDDEN = ".styled-"
"""What names of unfinished files begin with; they are allowed to be anything."""


class Watchman:
    """While the context lasts, whatever is visible in the delivery folders is opened.

    At the end it fails if anything was ever seen that was not whole, or a result's sidecar
    without the result.
    """

    def __init__(self, studio: Studio, *roots: str) -> None:
        """Watch these folders of the studio: outbox, rejected and archive by default."""
        self._folders = [
            studio.folder / root for root in roots or ("outbox", "rejected", "archive")
        ]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchman")
        self._whole: dict[Path, tuple[int, int, int]] = {}
        self.problems: list[str] = []
        self.seen = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        assert not self.problems or error is not None, self.problems

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.look()

    def look(self) -> None:
        """Look once at all files that have changed."""
        for top in self._folders:
            for folder, _, names in os.walk(top):
                for name in names:
                    if not name.startswith(HIDDEN) and name != GALLERY_LOCK:
                        self._look_at(Path(folder) / name)

    def _look_at(self, path: Path) -> None:
        try:
            facts = path.stat()
            state = facts.st_ino, facts.st_size, facts.st_mtime_ns
            if self._whole.get(path) == state:
                return
            data = path.read_bytes()
        except FileNotFoundError:
            return
        self._whole[path] = state
        self.seen += 1
        try:
            if path.suffix == ".html":
                assert data.endswith(b"</html>\n"), "the end is missing"
            elif path.suffix == ".js":
                assert records_in(data), "no records"
            elif path.suffix == ".json":
                content = json.loads(data)
                result = path.with_suffix("")
                # A test may have deleted both meanwhile, the sidecar first.
                if content["result"] is not None and not result.exists() and path.exists():
                    self.problems.append(f"{path} came before {result.name}")
            else:
                Image.open(io.BytesIO(data)).load()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is not whole
            self.problems.append(f"{path}: {len(data)} bytes: {error!r}")

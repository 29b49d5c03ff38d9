"""Opens delivered files all the time, to find any that are visible while half-written."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml
from PIL import Image

from styled.delivery.gallery_files import NOW
from styled.delivery.page import records_in
from tests.daemon_harness import DaemonHarness

GALLERY_LOCK = ".lock"

HIDDEN = ".styled-"
"""Prefix of the names of incomplete files, which are not checked."""


class OutputChecker:
    """Checks all files that appear in the delivery folders while the context lasts.

    At its end it fails if any file was ever incomplete, or if a result's sidecar was visible before
    the result.

    Attributes:
        problems: A message for each problem.
        seen: The number of files that were checked.
    """

    def __init__(self, harness: DaemonHarness, *roots: str) -> None:
        """Watch these folders of the harness; by default outbox, rejected and archive."""
        self._folders = [
            harness.folder / root for root in roots or ("outbox", "rejected", "archive")
        ]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="checker")
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
        pause = 0.02
        while not self._done.wait(pause):
            start = time.monotonic()
            self.check()
            # Among thousands of files a check takes the CPU from the daemon: rest as long.
            pause = max(0.02, time.monotonic() - start)

    def check(self) -> None:
        """Check once all files that have changed."""
        for top in self._folders:
            for folder, _, names in os.walk(top):
                for name in names:
                    if not name.startswith(HIDDEN) and name != GALLERY_LOCK:
                        self._check_file(Path(folder) / name)

    def _check_file(self, path: Path) -> None:
        try:
            stat = path.stat()
            state = stat.st_ino, stat.st_size, stat.st_mtime_ns
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
            elif path.name == NOW:
                assert json.loads(data.removeprefix(b"styledLive(").removesuffix(b");\n"))["jobs"]
            elif path.suffix == ".js":
                assert records_in(data), "no records"
            elif path.suffix == ".yaml":
                assert yaml.safe_load(data), "no settings"
            elif path.suffix == ".json":
                content = json.loads(data)
                result = path.with_suffix("")
                # A test may have deleted both in the meantime, the sidecar first.
                if content["result"] is not None and not result.exists() and path.exists():
                    self.problems.append(f"{path} came before {result.name}")
            else:
                Image.open(io.BytesIO(data)).load()
        except Exception as error:  # noqa: BLE001  # any error means that the file is incomplete
            self.problems.append(f"{path}: {len(data)} bytes: {error!r}")

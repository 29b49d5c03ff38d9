"""What is being painted, as files beside the gallery page."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from styled.delivery.gallery import Gallery
from styled.errors import ResourceUnavailable
from styled.jobs.snapshot import EngineSnapshot, QueueSnapshot
from styled.journal.job import Job, JobState
from styled.live_gallery import LiveGallery
from tests.job_harness import picture, progress

JOB = Job(
    "4a", "trip/</script>.jpg", 1, 2, "oil", "a.jpg", JobState.RUNNING, 1, 0.0, 0.0, None, None,
    None, None, None, None, None, None, 0.0,
)  # fmt: skip


@dataclass
class ScriptedScheduler:
    """A scheduler whose snapshot the test sets."""

    snapshot: QueueSnapshot = field(default_factory=QueueSnapshot)

    def paint(self, *jobs: Job, preview: Path | None = None, waiting: int = 0) -> None:
        """Let one engine for each job paint it."""
        now = replace(progress(0.25), preview=None if preview is None else str(preview))
        engines = [EngineSnapshot(f"engine-{n}", "cpu", job=j, progress=now)
                   for n, j in enumerate(jobs)]  # fmt: skip
        self.snapshot = QueueSnapshot(
            tuple(engines), jobs={"oil": {JobState.QUEUED: waiting, JobState.RUNNING: len(jobs)}}
        )


class LiveHarness:
    """A live gallery of a scripted scheduler."""

    def __init__(self, folder: Path) -> None:
        self.outbox = folder / "outbox"
        self.outbox.mkdir()
        self.scheduler = ScriptedScheduler()
        self.live = LiveGallery(Gallery(self.outbox), self.scheduler)
        self.folder = self.outbox / "gallery_files/live"

    def shown(self) -> dict[str, Any]:
        """Return what the page reads."""
        text = (self.folder / "now.js").read_text("ascii")
        assert text.startswith("styledLive({")
        assert text.endswith("});\n")
        assert "<" not in text
        return json.loads(text[len("styledLive(") : -3])  # type: ignore[no-any-return]

    def names(self) -> list[str]:
        """Return the names of all files of the live gallery."""
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []


@pytest.fixture
def harness(tmp_path: Path) -> LiveHarness:
    """Return a live gallery in an empty outbox."""
    return LiveHarness(tmp_path)


def test_what_is_painted_is_shown_and_removed(harness: LiveHarness, tmp_path: Path) -> None:
    """Even before there is a result; nothing of it stays when nothing is painted."""
    preview = tmp_path / "preview.jpg"
    preview.write_bytes(picture())
    harness.scheduler.paint(JOB, preview=preview, waiting=7)
    harness.live.update()
    (job,) = harness.shown()["jobs"]
    assert harness.shown()["waiting"] == 7
    assert (job["id"], job["name"], job["style"]) == ("4a", "trip/</script>.jpg", "oil")
    assert job["fraction"] == 0.25
    url, _, version = job["preview"].partition("?")
    assert (harness.outbox / url).read_bytes() == picture()
    assert version.isdigit()
    assert (harness.outbox / "gallery.html").exists()
    harness.scheduler.snapshot = QueueSnapshot()
    harness.live.update()
    assert not harness.folder.exists()


def test_a_new_preview_has_a_new_address(harness: LiveHarness, tmp_path: Path) -> None:
    """Otherwise browsers would show the old one; an old one is not written again."""
    preview = tmp_path / "preview.jpg"
    preview.write_bytes(picture())
    harness.scheduler.paint(JOB, preview=preview)
    harness.live.update()
    first = harness.shown()["jobs"][0]["preview"]
    copied = (harness.folder / "4a.jpg").stat()
    harness.live.update()
    assert (harness.folder / "4a.jpg").stat().st_ino == copied.st_ino
    time.sleep(0.01)
    preview.write_bytes(picture("gold"))
    harness.live.update()
    assert harness.shown()["jobs"][0]["preview"] != first
    assert (harness.folder / "4a.jpg").read_bytes() == picture("gold")


def test_a_preview_is_shown_again_after_a_pause(harness: LiveHarness, tmp_path: Path) -> None:
    """The same preview is copied again once the folder has been emptied."""
    preview = tmp_path / "preview.jpg"
    preview.write_bytes(picture())
    for _ in range(2):
        harness.scheduler.paint(JOB, preview=preview)
        harness.live.update()
        assert "4a.jpg" in harness.names()
        harness.scheduler.paint()
        harness.live.update()
        assert harness.names() == []


def test_previews_of_ended_jobs_are_removed(harness: LiveHarness, tmp_path: Path) -> None:
    """While others are still painted."""
    preview = tmp_path / "preview.jpg"
    preview.write_bytes(picture())
    harness.scheduler.paint(JOB, replace(JOB, id="5b"), preview=preview)
    harness.live.update()
    assert harness.names() == ["4a.jpg", "5b.jpg", "now.js"]
    harness.scheduler.paint(JOB, preview=preview)
    harness.live.update()
    assert harness.names() == ["4a.jpg", "now.js"]


def test_what_a_dead_process_left_is_removed(harness: LiveHarness) -> None:
    """Files of others in that folder are not."""
    harness.folder.mkdir(parents=True)
    for name in ("now.js", "4a.jpg", ".styled-x", "mine.txt"):
        (harness.folder / name).write_bytes(b"")
    harness.live.update()
    assert harness.names() == ["mine.txt"]


def test_an_idle_gallery_is_not_touched(harness: LiveHarness) -> None:
    """Nothing is looked at or written while nothing is painted."""
    harness.live.update()
    harness.outbox.rmdir()
    harness.live.update()


def test_a_link_in_place_of_its_folder_is_not_followed(
    harness: LiveHarness, tmp_path: Path
) -> None:
    """Nothing is written or deleted elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "now.js").write_bytes(b"")
    (harness.outbox / "gallery_files").mkdir()
    harness.folder.symlink_to(elsewhere)
    with pytest.raises(ResourceUnavailable):
        harness.live.update()
    harness.scheduler.paint(JOB)
    with pytest.raises(ResourceUnavailable):
        harness.live.update()
    assert [path.name for path in elsewhere.iterdir()] == ["now.js"]


def test_its_thread_goes_on_after_an_error(harness: LiveHarness) -> None:
    """A full or missing outbox delays nothing; a stop removes what is there."""
    harness.scheduler.paint(JOB)
    harness.live.start()
    deadline = time.monotonic() + 30
    while not (harness.folder / "now.js").exists():
        assert time.monotonic() < deadline
    harness.live.stop(30)
    assert not harness.folder.exists()

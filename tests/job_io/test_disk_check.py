"""Free disk space that is required before a job begins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from styled.config import ConfigFile, load_config
from styled.errors import ConfigError
from tests.job_harness import JobHarness

KEPT = 1_000_000


class FakeDisks:
    """Answers `os.statvfs` for the folders that the test has named."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: dict[str, int | OSError] = {}
        self._statvfs = os.statvfs
        monkeypatch.setattr("styled.job_io.disk_check.os.statvfs", self.statvfs)

    def statvfs(self, folder: Path) -> os.statvfs_result:
        """Return the scripted free space, or raise the scripted error."""
        free = self.free.get(Path(folder).name, 10 * KEPT)
        if isinstance(free, OSError):
            raise free
        values = list(self._statvfs("/"))
        values[1], values[4] = 1, free  # f_frsize, f_bavail
        return os.statvfs_result(values)


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> FakeDisks:
    """Return disks with enough free space unless the test says otherwise."""
    return FakeDisks(monkeypatch)


@pytest.mark.parametrize("name", ["outbox", "state", "archive"])
def test_no_job_begins_on_a_nearly_full_disk(
    harness: JobHarness, disks: FakeDisks, name: str
) -> None:
    """The queue pauses, says where and why, and goes on by itself; no attempt is counted."""
    harness.configure("output", min_free=KEPT)
    disks.free[name] = KEPT - 1
    harness.drop("one.png")
    harness.drop("two.png")
    harness.work(until=lambda: harness.scheduler.pauses.is_paused)
    assert harness.states() == ["queued", "queued"]
    assert [job.attempts for job in harness.jobs()] == [0, 0]
    reason = harness.scheduler.pauses.reason
    assert reason is not None
    assert f"the disk of the {name} ({getattr(harness.config, name)}) has 0.001 GB" in reason
    assert "output.min_free" in reason
    disks.free[name] = KEPT
    harness.work()
    assert harness.states() == ["done", "done"]
    assert [job.attempts for job in harness.jobs()] == [1, 1]
    assert harness.scheduler.pauses.reason is None


def test_a_painting_that_has_begun_is_published(harness: JobHarness, disks: FakeDisks) -> None:
    """The space that is kept free is there for it, and for the one that was prepared."""
    harness.configure("output", min_free=KEPT)
    for name in ("one.png", "two.png", "three.png"):
        harness.drop(name)

    def at_step(step: int) -> None:
        disks.free["outbox"] = 0

    harness.engine.at_step = at_step
    harness.work(until=lambda: harness.states() == ["done", "done", "queued"])
    assert harness.states() == ["done", "done", "queued"]
    assert harness.scheduler.pauses.is_paused


@pytest.mark.parametrize("output", [{"min_free": 0}, {"after_success": "keep"}])
def test_disks_that_nothing_is_written_to_do_not_count(
    harness: JobHarness, disks: FakeDisks, output: dict[str, object]
) -> None:
    """The archive if nothing is archived; no disk at all with 0."""
    harness.configure("output", **{"min_free": KEPT, **output})
    disks.free["archive"] = 0
    harness.drop("one.png")
    harness.work()
    assert harness.states() == ["done"]


def test_a_disk_that_does_not_answer_is_left_to_others(
    harness: JobHarness, disks: FakeDisks
) -> None:
    """What fails on it has a message of its own."""
    harness.configure("output", min_free=KEPT)
    disks.free["outbox"] = OSError(5, "Input/output error")
    harness.drop("one.png")
    harness.work()
    assert harness.states() == ["done"]


def test_its_values(tmp_path: Path) -> None:
    """A gigabyte by default; 0, a number of bytes, or a size."""
    assert ConfigFile().output.min_free == 10**9
    path = tmp_path / "config.yaml"
    for text, expected in (("0", 0), ("5", 5), ("500MB", 500 * 10**6), ("2 GiB", 2 * 2**30)):
        path.write_text(f"output: {{min_free: {text}}}\n")
        assert load_config(path).output.min_free == expected
    for text in ("-1", "much", "true", "1.5", "9999999999TB"):
        path.write_text(f"output: {{min_free: {text}}}\n")
        with pytest.raises(ConfigError, match="expected 0, or a size such as 500MB or 2GiB"):
            load_config(path)

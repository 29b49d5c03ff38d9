"""Photos that are painted but cannot be moved out of the inbox are retried one by one."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from styled.errors import ConfigError, FolderNotWritable
from styled.job_io.input_cleanup import InputCleanup
from styled.jobs.maintenance import FIRST_STUCK_SECONDS, MAX_STUCK_SECONDS
from tests.job_harness import JobHarness, LogLines, picture


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return a set of file names that cannot be moved, as in another user's sticky folder."""
    names: set[str] = set()
    rename = Path.rename

    def refuse(source: Path, destination: Path) -> Path:
        if source.name in names:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(source, destination)

    monkeypatch.setattr(Path, "rename", refuse)
    return names


def test_each_is_tried_again_until_it_may_leave(harness: JobHarness, locked: set[str]) -> None:
    """Each stuck photo is retried with a growing interval until it can be moved."""
    locked |= {"a.png", "b.png"}
    harness.drop("a.png")
    harness.drop("b.png", picture("olive"))
    harness.work()
    assert sorted(harness.scheduler.maintenance.stuck) == ["a.png", "b.png"]
    harness.run_for(2 * MAX_STUCK_SECONDS)
    assert sorted(harness.scheduler.maintenance.stuck) == ["a.png", "b.png"]
    locked.clear()
    harness.run_for(MAX_STUCK_SECONDS)
    assert harness.scheduler.maintenance.stuck == {}
    assert harness.files("archive") == ["oil/a.png", "oil/b.png"]
    assert json.loads(harness.journal.get_state()["stuck_inputs"]) == []


def test_only_the_latest_job_of_a_name_is_tried_again(
    harness: JobHarness, locked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a name was used twice, only the photo of its latest job is retried."""
    harness.drop("a.png")
    harness.work()
    locked.add("a.png")
    harness.now += 10
    harness.drop("a.png", picture("olive"))
    harness.work()
    assert harness.states() == ["done", "done"]
    released: list[str] = []
    monkeypatch.setattr(
        InputCleanup, "release_input", lambda self, job, again: released.append(job.id)
    )
    harness.run_for(FIRST_STUCK_SECONDS)
    assert released == [harness.jobs()[1].id]


def test_a_result_that_cannot_be_taken_back_is_reported_and_its_job_ends(
    harness: JobHarness, logs: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a result without sidecar cannot be removed, it is logged and the job ends."""

    def refuse(*_: object) -> None:
        raise FolderNotWritable("the outbox may not be written to")

    def fail(*_: object) -> None:
        raise ConfigError("that does not fit")

    monkeypatch.setattr(harness.publisher, "unpublish", refuse)
    monkeypatch.setattr(harness.publisher, "publish_sidecar", fail)
    harness.drop("a.png")
    harness.work_on_one()
    assert harness.states() == ["rejected"]
    (line,) = [line for line in logs if line["event"] == "result.not_removed"]
    assert line["reason"] == "the outbox may not be written to"

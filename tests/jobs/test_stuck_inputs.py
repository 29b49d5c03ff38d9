"""Photos that are painted and can't leave the inbox: they are tried again, each for itself."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from styled.errors import ConfigError, FolderNotWritable
from styled.jobs.input_cleanup import InputCleanup
from styled.jobs.upkeep import FIRST_STUCK_SECONDS, LONGEST_STUCK_SECONDS
from tests.jobs.conftest import JobHarness, LogLines, picture


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return names of files that may not be moved away, as a sticky folder of others has it."""
    names: set[str] = set()
    rename = Path.rename

    def refuse(source: Path, destination: Path) -> Path:
        if source.name in names:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(source, destination)

    monkeypatch.setattr(Path, "rename", refuse)
    return names


def test_each_is_tried_again_until_it_may_leave(shop: JobHarness, locked: set[str]) -> None:
    """Ever less often, without a restart."""
    locked |= {"a.png", "b.png"}
    shop.drop("a.png")
    shop.drop("b.png", picture("olive"))
    shop.work()
    assert sorted(shop.scheduler.upkeep.stuck) == ["a.png", "b.png"]
    shop.run_for(2 * LONGEST_STUCK_SECONDS)
    assert sorted(shop.scheduler.upkeep.stuck) == ["a.png", "b.png"]
    locked.clear()
    shop.run_for(LONGEST_STUCK_SECONDS)
    assert shop.scheduler.upkeep.stuck == {}
    assert shop.files("archive") == ["oil/a.png", "oil/b.png"]
    assert json.loads(shop.journal.get_state()["stuck_inputs"]) == []


def test_only_the_latest_job_of_a_name_is_tried_again(
    shop: JobHarness, locked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier photo of that name left long ago."""
    shop.drop("a.png")
    shop.work()
    locked.add("a.png")
    shop.now += 10
    shop.drop("a.png", picture("olive"))
    shop.work()
    assert shop.states() == ["done", "done"]
    tried: list[str] = []
    monkeypatch.setattr(
        InputCleanup, "release_input", lambda self, job, again: tried.append(job.id)
    )
    shop.run_for(FIRST_STUCK_SECONDS)
    assert tried == [shop.jobs()[1].id]


def test_a_result_that_cannot_be_taken_back_is_told_and_its_job_ends(
    shop: JobHarness, logs: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture without a sidecar counts as none."""

    def refuse(*_: object) -> None:
        raise FolderNotWritable("the outbox may not be written to")

    def full(*_: object) -> None:
        raise ConfigError("that does not fit")

    monkeypatch.setattr(shop.publisher, "withdraw", refuse)
    monkeypatch.setattr(shop.publisher, "publish_sidecar", full)
    shop.drop("a.png")
    shop.work_on_one()
    assert shop.states() == ["rejected"]
    (line,) = [line for line in logs if line["event"] == "result.not_withdrawn"]
    assert line["reason"] == "the outbox may not be written to"

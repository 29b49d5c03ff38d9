"""Photos that are painted and can't leave the inbox: they are tried again, each for itself."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from styled.errors import FolderNotWritable
from tests.jobs.conftest import LogLines, Workshop, picture


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


def test_each_that_is_tried_again_is_a_sign_of_life(shop: Workshop, locked: set[str]) -> None:
    """There may be thousands, on a slow drive."""
    locked |= {"a.png", "b.png"}
    shop.drop("a.png")
    shop.drop("b.png", picture("olive"))
    shop.work()
    assert sorted(shop.worker.stuck) == ["a.png", "b.png"]
    before = len(shop.beats)
    shop.worker.retry_stuck()
    assert len(shop.beats) - before == 2
    assert sorted(shop.worker.stuck) == ["a.png", "b.png"]


def test_only_the_latest_job_of_a_name_is_tried_again(
    shop: Workshop, locked: set[str], monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr(shop.worker, "retire", lambda job, again: tried.append(job.id))
    shop.worker.retry_stuck()
    assert tried == [shop.jobs()[1].id]


def test_a_result_that_cannot_be_taken_back_is_told_and_its_job_ends(
    shop: Workshop, logs: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture without a sidecar counts as none."""

    def refuse(*_: object) -> None:
        raise FolderNotWritable("the outbox may not be written to")

    monkeypatch.setattr(shop.worker._deliverer, "withdraw", refuse)
    shop.drop("a.png", b"no photo")
    shop.work()
    assert shop.states() == ["rejected"]
    (line,) = [line for line in logs if line["event"] == "result.not_withdrawn"]
    assert line["reason"] == "the outbox may not be written to"

"""The folder of checkpoints."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from styled.delivery.atomic import make_folder, write_streamed
from styled.engine.checkpoint import Checkpoint
from styled.errors import ResourceUnavailable
from styled.jobs.checkpoints import CheckpointStore
from styled.jobs.job import Job, JobState
from tests.jobs.conftest import LogLines, ScriptedEngine

JOB = Job(
    "4a", "a.png", 1, 2, "oil", "a.png", JobState.RUNNING, 1, 0.0, 0.0, None, None, None, None,
    None, None, None, None, 0.0,
)  # fmt: skip


def checkpoint(step: int) -> Checkpoint:
    image = torch.full((1, 3, 4, 4), step / 10)
    return Checkpoint(
        1, step, False, image, image, 0.5, 0.5, 0.5, {}, {}, [(1, step, 0.5, 0.1, 0.2, 0.2)]
    )


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, ScriptedEngine(), write_streamed, make_folder)


def test_the_latest_checkpoint_is_found_again(store: CheckpointStore) -> None:
    """A second checkpoint replaces the first, whole."""
    store.save(JOB, checkpoint(1), "work")
    store.save(JOB, checkpoint(2), "work")
    found = store.find(JOB, "work")
    assert found is not None
    assert found.step == 2
    assert torch.equal(found.image, checkpoint(2).image)


def test_other_work_finds_nothing(store: CheckpointStore, logs: LogLines) -> None:
    """A checkpoint is only for the very work, and the very job, that it was made of."""
    store.save(JOB, checkpoint(1), "work")
    assert store.find(JOB, "other work") is None
    assert store.find(replace(JOB, id="5b"), "work") is None
    assert [line["event"] for line in logs] == ["checkpoint.ignored"]


def test_a_damaged_checkpoint_is_ignored(
    store: CheckpointStore, tmp_path: Path, logs: LogLines
) -> None:
    """Half a file only costs time."""
    store.save(JOB, checkpoint(1), "work")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    assert store.find(JOB, "work") is None
    assert [line["event"] for line in logs] == ["checkpoint.ignored"]


def test_a_checkpoint_that_cannot_be_written_is_no_failure(tmp_path: Path, logs: LogLines) -> None:
    """A full disk costs the checkpoint, with a word in the log, and not the picture."""

    def refuse(path: Path, write: object) -> None:
        raise ResourceUnavailable("no space left")

    store = CheckpointStore(tmp_path, ScriptedEngine(), refuse, make_folder)
    store.save(JOB, checkpoint(1), "work")
    assert [line["event"] for line in logs] == ["checkpoint.failed"]


def test_a_dropped_checkpoint_is_gone(store: CheckpointStore, tmp_path: Path) -> None:
    """Dropping deletes the file, and may be repeated."""
    store.save(JOB, checkpoint(1), "work")
    store.drop(JOB)
    store.drop(JOB)
    assert list(tmp_path.iterdir()) == []


def test_sweeping_keeps_the_unfinished(store: CheckpointStore, tmp_path: Path) -> None:
    """Only checkpoints of jobs that are still to be done survive, and no other file is touched."""
    for job_id in ("4a", "5b"):
        store.save(replace(JOB, id=job_id), checkpoint(1), "work")
    (tmp_path / "notes.txt").write_text("mine")
    store.sweep(keep={"5b"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5b.ckpt", "notes.txt"]


def test_what_cannot_be_deleted_stays_with_a_warning(
    store: CheckpointStore, tmp_path: Path, logs: LogLines
) -> None:
    """Neither a drop nor a sweep fails because of a file that can't be deleted."""
    (tmp_path / "4a.ckpt").mkdir()
    store.drop(JOB)
    store.sweep(keep=set())
    assert [line["event"] for line in logs] == ["checkpoint.kept"] * 2


def test_a_folder_that_was_deleted_is_made_again(store: CheckpointStore, tmp_path: Path) -> None:
    """Somebody who tidies up costs one checkpoint and not all that follow."""
    store.save(JOB, checkpoint(1), "work")
    shutil.rmtree(tmp_path)
    assert store.find(JOB, "work") is None
    store.save(JOB, checkpoint(2), "work")
    found = store.find(JOB, "work")
    assert found is not None
    assert found.step == 2

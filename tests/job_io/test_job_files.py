"""Files of unfinished jobs: checkpoints written in pieces, and paintings not yet published."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch

from styled.degradation import Degradation
from styled.engine_api import Painted, PaintTask, TraceRow
from styled.errors import NodeLost
from styled.job_io.job_files import JobFiles
from styled.recipes import PYRAMID
from tests.job_harness import LogLines, ScriptedEngine

INFO = ScriptedEngine.info
TASK = PaintTask("4a", torch.rand(1, 3, 8, 9), ((torch.rand(1, 3, 5, 5), 1.0),), PYRAMID)
PAINTED = Painted(
    torch.rand(1, 3, 8, 9),
    (TraceRow(1, 1, 1.0, 0.25, 0.5, 0.25), TraceRow(1, 2, 0.5, 0.1, 0.2, 0.2)),
    degraded=(Degradation("memory", "memory was short"),),
    tile_px=64,
    precision="bfloat16",
    detail_steps=3,
    resumed=True,
    peak_memory_bytes=17,
)


def checkpoint(files: JobFiles, job_id: str = "4a") -> bytes | None:
    stream = files.open_checkpoint(job_id)
    if stream is None:
        return None
    with stream:
        return stream.read()


def test_a_checkpoint_appears_once_it_is_whole(tmp_path: Path) -> None:
    """A checkpoint replaces the previous one only after its last piece was written."""
    files = JobFiles(tmp_path)
    writer = files.checkpoint_writer("4a")
    assert not writer.write(b"one ", is_last=False)
    assert checkpoint(files) is None
    assert writer.write(b"two", is_last=True)
    assert checkpoint(files) == b"one two"
    assert not writer.write(b"three", is_last=False)
    assert checkpoint(files) == b"one two"
    writer.discard()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4a.ckpt"]


def test_a_checkpoint_that_cannot_be_written_is_no_failure(tmp_path: Path, logs: LogLines) -> None:
    """A checkpoint that cannot be written is logged once, and the next one is tried again."""
    (tmp_path / "checkpoints").write_text("in the way")
    files = JobFiles(tmp_path)
    writer = files.checkpoint_writer("4a")
    for is_last in (False, False, True):
        assert not writer.write(b"piece", is_last=is_last)
    assert [line["event"] for line in logs] == ["checkpoint.failed"]
    (tmp_path / "checkpoints").unlink()
    assert writer.write(b"whole", is_last=True)
    assert checkpoint(files) == b"whole"


def test_a_folder_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    """If the folder was deleted, the next checkpoint creates it again."""
    files = JobFiles(tmp_path)
    writer = files.checkpoint_writer("4a")
    writer.write(b"first", is_last=True)
    shutil.rmtree(tmp_path / "checkpoints")
    assert checkpoint(files) is None
    assert writer.write(b"second", is_last=True)


def test_a_painting_is_kept_as_it_is(tmp_path: Path) -> None:
    """A saved painting is restored exactly, for the same task and engine."""
    files = JobFiles(tmp_path)
    files.save_painted(TASK, INFO, PAINTED)
    kept = files.load_painted(TASK, INFO)
    assert kept is not None
    assert torch.equal(kept.image, PAINTED.image)
    # From Python 3.13 on, dataclasses compare tensors by value, which only works for scalars.
    scalar = torch.tensor(0.0)
    assert replace(kept, image=scalar) == replace(PAINTED, image=scalar)


@pytest.mark.parametrize(
    "task",
    [
        replace(TASK, job_id="5b"),
        replace(TASK, content=torch.rand(1, 3, 8, 9)),
        replace(TASK, styles=((torch.rand(1, 3, 5, 5), 1.0),)),
        replace(TASK, recipe=replace(PYRAMID, seed=1)),
    ],
)
def test_a_painting_of_something_else_is_not_used(tmp_path: Path, task: PaintTask) -> None:
    """A saved painting is not used for another job, photo, style or recipe."""
    files = JobFiles(tmp_path)
    files.save_painted(TASK, INFO, PAINTED)
    assert files.load_painted(task, INFO) is None


def test_a_painting_by_another_engine_is_not_used(tmp_path: Path) -> None:
    """A saved painting is not used for another engine: the sidecar would describe the wrong one."""
    files = JobFiles(tmp_path)
    files.save_painted(TASK, INFO, PAINTED)
    assert files.load_painted(TASK, replace(INFO, threads=7)) is None
    assert files.load_painted(TASK, replace(INFO, weights_sha256="1" * 64)) is None


def test_a_damaged_painting_is_ignored(tmp_path: Path, logs: LogLines) -> None:
    """A damaged saved painting is ignored, which is logged."""
    files = JobFiles(tmp_path)
    files.save_painted(TASK, INFO, PAINTED)
    (path,) = (tmp_path / "checkpoints").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert files.load_painted(TASK, INFO) is None
    assert [line["event"] for line in logs] == ["painting.ignored"]


def test_a_painting_that_cannot_be_kept_is_no_failure(tmp_path: Path, logs: LogLines) -> None:
    """A painting that cannot be saved is logged, and raises no error."""
    (tmp_path / "checkpoints").write_text("in the way")
    JobFiles(tmp_path).save_painted(TASK, INFO, PAINTED)
    assert [line["event"] for line in logs] == ["painting.not_saved"]


def test_a_painting_whose_machine_is_gone_cannot_be_kept(tmp_path: Path, logs: LogLines) -> None:
    """It is painted again, and the log says why."""

    @dataclass(frozen=True)
    class Elsewhere(Painted):
        def loaded(self) -> Painted:
            raise NodeLost("the machine worker-1 is gone")

    painting = Elsewhere(**{one.name: getattr(PAINTED, one.name) for one in fields(PAINTED)})
    JobFiles(tmp_path).save_painted(TASK, INFO, painting)
    (line,) = logs
    assert (line["event"], line["reason"]) == (
        "painting.not_saved", "the machine worker-1 is gone"
    )  # fmt: skip


def test_what_was_dropped_is_gone(tmp_path: Path) -> None:
    """Dropping deletes all files of a job, and can be repeated."""
    files = JobFiles(tmp_path)
    files.checkpoint_writer("4a").write(b"whole", is_last=True)
    files.save_painted(TASK, INFO, PAINTED)
    files.save_preview("4a", torch.zeros(1, 3, 8, 8))
    files.save_frame("4a", 1, torch.zeros(1, 3, 8, 8))
    for _ in range(2):
        files.drop("4a")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_sweeping_keeps_the_unfinished(tmp_path: Path) -> None:
    """A sweep keeps the files of unfinished jobs and files that are not of jobs."""
    files = JobFiles(tmp_path)
    for job_id in ("4a", "5b"):
        files.checkpoint_writer(job_id).write(b"whole", is_last=True)
        files.save_painted(replace(TASK, job_id=job_id), INFO, PAINTED)
    (tmp_path / "checkpoints/notes.txt").write_text("mine")
    files.sweep(keep={"5b"})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "5b.ckpt", "5b.painting", "notes.txt",
    ]  # fmt: skip


def test_what_cannot_be_deleted_stays_with_a_warning(tmp_path: Path, logs: LogLines) -> None:
    """A file that cannot be deleted is logged, and raises no error."""
    files = JobFiles(tmp_path)
    (tmp_path / "checkpoints/4a.ckpt").mkdir(parents=True)
    files.drop("4a")
    files.sweep(keep=set())
    assert [line["event"] for line in logs] == ["job_file.not_deleted"] * 2

"""How inputs leave the inbox after their jobs have ended."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from styled.delivery.requeue import return_to_inbox
from styled.errors import InputStuck, ResourceUnavailable
from styled.job_io import input_cleanup
from styled.job_io.input_cleanup import InputCleanup
from styled.journal.job import Job, JobState
from tests.job_harness import JobHarness, picture


def end(harness: JobHarness, *states: JobState) -> list[Job]:
    """Claim the jobs in order and finish each in a state, without running it."""
    jobs = []
    for state in states:
        job = harness.journal.claim(harness.now)
        assert job is not None
        harness.journal.finish(job, state, harness.now, reason="because", failure="input")
        jobs.append(job)
    return jobs


AfterSuccess = Literal["archive", "keep", "delete"]


def release(harness: JobHarness, job: Job, after_success: AfterSuccess = "archive") -> None:
    output = harness.config.output.model_copy(update={"after_success": after_success})
    config = replace(harness.config, output=output)
    InputCleanup(
        config, harness.journal, harness.publisher, harness.mounts, harness.time_of_day
    ).release_input(job)


def test_an_input_with_work_left_stays(harness: JobHarness) -> None:
    """An input stays in the inbox, and is not copied, while one of its jobs has not ended."""
    harness.drop("photo.png", None, "oil", "ink")
    (job,) = end(harness, JobState.REJECTED)
    release(harness, job)
    assert harness.files("inbox") == ["photo.png"]
    assert harness.files("rejected") == []


def test_a_rejected_input_whose_copy_is_where_it_belongs_is_forgotten(harness: JobHarness) -> None:
    """A file that is in the inbox all the same is a new photo."""
    harness.drop("photo.png")
    (job,) = end(harness, JobState.REJECTED)
    harness.journal.mark_released(job)
    assert harness.rescan() == 0
    release(harness, job)
    assert harness.files("inbox") == ["photo.png"]
    assert harness.files("rejected") == []
    assert harness.rescan() == 1


def test_releasing_twice_changes_nothing(harness: JobHarness) -> None:
    """Releasing an input is idempotent: a second time it finds the files in place."""
    harness.drop("photo.png", None, "oil", "ink")
    jobs = end(harness, JobState.DONE, JobState.REJECTED)
    for job in jobs * 2:
        release(harness, job)
    assert harness.files("archive") == ["oil/photo.png"]
    assert harness.files("rejected") == ["ink/photo.png", "ink/photo.png.json"]
    assert harness.files("inbox") == []


def test_a_kept_original_stays_known_until_it_is_gone(harness: JobHarness) -> None:
    """A kept photo is not submitted again, unless it was removed in between."""
    path = harness.drop()
    (job,) = end(harness, JobState.DONE)
    release(harness, job, "keep")
    assert harness.rescan() == 0
    stat, data = path.stat(), path.read_bytes()
    path.unlink()
    release(harness, job, "keep")
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert harness.rescan() == 1


@pytest.mark.parametrize("after_success", ["archive", "keep", "delete"])
def test_a_rejected_original_always_leaves(
    harness: JobHarness, after_success: AfterSuccess
) -> None:
    """A rejected photo is moved to `rejected`, whatever `after_success` is."""
    harness.drop()
    (job,) = end(harness, JobState.REJECTED)
    release(harness, job, after_success)
    assert harness.files("inbox") == []
    assert harness.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]


def test_a_rejection_is_dated_when_it_was_decided(harness: JobHarness) -> None:
    """The sidecar has the time when the job ended, even if the original is moved later."""
    harness.drop()
    (job,) = end(harness, JobState.REJECTED)
    harness.advance(3600)
    release(harness, job)
    finished_at = harness.sidecar("rejected/oil/photo.png.json")["job"]["finished_at"]
    assert datetime.fromisoformat(finished_at).timestamp() == harness.now - 3600


def test_a_rejected_input_that_was_taken_away_leaves_its_reason(harness: JobHarness) -> None:
    """If the original was removed, the sidecar is still written and marks the file as changed."""
    harness.drop().unlink()
    (job,) = end(harness, JobState.REJECTED)
    release(harness, job)
    assert harness.files("rejected") == ["oil/photo.png.json"]
    input_info = harness.sidecar("rejected/oil/photo.png.json")["input"]
    assert input_info["changed"]
    assert input_info["sha256"] is None


def test_the_digest_of_a_rejection_is_never_that_of_another_file(harness: JobHarness) -> None:
    """A file that has replaced the rejected one stays, and its digest is not in the sidecar."""
    path = harness.drop()
    (job,) = end(harness, JobState.REJECTED)
    path.write_bytes(picture("olive", (44, 44)))
    release(harness, job)
    assert path.exists()
    input_info = harness.sidecar("rejected/oil/photo.png.json")["input"]
    assert input_info["sha256"] is None
    assert input_info["changed"]


def test_a_moved_original_whose_name_is_in_use_again_is_not_moved_twice(
    harness: JobHarness,
) -> None:
    """After a crash between the move and its journal entry, a new file of that name stays."""
    path = harness.drop()
    (job,) = end(harness, JobState.REJECTED)
    target = harness.config.rejected / "oil/photo.png"
    harness.journal.reserve_original(job, target)
    target.parent.mkdir(parents=True)
    path.rename(target)
    path.write_bytes(picture("olive", (44, 44)))
    release(harness, job)
    assert harness.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    input_info = harness.sidecar("rejected/oil/photo.png.json")["input"]
    assert input_info["sha256"] == hashlib.sha256(picture()).hexdigest()
    assert path.read_bytes() == picture("olive", (44, 44))


def test_a_photo_that_was_away_at_its_turn_is_painted_later(harness: JobHarness) -> None:
    """Its job is cancelled; if the photo is back by then, it becomes another job."""
    path, away = harness.drop(), harness.base / "away.png"
    path.rename(away)
    finish = harness.journal.finish

    def finish_and_come_back(*args: Any, **options: Any) -> None:
        finish(*args, **options)
        away.rename(path)

    harness.journal.finish = finish_and_come_back  # type: ignore[method-assign]  # wraps it
    harness.work()
    harness.journal.finish = finish  # type: ignore[method-assign]  # the original
    assert harness.states() == ["cancelled"]
    assert harness.rescan() == 1
    harness.work()
    assert harness.states() == ["cancelled", "done"]


@pytest.mark.parametrize("after_success", ["keep", "archive"])
def test_a_photo_that_cannot_be_read_for_a_moment_is_not_painted_twice(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, after_success: AfterSuccess
) -> None:
    """Its release is tried again; it is not taken for changed."""
    harness.configure("output", after_success=after_success)
    path = harness.drop()
    file_digest, is_failing = hashlib.file_digest, True

    def digest(file: Any, name: str) -> Any:
        if is_failing and Path(file.name) == path:
            raise OSError(errno.EIO, "Input/output error")
        return file_digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    harness.work()
    is_failing = False
    assert harness.rescan() == 0
    harness.run_cleanup()
    harness.rescan()
    harness.work()
    assert harness.states() == ["done"]
    assert harness.sidecar("outbox/oil/photo.png.json")["input"]["changed"] is False
    assert harness.files("inbox") == (["photo.png"] if after_success == "keep" else [])


def test_a_photo_that_cannot_be_checked_stops_no_other(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its own release waits, and it is shown as stuck."""
    harness.configure("output", after_success="keep")
    path = harness.drop("sub/photo.png")
    harness.work()
    for name in ("other.png", "third.png"):
        harness.drop(name)
    real = os.stat

    def stat(name: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(name) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(name, *args, **options)

    monkeypatch.setattr(os, "stat", stat)
    harness.scheduler.maintenance.cleanup_soon()
    harness.work()
    assert harness.waits == []
    assert list(harness.scheduler.maintenance.stuck) == ["sub/photo.png"]


def test_a_kept_photo_is_rejected_once(harness: JobHarness) -> None:
    """After `styled retry` its copy is not put into `rejected` again; its settings were there."""
    path = harness.drop("photo.png", None, "oil", "ink")
    path.with_name("photo.png.yaml").write_text("strength: 70\n")
    jobs = end(harness, JobState.DONE, JobState.REJECTED)
    release(harness, jobs[1], "keep")
    assert harness.files("rejected") == [f"ink/photo.png{end}" for end in ("", ".json", ".yaml")]
    assert [job.id for job in harness.journal.missing_from_gallery(9)] == [job.id for job in jobs]
    rejected = harness.config.rejected
    return_to_inbox(rejected / "ink/photo.png", rejected, harness.config.inbox)
    release(harness, jobs[1], "keep")
    assert harness.files("rejected") == []


def test_files_of_a_deleted_photo_are_not_left_for_another(harness: JobHarness) -> None:
    """Not even if the release fails halfway."""
    path = harness.drop()
    path.with_name("photo.png.mask.png").write_bytes(picture("white"))
    (job,) = end(harness, JobState.DONE)
    move = harness.publisher.move_original

    def fail(*args: object, **options: object) -> bool:
        raise ResourceUnavailable("Input/output error")

    harness.publisher.move_original = fail  # type: ignore[method-assign]  # fails once
    with pytest.raises(ResourceUnavailable):
        release(harness, job, "delete")
    harness.publisher.move_original = move  # type: ignore[method-assign]  # the original
    release(harness, job, "delete")
    assert harness.files("inbox") == []


def test_a_long_name_with_a_mask_leaves(harness: JobHarness) -> None:
    """Another name for it leaves room for the names of the files beside it."""
    name = "x" * 242 + ".png"
    blocker = harness.config.rejected / "oil" / name
    blocker.parent.mkdir(parents=True)
    blocker.write_bytes(b"earlier")
    path = harness.drop(name)
    path.with_name(name + ".mask.png").write_bytes(picture("white"))
    (job,) = end(harness, JobState.REJECTED)
    release(harness, job)
    assert harness.files("inbox") == []
    assert len(harness.files("rejected")) == 4


def test_without_its_inbox_no_input_is_forgotten(harness: JobHarness) -> None:
    """If the inbox is missing, releasing fails instead of treating the photo as removed."""
    harness.drop()
    (job,) = end(harness, JobState.DONE)
    harness.config.inbox.rename(harness.base / "elsewhere")
    with pytest.raises(ResourceUnavailable, match="inbox"):
        release(harness, job)
    assert harness.journal.finished_in_inbox() != []


@pytest.mark.parametrize("is_back", [False, True])
def test_an_inbox_that_moves_away_during_the_release_forgets_no_input(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, is_back: bool
) -> None:
    """A photo is not taken for removed if its inbox is renamed between check and move."""
    harness.drop()
    (job,) = end(harness, JobState.DONE)
    inbox, away = harness.config.inbox, harness.base / "elsewhere"
    move = harness.publisher.move_original

    def rename_and_move(*args: object, **kwargs: object) -> bool:
        inbox.rename(away)
        was_moved = move(*args, **kwargs)  # type: ignore[arg-type]  # arguments are passed through
        if is_back:
            away.rename(inbox)
        return was_moved

    with monkeypatch.context() as patch:
        patch.setattr(harness.publisher, "move_original", rename_and_move)
        with pytest.raises(InputStuck if is_back else ResourceUnavailable):
            release(harness, job)
    if not is_back:
        away.rename(inbox)
    assert harness.rescan() == 0
    release(harness, job)
    assert harness.files("archive") == ["oil/photo.png"]
    assert harness.files("inbox") == []
    assert harness.rescan() == 0


def test_an_inbox_that_comes_back_during_the_check_forgets_no_input(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo that was not found is looked for again once its inbox is known to be there."""
    harness.drop()
    (job,) = end(harness, JobState.DONE)
    inbox, away = harness.config.inbox, harness.base / "elsewhere"
    require = harness.mounts.require

    def come_back(folder: Path) -> None:
        away.rename(inbox)
        require(folder)

    inbox.rename(away)
    monkeypatch.setattr(harness.mounts, "require", come_back)
    release(harness, job)
    assert harness.files("archive") == ["oil/photo.png"]
    assert harness.files("inbox") == []


@pytest.mark.parametrize("after_success", ["archive", "keep", "delete"])
def test_a_rewritten_input_is_known_by_its_bytes(
    harness: JobHarness, after_success: AfterSuccess
) -> None:
    """A rewritten photo of the same size and mtime stays in the inbox and is submitted again."""
    harness.configure("output", after_success=after_success)
    old = picture("teal")
    new = bytes(reversed(old[-200:]))
    path = harness.drop("photo.png", old)
    stat = path.stat()

    def rewrite(step: int) -> None:
        if step == 2:
            path.write_bytes(old[:-200] + new)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    harness.engine.at_step = rewrite
    harness.work_on_one()
    harness.engine.at_step = lambda step: None
    assert harness.sidecar("outbox/oil/photo.png.json")["input"]["changed"] is True
    assert harness.files("archive") == []
    assert path.read_bytes() == old[:-200] + new
    assert harness.rescan() == 1


def test_a_folder_that_became_a_link_leads_nowhere(harness: JobHarness) -> None:
    """If a folder was replaced by a symlink, the file behind it is not painted or moved."""
    path = harness.drop("sub/photo.png")
    elsewhere = harness.base / "elsewhere"
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)
    harness.work()
    assert harness.states() == ["cancelled"]
    assert harness.files("elsewhere") == ["photo.png"]
    assert harness.files("outbox") == harness.files("archive") == []


def test_what_is_kept_is_not_read_again_and_again(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clean-up compares size and mtime of kept photos and does not read them."""
    harness.configure("output", after_success="keep")
    path = harness.drop()
    harness.work()

    def read(path: Path) -> str:
        raise AssertionError("the file must not be read")

    monkeypatch.setattr(input_cleanup, "sha256_of", read)
    harness.run_cleanup()
    assert harness.rescan() == 0
    path.unlink()
    harness.run_cleanup()
    harness.drop()
    assert harness.states() == ["done", "queued"]
